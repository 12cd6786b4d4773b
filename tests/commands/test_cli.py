import contextlib
import io
import json
import os
import re
import shlex
import subprocess
import sys
import warnings
from pathlib import Path
from types import SimpleNamespace

import folders as folder
import numpy as np
import pytest
from safetensors import SafetensorError

import lam_model
from lam_model import cli
from lam_model.commands import evaluation, folders, training
from lam_model.commands.options import load_model
from lam_model.folder.tensors import start


class Fake:
    """Stands in for a model: the vector of a text is made of its first letters."""

    max_seq_length = 8
    truncate_dim = None
    key = "fake"

    def encode(self, texts, batch_size=32, show_progress_bar=None):
        vectors = np.array([[text[:3].count(letter) for letter in "abc"] for text in texts], np.float32) + 1e-3
        return vectors / np.linalg.norm(vectors, axis=1, keepdims=True)

    def encode_passages(self, texts, size=32, batch_size=32):
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
def _on_torch(monkeypatch):
    """`load` is asked for the model; which runtime is chosen is tested with the options."""
    for command in ("encode", "index"):
        monkeypatch.setattr(f"lam_model.commands.{command}.load_encoder", lambda args, **_: load_model(args))


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


@pytest.mark.parametrize("flags", [["-f", "LINES", "CORPUS"], ["-f", "LINES", "--file", "CORPUS"]])
def test_files_follow_one_another(loaded, corpus, tmp_path, flags):
    (tmp_path / "lines.txt").write_text("c\n\nb\n")
    corpus.write_text(corpus.read_text().replace('"_id": "', '"_id": "no '))  # which is not the number of a line
    output = tmp_path / "v.npy"
    names = {"LINES": str(tmp_path / "lines.txt"), "CORPUS": str(corpus)}
    assert cli.main(["encode", *(names.get(flag, flag) for flag in flags), "-o", str(output)]) == 0
    expected = Fake().encode(["c", "", "b", "aaa of a\nand   more", "bbb"])
    np.testing.assert_array_equal(np.load(output), expected)


def test_a_folder_is_read(loaded, corpus, tmp_path):
    (tmp_path / "a.ndjson").write_text('{"text": "c"}')
    output = tmp_path / "v.npy"
    assert cli.main(["encode", "--file", str(tmp_path), "-o", str(output)]) == 0
    np.testing.assert_array_equal(np.load(output), Fake().encode(["c", "aaa of a\nand   more", "bbb"]))


@pytest.mark.parametrize("command", ["encode", "compare"])
def test_texts_beside_files_are_refused(loaded, corpus, capsys, command):
    for argv in (["a text", "--file", corpus], ["--file", corpus, "--base-only", "a text"], ["-f", corpus, "--", "x"]):
        assert "is given beside --file" in fails(capsys, command, *argv)
    assert "cannot read a text" in fails(capsys, command, "--file", corpus, "a text")
    assert not loaded


@pytest.mark.parametrize("command", ["encode", "compare"])
def test_inputs_and_outputs_are_refused_before_the_model_is_loaded(loaded, corpus, tmp_path, capsys, command):
    empty, folder = tmp_path / "empty", tmp_path / "folder.jsonl"
    empty.mkdir()
    folder.mkdir()
    assert f"cannot read {empty}: the folder holds no" in fails(capsys, command, "--file", corpus, empty)
    assert "folder.jsonl: it is a folder" in fails(capsys, command, "-f", corpus, "-o", folder)
    assert "make the folder" in fails(capsys, command, "-f", corpus, "-o", tmp_path / "no" / "v.jsonl")
    (tmp_path / "link.jsonl").symlink_to(corpus)
    for files in (corpus, tmp_path):
        for output in (corpus, tmp_path / "link.jsonl"):
            assert "would be replaced" in fails(capsys, command, "-f", files, "-o", output)
    assert not loaded


@pytest.mark.parametrize("name", ["empty.txt", "empty.jsonl", "empty.ndjson"])
def test_compare_refuses_files_without_texts(loaded, tmp_path, capsys, name):
    (tmp_path / name).write_text("")
    assert f"{name} is empty" in fails(capsys, "compare", "--file", tmp_path / name)
    assert not loaded


