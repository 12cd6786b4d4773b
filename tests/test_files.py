"""Files that are whole or not there."""

from __future__ import annotations

import errno
import gzip
import json
import os
import subprocess
import sys
import threading
from pathlib import Path

import pytest

from lam_model import files
from lam_model.files import check_file, is_free, kind, read_text, replacing, write_json


def names(folder) -> list[str]:
    return sorted(path.name for path in folder.iterdir())


@pytest.mark.parametrize("old", [None, "old"])
def test_written_file_takes_its_place(tmp_path, old):
    path = tmp_path / "file.txt"
    if old:
        path.write_text(old)
    with replacing(path) as beside:
        beside.write_text("new")
        assert beside.parent == path.parent  # a rename, not a copy between file systems
        assert not old or path.read_text() == old
    assert path.read_text() == "new"
    assert names(tmp_path) == ["file.txt"]


@pytest.mark.parametrize("old", [None, "old"])
@pytest.mark.parametrize("written", [None, "half of"])
def test_failure_leaves_the_old_file_and_nothing_beside_it(tmp_path, old, written):
    path = tmp_path / "file.txt"
    if old:
        path.write_text(old)

    def write():
        with replacing(path) as beside:
            if written:
                beside.write_text(written)
            raise RuntimeError("disk full")

    with pytest.raises(RuntimeError, match="disk full"):
        write()
    assert names(tmp_path) == (["file.txt"] if old else [])
    assert not old or path.read_text() == old


def test_nothing_written_is_an_error_and_leaves_the_old_file(tmp_path):
    path = tmp_path / "file.txt"
    path.write_text("old")
    with pytest.raises(FileNotFoundError), replacing(path):
        pass
    assert path.read_text() == "old"


@pytest.mark.parametrize("fails", [False, True])
def test_folder_is_whole_or_not_there(tmp_path, fails):
    path = tmp_path / "folder"

    def write():
        with replacing(path) as beside:
            beside.mkdir()
            (beside / "file").write_text("new")
            if fails:
                raise RuntimeError("disk full")

    if fails:
        with pytest.raises(RuntimeError, match="disk full"):
            write()
        assert names(tmp_path) == []
    else:
        write()
        assert names(tmp_path) == ["folder"]
        assert names(path) == ["file"]


def test_json_is_readable_and_a_failure_leaves_the_old(tmp_path):
    path = tmp_path / "file.json"
    write_json(path, {"name": "Zoë", "figure": 1.5})
    assert "Zoë" in path.read_text(encoding="utf-8")
    with pytest.raises(TypeError):
        write_json(path, {"figure": object()})
    assert json.loads(path.read_text(encoding="utf-8")) == {"name": "Zoë", "figure": 1.5}
    assert names(tmp_path) == ["file.json"]


def test_a_link_is_followed_and_stays(tmp_path):
    real, link, to_nothing = tmp_path / "real" / "file", tmp_path / "link", tmp_path / "to nothing"
    real.parent.mkdir()
    real.write_text("old")
    link.symlink_to(real)
    to_nothing.symlink_to("real/new")  # relative
    for path in (link, to_nothing):
        write_json(path, 1)
        assert path.is_symlink()
        assert path.resolve().read_text() == "1\n"
    assert names(real.parent) == ["file", "new"]


def busy(monkeypatch, code):
    """Nothing can be renamed to a place that is there, as if it were mounted."""
    replace = os.replace

    def refuse(old, new):
        if os.path.exists(new):
            raise OSError(code, os.strerror(code), str(old), None, str(new))
        replace(old, new)

    monkeypatch.setattr(files.os, "replace", refuse)


@pytest.mark.parametrize("code", [errno.EBUSY, errno.EXDEV, errno.EACCES])
def test_a_mounted_file_is_written_over(tmp_path, monkeypatch, code):
    path = tmp_path / "file.json"
    path.write_text("something longer")
    before = path.stat().st_ino
    busy(monkeypatch, code)
    write_json(path, 1)
    assert path.read_text() == "1\n"
    assert path.stat().st_ino == before
    assert names(tmp_path) == ["file.json"]


