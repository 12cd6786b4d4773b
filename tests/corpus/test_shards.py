import errno
import json
import os
from pathlib import Path

import numpy as np
import pytest
from corpora import Counting, Halves, file, vector

from lam_model.corpus import shards as module
from lam_model.corpus import vectors
from lam_model.corpus.documents import USUAL
from lam_model.corpus.shards import SKIPPED, Shards, ShardWriter, check_folder, finish
from lam_model.corpus.vectors import Encoding

parquet = pytest.importorskip("pyarrow.parquet")


@pytest.fixture(autouse=True)
def _small_chunks(monkeypatch):
    monkeypatch.setattr(vectors, "_CHUNK_TEXTS", 2)


class Model(Counting):
    key = "a model"


def corpus(tmp_path, rows=5):
    return file(tmp_path, "a.jsonl", "\n".join(json.dumps({"text": f"text {i}", "n": i}) for i in range(rows)))


def write(folder, path, model=None, keep=("n",), skip=False, stop_after=None, **options):
    """As the command does; the folder's tables, all that is there in the end."""
    check_folder(folder)
    writer = ShardWriter(Encoding(model or Model(), **options))
    shards = Shards(folder, [str(path)], USUAL._replace(keep=keep), skip, writer.encoding.key)
    done = []
    for one in shards:
        if len(done) == stop_after:
            return done
        done.append(writer(one))
    finish(folder, sum(one.texts for one in done))
    return done


def rows(folder):
    names = sorted(one.name for one in folder.glob("part-*.parquet"))
    return [row for name in names for row in parquet.read_table(folder / name).to_pylist()]


def test_each_chunk_is_a_file_and_all_rows_are_there(tmp_path):
    write(tmp_path / "out", corpus(tmp_path))
    assert sorted(os.listdir(tmp_path / "out")) == ["_SUCCESS", *(f"part-0000{i}.parquet" for i in range(3))]
    assert json.loads((tmp_path / "out" / "_SUCCESS").read_text()) == {"texts": 5}
    assert [(row["id"], row["n"]) for row in rows(tmp_path / "out")] == [(str(i), i) for i in range(5)]
    np.testing.assert_array_equal(np.float32(rows(tmp_path / "out")[4]["embedding"]), vector("text 4"))
    assert parquet.read_table(tmp_path / "out").num_rows == 5  # as one dataset, whatever else is in the folder


@pytest.mark.parametrize("stop_after", [0, 1, 2])
def test_what_is_missing_is_done_and_nothing_twice(tmp_path, stop_after):
    path, folder = corpus(tmp_path), tmp_path / "out"
    write(folder, path, stop_after=stop_after)
    assert not (folder / "_SUCCESS").exists()
    model = Model()
    done = write(folder, path, model)
    assert [one.before for one in done] == [i < stop_after for i in range(3)]
    assert sum(model.batches) == 5 - 2 * stop_after
    assert [row["id"] for row in rows(folder)] == list("01234")


def test_texts_that_are_added_are_encoded_alone(tmp_path):
    folder, model = tmp_path / "out", Model()
    write(folder, corpus(tmp_path, 4))
    write(folder, corpus(tmp_path, 7), model)
    assert model.batches == [2, 1]
    assert [row["id"] for row in rows(folder)] == list("0123456")


def other_texts(tmp_path, folder):
    write(folder, file(tmp_path, "b.jsonl", '{"text": "other", "n": 0}'))


def fewer_texts(tmp_path, folder):
    write(folder, corpus(tmp_path, 4))


def other_options(tmp_path, folder):
    write(folder, corpus(tmp_path), with_text=True)


def other_columns(tmp_path, folder):
    write(folder, corpus(tmp_path), keep=())


def other_model(tmp_path, folder):
    model = Model()
    model.key = "another"
    write(folder, corpus(tmp_path), model)


@pytest.mark.parametrize("again", [other_texts, fewer_texts, other_options, other_columns, other_model])
def test_a_folder_of_something_else_is_refused_and_left_as_it_is(tmp_path, again):
    folder = tmp_path / "out"
    write(folder, corpus(tmp_path))
    before = rows(folder)
    with pytest.raises(ValueError, match=r"out/part-0000\d\.parquet (was made of other texts|is of texts that)"):
        again(tmp_path, folder)
    assert rows(folder) == before


def test_a_file_that_is_half_there_is_no_shard(tmp_path):
    path, folder = corpus(tmp_path), tmp_path / "out"
    write(folder, path, stop_after=1)
    (folder / ".lam-abc.new").write_bytes(b"half")  # what a process leaves that is killed while it writes
    write(folder, path)
    assert [row["id"] for row in rows(folder)] == list("01234")


def test_a_full_disk_is_named_and_leaves_whole_files_only(tmp_path, monkeypatch):
    path, folder = corpus(tmp_path), tmp_path / "out"

    def full(table, opened):
        opened.write(b"half")
        raise OSError(errno.ENOSPC, "No space left on device")

    write(folder, path, stop_after=1)
    monkeypatch.setattr(parquet, "write_table", full)
    with pytest.raises(OSError, match="No space left") as caught:
        write(folder, path)
    assert str(caught.value.filename).endswith("part-00001.parquet")
    assert os.listdir(folder) == ["part-00000.parquet"]


def test_skipped_rows_are_listed_in_the_folder(tmp_path):
    folder = tmp_path / "out"
    path = file(tmp_path, "a.jsonl", '{"text": "x"}\noops\n{"text": null}\n{"text": "y"}')
    write(folder, path, keep=(), skip=True)
    listed = [json.loads(line) for line in (folder / SKIPPED).read_text().splitlines()]
    assert [Path(row["where"]).name for row in listed] == ["a.jsonl, line 2", "a.jsonl, line 3"]
    assert [row["id"] for row in rows(folder)] == ["0", "3"]


def test_passages_of_documents_without_a_word_are_no_rows(tmp_path):
    class Passages(Halves):
        key = "passages"

    path = file(tmp_path, "a.jsonl", '{"text": ""}\n{"text": ""}\n{"text": "abcd"}')
    write(tmp_path / "out", path, Passages(), keep=(), passages=True, with_text=True)
    assert [(row["id"], row["passage"], row["text"]) for row in rows(tmp_path / "out")] == [
        ("2", 0, "ab"),
        ("2", 1, "cd"),
    ]
    assert parquet.read_table(tmp_path / "out").num_rows == 2


def test_other_places_are_refused(tmp_path):
    (tmp_path / "full").mkdir()
    file(tmp_path / "full", "notes.txt", "x")
    file(tmp_path, "file", "x")
    for name, error in (
        ("full", "holds other files, such as notes.txt"),
        ("file", "it is a file"),
        ("no/out", "make the folder"),
    ):
        with pytest.raises(OSError, match=error):
            check_folder(tmp_path / name)
    assert module.DONE not in os.listdir(tmp_path / "full")
