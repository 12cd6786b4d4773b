import datetime
import gzip
import json
import sys
import tracemalloc

import pytest
from corpora import Counting, file, parquet_file, write_vectors

from lam_model.corpus.documents import Columns, Document, read, read_stdin
from lam_model.corpus.outputs import check_output


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


def test_closed_standard_input_is_said(monkeypatch):
    monkeypatch.setattr(sys, "stdin", None)
    with pytest.raises(ValueError, match="standard input is closed"):
        read_stdin()


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("a.jsonl", '{"text": "x"}\n{"text": \n', r"a\.jsonl, line 2 is not JSON"),
        ("a.jsonl", '{"text": "x"}\n["x"]\n', r"a\.jsonl, line 2 has no `text`"),
        ("a.jsonl", '{"text": 3}\n', r"a\.jsonl, line 1 has no `text`"),
        ("a.jsonl", '{"text": "x", "title": 3}\n', r"a\.jsonl, line 1 has a `title` that is no string"),
        ("a.jsonl", "[" * 100_000, r"a\.jsonl, line 1 is not JSON"),
        ("a.txt", b"caf\xe9\n", r"a\.txt, line 1 is not UTF-8"),
        ("a.txt", "text\n".encode("utf-16"), r"a\.txt, line 1 is not UTF-8"),
        ("a.jsonl", '{"text": "x"}\n'.encode("utf-16"), r"a\.jsonl, line 1 is not UTF-8"),
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


def test_missing_pyarrow_is_said_with_the_way_to_get_it(tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "pyarrow", None)
    with pytest.raises(ModuleNotFoundError, match=r"pip install 'lam-model\[parquet\]'"):
        read(file(tmp_path, "a.parquet", ""))
    with pytest.raises(ModuleNotFoundError, match=r"pip install 'lam-model\[parquet\]'"):
        check_output(tmp_path / "b.parquet")


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


def test_columns_are_chosen_by_name(tmp_path):
    rows = [{"body": "x", "head": "T", "key": 1, "year": 2020}, {"body": "y", "key": "b", "tags": ["a"]}]
    path = file(tmp_path, "a.jsonl", "\n".join(map(json.dumps, rows)))
    columns = Columns("body", "head", ("key",), ("year", "tags"))
    assert list(read(path, columns=columns)) == [
        Document("x", "T", "1", (2020, None)),
        Document("y", "", "b", (None, ["a"])),
    ]
    path = parquet_file(tmp_path, body=["x"], key=[1], year=[2020])
    assert list(read(path, columns=columns._replace(title="title", keep=("year",)))) == [
        Document("x", "", "1", (2020,))
    ]


@pytest.mark.parametrize(
    ("columns", "missing"),
    [
        (Columns(text="body"), "body"),
        (Columns(title="head"), "head"),
        (Columns(id=("key",)), "key"),
        (Columns(keep=("year",)), "year"),
    ],
)
def test_a_column_that_is_asked_for_and_not_there_is_named(tmp_path, columns, missing):
    with pytest.raises(ValueError, match=rf"no column `{missing}`: its columns are text"):
        list(read(parquet_file(tmp_path, text=["x"]), columns=columns))
    if missing in ("body", "key"):
        with pytest.raises(ValueError, match=rf"a\.jsonl, line 1 has no `{missing}`"):
            list(read(file(tmp_path, "a.jsonl", '{"text": "x"}'), columns=columns))
    with pytest.raises(ValueError, match=r"a\.txt has lines and no columns"):
        read(file(tmp_path, "a.txt", "x"), columns=columns)


def test_bad_rows_are_skipped_by_file_and_line_and_the_rest_is_read(tmp_path):
    rows = [
        b'{"text": "a", "id": "1"}',
        b'{"text": null}',
        b"oops",
        b'{"text": 3}',
        b'{"text": "b\xe9"}',
        b'{"text": "c", "id": "1"}',
    ]
    rows += [b'{"text": "d", "id": 2.5}', b'{"text": "e"}', b'{"text": "f"}']
    first = file(tmp_path, "a.jsonl", b"\n".join(rows))
    broken = file(tmp_path, "b.parquet", "no parquet")
    cut = file(tmp_path, "c.jsonl.gz", gzip.compress(b'{"text": "g"}\n' * 3)[:-5])
    last = file(tmp_path, "d.jsonl", '{"text": "h"}')
    found = []
    documents = list(read(first, broken, cut, last, skipped=lambda where, why: found.append((where, str(why)))))
    assert [document.text for document in documents] == ["a", "e", "f", "g", "g", "g", "h"]
    assert [document.id for document in documents] == ["1", "7", "8", "10", "11", "12", "14"]
    names = [where.rpartition("/")[2] for where, _ in found]
    assert names == [*(f"a.jsonl, line {i}" for i in range(2, 8)), "b.parquet", "c.jsonl.gz"]
    whys = [
        "no `text`",
        "not JSON",
        "no `text`",
        "not UTF-8",
        "that of another",
        "ids are strings",
        "as parquet",
        "as gzip",
    ]
    for (_, why), words in zip(found, whys, strict=True):
        assert words in why
