"""Documents of files and of standard input, read as they are needed."""

from __future__ import annotations

import json
import sys
from bisect import bisect_right
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import Any, NamedTuple

from ..files import utf8
from .inputs import InputFile, input_files
from .parquet import pyarrow_and_parquet

_ROWS = 1024  # of a parquet file that are read at once


class Document(NamedTuple):
    """A text to be encoded, with what its source says of it.

    Args:
        kept: the values of the columns that are passed on, in the order of `Columns.keep`.
    """

    text: str
    title: str = ""
    id: str | None = None
    kept: tuple[Any, ...] = ()

    @property
    def whole(self) -> str:
        """What is encoded: the title, then the text."""
        return f"{self.title} {self.text}" if self.title else self.text


class Columns(NamedTuple):
    """The columns, or keys, that a row's text and the rest are under.

    Args:
        id: the first of these that a row has.
        keep: passed on as they are; null where a row of jsonl has none.
    """

    text: str = "text"
    title: str = "title"
    id: tuple[str, ...] = ("_id", "id")
    keep: tuple[str, ...] = ()

    @property
    def needed(self) -> list[str]:
        """Those that must be there, for they are asked for by name."""
        title = [self.title] if self.title != USUAL.title else []
        return [self.text, *title, *(self.id if self.id != USUAL.id else ()), *self.keep]


USUAL = Columns()
Skipped = Callable[[str, Exception], None]  # called with the file and line of what is left out, and why


def read(*paths: Path | str, columns: Columns = USUAL, skipped: Skipped | None = None) -> Iterator[Document]:
    """The documents of files, one file after another, as they are needed; in memory are their ids only.

    Args:
        paths: files, or folders of them, or URLs, as for `input_files`. .txt, one text a line, empty ones too; .jsonl,
            an object a line, blank lines skipped; .parquet, a row each. .txt and .jsonl may be compressed, .gz or .zst.
        skipped: called with each row that is bad, and with each file that cannot be read on; if None, these are raised.
            A document without an id then has the number of its row, counting those that are left out.

    Raises:
        FileNotFoundError: there is no such file. This and the next two are raised at once, the rest while reading.
        ImportError: pyarrow, or what a URL's file system needs, is not installed.
        ValueError: another kind of file, or columns of a .txt file.
        ValueError: a file is not what its name says; or two documents have one id, counting a document without one by
            its number from 0. The message names the line or row.
    """
    files = input_files(paths)
    if any(file.kind == ".parquet" or file.name.lower().endswith(".zst") for file in files):
        pyarrow_and_parquet()
    lines = [file.name for file in files if file.kind == ".txt"]
    if lines and columns != USUAL:
        raise ValueError(f"{lines[0]} has lines and no columns: read it in a command of its own")
    return _with_own_ids(_rows(files, columns), skipped)


def read_stdin() -> Iterator[Document]:
    """One document a line of standard input, which is UTF-8 whatever the locale.

    Raises:
        ValueError: it is closed. This is raised at once; that it is not UTF-8, while reading.
    """
    if sys.stdin is None or sys.stdin.closed:
        raise ValueError("standard input is closed: give texts, or files with --file")
    return _lines_of_stdin(sys.stdin.fileno())


def _lines_of_stdin(number: int) -> Iterator[Document]:
    with open(number, encoding="utf-8-sig", closefd=False) as lines, utf8("standard input"):
        for line in lines:
            yield Document(line.removesuffix("\n"))


Row = tuple[str, "Document | Exception"]  # the file and line that it stands in; and what it is, or why it is bad


def _rows(files: list[InputFile], columns: Columns) -> Iterator[Row]:
    for file in files:
        try:
            yield from _READERS[file.kind](file, columns)
        except (ValueError, OSError) as error:
            yield file.name, error


def _lines(file: InputFile) -> Iterator[tuple[str, str | ValueError]]:
    with file.open() as lines:
        for number, line in enumerate(lines, start=1):
            where = f"{file.name}, line {number}"
            try:
                text = line.decode("utf-8-sig" if number == 1 else "utf-8")
                yield where, text.removesuffix("\n").removesuffix("\r")
            except UnicodeDecodeError as error:
                yield where, ValueError(f"{where} is not UTF-8 text ({error.reason}): convert the file first")


def _read_txt(file: InputFile, columns: Columns) -> Iterator[Row]:
    for where, line in _lines(file):
        yield where, Document(line) if isinstance(line, str) else line


