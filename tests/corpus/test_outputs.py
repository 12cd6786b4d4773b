import datetime
import errno
import io
import json
import os
import sys

import numpy as np
import pytest
from corpora import Counting, Halves, file, vector, write_vectors

from lam_model.corpus import outputs
from lam_model.corpus import vectors as module
from lam_model.corpus.documents import Document, read
from lam_model.corpus.outputs import check_output


@pytest.mark.parametrize("count", [1, 3, 4, 25])
def test_npy_has_a_row_a_text_however_many_chunks(tmp_path, monkeypatch, count):
    monkeypatch.setattr(module, "_CHUNK_TEXTS", 4)
    texts = [f"text {i}" for i in range(count)]
    model = Counting()
    assert write_vectors(model, map(Document, texts), tmp_path / "v.npy") == count
    vectors = np.load(tmp_path / "v.npy", mmap_mode="r")
    assert vectors.dtype == np.float32
    np.testing.assert_array_equal(vectors, [vector(t) for t in texts])
    assert max(model.batches) <= 4


def test_jsonl_and_parquet_have_ids(tmp_path, monkeypatch):
    monkeypatch.setattr(module, "_CHUNK_TEXTS", 2)
    documents = [Document("x", id="a"), Document("y"), Document("z", "T")]
    expected = [vector("x"), vector("y"), vector("T z")]
    write_vectors(Counting(), documents, tmp_path / "v.jsonl")
    rows = [json.loads(line) for line in (tmp_path / "v.jsonl").read_text().splitlines()]
    assert [row["id"] for row in rows] == ["a", "1", "2"]
    np.testing.assert_array_equal(np.float32([row["embedding"] for row in rows]), expected)

    parquet = pytest.importorskip("pyarrow.parquet")
    write_vectors(Counting(), documents, tmp_path / "v.parquet")
    table = parquet.read_table(tmp_path / "v.parquet")
    assert table["id"].to_pylist() == ["a", "1", "2"]
    assert str(table.schema.field("embedding").type).startswith("fixed_size_list<")
    np.testing.assert_array_equal(np.float32(table["embedding"].to_pylist()), expected)


def test_without_a_file_jsonl_goes_to_stdout(monkeypatch):
    stdout = io.TextIOWrapper(io.BytesIO())
    monkeypatch.setattr(sys, "stdout", stdout)
    write_vectors(Counting(), [Document("x")], None)
    assert json.loads(stdout.buffer.getvalue())["id"] == "0"


@pytest.mark.parametrize("suffix", [".npy", ".jsonl", ".parquet"])
def test_no_texts_are_an_error_and_leave_nothing(tmp_path, suffix):
    if suffix == ".parquet":
        pytest.importorskip("pyarrow")
    empty = file(tmp_path, "empty.txt", "")
    with pytest.raises(ValueError, match="no texts"):
        write_vectors(Counting(), read(empty), tmp_path / f"v{suffix}")
    assert os.listdir(tmp_path) == ["empty.txt"]


def test_an_output_that_cannot_be_is_refused_at_once(tmp_path):
    model = Counting()
    with pytest.raises(ValueError, match=r"cannot write .*v\.csv: .* \.npy, \.jsonl, \.parquet or \.lance"):
        write_vectors(model, [Document("x")], tmp_path / "v.csv")
    with pytest.raises(FileNotFoundError, match="make the folder"):
        write_vectors(model, [Document("x")], tmp_path / "no" / "v.npy")
    assert not model.batches


def test_a_full_disk_leaves_the_old_file_and_nothing_else(tmp_path, monkeypatch):
    (tmp_path / "v.npy").write_bytes(b"old")

    def full(file, chunks):
        file.write(b"half")
        next(chunks)
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setitem(outputs._WRITERS, ".npy", full)
    with pytest.raises(OSError, match="No space left"):
        write_vectors(Counting(), [Document("x")], tmp_path / "v.npy")
    assert os.listdir(tmp_path) == ["v.npy"]
    assert (tmp_path / "v.npy").read_bytes() == b"old"


@pytest.mark.parametrize("suffix", [".npy", ".jsonl", ".parquet"])
def test_a_bad_line_late_in_the_input_leaves_nothing(tmp_path, monkeypatch, suffix):
    if suffix == ".parquet":
        pytest.importorskip("pyarrow")
    monkeypatch.setattr(module, "_CHUNK_TEXTS", 2)
    path = file(tmp_path, "a.jsonl", '{"text": "x"}\n' * 5 + "oops\n")
    with pytest.raises(ValueError, match="line 6"):
        write_vectors(Counting(), read(path), tmp_path / f"v{suffix}")
    assert os.listdir(tmp_path) == ["a.jsonl"]


