import gzip
import io
import json
import os

import pytest
from corpora import file, parquet_file

from lam_model.corpus.documents import Document, read
from lam_model.corpus.inputs import InputFile, input_files


def test_a_folder_stands_for_its_files_by_name(tmp_path):
    pytest.importorskip("pyarrow")
    folder = tmp_path / "data.jsonl"  # whatever it is called
    folder.mkdir()
    for name in ("b.JSONL", "a.ndjson", ".hidden.jsonl", "notes.txt", "d.csv"):
        file(folder, name, json.dumps({"text": name}))
    file(folder, "c.jsonl.gz", gzip.compress(b'{"text": "c.jsonl.gz"}', mtime=0))
    parquet_file(folder, text=["parquet"]).rename(folder / "aa.parquet")
    (folder / "sub.jsonl").mkdir()
    assert [os.path.basename(one.name) for one in input_files([folder])] == [
        "a.ndjson",
        "aa.parquet",
        "b.JSONL",
        "c.jsonl.gz",
    ]
    after = file(tmp_path, "after.txt", "after")
    texts = [document.text for document in read(folder, after)]
    assert texts == ["a.ndjson", "parquet", "b.JSONL", "c.jsonl.gz", "after"]


def test_a_folder_without_texts_is_refused_by_name(tmp_path):
    file(tmp_path, "a.txt", "x")
    with pytest.raises(ValueError, match=f"cannot read {tmp_path}: the folder holds no .jsonl or .parquet"):
        read(tmp_path)


def test_jsonl_is_known_by_other_names_too(tmp_path):
    row = b'{"text": "x"}\n'
    for name, content in (
        ("a.JSONL", row),
        ("a.ndjson", row),
        ("a.NDJson", row),
        ("a.jsonl.gz", gzip.compress(row, mtime=0)),
        ("a.JSONL.GZ", gzip.compress(row, mtime=0)),
    ):
        assert list(read(file(tmp_path, name, content))) == [Document("x")]
    assert list(read(file(tmp_path, "a.TXT", "x\n"))) == [Document("x")]


def test_a_missing_file_is_refused_before_it_is_read(tmp_path):
    with pytest.raises(FileNotFoundError, match="does not exist"):
        read(tmp_path / "a.txt")


def test_zst_is_read_also_of_several_frames_and_refused_where_it_is_cut(tmp_path):
    pyarrow = pytest.importorskip("pyarrow")
    packed = pyarrow.compress(b'{"text": "x"}\n', codec="zstd", asbytes=True)
    path = file(tmp_path, "a.jsonl.ZST", packed + packed)
    assert list(read(path)) == [Document("x")] * 2
    assert list(read(file(tmp_path, "a.txt.zst", packed))) == [Document('{"text": "x"}')]
    for content in (packed[:-3], b"no zstd"):
        with pytest.raises(ValueError, match=r"a\.ndjson\.zst cannot be read as zstd"):
            list(read(file(tmp_path, "a.ndjson.zst", content)))


def test_files_of_other_file_systems_are_read_by_url():
    import fsspec

    rows = b'{"text": "x"}\n'
    pyarrow = pytest.importorskip("pyarrow")
    packed = io.BytesIO()
    pytest.importorskip("pyarrow.parquet").write_table(pyarrow.table({"text": ["y"]}), packed)
    for name, content in (
        ("a.jsonl", rows),
        ("b.jsonl.gz", gzip.compress(b'{"text": "x"}')),
        ("c.parquet", packed.getvalue()),
    ):
        with fsspec.open(f"memory://corpus/{name}", "wb") as opened:
            opened.write(content)
    assert [document.text for document in read("memory://corpus/a.jsonl")] == ["x"]
    assert [document.text for document in read("memory://corpus")] == ["x", "x", "y"]
    assert input_files(["memory://corpus/a.jsonl"])[0].rows() is None
    with pytest.raises(FileNotFoundError, match=r"memory://corpus/none\.jsonl does not exist"):
        read("memory://corpus/none.jsonl")


@pytest.mark.parametrize("url", ["nowhere://a.jsonl", "s3://bucket/a.jsonl"])
def test_a_file_system_that_is_not_there_is_said(url):
    with pytest.raises((ImportError, ValueError), match=r"nowhere|s3fs"):
        read(url)


def test_rows_are_counted_without_being_parsed(tmp_path):
    assert InputFile(str(file(tmp_path, "a.txt", "x\ny\n"))).rows() == 2
    assert InputFile(str(file(tmp_path, "a.jsonl.gz", gzip.compress(b"{}\n" * 70_000)))).rows() == 70_000
    assert InputFile(str(parquet_file(tmp_path, text=["x"] * 3))).rows() == 3