def test_ids_are_refused_with_their_line_over_files(loaded, corpus, tmp_path, capsys):
    (tmp_path / "more.jsonl").write_text('{"text": "x", "id": "7"}\n{"text": "y", "id": 1}\n')
    output = tmp_path / "v.jsonl"
    error = fails(capsys, "encode", "--file", corpus, tmp_path / "more.jsonl", "-o", output)
    assert "more.jsonl, line 2 has the id '1', which is that of another document" in error
    assert not output.exists()


def test_repeated_options_add_up(monkeypatch):
    seen = []
    monkeypatch.setattr(training, "_distill", lambda args: seen.append(args.data))
    monkeypatch.setattr(training, "_tune", lambda args: seen.append(args.data + args.watch))
    monkeypatch.setattr(evaluation, "_compare", lambda args: seen.append(args.held_out + args.tasks))
    assert cli.main(["train", "distill", "run", "--data", "a", "b", "--data", "c"]) == 0
    assert cli.main(["train", "tune", "run", "--data", "a", "--data", "b", "--watch", "c", "--watch", "d"]) == 0
    assert cli.main(["compare", "--held-out", "a", "--held-out", "b", "--tasks", "c", "--tasks", "d"]) == 0
    assert seen == [["a", "b", "c"], ["a", "b", "c", "d"], ["a", "b", "c", "d"]]


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
    assert shown[4] == " " * 13 + "aaa " + "x" * 35 + " ccc and more"  # with the sentences around it


def test_a_file_of_one_text_is_streamed(real_lam, tmp_path, capfdbinary, monkeypatch):
    monkeypatch.setattr("lam_model.corpus.vectors._PIECE_BYTES", 5)  # within words and characters
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


def command(*argv, shell="", **environment):
    """A `lam` of its own, of a fake model if asked for; `shell` is what a shell is to do with its streams."""
    code = (
        "import sys; sys.path.append(sys.argv.pop(1))\n"
        "if 'fake' in sys.argv[1:]:\n"
        "    sys.argv.remove('fake')\n"
        "    import lam_model, test_cli\n"
        "    from lam_model.commands import encode, index\n"
        "    lam_model.load = lambda *args, **kwargs: test_cli.Fake()\n"
        "    encode.load_encoder = index.load_encoder = lam_model.load\n"
        "from lam_model.cli import main; sys.exit(main())"
    )
    line = shlex.join([sys.executable, "-c", code, str(Path(__file__).parent), *map(str, argv)])
    here = Path(__file__)
    settings = os.environ | {"PYTHONPATH": f"{here.parents[2]}{os.pathsep}{here.parents[1]}", **environment}
    return subprocess.run(f"{line} {shell}", shell=True, env=settings, capture_output=True, timeout=600)


TEXT = "東京 café ½ 🙂"


@pytest.mark.parametrize(
    "environment",
    [
        {"PYTHONIOENCODING": "cp1252"},
        {"PYTHONIOENCODING": "ascii"},
        {"LC_ALL": "C", "PYTHONCOERCECLOCALE": "0", "PYTHONUTF8": "0"},
    ],
)
def test_stdout_and_stderr_of_any_encoding_take_every_character(tmp_path, environment):
    corpus = tmp_path / "corpus.jsonl"
    corpus.write_text(json.dumps({"title": TEXT, "text": f"a {TEXT}"}), encoding="utf-8")
    found = command("fake", "search", corpus, TEXT, "--no-cache", **environment)
    assert found.returncode == 0, found.stderr
    assert found.stdout.count(b"\\u6771\\u4eac") >= 2
    missing = command("fake", "search", tmp_path / f"{TEXT}.jsonl", "a", **environment)
    assert missing.returncode == 2
    assert missing.stderr.startswith(b"lam: error: ")


def test_streams_that_cannot_be_reconfigured_are_written_to(loaded, corpus, monkeypatch):
    stdout = io.StringIO()
    monkeypatch.setattr(sys, "stdout", stdout)
    assert cli.main(["search", str(corpus), TEXT, "--no-cache"]) == 0
    assert stdout.getvalue().startswith(TEXT)


@pytest.mark.parametrize(
    ("argv", "shell", "sentence"),
    [
        (["encode"], "<&-", "standard input is closed"),
        (["encode", "a", "--backend", "torch"], ">&-", "standard output is closed"),
        (["search", "CORPUS", "a"], ">&-", "standard output is closed"),
        (["compare", "a"], ">&-", "standard output is closed"),
        (["verify", "nowhere"], ">&-", "standard output is closed"),
        (["encode", "a", "--backend", "torch"], "> /dev/full", "standard output: No space left on device"),
    ],
)
def test_closed_and_full_streams_are_said_in_a_sentence(corpus, argv, shell, sentence):
    result = command("fake", *(corpus if one == "CORPUS" else one for one in argv), shell=shell)
    assert result.returncode == 2
    error = result.stderr.decode()
    assert error.startswith(f"lam: error: {sentence}")
    assert error.count("\n") == 1