@pytest.mark.parametrize("name", ["v.NPY", "v.Jsonl", "v.PARQUET"])
def test_the_kind_of_an_output_is_known_in_any_case(tmp_path, name):
    if name == "v.PARQUET":
        pytest.importorskip("pyarrow")
    write_vectors(Counting(), [Document("x")], tmp_path / name)
    lower = (tmp_path / name).rename(tmp_path / name.lower())
    starts = {".npy": b"\x93NUMPY", ".jsonl": b'{"id"', ".parquet": b"PAR1"}
    assert lower.read_bytes().startswith(starts[lower.suffix])


def test_a_compressed_output_is_not_promised_by_its_name(tmp_path):
    with pytest.raises(ValueError, match="cannot write"):
        write_vectors(Counting(), [Document("x")], tmp_path / "v.jsonl.gz")


def test_an_output_that_is_a_folder_is_refused_at_once(tmp_path):
    (tmp_path / "v.npy").mkdir()
    model = Counting()
    with pytest.raises(OSError, match=r"v\.npy: it is a folder"):
        write_vectors(model, [Document("x")], tmp_path / "v.npy")
    assert not model.batches


def test_passages_are_not_written_to_npy(tmp_path):
    with pytest.raises(ValueError, match=r"written to \.jsonl or \.parquet"):
        check_output(tmp_path / "p.npy", columns=True)


def test_kept_columns_are_passed_on_with_their_types(tmp_path):
    parquet = pytest.importorskip("pyarrow.parquet")
    days = [datetime.date(2020, 1, 1), None]
    documents = [Document(text, id=text, kept=(day, 3, None)) for text, day in zip("xy", days, strict=True)]
    keep = ("day", "count", "nothing")
    write_vectors(Counting(), documents, tmp_path / "v.parquet", keep)
    table = parquet.read_table(tmp_path / "v.parquet")
    assert table.schema.names == ["id", *keep, "embedding"]
    assert [str(table.schema.field(name).type) for name in keep] == ["date32[day]", "int64", "string"]
    assert table["day"].to_pylist() == days
    write_vectors(Counting(), documents, tmp_path / "v.jsonl", keep)
    row = json.loads((tmp_path / "v.jsonl").read_text().splitlines()[0])
    assert (row["day"], row["count"], row["nothing"]) == ("2020-01-01", 3, None)


def test_a_kept_column_that_changes_its_type_names_the_document(tmp_path, monkeypatch):
    pytest.importorskip("pyarrow")
    documents = [Document("x", id="a", kept=(1,)), Document("y", id="b", kept=("two",))]
    with pytest.raises(ValueError, match="the column `n` has values of several types"):
        write_vectors(Counting(), documents, tmp_path / "v.parquet", ("n",))
    monkeypatch.setattr(module, "_CHUNK_TEXTS", 1)
    with pytest.raises(ValueError, match="the document 'b' has `n` 'two', which is no int64 as before"):
        write_vectors(Counting(), documents, tmp_path / "v.parquet", ("n",))
    assert os.listdir(tmp_path) == []


@pytest.mark.parametrize("passages", [False, True])
def test_the_text_is_written_if_it_is_asked_for(tmp_path, passages):
    model = Halves() if passages else Counting()
    write_vectors(model, [Document("abcd", "T", "one")], tmp_path / "v.jsonl", passages=passages, with_text=True)
    rows = [json.loads(line) for line in (tmp_path / "v.jsonl").read_text().splitlines()]
    assert [row["text"] for row in rows] == (["T a", "bcd"] if passages else ["T abcd"])


def test_lance_is_a_dataset_that_is_whole_or_not_there(tmp_path):
    lance = pytest.importorskip("lance")
    write_vectors(Counting(), [Document("x", id="a"), Document("y")], tmp_path / "v.lance")
    rows = lance.dataset(str(tmp_path / "v.lance")).to_table()
    assert rows["id"].to_pylist() == ["a", "1"]
    np.testing.assert_array_equal(np.float32(rows["embedding"].to_pylist()), [vector("x"), vector("y")])
    with pytest.raises(FileExistsError, match="it is there already"):
        check_output(tmp_path / "v.lance")
