"""Texts from lines and files, vectors to files: read, encoded and written a chunk at a time, in flat memory."""

from __future__ import annotations

import codecs
import json
import os
import sys
from bisect import bisect_right
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any, BinaryIO, NamedTuple

import numpy as np

from ..files import check_file, kind, open_text, replacing, utf8

if TYPE_CHECKING:
    from sentence_transformers import SentenceTransformer

# A chunk is encoded at once, sorted by length: it ends at so many texts, or at so many characters of long ones.
_CHUNK_TEXTS = 1024
_CHUNK_CHARS = 4_000_000
_PIECE_BYTES = 1 << 16  # of a stream

Chunks = Iterator[tuple[list[str], np.ndarray]]  # as from `encode_chunks`


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
        _pyarrow()
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
                raise ValueError(f"cannot read {path}: the folder holds no {_choice(_OF_FOLDERS)} files")
            files += found
        elif kind(path) not in _READERS:
            raise ValueError(f"cannot read {path}: texts are read from {_choice(_READERS)} files")
        elif not path.exists():
            raise FileNotFoundError(f"{path} does not exist: give the path of a {_choice(_READERS)} file")
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
    pyarrow, parquet = _pyarrow()
    try:
        with parquet.ParquetFile(path) as file:
            names = file.schema_arrow.names
            if "text" not in names:
                raise ValueError(f"{path} has no column `text`: its columns are {', '.join(names)}")
            columns = [name for name in ("text", "title", "_id", "id") if name in names]
            number = 0
            for batch in file.iter_batches(_CHUNK_TEXTS, columns=columns):
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


def check_output(path: Path) -> None:
    """Refuse, before any work is done, a file that could not be written.

    Raises:
        ValueError: it is not a .npy, .jsonl or .parquet file.
        OSError: it is a folder, its folder does not exist, or neither may be written to.
        ModuleNotFoundError: pyarrow is needed and not installed.
    """
    suffix = path.suffix.lower()
    if suffix not in _WRITERS:
        raise ValueError(f"cannot write {path}: vectors are written to {_choice(_WRITERS)} files")
    check_file(path)
    if suffix == ".parquet":
        _pyarrow()


def write_vectors(
    model: SentenceTransformer, documents: Iterable[Document], output: Path | None, batch_size: int = 32
) -> int:
    """Encode documents into a file, as `write_chunks` does; progress goes to stderr.

    Args:
        model: as from `lam_model.load`.
        documents: read as needed, a chunk at a time. One without an id gets its number, counted from 0, as its id.
        output: as for `write_chunks`.

    Returns:
        The number of documents.

    Raises:
        ValueError, OSError, ModuleNotFoundError: as `check_output`; or there are no documents.
    """
    return write_chunks(encode_chunks(model, documents, batch_size), output)


def write_chunks(chunks: Chunks, output: Path | None) -> int:
    """Write vectors into a file, which is whole or not there at all.

    Args:
        chunks: as from `encode_chunks` or `encode_stream`.
        output: .npy, float32 (documents, size); .jsonl, objects with `id` and `embedding`; .parquet with these
            columns; None: the objects to stdout.

    Returns:
        The number of documents.

    Raises:
        ValueError, OSError, ModuleNotFoundError: as `check_output`.
    """
    if output is None:
        try:
            return _write_jsonl(sys.stdout.buffer, chunks)
        except OSError as error:
            error.filename = error.filename or "standard output"
            raise
    check_output(output)
    with replacing(output) as beside, open(beside, "wb") as file:
        return _WRITERS[output.suffix.lower()](file, chunks)


def encode_stream(model: SentenceTransformer, file: BinaryIO) -> Chunks:
    """Yields (ids, vectors) of the one text that a file is, read in pieces; its id is 0. Progress goes to stderr.

    Args:
        model: as from `lam_model.load`.
        file: UTF-8 of any size.

    Raises:
        ValueError: it is not UTF-8.
    """
    from tqdm import tqdm

    from ..reading.stream import Stream

    stream, decoder = Stream(model), codecs.getincrementaldecoder("utf-8-sig")()
    size = os.fstat(file.fileno()).st_size or None  # a pipe has none
    with tqdm(total=size, unit="B", unit_scale=True, disable=None) as progress, utf8(file.name):
        while piece := file.read(_PIECE_BYTES):
            stream.feed(decoder.decode(piece))
            progress.update(len(piece))
        stream.feed(decoder.decode(b"", final=True))
    yield ["0"], stream.vector()[None]


