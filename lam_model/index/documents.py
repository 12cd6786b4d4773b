"""Documents of files and of standard input, read as they are needed."""

from __future__ import annotations

import json
import sys
from bisect import bisect_right
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any, NamedTuple

from ..files import kind, open_text, utf8
from .parquet import choice, pyarrow_and_parquet

_ROWS = 1024  # of a parquet file that are read at once


class Document(NamedTuple):
    """A text to be encoded, with what its source says of it."""

    text: str
    title: str = ""
    id: str | None = None

    @property
    def whole(self) -> str:
        """What is encoded: the title, then the text."""
        return f"{self.title} {self.text}" if self.title else self.text


def read(*paths: Path) -> Iterator[Document]:
    """The documents of files, one file after another, as they are needed; in memory are their ids only.

    Args:
        paths: files, or folders of them, as for `input_files`. .txt, one text a line, empty ones too; .jsonl, objects
            with a `text` and perhaps a `title` and an `_id` or `id`, blank lines skipped; .parquet with the same
            columns.

    Raises:
        FileNotFoundError: there is no such file. This and the next are raised at once, the rest while reading.
        ModuleNotFoundError: pyarrow is needed and not installed.
        ValueError: another kind of file, or one that is not what its name says; or two documents have one id, counting
            a document without one by its number from 0. The message names the line or row.
    """
    files = input_files(paths)
    if any(kind(file) == ".parquet" for file in files):
        pyarrow_and_parquet()
    return _with_own_ids(row for file in files for row in _READERS[kind(file)](file))


def input_files(paths: Iterable[Path]) -> list[Path]:
    """The files among some paths, and those that are meant by a folder: its .jsonl and .parquet files, by name.

    Raises:
        FileNotFoundError: there is no such file.
        ValueError: another kind of file, or a folder that has none.
    """
    files: list[Path] = []
    for path in paths:
        if path.is_dir():
            found = [one for one in path.iterdir() if kind(one) in _OF_FOLDERS and one.is_file()]
            found = sorted((one for one in found if not one.name.startswith(".")), key=lambda one: one.name)
            if not found:
                raise ValueError(f"cannot read {path}: the folder holds no {choice(_OF_FOLDERS)} files")
            files += found
        elif kind(path) not in _READERS:
            raise ValueError(f"cannot read {path}: texts are read from {choice(_READERS)} files")
        elif not path.exists():
            raise FileNotFoundError(f"{path} does not exist: give the path of a {choice(_READERS)} file")
        else:
            files.append(path)
    return files


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


Rows = Iterator[tuple[str, Document]]  # with the file and line that each stands in


def _read_txt(path: Path) -> Rows:
    with open_text(path) as lines:
        for number, line in enumerate(lines, start=1):
            yield f"{path}, line {number}", Document(line.removesuffix("\n"))


def _read_jsonl(path: Path) -> Rows:
    for where, document in _read_txt(path):
        if not document.text.strip():
            continue
        try:
            fields = json.loads(document.text)
        except (ValueError, RecursionError) as error:
            raise ValueError(f"{where} is not JSON ({error}): every line must be one JSON object") from error
        yield where, _document(fields, where)


def _read_parquet(path: Path) -> Rows:
    pyarrow, parquet = pyarrow_and_parquet()
    try:
        with parquet.ParquetFile(path) as file:
            names = file.schema_arrow.names
            if "text" not in names:
                raise ValueError(f"{path} has no column `text`: its columns are {', '.join(names)}")
            columns = [name for name in ("text", "title", "_id", "id") if name in names]
            number = 0
            for batch in file.iter_batches(_ROWS, columns=columns):
                for fields in batch.to_pylist():
                    number += 1
                    where = f"{path}, row {number}"
                    yield where, _document(fields, where)
    except pyarrow.ArrowException as error:
        raise ValueError(f"{path} cannot be read as parquet ({error}): write it again") from error


def _document(fields: Any, where: str) -> Document:
    if not isinstance(fields, dict) or not isinstance(fields.get("text"), str):
        raise ValueError(f"{where} has no `text`: every document needs a `text` that is a string")
    title = fields.get("title")
    if not isinstance(title, str | None):
        raise ValueError(f"{where} has a `title` that is no string: mend it or leave it out")
    return Document(fields["text"], title or "", identifier(fields, where))


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


def _with_own_ids(rows: Rows) -> Iterator[Document]:
    """The documents of rows, no two of which have one id or the number that stands for one."""
    given: set[str] = set()
    turns: list[int] = []  # the numbers at which documents begin to have ids, end to, and so on: mostly one, or none
    for number, (where, document) in enumerate(rows):
        name = document.id
        if name is None:
            if str(number) in given:
                raise ValueError(f"{where} has no id, and its number, {number}, is another's: give it one of its own")
        else:
            standing = int(name) if name.isascii() and name.isdecimal() and len(name) < 20 else number
            numbered = standing < number and name == str(standing) and bisect_right(turns, standing) % 2 == 0
            if name in given or numbered:
                of = "the number of one without an id" if numbered else "that of another document"
                raise ValueError(f"{where} has the id {name!r}, which is {of}: give each document its own")
            given.add(name)
        if (name is None) == len(turns) % 2:
            turns.append(number)
        yield document


_READERS = {".txt": _read_txt, ".jsonl": _read_jsonl, ".parquet": _read_parquet}
_OF_FOLDERS = (".jsonl", ".parquet")  # a .txt beside them may be anything