def test_with_an_output_file_nobody_needs_the_other_streams(corpus, tmp_path):
    output = tmp_path / "v.npy"
    result = command("fake", "encode", "--file", corpus, "-o", output, shell="<&- >&- 2>&-")
    assert result.returncode == 0
    np.testing.assert_array_equal(np.load(output), Fake().encode(["aaa of a\nand   more", "bbb"]))
    assert command("fake", "encode", "--file", tmp_path / "no.txt", "-o", output, shell="<&- >&- 2>&-").returncode == 2


def test_stderr_has_nothing_of_the_libraries_beneath(tiny_base, tiny_weights, tmp_path):
    built = tmp_path / "lam"
    for argv in (
        ["build", built, "--weights", tiny_weights, "--base", tiny_base],
        ["verify", built],
        ["encode", "ba de fi", "--model", built, "--backend", "torch"],
        ["encode", "ba de fi"],
    ):
        result = command(*argv)
        assert result.returncode == 0
        assert result.stderr == b""


def test_what_libraries_say_is_left_to_whoever_imports_them():
    code = (
        "import os, warnings, logging, lam_model, lam_model.cli\n"
        "assert ('ignore', None, Warning, None, 0) not in warnings.filters\n"
        "assert not [name for name in os.environ if name.endswith('_VERBOSITY')]\n"
        "import transformers.utils.logging as t\n"
        "assert t.is_progress_bar_enabled() and t.get_verbosity() == logging.WARNING\n"
    )
    subprocess.run([sys.executable, "-c", code], check=True, timeout=300, cwd=Path(__file__).parents[2])


def test_warnings_of_lam_are_shown_and_those_of_others_are_not(loaded, monkeypatch, capsys):
    def run(args):
        warnings.warn_explicit("a picture library is missing", UserWarning, "io/image.py", 1, "torchvision.io.image")
        warnings.warn_explicit("texts are cut", UserWarning, "encode.py", 1, "lam_model.corpus.vectors")

    monkeypatch.setattr(folders, "_verify", run)
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        monkeypatch.setattr(sys, "warnoptions", [])
        monkeypatch.setattr(warnings, "catch_warnings", contextlib.nullcontext)
        assert cli.main(["verify", "folder"]) == 0
    assert [str(one.message) for one in caught] == ["texts are cut"]