@pytest.mark.parametrize("where", ["mounted", "."])
def test_an_empty_folder_is_filled_and_stays(tmp_path, monkeypatch, where):
    place = tmp_path / "mounted"
    place.mkdir()
    monkeypatch.chdir(place)
    busy(monkeypatch, errno.EBUSY)
    before = place.stat().st_ino
    with replacing(Path(where) if where == "." else place) as beside:
        beside.mkdir()
        (beside / "sub").mkdir()
        (beside / "sub" / "file").write_text("new")
        (beside / "manifest").write_text("last")
    assert sorted(os.listdir(".")) == ["manifest", "sub"]
    assert place.stat().st_ino == before
    assert names(tmp_path) == ["mounted"]


def test_a_folder_that_was_filled_meanwhile_is_left_as_it_is(tmp_path):
    def write():
        with replacing(tmp_path) as beside:
            beside.mkdir()
            (beside / "file").write_text("new")
            (tmp_path / "file").write_text("another's")

    with pytest.raises(OSError, match="not empty") as error:
        write()
    assert error.value.filename == str(tmp_path)
    assert names(tmp_path) == ["file"]
    assert (tmp_path / "file").read_text() == "another's"


def test_a_pipe_is_written_to_and_stays(tmp_path):
    pipe, read = tmp_path / "pipe", []
    os.mkfifo(pipe)
    reader = threading.Thread(target=lambda: read.append(pipe.read_text()), daemon=True)
    reader.start()
    write_json(pipe, 1)
    reader.join(10)
    assert read == ["1\n"]
    assert pipe.is_fifo()


@pytest.mark.parametrize("made", ["file", "folder"])
def test_permissions_are_those_of_any_new_file(tmp_path, made):
    before = os.umask(0o027)
    try:
        with replacing(tmp_path / made) as beside:
            (beside.mkdir if made == "folder" else beside.touch)()
    finally:
        os.umask(before)
    assert (tmp_path / made).stat().st_mode & 0o777 == (0o750 if made == "folder" else 0o640)


def full(path):
    """What Python says when a disk is full."""
    error = OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
    if path is not None:
        error.filename = str(path)
    return error


@pytest.mark.parametrize(
    ("within", "named"),
    [
        (lambda beside: full(beside), "out"),
        (lambda beside: full(beside / "sub" / "file"), "out/sub/file"),
        (lambda beside: full(None), "out"),  # of `file.write`
        (lambda beside: OSError(errno.ENOSPC, "full", "source", None, str(beside / "copy")), "out/copy"),
        (lambda beside: OSError(errno.EIO, "broken", "input"), "input"),
    ],
)
def test_errors_name_what_was_given(tmp_path, monkeypatch, within, named):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(OSError, match=r"\[Errno") as error, replacing(Path("out")) as beside:
        raise within(beside)
    assert str(error.value).endswith(f"{named!r}")


def test_messages_name_what_was_given(tmp_path):
    with pytest.raises(ValueError, match=r"out/file is wrong$") as error, replacing(tmp_path / "out") as beside:
        raise ValueError(f"{beside / 'file'} is wrong")
    assert str(tmp_path / "out/file") in str(error.value)
    with pytest.raises(FileNotFoundError) as error, replacing(tmp_path / "no" / "out"):
        pass
    assert error.value.filename == str(tmp_path / "no" / "out")


WRITER = """
import os, sys
from pathlib import Path
from lam_model.files import replacing
os.getpid = lambda: 1  # as in every container
with replacing(Path(sys.argv[1])) as beside:
    if sys.argv[2] == "folder":
        beside.mkdir()
        beside = beside / "file"
    beside.write_text("half")
    print("writing", flush=True)
    sys.stdin.readline()
    beside.write_text(sys.argv[3])
"""


def writer(path, made, content):
    process = subprocess.Popen(
        [sys.executable, "-c", WRITER, str(path), made, content],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        cwd=Path(__file__).parents[1],
        text=True,
    )
    assert process.stdout.readline() == "writing\n"
    return process


