import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

import lam_model
from lam_model import cli, folder


class Fake:
    """Stands in for a model: the vector of a text is made of its first letters."""

    max_seq_length = 8
    truncate_dim = None

    def encode(self, texts, batch_size=32, show_progress_bar=None):
        vectors = np.array([[text[:3].count(letter) for letter in "abc"] for text in texts], np.float32) + 1e-3
        return vectors / np.linalg.norm(vectors, axis=1, keepdims=True)

    def encode_passages(self, texts, size, batch_size=32):
        """A passage is 40 characters."""
        found = []
        for text in texts:
            offsets = np.array([(i, min(i + 40, len(text))) for i in range(0, len(text), 40)])
            vectors = self.encode([text[start:end] for start, end in offsets])
            found.append(lam_model.Passages(self.encode([text])[0], vectors, offsets))
        return found

    def modules(self):
        return []

    def state_dict(self):
        return {}


@pytest.fixture(autouse=True)
def _no_graphs(monkeypatch):
    """None of the packaged weights, whatever lies in the user's cache: `load` is asked for the model."""
    cached = folder.cached

    def without_graphs(*weights):
        if not weights:
            raise FileNotFoundError
        return cached(*weights)

    monkeypatch.setattr(folder, "cached", without_graphs)


@pytest.fixture
def loaded(monkeypatch):
    """The keyword arguments of every call of `load`, which gives a fake model."""
    calls = []

    def load(path_or_repo=None, **options):
        calls.append({"model": path_or_repo, **options})
        return Fake()

    monkeypatch.setattr(lam_model, "load", load, raising=False)
    return calls


@pytest.fixture
def real_lam(monkeypatch):
    model = lam_model.load(device="cpu")
    monkeypatch.setattr(lam_model, "load", lambda *args, **options: model, raising=False)
    return model


@pytest.fixture
def corpus(tmp_path):
    path = tmp_path / "corpus.jsonl"
    rows = [{"_id": "1", "title": "aaa", "text": "of a\nand   more"}, {"_id": "2", "text": "bbb"}]
    path.write_text("\n".join(map(json.dumps, rows)))
    return path


def fails(capsys, *argv):
    """The one sentence on stderr of a command that must fail with code 2."""
    assert cli.main([str(arg) for arg in argv]) == 2
    error = capsys.readouterr().err
    error = error if isinstance(error, str) else error.decode()
    assert error.startswith("lam: error: ")
    assert error.count("\n") == 1
    return error


def test_help_and_version_are_there_without_torch():
    code = (
        "import sys; from lam_model.cli import main\n"
        "try: main(sys.argv[1:])\n"
        "finally: print(sorted({'torch', 'transformers', 'numpy'} & set(sys.modules)))"
    )
    for option, expected in (("--help", "encode"), ("--version", lam_model.__version__)):
        out = subprocess.run([sys.executable, "-c", code, option], capture_output=True, text=True, check=True).stdout
        assert expected in out
        assert out.endswith("[]\n")


def test_texts_become_jsonl_on_stdout(loaded, capfdbinary):
    assert cli.main(["encode", "aaa", ""]) == 0
    rows = [json.loads(line) for line in capfdbinary.readouterr().out.splitlines()]
    assert [row["id"] for row in rows] == ["0", "1"]
    np.testing.assert_allclose(rows[0]["embedding"], Fake().encode(["aaa"])[0])
    options = dict.fromkeys(("model", "revision", "device", "dtype", "dim"))
    assert loaded == [options | {"base_only": False, "backend": "torch"}]


def test_model_options_are_handed_on(loaded, capfdbinary):
    options = {"model": "org/lam", "revision": "v1", "device": "cpu", "dtype": "int8", "backend": "onnx", "dim": 128}
    arguments = [part for name, value in options.items() for part in (f"--{name}", str(value))]
    assert cli.main(["encode", "a", *arguments, "--base-only"]) == 0
    assert loaded == [options | {"base_only": True}]


def test_texts_and_files_follow_one_another(loaded, corpus, tmp_path):
    (tmp_path / "lines.txt").write_text("c\n\nb\n")
    output = tmp_path / "v.npy"
    assert cli.main(["encode", "a", "-f", f"{tmp_path}/lines.txt", "--file", str(corpus), "-o", str(output)]) == 0
    expected = Fake().encode(["a", "c", "", "b", "aaa of a\nand   more", "bbb"])
    np.testing.assert_array_equal(np.load(output), expected)


def test_stdin_is_read_when_nothing_else_is_given(loaded, tmp_path, monkeypatch):
    (tmp_path / "in").write_text("a\n\nb\n")
    with open(tmp_path / "in") as stdin:
        monkeypatch.setattr(sys, "stdin", stdin)
        assert cli.main(["encode", "--output", str(tmp_path / "v.npy")]) == 0
    assert np.load(tmp_path / "v.npy").shape == (3, 3)


