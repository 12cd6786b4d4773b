"""`lam index` and `lam search` of what it made."""

import json

import numpy as np
import pytest

from lam_model import Passages, cli

pytest.importorskip("lancedb")


class Fake:
    """Stands in for a model: the vector of a text is made of its first letters; a passage is 40 characters."""

    def encode(self, texts):
        vectors = np.array([[text[:3].count(letter) for letter in "abc"] for text in texts], np.float32) + 1e-3
        return vectors / np.linalg.norm(vectors, axis=1, keepdims=True)

    def encode_passages(self, texts, size, batch_size):
        self.size = size
        found = []
        for text in texts:
            offsets = np.array([(i, min(i + 40, len(text))) for i in range(0, len(text), 40)])
            vectors = self.encode([text[start:end] for start, end in offsets])
            found.append(Passages(self.encode([text])[0], vectors, offsets))
        return found


@pytest.fixture
def model(monkeypatch):
    """The model that is loaded; the commands' arguments each time."""
    model = Fake()
    model.loaded = []
    monkeypatch.setattr("lam_model.commands.index.load_encoder", lambda args: model.loaded.append(args) or model)
    return model


@pytest.fixture
def corpus(tmp_path):
    rows = [
        {"_id": "x", "title": "First", "text": "aaa " * 30, "year": 1990},
        {"_id": "y", "title": "Second", "text": "ccc", "year": 2000},
    ]
    path = tmp_path / "corpus.jsonl"
    path.write_text("\n".join(map(json.dumps, rows)))
    return path


@pytest.fixture
def index(tmp_path, model, corpus, capsys):
    folder = tmp_path / "index"
    assert cli.main(["index", str(folder), "--file", str(corpus), "--keep", "year"]) == 0
    assert capsys.readouterr().out == f"2 documents added, 0 replaced, 0 unchanged: 5 passages in {folder}\n"
    return folder


def lines(capsys, *argv):
    assert cli.main([*map(str, argv)]) == 0
    return capsys.readouterr().out.splitlines()


def fails(capsys, *argv):
    assert cli.main([*map(str, argv)]) == 2
    error = capsys.readouterr().err
    assert error.startswith("lam: error: ")
    assert error.count("\n") == 1
    return error


def test_documents_are_added_replaced_and_deleted(index, model, corpus, capsys):
    assert lines(capsys, "index", index, "-f", corpus)[0].startswith("0 documents added, 0 replaced, 2 unchanged")
    corpus.write_text(json.dumps({"_id": "y", "text": "b", "year": 2001}))
    assert lines(capsys, "index", index, "-f", corpus)[0].startswith("0 documents added, 1 replaced, 0 unchanged: 5 p")
    loaded = len(model.loaded)
    assert lines(capsys, "index", index, "--delete", "y", "z") == ["1 of 2 documents deleted"]
    assert len(model.loaded) == loaded  # no model is needed for that


def test_columns_and_the_size_of_passages_are_chosen(tmp_path, model, corpus, capsys):
    corpus.write_text(json.dumps({"key": 1, "head": "a", "body": "b", "text": "c", "n": 7}))
    own = ["--text", "body", "--title", "head", "--id", "key", "--keep", "n", "--passage-size", "9"]
    lines(capsys, "index", tmp_path / "new", "--file", corpus, *own)
    assert model.size == 9
    assert lines(capsys, "search", tmp_path / "new", "a")[1:4] == ["   1  0.708  a", " " * 13 + "n: 7", " " * 13 + "b"]


def test_search_prints_title_kept_columns_and_the_passage(index, capsys):
    found = lines(capsys, "search", index, "a", "-k", "1")
    assert found[0] == "a"
    assert found[1].endswith("  First")
    assert found[2].strip() == "year: 1990"
    assert found[4].strip().startswith("characters ")
    assert found[-1] == ""


