"""Files that are whole or not there."""

from __future__ import annotations

import json

import pytest

from lam_model.files import replacing, write_json


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