def test_encode_refuses_before_the_model_is_loaded(loaded, corpus, tmp_path, capsys):
    assert "does not exist" in fails(capsys, "encode", "--file", tmp_path / "no.txt")
    assert "cannot read" in fails(capsys, "encode", "--file", tmp_path / "a.pdf")
    assert "cannot write" in fails(capsys, "encode", "a", "--output", tmp_path / "a.csv")
    assert "would be replaced" in fails(capsys, "encode", "--file", corpus, "--output", corpus)
    assert not loaded


def test_search_prints_ranks_scores_and_titles(loaded, corpus, capsys):
    assert cli.main(["search", str(corpus), "a", "b", "--top-k", "1"]) == 0
    assert capsys.readouterr().out == (
        "a\n   1  1.000  aaa\n             of a and more\n\nb\n   1  1.000  2\n             bbb\n\n"
    )
    assert corpus.with_name("corpus.jsonl.lam.npz").exists()


def test_search_shows_the_best_passage_of_a_long_document(loaded, corpus, capsys):
    corpus.write_text(json.dumps({"title": "aaa", "text": "x" * 35 + " ccc and more"}))
    assert cli.main(["search", str(corpus), "c"]) == 0
    shown = capsys.readouterr().out.splitlines()
    assert shown[1].split() == ["1", "1.000", "aaa"]
    assert shown[3] == "      characters 40 to 52:"
    assert shown[4] == " " * 13 + "ccc and more"


def test_a_file_of_one_text_is_streamed(real_lam, tmp_path, capfdbinary, monkeypatch):
    monkeypatch.setattr("lam_model.encode._PIECE_BYTES", 5)  # within words and characters
    text = "\ufeffOne text\nin lines: na\u00efve caf\u00e9, \u6771\u4eac and the rest of it. "
    (tmp_path / "text").write_bytes(text.encode())
    expected = real_lam.encode(text.removeprefix("\ufeff"))
    assert cli.main(["encode", "--stream", str(tmp_path / "text")]) == 0
    (row,) = map(json.loads, capfdbinary.readouterr().out.splitlines())
    assert row["id"] == "0"
    np.testing.assert_allclose(row["embedding"], expected, atol=1e-5)
    assert cli.main(["encode", "--stream", str(tmp_path / "text"), "-o", str(tmp_path / "v.npy")]) == 0
    np.testing.assert_allclose(np.load(tmp_path / "v.npy"), expected[None], atol=1e-5)
    (tmp_path / "text").write_bytes(b"caf\xe9 and more")
    assert "text is not UTF-8 text" in fails(capfdbinary, "encode", "--stream", tmp_path / "text")


def test_stream_refuses_before_the_model_is_loaded(loaded, tmp_path, capsys):
    (tmp_path / "a.jsonl").write_text("one text")
    assert "a.txt: No such file" in fails(capsys, "encode", "--stream", tmp_path / "a.txt")
    assert "alone" in fails(capsys, "encode", "text", "--stream", tmp_path / "a.jsonl")
    same = ["--stream", tmp_path / "a.jsonl", "-o", tmp_path / "a.jsonl"]
    assert "would be replaced" in fails(capsys, "encode", *same)
    assert not loaded


def test_search_without_cache_keeps_nothing(loaded, corpus):
    assert cli.main(["search", str(corpus), "a", "--no-cache"]) == 0
    assert not corpus.with_name("corpus.jsonl.lam.npz").exists()


def test_search_refuses_before_the_model_is_loaded(loaded, corpus, tmp_path, capsys):
    assert "does not exist" in fails(capsys, "search", tmp_path / "no.jsonl", "a")
    corpus.write_text('{"text": "x"}\noops\n')
    assert "corpus.jsonl, line 2" in fails(capsys, "search", corpus, "a")
    corpus.write_text("")
    assert "holds no documents" in fails(capsys, "search", corpus, "a")
    assert not loaded


@pytest.mark.parametrize(
    ("error", "sentence"),
    [
        (ValueError("a file\n  is damaged"), "a file is damaged"),
        (TypeError("the item at index 1 is int"), "the item at index 1 is int"),
        (FileNotFoundError("org/lam is not to be had"), "org/lam is not to be had"),
        (OSError(28, "No space left on device", "v.npy"), "v.npy: No space left on device"),
        (ModuleNotFoundError("this needs x: pip install x"), "this needs x: pip install x"),
    ],
)
def test_what_goes_wrong_is_one_sentence(monkeypatch, capsys, error, sentence):
    def load(*args, **kwargs):
        raise error

    monkeypatch.setattr(lam_model, "load", load, raising=False)
    assert fails(capsys, "encode", "a") == f"lam: error: {sentence}\n"


