"""Files and folders that are written whole or not at all; and text files, plain or compressed."""

from __future__ import annotations

import errno
import gzip
import json
import os
import shutil
import tempfile
import zlib
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path, PurePath
from typing import Any, TextIO

try:
    import fcntl
except ImportError:  # on Windows: nothing is locked there, and nothing swept
    fcntl = None  # type: ignore[assignment]  # a module has no type that None could be of

_PREFIX = ".lam-"  # of what is written beside its place
_NEW = ".new"  # and its end: torch writes to no name that only begins with a dot
_LOCK = ".lock"  # of the file beside that, which is locked for as long as somebody writes
_FULL = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)


@contextmanager
def replacing(path: Path) -> Iterator[Path]:
    """A path to write a file or a folder to; it takes the place of `path` if all went well, else it is removed.

    A symlink is followed. A file that cannot be replaced, as a mounted one or a pipe, is written over. The place of a
    folder must be free or an empty folder, which is filled: it may be mounted, or be where somebody works.

    Raises:
        OSError: naming `path`, not where it is written first.
    """
    place = path if _is_device(path) else Path(os.path.realpath(path))
    try:
        lock, held = _new_lock(place)
    except OSError as error:
        raise OSError(error.errno, error.strerror, str(path)) from error
    beside = lock.with_suffix(_NEW)
    try:
        yield beside
        _put(beside, place)
    except Exception as error:
        _name_path(error, (beside, place), path)
        raise
    finally:
        _remove(lock)
        os.close(held)


def write_json(path: Path, content: Any) -> None:
    """Write readable JSON, in place of what is there."""
    text = json.dumps(content, ensure_ascii=False, indent=1) + "\n"
    with replacing(path) as beside:
        # A lone surrogate, of a file's name that is no text, becomes the escape that JSON has for it.
        beside.write_text(text, encoding="utf-8", errors="backslashreplace")


def check_file(path: Path) -> None:
    """Refuse, before any work is done, a file that could not be written.

    Raises:
        FileNotFoundError: its folder does not exist.
        IsADirectoryError: it is a folder itself.
        PermissionError: neither it nor its folder may be written to.
    """
    if path.is_dir():
        raise IsADirectoryError(f"cannot write {path}: it is a folder, name a file")
    parent = path.parent if _is_device(path) else Path(os.path.realpath(path)).parent
    if not parent.is_dir():
        raise FileNotFoundError(
            f"cannot write {path}: make the folder {parent if path.is_symlink() else path.parent} first"
        )
    if not os.access(parent, os.W_OK) and not os.access(path, os.W_OK):
        raise PermissionError(f"cannot write {path}: its folder may not be written to, name another")


def is_free(path: Path) -> bool:
    """Whether a folder can be written to `path`: nothing is there, or a folder that has temporary files at most."""
    return not path.exists() or (path.is_dir() and all(one.name.startswith(_PREFIX) for one in path.iterdir()))


def kind(path: PurePath) -> str:
    """The kind of a file to be read, by its name in any case, compressed by gzip or not; .ndjson counts as `.jsonl`."""
    suffix = PurePath(path.name.lower().removesuffix(".gz")).suffix
    return ".jsonl" if suffix == ".ndjson" else suffix


@contextmanager
def open_text(path: Path, newline: str | None = None) -> Iterator[TextIO]:
    """A UTF-8 file to be read, with or without a byte order mark, by gzip if its name ends so.

    Raises:
        ValueError: what is read in it is no UTF-8, or no gzip; the message names the file.
    """
    opened = gzip.open if path.suffix.lower() == ".gz" else open
    with utf8(path), opened(path, "rt", encoding="utf-8-sig", newline=newline) as lines:
        try:
            yield lines
        except (gzip.BadGzipFile, EOFError, zlib.error) as error:
            raise ValueError(f"{path} cannot be read as gzip ({error}): compress it again") from error


def read_text(path: Path) -> str:
    """The text of a UTF-8 file, as `open_text` reads it.

    Raises:
        ValueError: it is no UTF-8; the message names it.
    """
    with open_text(path) as lines:
        return lines.read()


@contextmanager
def utf8(name: Path | str) -> Iterator[None]:
    """Name the source of text that is not UTF-8.

    Raises:
        ValueError: it is not; the message has `name`.
    """
    try:
        yield
    except UnicodeDecodeError as error:
        raise ValueError(f"{name} is not UTF-8 text ({error.reason}): convert it first") from error


def _is_device(path: Path) -> bool:
    """Whether something is there that is neither file nor folder: a pipe, a terminal."""
    return path.exists() and not path.is_file() and not path.is_dir()


def _new_lock(place: Path) -> tuple[Path, int]:
    """A new file, held open and locked, beside which a thing is written that can be renamed to `place`, if any can."""
    folder = place if place.is_dir() else place.parent
    if _is_device(place) or (place.is_file() and not os.access(folder, os.W_OK)):
        folder = Path(tempfile.gettempdir())
    for lock in folder.glob(f"{_PREFIX}*{_LOCK}"):
        _sweep(lock)
    while True:
        held, name = tempfile.mkstemp(_LOCK, _PREFIX, folder)
        _try_lock(held, wait=True)
        if os.path.exists(name):  # else another process swept it before it was locked
            return Path(name), held
        os.close(held)


def _sweep(lock: Path) -> None:
    """Remove what a killed process has left: its lock ended with it."""
    try:
        held = os.open(lock, os.O_RDWR | getattr(os, "O_NOFOLLOW", 0))
    except OSError:
        return  # of another user, or gone
    if _try_lock(held, wait=False):
        _remove(lock)
    os.close(held)


def _try_lock(held: int, wait: bool) -> bool:
    try:
        fcntl.flock(held, fcntl.LOCK_EX if wait else fcntl.LOCK_EX | fcntl.LOCK_NB)
    except (AttributeError, OSError):  # no such locks here: nothing is swept
        return False
    return True


def _remove(lock: Path) -> None:
    beside = lock.with_suffix(_NEW)
    shutil.rmtree(beside, ignore_errors=True)
    for one in (beside, lock):  # the lock last: nothing is left without one
        with suppress(OSError):
            one.unlink()


def _put(beside: Path, place: Path) -> None:
    if beside.is_dir() and place.is_dir():
        if not is_free(place):
            raise OSError(errno.ENOTEMPTY, os.strerror(errno.ENOTEMPTY), str(beside))
        # What was written last comes last: with a model folder, the manifest that vouches for the rest.
        for one in sorted(beside.iterdir(), key=lambda one: one.stat().st_mtime_ns):
            os.replace(one, place / one.name)
        return
    try:
        if not _is_device(place):
            os.replace(beside, place)
            return
    except OSError:
        if not (beside.is_file() and place.is_file()):
            raise
    with open(beside, "rb") as source, open(place, "wb") as target:
        shutil.copyfileobj(source, target)


def _name_path(error: Exception, places: tuple[Path, ...], path: Path) -> None:
    """Let an error of writing to one of `places` name `path`, which is what the user knows."""
    error.args = tuple(one.replace(str(places[0]), str(path)) if isinstance(one, str) else one for one in error.args)
    if not isinstance(error, OSError) or error.errno is None:
        return
    for name in (error.filename2, error.filename):  # of a copy, the first of the two is where it goes
        for place in places:
            if isinstance(name, (str, Path)) and Path(name).is_relative_to(place):
                error.filename = str(path / Path(name).relative_to(place))
                del error.filename2  # None would be printed
                return
    if error.filename is None and error.errno in _FULL:
        error.filename = str(path)
