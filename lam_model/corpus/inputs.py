"""Files to be read: of this machine or any file system that fsspec opens, plain or compressed; and folders of them."""

from __future__ import annotations

import gzip
import io
import zlib
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import IO, Any

from ..files import kind
from .parquet import choice, pyarrow_and_parquet

KINDS = (".txt", ".jsonl", ".parquet")
_OF_FOLDERS = (".jsonl", ".parquet")  # a .txt beside them may be anything
_COUNTED = 1 << 20  # bytes that are looked through at once for ends of lines


@dataclass(frozen=True, order=True)
class InputFile:
    """A file to be read.

    Args:
        name: its path, or its URL, such as `s3://bucket/texts.jsonl`.
    """

    name: str

    @property
    def kind(self) -> str:
        """`.txt`, `.jsonl` or `.parquet`, whatever it is compressed by."""
        path = PurePosixPath(self.name)
        return kind(path.with_suffix("") if path.suffix.lower() == ".zst" else path)

    @contextmanager
    def open(self) -> Iterator[IO[bytes]]:
        """What it holds, decompressed if its name ends in .gz or .zst.

        Raises:
            ModuleNotFoundError: it ends in .zst, and pyarrow is not installed.
            OSError: it cannot be read.
            ValueError: it is not compressed as its name says; this is raised while reading.
        """
        how = {".gz": "gzip", ".zst": "zstd"}.get(PurePosixPath(self.name).suffix.lower())
        with _opened(self.name) as file:
            if not how:
                yield file
                return
            plain: Any = file
            try:
                if how == "gzip":
                    plain = gzip.GzipFile(fileobj=file)
                else:
                    plain = io.BufferedReader(pyarrow_and_parquet()[0].CompressedInputStream(file, how))
                yield plain
            except (OSError, EOFError, zlib.error) as error:
                raise ValueError(f"{self.name} cannot be read as {how} ({error}): compress it again") from error

    def rows(self) -> int | None:
        """How many rows or lines it has; None where only reading it over a network or a pipe could tell."""
        if is_url(self.name) or not Path(self.name).is_file():
            return None
        if self.kind == ".parquet":
            return pyarrow_and_parquet()[1].read_metadata(self.name).num_rows
        with self.open() as file:
            return sum(piece.count(b"\n") for piece in iter(lambda: file.read(_COUNTED), b""))


def is_url(path: Path | str) -> bool:
    """Whether it is no path of this machine."""
    return "://" in str(path)


def input_files(paths: Iterable[Path | str]) -> list[InputFile]:
    """The files among paths and URLs, and those that are meant by a folder: its .jsonl and .parquet files, by name.

    Raises:
        FileNotFoundError: there is no such file.
        ImportError: what the file system of a URL needs is not installed.
        ValueError: another kind of file, a folder that has none, or a URL of an unknown kind.
    """
    return [file for path in paths for file in (_of_url(str(path)) if is_url(path) else _of_path(Path(path)))]


def _of_path(path: Path) -> list[InputFile]:
    if path.is_dir():
        return _meant(str(path), [str(one) for one in path.iterdir() if one.is_file()])
    return [_existing(str(path), path.exists)]


def _of_url(url: str) -> list[InputFile]:
    import fsspec

    system, path = fsspec.core.url_to_fs(url)
    if system.isdir(path):
        files = [one["name"] for one in system.ls(path, detail=True) if one["type"] == "file"]
        return _meant(url, [system.unstrip_protocol(name) for name in files])
    return [_existing(url, lambda: system.exists(path))]


def _existing(name: str, exists: Any) -> InputFile:
    file = InputFile(name)
    if file.kind not in KINDS:
        raise ValueError(f"cannot read {name}: texts are read from {choice(KINDS)} files")
    if not exists():
        raise FileNotFoundError(f"{name} does not exist: give the path of a {choice(KINDS)} file")
    return file


def _meant(folder: str, names: list[str]) -> list[InputFile]:
    files = [InputFile(name) for name in names if not PurePosixPath(name).name.startswith(".")]
    files = sorted(file for file in files if file.kind in _OF_FOLDERS)
    if not files:
        raise ValueError(f"cannot read {folder}: the folder holds no {choice(_OF_FOLDERS)} files")
    return files


@contextmanager
def _opened(name: str) -> Iterator[IO[bytes]]:
    if is_url(name):
        import fsspec

        with fsspec.open(name, "rb") as file:
            yield file
    else:
        with open(name, "rb") as file:
            yield file
