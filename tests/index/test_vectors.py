import datetime
import errno
import gzip
import io
import json
import os
import sys
import tracemalloc

import numpy as np
import pytest

from lam_model.index import vectors as module
from lam_model.index.documents import Document, input_files, read, read_stdin
from lam_model.index.vectors import encode_chunks, encode_passages, write_chunks
from lam_model.reading.passages import Passages


def write_vectors(model, documents, output):
    return write_chunks(encode_chunks(model.encode, documents), output)


class Counting:
    """Stands in for a model: its vectors tell the texts apart, and it remembers how many it was given at once."""

    def __init__(self):
        self.batches = []

    def encode(self, texts, batch_size=32, show_progress_bar=None):
        self.batches.append(len(texts))
        return np.array([vector(text) for text in texts], np.float32)


def vector(text):
    angle = len(text) + sum(map(ord, text)) / 7
    return np.float32([np.cos(angle), np.sin(angle), 0])


def file(tmp_path, name, content):
    path = tmp_path / name
    path.write_bytes(content if isinstance(content, bytes) else content.encode())
    return path


def parquet_file(tmp_path, **columns):
    pyarrow = pytest.importorskip("pyarrow")
    from pyarrow import parquet

    parquet.write_table(pyarrow.table(columns), tmp_path / "texts.parquet")
    return tmp_path / "texts.parquet"


def test_a_line_of_txt_is_a_text_empty_ones_too(tmp_path):
    path = file(tmp_path, "a.txt", "\ufeffone\n\n  three \r\nfünf")
    assert [d.text for d in read(path)] == ["one", "", "  three ", "fünf"]


def test_jsonl_has_titles_and_ids_and_blank_lines_are_skipped(tmp_path):
    path = file(
        tmp_path, "a.jsonl", '{"_id": 7, "title": "T", "text": "x"}\n\n{"text": "y", "title": null, "id": "b"}\n'
    )
    documents = list(read(path))
    assert documents == [Document("x", "T", "7"), Document("y", "", "b")]
    assert [d.whole for d in documents] == ["T x", "y"]


def test_parquet_has_the_same_columns(tmp_path):
    path = parquet_file(tmp_path, text=["x", "y"], title=["T", None], id=[1, 2], other=[0.0, 1.0])
    assert list(read(path)) == [Document("x", "T", "1"), Document("y", "", "2")]


def test_stdin_is_utf8_whatever_the_locale(tmp_path, monkeypatch):
    with open(file(tmp_path, "in", "é\n\nb\n"), encoding="ascii") as stdin:
        monkeypatch.setattr(sys, "stdin", stdin)
        assert [d.text for d in read_stdin()] == ["é", "", "b"]


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("a.jsonl", '{"text": "x"}\n{"text": \n', r"a\.jsonl, line 2 is not JSON"),
        ("a.jsonl", '{"text": "x"}\n["x"]\n', r"a\.jsonl, line 2 has no `text`"),
        ("a.jsonl", '{"text": 3}\n', r"a\.jsonl, line 1 has no `text`"),
        ("a.jsonl", '{"text": "x", "title": 3}\n', r"a\.jsonl, line 1 has a `title` that is no string"),
        ("a.jsonl", "[" * 100_000, r"a\.jsonl, line 1 is not JSON"),
        ("a.txt", b"caf\xe9\n", r"a\.txt is not UTF-8"),
        ("a.txt", "text\n".encode("utf-16"), r"a\.txt is not UTF-8"),
        ("a.jsonl", '{"text": "x"}\n'.encode("utf-16"), r"a\.jsonl is not UTF-8"),
        ("a.jsonl.gz", gzip.compress(b'{"text": "x"}\noops', mtime=0), r"a\.jsonl\.gz, line 2 is not JSON"),
        ("a.jsonl.gz", '{"text": "x"}', r"a\.jsonl\.gz cannot be read as gzip"),
        ("a.parquet", "no parquet", r"a\.parquet cannot be read as parquet"),
        ("a.pdf", "%PDF", r"cannot read .*a\.pdf: .* \.txt, \.jsonl or \.parquet"),
    ],
)
def test_a_bad_file_is_named(tmp_path, name, content, message):
    with pytest.raises(ValueError, match=message):
        list(read(file(tmp_path, name, content)))