def test_a_device_that_is_not_there_is_named(monkeypatch, capsys):
    def load(*args, **kwargs):
        raise RuntimeError("Expected one of cpu, cuda\nmore")

    monkeypatch.setattr(lam_model, "load", load, raising=False)
    assert "device moon cannot be used: Expected one of cpu, cuda\n" in fails(capsys, "encode", "a", "--device", "moon")
    with pytest.raises(RuntimeError):  # anything else is a mistake of ours, to be seen whole
        cli.main(["encode", "a"])


@pytest.mark.parametrize("argv", [[], ["encode", "--batch-size", "0"], ["search", "c.jsonl"], ["fly"]])
def test_a_bad_command_line_shows_the_usage(capsys, argv):
    with pytest.raises(SystemExit) as exit:
        cli.main(argv)
    assert exit.value.code == 2
    assert "usage: lam" in capsys.readouterr().err


def test_interrupting_is_quiet(monkeypatch, capsys):
    def load(*args, **kwargs):
        raise KeyboardInterrupt

    monkeypatch.setattr(lam_model, "load", load, raising=False)
    assert cli.main(["encode", "a"]) == 130
    assert capsys.readouterr().err == ""


def test_a_reader_who_leaves_is_no_error():
    code = (
        "import sys; sys.path.append(sys.argv[1])\n"
        "import lam_model, test_cli\n"
        "lam_model.load = lambda *args, **kwargs: test_cli.Fake()\n"
        "from lam_model.cli import main; sys.exit(main(['encode', '--backend', 'torch', *'a' * 5000]))"
    )
    command = [sys.executable, "-c", code, str(Path(__file__).parent)]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE) as process:
        process.stdout.readline()
        process.stdout.close()
        assert process.stderr.read() == b""
        assert process.wait(timeout=300) == 141


def test_build_then_verify(tmp_path, capsys):
    assert cli.main(["build", str(tmp_path / "lam")]) == 0
    assert cli.main(["verify", str(tmp_path / "lam")]) == 0
    assert capsys.readouterr().out.count("golden vectors agree") == 2
    (tmp_path / "lam" / "vocab.txt").write_text("x")
    assert "vocab.txt was altered or damaged" in fails(capsys, "verify", tmp_path / "lam")
    assert "is there already" in fails(capsys, "build", tmp_path / "lam")


def test_distil_then_build_with_another_base(tiny_base, tmp_path, capsys):
    rows = [{"text": f"ba de fi {i} " * (1 + i % 40)} for i in range(3000)]
    (tmp_path / "data.jsonl").write_text("\n".join(map(json.dumps, rows)))
    recipe = ["--stage1-tokens", "600", "--stage2-tokens", "600", "--batch-tokens", "128", "--long-tokens", "128"]
    argv = ["train", "distill", tmp_path / "run", "--data", tmp_path / "data.jsonl", "--teacher", tiny_base, *recipe]
    assert cli.main([str(arg) for arg in argv]) == 0
    weights = tmp_path / "run" / "deltanet.safetensors"
    assert "cosine" in capsys.readouterr().out
    argv = ["build", tmp_path / "lam", "--weights", weights, "--base", tiny_base]
    assert cli.main([str(arg) for arg in argv]) == 0
    summary = json.loads((tmp_path / "run" / "run.json").read_text())
    assert summary["recipe"]["stage2_tokens"] == 600
    assert len(summary["data_sha256"]) == 1