def test_search_filters_and_ranks_as_asked(index, capsys):
    where = ["--where", "year > 1995"]
    assert [line[-6:] for line in lines(capsys, "search", index, "aaa", *where) if line.startswith("   1")] == [
        "Second"
    ]
    for option, first in ((), "First"), (("--hybrid",), "First"), (("--no-hybrid",), "Second"):
        found = lines(capsys, "search", index, "c first", "-k", "1", *option)
        assert found[1].endswith(first), option


def test_of_a_file_neither_filter_nor_hybrid_is_asked(corpus, model, capsys):
    assert "--where is for an index" in fails(capsys, "search", corpus, "a", "--where", "year > 1")
    assert "--hybrid is for an index" in fails(capsys, "search", corpus, "a", "--hybrid")
    assert not model.loaded


def test_bad_input_is_named_before_the_model_is_loaded(tmp_path, corpus, model, capsys):
    new = tmp_path / "new"
    assert "is no index" in fails(capsys, "index", tmp_path, "--file", corpus)
    assert "does not exist" in fails(capsys, "index", new, "--file", tmp_path / "no.jsonl")
    assert "is no index" in fails(capsys, "search", tmp_path, "a")
    assert "the folder of an index" in fails(capsys, "search", new, "a")
    assert "holds no index" in fails(capsys, "index", new, "--delete", "a")
    assert not model.loaded
    assert not new.exists()


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ('{"_id": "z", "text": "a", "year": 1}\n{"_id": "v", "year": 1}', "corpus.jsonl, line 2"),
        ('{"_id": "z", "text": null, "year": 1}', "corpus.jsonl, line 1"),
        ('{"_id": "z", "text": 5, "year": 1}', "corpus.jsonl, line 1"),
        ('{"_id": "z", "text": "a", "year": 1}\n{"_id": "z", "text": "b", "year": 1}', "the id 'z'"),
        ('{"_id": "z", "text": "a", "year": "old"}', "column `year` needs values of the type int64"),
        ("", "the input is empty"),
    ],
)
def test_bad_rows_are_named_and_nothing_is_lost(index, corpus, capsys, content, message):
    corpus.write_text(content)
    assert message in fails(capsys, "index", index, "--file", corpus)
    assert len([line for line in lines(capsys, "search", index, "a") if line[:4].strip()]) == 3  # the query, two hits


def test_unreadable_parquet_and_missing_columns_are_named(index, tmp_path, capsys):
    pyarrow = pytest.importorskip("pyarrow")
    from pyarrow import parquet

    (tmp_path / "bad.parquet").write_bytes(b"no parquet")
    assert "bad.parquet" in fails(capsys, "index", index, "--file", tmp_path / "bad.parquet")
    parquet.write_table(pyarrow.table({"text": ["a"]}), tmp_path / "some.parquet")
    assert "year" in fails(capsys, "index", index, "--file", tmp_path / "some.parquet")


def test_another_model_other_columns_and_a_wrong_filter_are_refused(index, model, corpus, capsys, monkeypatch):
    assert "cannot be filtered by 'yaer > 1'" in fails(capsys, "search", index, "a", "--where", "yaer > 1")
    assert "query at index 0 is empty" in fails(capsys, "search", index, " ")
    assert "other columns (year)" in fails(capsys, "index", index, "-f", corpus, "--keep", "title_of_it")
    monkeypatch.setattr(model, "encode", lambda texts: -Fake.encode(model, texts))
    assert f"{index} has vectors of another model" in fails(capsys, "search", index, "a")
    assert f"{index} has vectors of another model" in fails(capsys, "index", index, "--file", corpus)


def test_the_recall_of_an_ann_index_is_printed(tmp_path, model, corpus, capsys, monkeypatch):
    monkeypatch.setattr("lam_model.index.lance_table.fold", lambda table: 0.9876)
    assert lines(capsys, "index", tmp_path / "new", "-f", corpus)[1].startswith("ANN index made: recall@10 0.988")


@pytest.mark.parametrize("argv", [["new"], ["new", "--file", "a.jsonl", "--delete", "x"]])
def test_either_files_or_ids_are_given(argv, capsys):
    with pytest.raises(SystemExit):
        cli.main(["index", *argv])