def test_parquet_without_text_names_its_columns(tmp_path):
    with pytest.raises(ValueError, match="no column `text`: its columns are body"):
        list(read(parquet_file(tmp_path, body=["x"])))
    with pytest.raises(ValueError, match=r"texts\.parquet, row 2 has no `text`"):
        list(read(parquet_file(tmp_path, text=["x", None])))


def test_a_missing_file_is_refused_before_it_is_read(tmp_path):
    with pytest.raises(FileNotFoundError, match="does not exist"):
        read(tmp_path / "a.txt")


def test_missing_pyarrow_is_said_with_the_way_to_get_it(tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "pyarrow", None)
    with pytest.raises(ModuleNotFoundError, match=r"pip install 'lam-model\[parquet\]'"):
        read(file(tmp_path, "a.parquet", ""))
    with pytest.raises(ModuleNotFoundError, match=r"pip install 'lam-model\[parquet\]'"):
        module.check_output(tmp_path / "b.parquet")


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


def test_long_texts_make_small_chunks(tmp_path, monkeypatch):
    monkeypatch.setattr(module, "_CHUNK_CHARS", 100)
    model = Counting()
    write_vectors(model, (Document("x" * 60) for _ in range(5)), tmp_path / "v.npy")
    assert model.batches == [2, 2, 1]


def test_texts_are_read_as_they_are_encoded(tmp_path, monkeypatch):
    monkeypatch.setattr(module, "_CHUNK_TEXTS", 2)
    model = Counting()

    def documents():
        for i in range(6):
            assert i - sum(model.batches) < 2
            yield Document("x")

    assert write_vectors(model, documents(), tmp_path / "v.npy") == 6


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
    with pytest.raises(ValueError, match=r"cannot write .*v\.csv: .* \.npy, \.jsonl or \.parquet"):
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

    monkeypatch.setitem(module._WRITERS, ".npy", full)
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


def test_a_folder_stands_for_its_files_by_name(tmp_path):
    pytest.importorskip("pyarrow")
    folder = tmp_path / "data.jsonl"  # whatever it is called
    folder.mkdir()
    for name in ("b.JSONL", "a.ndjson", ".hidden.jsonl", "notes.txt", "d.csv"):
        file(folder, name, json.dumps({"text": name}))
    file(folder, "c.jsonl.gz", gzip.compress(b'{"text": "c.jsonl.gz"}', mtime=0))
    parquet_file(folder, text=["parquet"]).rename(folder / "aa.parquet")
    (folder / "sub.jsonl").mkdir()
    assert [path.name for path in input_files([folder])] == ["a.ndjson", "aa.parquet", "b.JSONL", "c.jsonl.gz"]
    after = file(tmp_path, "after.txt", "after")
    texts = [document.text for document in read(folder, after)]
    assert texts == ["a.ndjson", "parquet", "b.JSONL", "c.jsonl.gz", "after"]


def test_a_folder_without_texts_is_refused_by_name(tmp_path):
    file(tmp_path, "a.txt", "x")
    with pytest.raises(ValueError, match=f"cannot read {tmp_path}: the folder holds no .jsonl or .parquet"):
        read(tmp_path)


BAD_IDS = [True, 1.0, float("nan"), ["x"], {"x": 1}, [], {}]


@pytest.mark.parametrize("key", ["_id", "id"])
@pytest.mark.parametrize("value", BAD_IDS, ids=repr)
def test_an_id_that_is_neither_string_nor_integer_is_refused(tmp_path, key, value):
    rows = [{"text": "x"}, {"text": "y", key: value}]
    path = file(tmp_path, "a.jsonl", "\n".join(map(json.dumps, rows)))
    with pytest.raises(ValueError, match=rf"a\.jsonl, line 2 has the `{key}` .*: ids are strings or integers"):
        list(read(path))


@pytest.mark.parametrize(
    "value", [b"x1", True, 1.5, ["x"], {"x": 1}, datetime.date(2020, 1, 1)], ids=lambda value: type(value).__name__
)
def test_the_same_of_parquet(tmp_path, value):
    path = parquet_file(tmp_path, text=["x", "y"], id=[None, value])
    with pytest.raises(ValueError, match=r"texts\.parquet, row 2 has the `id` .*: ids are strings or integers"):
        list(read(path))