@pytest.fixture
def tuning_data(tmp_path, sentences, monkeypatch):
    """Queries and their documents."""
    from huggingface_hub import constants

    monkeypatch.setattr(constants, "HF_HOME", str(tmp_path / "cache"))
    rows = [{"query": f"{text[:20]} {i}", "passage": text} for i, text in enumerate(sentences(90, 12))]
    (tmp_path / "asked.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    return tmp_path / "asked.jsonl"


def test_tune_by_a_file_of_options_that_the_command_line_overrules(
    tiny_base, tiny_weights, tuning_data, tmp_path, capsys
):
    config = tmp_path / "tune.yaml"
    config.write_text(
        f"data:\n  - data: {tuning_data}\n    limit: 80\n"
        f"weights: {tiny_weights}\nbase: {tiny_base}\nevaluate-steps: 3\nlearning_rate: 1e-3\nmax_tokens: 20\n"
        "batch_size: 8\nmax_loss: 100\nepochs: 9\ndevice: cpu\n"
    )
    argv = ["train", "tune", str(tmp_path / "run"), "--config", str(config)]
    assert cli.main([*argv, "--show-negatives", "2"]) == 0
    shown = capsys.readouterr().out
    assert shown.count("negative_3") == 2
    assert not (tmp_path / "run" / "recipe.json").exists()
    assert cli.main([*argv, "--epochs", "4", "--anchor", "0.1"]) == 0
    assert "deltanet.safetensors: {'step': " in capsys.readouterr().out
    summary = json.loads((tmp_path / "run" / "run.json").read_text())
    recipe = summary["recipe"]
    assert (recipe["epochs"], recipe["anchor"], recipe["learning_rate"], recipe["evaluate_steps"]) == (4, 0.1, 1e-3, 3)
    assert summary["guarded"].keys() == {"asked"}
    assert list(summary["data_sha256"]) == [f"{tmp_path.name}/asked.jsonl"]
    built = ["build", tmp_path / "lam", "--weights", tmp_path / "run" / "deltanet.safetensors", "--base", tiny_base]
    assert cli.main([str(arg) for arg in built]) == 0


@pytest.mark.parametrize(
    ("content", "sentence"),
    [
        ("- 1", "no mapping of option names"),
        ("data: [d.jsonl]\nlerning_rate: 1", "has lerning_rate"),
        ("data:\n  - path: d.jsonl", "an entry of `data` has path"),
        ("epochs: 1", "nothing to train on: give --data"),
        ("data: [x]\nloss: triplet\nnegatives: 0", "--loss triplet needs negatives"),
    ],
)
def test_a_bad_file_of_options_is_refused(tmp_path, capsys, content, sentence):
    (tmp_path / "tune.yaml").write_text(content)
    assert sentence in fails(capsys, "train", "tune", tmp_path / "run", "--config", tmp_path / "tune.yaml")


@pytest.mark.parametrize(
    ("argv", "sentence"),
    [
        (["train", "tune", "run", "--config", "nowhere.yaml"], "nowhere.yaml"),
        (["train", "tune", "run"], "nothing to train on"),
        (["train", "distill", "run", "--data", "nowhere.parquet"], "nowhere.parquet"),
        (["train", "distill", "run", "--data", "d.jsonl", "--guard", "nowhere.txt"], "nowhere.txt"),
        (["compare"], "nothing to compare"),
        (["verify", "nowhere"], "config.json is missing"),
    ],
)
def test_the_other_commands_refuse_in_a_sentence(argv, sentence, capsys):
    assert sentence in fails(capsys, *argv)


def test_compare_prints_cosine_and_speed_and_keeps_them(tmp_path, capsys):
    output = tmp_path / "figures.json"
    assert cli.main(["compare", "a cat sleeps", "stocks fell", "-o", str(output)]) == 0
    assert "cosine" in capsys.readouterr().out
    assert json.loads(output.read_text())["texts"]["texts"] == 2


def test_eval_long_measures_held_out_articles_once(real_lam, tmp_path, monkeypatch, capsys):
    pytest.importorskip("bm25s")
    from lam_model import long_sets
    from lam_model.training.data import is_held_out_document

    monkeypatch.setattr(long_sets, "LENGTHS", ())
    words = "In the spring the committee met again and spoke of roads and of bridges. " * 120
    texts = [f"{i}. {words}" for i in range(80)]
    held_out = [text for text in texts if is_held_out_document(text)]
    articles, output, folder = tmp_path / "articles.jsonl", tmp_path / "long.json", tmp_path / "tasks"
    articles.write_text("".join(json.dumps({"title": "Roads", "text": text}) + "\n" for text in texts))
    (folder / "mteb").mkdir(parents=True)
    command = ["eval", "long", "--articles", str(articles), "--folder", str(folder), "-o", str(output)]
    assert cli.main(command) == 0
    figures = json.loads(output.read_text())
    assert figures["tasks"] == {
        "articles": {"queries": 4 * len(held_out), "documents": len(held_out), "metric": "ndcg@10"}
    }
    assert len(figures["scores"]) == 11
    assert figures["deltanet_sha256"] == real_lam.manifest["deltanet_sha256"]
    printed = capsys.readouterr().out
    monkeypatch.setattr(real_lam, "encode_passages", None)  # nothing is measured again
    assert cli.main(command) == 0
    assert capsys.readouterr().out == printed


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["long", "sts"], "a command of its own"),
        (["sts", "--articles", "a.jsonl"], "for `lam eval long`"),
        (["long", "--articles", "short.jsonl"], "is held out"),
    ],
)
def test_eval_long_refuses_what_it_cannot_do(loaded, tmp_path, monkeypatch, capsys, arguments, message):
    monkeypatch.chdir(tmp_path)
    Path("short.jsonl").write_text('{"text": "short"}\n')
    assert cli.main(["eval", *arguments]) == 2
    assert message in capsys.readouterr().err
    assert not loaded