def encode_chunks(model: SentenceTransformer, documents: Iterable[Document], batch_size: int = 32) -> Chunks:
    """Yields (ids, vectors) of some documents at a time, vectors (documents, size) in float32; see `write_vectors`.

    Raises:
        ValueError: there are no documents.
    """
    count = 0
    for chunk in in_chunks(documents):
        vectors = model.encode([d.whole for d in chunk], batch_size=batch_size, show_progress_bar=False)
        ids = [str(count + i) if d.id is None else d.id for i, d in enumerate(chunk)]
        yield ids, np.asarray(vectors, np.float32)
        count += len(chunk)
    if not count:
        raise ValueError("there are no texts to encode: the input is empty")


def in_chunks(documents: Iterable[Document]) -> Iterator[list[Document]]:
    """Yields documents, as many at a time as are to be encoded together; progress goes to stderr."""
    from tqdm import tqdm

    with tqdm(unit=" texts", disable=None) as progress:
        for chunk in _chunks(documents):
            yield chunk
            progress.update(len(chunk))


def _chunks(documents: Iterable[Document]) -> Iterator[list[Document]]:
    chunk: list[Document] = []
    chars = 0
    for document in documents:
        chunk.append(document)
        chars += len(document.text)
        if len(chunk) == _CHUNK_TEXTS or chars >= _CHUNK_CHARS:
            yield chunk
            chunk, chars = [], 0
    if chunk:
        yield chunk


def _write_npy(file: BinaryIO, chunks: Chunks) -> int:
    # numpy leaves room in its header for a longer first axis: it is written again when the count is known.
    count = 0
    for _, vectors in chunks:
        if not count:
            _write_npy_header(file, 0, vectors.shape[1])
            start = file.tell()
        file.write(vectors.astype("<f4", copy=False).tobytes())
        count += len(vectors)
    file.seek(0)
    _write_npy_header(file, count, vectors.shape[1])
    assert file.tell() == start
    return count


def _write_npy_header(file: BinaryIO, count: int, size: int) -> None:
    header = {"descr": "<f4", "fortran_order": False, "shape": (count, size)}
    np.lib.format.write_array_header_1_0(file, header)


def _write_jsonl(file: BinaryIO, chunks: Chunks) -> int:
    count = 0
    for ids, vectors in chunks:
        for name, vector in zip(ids, vectors.tolist(), strict=True):
            file.write(json.dumps({"id": name, "embedding": vector}).encode() + b"\n")
        file.flush()
        count += len(ids)
    return count


def _write_parquet(file: BinaryIO, chunks: Chunks) -> int:
    pyarrow, parquet = _pyarrow()
    writer, count = None, 0
    try:
        for ids, vectors in chunks:
            flat = pyarrow.array(vectors.reshape(-1))
            embedding = pyarrow.FixedSizeListArray.from_arrays(flat, vectors.shape[1])
            table = pyarrow.table({"id": pyarrow.array(ids, pyarrow.string()), "embedding": embedding})
            writer = writer or parquet.ParquetWriter(file, table.schema)
            writer.write_table(table)
            count += len(ids)
    finally:
        if writer:
            writer.close()
    return count


_WRITERS = {".npy": _write_npy, ".jsonl": _write_jsonl, ".parquet": _write_parquet}


def _pyarrow() -> tuple[Any, Any]:
    try:
        import pyarrow
        from pyarrow import parquet
    except ModuleNotFoundError as error:
        raise ModuleNotFoundError("parquet files need pyarrow: pip install 'lam-model[parquet]'") from error
    return pyarrow, parquet


def _choice(suffixes: Iterable[str]) -> str:
    *others, last = suffixes
    return f"{', '.join(others)} or {last}"