def _read_jsonl(file: InputFile, columns: Columns) -> Iterator[Row]:
    for where, line in _lines(file):
        if isinstance(line, ValueError):
            yield where, line
        elif line.strip():
            try:
                fields = json.loads(line)
            except (ValueError, RecursionError) as error:
                yield where, ValueError(f"{where} is not JSON ({error}): every line must be one JSON object")
            else:
                yield where, _document(fields, where, columns)


def _read_parquet(file: InputFile, columns: Columns) -> Iterator[Row]:
    pyarrow, parquet = pyarrow_and_parquet()
    try:
        with file.open() as opened, parquet.ParquetFile(opened) as table:
            names = table.schema_arrow.names
            if missing := [name for name in columns.needed if name not in names]:
                raise ValueError(f"{file.name} has no column `{missing[0]}`: its columns are {', '.join(names)}")
            wanted = [name for name in dict.fromkeys([columns.text, columns.title, *columns.id, *columns.keep])]
            number = 0
            for batch in table.iter_batches(_ROWS, columns=[name for name in wanted if name in names]):
                for fields in batch.to_pylist():
                    number += 1
                    where = f"{file.name}, row {number}"
                    yield where, _document(fields, where, columns)
    except (pyarrow.ArrowException, OSError) as error:
        raise ValueError(f"{file.name} cannot be read as parquet ({error}): write it again") from error


def _document(fields: Any, where: str, columns: Columns) -> Document | ValueError:
    text = fields.get(columns.text) if isinstance(fields, dict) else None
    if not isinstance(text, str):
        return ValueError(f"{where} has no `{columns.text}` that is a string: every document needs one")
    title = fields.get(columns.title)
    if not isinstance(title, str | None):
        return ValueError(f"{where} has a `{columns.title}` that is no string: mend it or leave it out")
    try:
        name = identifier(fields, where, columns.id)
    except ValueError as error:
        return error
    if name is None and columns.id != USUAL.id:
        return ValueError(f"{where} has no `{columns.id[0]}`: every document needs an id, or leave --id out")
    return Document(text, title or "", name, tuple(map(fields.get, columns.keep)))


def identifier(fields: dict[str, Any], where: str, names: Iterable[str] = ("_id", "id")) -> str | None:
    """The id that a row has under the first of some names that it has, as a string; None if it has none.

    Raises:
        ValueError: it is neither a string nor an integer; the message has `where`.
    """
    for name in names:
        value = fields.get(name)
        if isinstance(value, (str, int)) and not isinstance(value, bool):
            return str(value)
        if value is not None:
            raise ValueError(f"{where} has the `{name}` {value!r:.60}: ids are strings or integers")
    return None


def _with_own_ids(rows: Iterator[Row], skipped: Skipped | None) -> Iterator[Document]:
    """The documents of rows, no two of which have one id or the number that stands for one.

    Where rows are left out, a document without an id has the number of its row as its id.
    """
    given: set[str] = set()
    turns: list[int] = []  # the numbers at which documents begin to have ids, end to, and so on: mostly one, or none
    for number, (where, row) in enumerate(rows):
        if isinstance(row, Document) and (reason := _taken(row.id, number, given, turns)):
            row = ValueError(f"{where} {reason}")
        if not isinstance(row, Document):
            if skipped is None:
                raise row
            skipped(where, row)
            continue
        if row.id is not None:
            given.add(row.id)
        if (row.id is None) == len(turns) % 2:
            turns.append(number)
        yield row._replace(id=str(number)) if row.id is None and skipped is not None else row


def _taken(name: str | None, number: int, given: set[str], turns: list[int]) -> str | None:
    """Why a document cannot have its id, or the number that stands for one, if it cannot."""
    if name is None:
        taken = str(number) in given
        return f"has no id, and its number, {number}, is another's: give it one of its own" if taken else None
    standing = int(name) if name.isascii() and name.isdecimal() and len(name) < 20 else number
    numbered = standing < number and name == str(standing) and bisect_right(turns, standing) % 2 == 0
    if not (name in given or numbered):
        return None
    of = "the number of one without an id" if numbered else "that of another document"
    return f"has the id {name!r}, which is {of}: give each document its own"


_READERS = {".txt": _read_txt, ".jsonl": _read_jsonl, ".parquet": _read_parquet}
