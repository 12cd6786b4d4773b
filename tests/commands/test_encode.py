"""`lam encode` on files: columns, folders of shards, workers, rows that are skipped."""

import json
import os

import numpy as np
import pytest
from corpora import file

import lam_model
from lam_model import cli
from lam_model.corpus import vectors

parquet = pytest.importorskip("pyarrow.parquet")
TEXTS = ["a river of stone", "light", "", "a house by the sea " * 40, "snow"]


def rows_file(tmp_path, more=()):
    rows = [{"key": f"k{i}", "body": text, "head": "", "year": 2000 + i} for i, text in enumerate(TEXTS)]
    return file(tmp_path, "a.jsonl", "\n".join([*map(json.dumps, rows), *more]))


COLUMNS = ["--text", "body", "--id", "key", "--title", "head", "--keep", "year"]


def encode(*argv):
    return cli.main(["encode", *map(str, argv)])


def fails(capsys, *argv):
    assert encode(*argv) == 2
    return capsys.readouterr().err


def rows_of(folder):
    return [row for one in sorted(folder.glob("part-*")) for row in parquet.read_table(one).to_pylist()]


def test_workers_give_the_vectors_and_columns_of_one_process(tmp_path, monkeypatch):
    monkeypatch.setattr(vectors, "_CHUNK_TEXTS", 2)
    path, expected = rows_file(tmp_path), lam_model.OnnxEncoder().encode(TEXTS)
    assert encode("--file", path, "-o", tmp_path / "out", *COLUMNS) == 0
    rows = rows_of(tmp_path / "out")
    assert len(os.listdir(tmp_path / "out")) == 4
    assert [(row["id"], row["year"]) for row in rows] == [(f"k{i}", 2000 + i) for i in range(5)]
    np.testing.assert_allclose([row["embedding"] for row in rows], expected, atol=1e-6)
    assert encode("--file", path, "-o", tmp_path / "v.npy", "--text", "body", "--workers", 2) == 0
    np.testing.assert_allclose(np.load(tmp_path / "v.npy"), expected, atol=1e-6)


def test_passages_go_to_a_folder_with_their_text(tmp_path):
    path = rows_file(tmp_path)
    assert encode("--file", path, "-o", tmp_path / "out", *COLUMNS, "--passages", "--with-text", "--workers", 1) == 0
    found = lam_model.OnnxEncoder().encode_passages(TEXTS)
    rows = rows_of(tmp_path / "out")
    assert len(rows) == sum(len(one.vectors) for one in found)
    for row in rows:
        text = TEXTS[int(row["id"][1:])]
        assert row["text"] == text[row["start"] : row["end"]]
    np.testing.assert_allclose(
        [row["embedding"] for row in rows], np.concatenate([one.vectors for one in found]), atol=1e-6
    )


@pytest.mark.parametrize("output", ["out", "v.jsonl"])
def test_bad_rows_stop_or_are_skipped_and_listed(tmp_path, capsys, output):
    path = rows_file(tmp_path, more=["oops", '{"body": null, "key": "x"}', '{"body": "y", "key": "k0"}'])
    argv = ["--file", path, "-o", tmp_path / output, *COLUMNS, "--backend", "onnx"]
    assert "a.jsonl, line 6 is not JSON" in fails(capsys, *argv)
    assert encode(*argv, "--on-error", "skip") == 3
    listed = tmp_path / "out" / "_skipped.jsonl" if output == "out" else tmp_path / "v.jsonl.skipped.jsonl"
    assert f"3 rows were skipped, see {listed}" in capsys.readouterr().err
    lines = [json.loads(line)["where"].rpartition(", ")[2] for line in listed.read_text().splitlines()]
    assert lines == ["line 6", "line 7", "line 8"]
    if output == "out":
        assert [row["id"] for row in rows_of(tmp_path / "out")] == [f"k{i}" for i in range(5)]


@pytest.mark.parametrize(
    ("argv", "sentence"),
    [
        (["text", "--text", "body"], "those of files: give --file"),
        (["text", "-o", "out"], "out would be a folder, which is written from files"),
        (["--file", "a.jsonl", "-o", "v.npy", "--keep", "year"], "rows of more than a vector"),
        (["--file", "a.jsonl", "-o", "out", "--keep", "id"], "--keep id: rows have a column of that name"),
        (["--file", "a.jsonl", "--on-error", "skip"], "give --output"),
        (["--file", "a.jsonl", "-o", "v.npy", "--engine", "ray"], "--engine ray writes a folder"),
        (["--file", "a.jsonl", "-o", "out", "--address", "auto"], "give --engine ray too"),
        (["--file", "a.jsonl", "-o", "out", "--workers", "2", "--backend", "torch"], "leave --backend torch out"),
        (["--file", "a.jsonl", "-o", "a.jsonl"], "is read and would be replaced"),
        (["--file", "nowhere://a.jsonl"], "nowhere"),
    ],
)
def test_what_cannot_be_is_refused_at_once_and_leaves_nothing(tmp_path, monkeypatch, capsys, argv, sentence):
    rows_file(tmp_path)
    monkeypatch.chdir(tmp_path)
    assert sentence in fails(capsys, *argv)
    assert os.listdir(tmp_path) in (["a.jsonl"], ["a.jsonl", "out"], ["out", "a.jsonl"])
    assert not list(tmp_path.glob("out/*"))