@pytest.mark.parametrize(
    ("error", "sentence"),
    [
        (ValueError("a file\n  is damaged"), "a file is damaged"),
        (TypeError("the item at index 1 is int"), "the item at index 1 is int"),
        (FileNotFoundError("org/lam is not to be had"), "org/lam is not to be had"),
        (OSError(28, "No space left on device", "v.npy"), "v.npy: No space left on device"),
        (ModuleNotFoundError("this needs x: pip install x"), "this needs x: pip install x"),
        (SafetensorError("I/O error: No space left"), "I/O error: No space left"),
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
        "import sys; sys.path += sys.argv[1:]\n"
        "import lam_model, test_cli\n"
        "from lam_model.commands import encode\n"
        "lam_model.load = encode.load_encoder = lambda *args, **kwargs: test_cli.Fake()\n"
        "from lam_model.cli import main; sys.exit(main(['encode', '--backend', 'torch', *'a' * 5000]))"
    )
    command = [sys.executable, "-c", code, *map(str, Path(__file__).parents[:2])]
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


@pytest.mark.parametrize("out", [".", "folder", "link", "new link"])
@pytest.mark.parametrize("argv", [["build"], ["export", "onnx"]])
def test_a_model_is_built_into_an_empty_folder_that_stays(tiny_base, tmp_path, monkeypatch, capsys, out, argv):
    place = tmp_path / "folder"
    if out != "new link":
        place.mkdir()
    if "link" in out:
        (tmp_path / out).symlink_to(place)
    monkeypatch.chdir(place if out == "." else tmp_path)
    before = place.stat().st_ino if place.exists() else None
    monkeypatch.setattr("lam_model.folder.build.find_part", lambda: tiny_base)
    monkeypatch.setattr("lam_model.folder.build.join", lambda base, weights: start(base))
    monkeypatch.setattr(
        "lam_model.commands.folders._lam_export", lambda: SimpleNamespace(export=lambda *args, **options: [])
    )
    assert cli.main([*argv, out]) == 0
    assert folder.verify(place)
    assert before is None or place.stat().st_ino == before
    assert sorted(os.listdir(tmp_path)) == sorted({"folder", out} - {"."})
    if argv == ["build"]:
        assert f"{out} is there already" in fails(capsys, "build", out)


@pytest.mark.parametrize(
    ("where", "error"),
    [
        (
            "lam_model.folder.build.save_file",
            SafetensorError("I/O error: No space left on device"),
        ),
        (
            "lam_model.folder.build.shutil.copy",
            OSError(28, "No space left on device", "modeling_lam.py", None, "BESIDE"),
        ),
        ("lam_model.folder.manifest._vectors", ValueError("BESIDE gives vectors that are not finite")),
    ],
)
def test_a_build_that_fails_names_its_folder_and_leaves_nothing(
    tiny_base, tiny_weights, tmp_path, monkeypatch, capsys, where, error
):
    def fail(*args, **options):
        (beside,) = (path for path in tmp_path.iterdir() if path.is_dir())
        if isinstance(error, OSError):
            raise OSError(*error.args, "source", None, str(beside / "dense.py"))
        raise type(error)(str(error).replace("BESIDE", str(beside)))

    monkeypatch.setattr(where, fail)
    message = fails(capsys, "build", tmp_path / "lam", "--weights", tiny_weights, "--base", tiny_base)
    assert str(tmp_path / "lam") in message
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    ("content", "sentence"),
    [
        (b"[1]", "holds no scores of `lam eval`"),
        (b'{"figures": 1}', "holds no scores of `lam eval`"),
        (b"no json", "is not JSON"),
        ("{}".encode("utf-16"), "is not UTF-8 text"),
    ],
)
@pytest.mark.parametrize("task", ["sts", "long"])
def test_eval_refuses_an_output_of_something_else(loaded, tmp_path, capsys, task, content, sentence):
    (tmp_path / "figures.json").write_bytes(content)
    assert f"figures.json {sentence}" in fails(capsys, "eval", task, "-o", tmp_path / "figures.json")
    assert "it is a folder" in fails(capsys, "eval", task, "-o", tmp_path)
    assert (tmp_path / "figures.json").read_bytes() == content
    assert not loaded


UTF16 = '{"text": "one"}\n{"text": "two"}\n'.encode("utf-16")


@pytest.mark.parametrize(
    ("argv", "name"),
    [
        (["encode", "--file"], "a.txt"),
        (["encode", "--file"], "a.jsonl"),
        (["encode", "--stream"], "a.txt"),
        (["compare", "--file"], "a.jsonl"),
        (["compare", "--held-out"], "a.jsonl"),
        (["compare", "--held-out", "DATA", "--guard"], "guard.txt"),
        (["train", "distill", "run", "--data"], "a.jsonl"),
        (["train", "distill", "run", "--data"], "a.ndjson"),
        (["train", "distill", "run", "--data", "DATA", "--guard"], "guard.txt"),
        (["train", "tune", "run", "--data"], "a.jsonl"),
        (["train", "tune", "run", "--data"], "a.csv"),
        (["train", "tune", "run", "--config"], "tune.yaml"),
        (["eval", "long", "--articles"], "a.jsonl"),
    ],
)
def test_text_of_another_encoding_is_refused_by_name(tmp_path, monkeypatch, capsys, argv, name):
    monkeypatch.setattr(lam_model, "load", lambda *args, **options: Fake(), raising=False)
    monkeypatch.setattr("lam_model.reading.stream.Stream", lambda model: SimpleNamespace(feed=lambda piece: None))
    monkeypatch.setattr("lam_model.training.tune.start", lambda *args: SimpleNamespace(model=Fake(), embedders=None))
    monkeypatch.setattr(Fake, "tokenizer", None, raising=False)
    monkeypatch.chdir(tmp_path)
    (tmp_path / "data.jsonl").write_text('{"text": "x"}\n')
    (tmp_path / name).write_bytes(UTF16)
    given = ["data.jsonl" if one == "DATA" else one for one in argv]
    assert re.search(rf"{re.escape(name)}(, line 1)? is not UTF-8 text", fails(capsys, *given, name))


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
    from lam_model.evaluation import long_sets
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