@pytest.mark.parametrize(
    ("ids", "bad"),
    [
        (["a", "a"], 2),
        ([1, "1"], 2),
        (["1", None], 2),  # whose number is 1
        ([None, "0"], 2),
        ([None, None, "x", None, 3], 5),
        (["x", None, "y", 1], 4),
        ([5, None, None, None, None, None], 6),
        (["a", None, "b", "c", None, "d", "a"], 7),
    ],
)
@pytest.mark.parametrize("files", [1, 2])
def test_an_id_is_given_once_also_to_a_number_and_over_files(tmp_path, ids, bad, files):
    rows = [json.dumps({"text": "x"} if name is None else {"text": "x", "_id": name}) for name in ids]
    paths = [file(tmp_path, "a.jsonl", "\n".join(rows))]
    line = bad
    if files == 2:
        paths = [file(tmp_path, "a.jsonl", rows[0]), file(tmp_path, "b.jsonl", "\n\n" + "\n".join(rows[1:]))]
        line = bad + 1
    read_so_far = []
    with pytest.raises(ValueError, match=rf"{paths[-1].name}, line {line} has "):
        read_so_far.extend(read(*paths))
    assert len(read_so_far) == bad - 1


@pytest.mark.parametrize(
    "ids",
    [[0, None, 2], ["01", None, "1 "], [None, "-0", "٠"], ["x", 0, None], [None, "5"], [1, 0], ["9" * 5000, None]],
)
def test_ids_that_differ_are_all_kept(tmp_path, ids):
    rows = [{"text": "x"} if name is None else {"text": "x", "_id": name} for name in ids]
    path = file(tmp_path, "a.jsonl", "\n".join(map(json.dumps, rows)))
    write_vectors(Counting(), read(path), tmp_path / "v.jsonl")
    found = [json.loads(line)["id"] for line in (tmp_path / "v.jsonl").read_text().splitlines()]
    assert found == [str(i) if name is None else str(name) for i, name in enumerate(ids)]


def test_texts_without_ids_take_no_memory(tmp_path):
    def peak(rows):
        path = file(tmp_path, "a.txt", "a text\n" * rows)
        tracemalloc.start()
        assert sum(1 for _ in read(path)) == rows
        size = tracemalloc.get_traced_memory()[1]
        tracemalloc.stop()
        return size

    assert peak(50_000) < peak(500) + 20_000


def test_closed_standard_input_is_said(monkeypatch):
    monkeypatch.setattr(sys, "stdin", None)
    with pytest.raises(ValueError, match="standard input is closed"):
        read_stdin()


def test_an_output_that_is_a_folder_is_refused_at_once(tmp_path):
    (tmp_path / "v.npy").mkdir()
    model = Counting()
    with pytest.raises(OSError, match=r"v\.npy: it is a folder"):
        write_vectors(model, [Document("x")], tmp_path / "v.npy")
    assert not model.batches


class Halves:
    """Stands in for a model: the passages of a text are its halves, an empty text has none."""

    def encode_passages(self, texts):
        return [self.passages(text) for text in texts]

    def passages(self, text):
        middle = (len(text) + 1) // 2
        offsets = np.array([[0, middle], [middle, len(text)]] if text else np.empty((0, 2)), np.int64)
        vectors = np.array([vector(text[a:b]) for a, b in offsets], np.float32).reshape(-1, 3)
        return Passages(vector(text), vectors, offsets)


@pytest.mark.parametrize("suffix", [".jsonl", ".parquet"])
def test_passages_are_rows_with_number_and_characters(tmp_path, suffix):
    documents = [Document("abcd", "T", "one"), Document(""), Document("xyz")]
    output = tmp_path / f"passages{suffix}"
    assert write_chunks(encode_passages(Halves().encode_passages, documents), output) == 4
    if suffix == ".jsonl":
        rows = [json.loads(line) for line in output.read_text().splitlines()]
    else:
        rows = pytest.importorskip("pyarrow.parquet").read_table(output).to_pylist()
    assert [(row["id"], row["passage"], row["start"], row["end"]) for row in rows] == [
        ("one", 0, 0, 3),
        ("one", 1, 3, 6),
        ("2", 0, 0, 2),
        ("2", 1, 2, 3),
    ]
    np.testing.assert_array_equal(np.float32(rows[1]["embedding"]), vector("bcd"))


def test_passages_are_not_written_to_npy(tmp_path):
    with pytest.raises(ValueError, match=r"passages are written to \.jsonl or \.parquet"):
        module.check_output(tmp_path / "p.npy", passages=True)