@pytest.mark.parametrize("made", ["file", "folder"])
def test_what_a_killed_writer_left_is_swept_and_a_live_one_is_not_disturbed(tmp_path, made):
    """Though all have one process id."""
    first, killed, other = (writer(tmp_path / "out", made, content) for content in ("first", "killed", "other"))
    killed.kill()
    killed.communicate()
    assert len(names(tmp_path)) == 6
    write_json(tmp_path / "more", 1)
    assert len(names(tmp_path)) == 5  # two things, their locks, and `more`
    first.communicate("\n")
    assert first.returncode == 0
    written = tmp_path / "out" / ("file" if made == "folder" else "")
    assert written.read_text() == "first"
    other.communicate("\n")
    assert (other.returncode == 0) == (made == "file")  # a folder that is there is not replaced
    assert written.read_text() == ("other" if made == "file" else "first")
    assert names(tmp_path) == ["more", "out"]


def test_a_killed_writer_of_a_folder_leaves_its_place_free(tmp_path):
    assert is_free(tmp_path)
    killed = writer(tmp_path, "folder", "")
    killed.kill()
    killed.communicate()
    assert len(names(tmp_path)) == 2
    assert is_free(tmp_path)
    with replacing(tmp_path) as beside:
        beside.mkdir()
        (beside / "file").touch()
    assert names(tmp_path) == ["file"]
    assert not is_free(tmp_path)
    assert not is_free(tmp_path / "file")
    assert is_free(tmp_path / "new")


def test_a_file_that_cannot_be_written_is_refused_at_once(tmp_path, monkeypatch):
    with pytest.raises(IsADirectoryError, match=f"{tmp_path}: it is a folder"):
        check_file(tmp_path)
    with pytest.raises(FileNotFoundError, match=f"make the folder {tmp_path / 'no'}"):
        check_file(tmp_path / "no" / "file")
    (tmp_path / "link").symlink_to("no/file")
    with pytest.raises(FileNotFoundError, match=f"link: make the folder {tmp_path / 'no'}"):
        check_file(tmp_path / "link")
    monkeypatch.setattr(files.os, "access", lambda path, mode: False)
    with pytest.raises(PermissionError, match="may not be written"):
        check_file(tmp_path / "file")


def test_a_name_that_is_no_text_is_kept_in_json(tmp_path):
    write_json(tmp_path / "file.json", {"command": "caf\udce9 é"})
    assert json.loads((tmp_path / "file.json").read_text(encoding="utf-8")) == {"command": "caf\udce9 é"}


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("a.JSONL", ".jsonl"),
        ("a.ndjson", ".jsonl"),
        ("a.NDJSON.GZ", ".jsonl"),
        ("a.jsonl.gz", ".jsonl"),
        ("a.Parquet", ".parquet"),
        ("a.txt", ".txt"),
        ("a.txt.gz", ".txt"),
        ("jsonl", ""),
    ],
)
def test_a_name_says_what_a_file_holds_in_any_case(name, expected):
    assert kind(Path("folder.x") / name) == expected


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("a.txt", "some text".encode("utf-16"), "a.txt is not UTF-8"),
        ("a.txt", b"caf\xe9 and more", "a.txt is not UTF-8"),
        ("a.jsonl.gz", gzip.compress(b"caf\xe9 and more", mtime=0), "a.jsonl.gz is not UTF-8"),
        ("a.jsonl.gz", b"{}", "a.jsonl.gz cannot be read as gzip"),
        ("a.jsonl.GZ", gzip.compress(b"{}" * 99, mtime=0)[:-9], "a.jsonl.GZ cannot be read as gzip"),
        ("a.jsonl.gz", gzip.compress(bytes(range(99)), mtime=0)[:30] + b"?" * 99, "a.jsonl.gz cannot be read as gzip"),
    ],
)
def test_a_file_that_is_no_text_is_named(tmp_path, name, content, message):
    (tmp_path / name).write_bytes(content)
    with pytest.raises(ValueError, match=message):
        read_text(tmp_path / name)


def test_text_is_read_with_and_without_mark_and_compression(tmp_path):
    for name, content in (
        ("a", b"\xef\xbb\xbf\xc3\xa9"),
        ("b", b"\xc3\xa9"),
        ("c.gz", gzip.compress(b"\xc3\xa9", mtime=0)),
    ):
        (tmp_path / name).write_bytes(content)
        assert read_text(tmp_path / name) == "é"
