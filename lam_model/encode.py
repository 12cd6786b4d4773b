"""Texts from lines and files, vectors to files: read, encoded and written a chunk at a time, in flat memory."""

from __future__ import annotations

import codecs
import json
import os
import sys
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any, BinaryIO, NamedTuple, TextIO

import numpy as np

from .files import replacing

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


def read(path: Path) -> Iterator[Document]:
    """The documents of a file, as they are needed.

    Args:
        path: .txt, one text a line, empty ones too; .jsonl, objects with a `text` and perhaps a `title` and an
            `_id` or `id`, blank lines skipped; .parquet with the same columns.

    Raises:
        FileNotFoundError: there is no such file. This and the next are raised at once, the rest while reading.
        ModuleNotFoundError: pyarrow is needed and not installed.
        ValueError: another kind of file, or one that is not what its name says.
    """
    if path.suffix not in _READERS:
        raise ValueError(f"cannot read {path}: texts are read from {_choice(_READERS)} files")
    if not path.exists():
        raise FileNotFoundError(f"{path} does not exist: give the path of a {_choice(_READERS)} file")
    if path.suffix == ".parquet":
        _pyarrow()
    return _READERS[path.suffix](path)


def read_stdin() -> Iterator[Document]:
    """One document a line of standard input, which is UTF-8 whatever the locale."""
    with open(sys.stdin.fileno(), encoding="utf-8-sig", closefd=False) as lines:
        yield from _lines(lines, "standard input")


def _lines(lines: TextIO, name: Path | str) -> Iterator[Document]:
    try:
        for line in lines:
            yield Document(line.removesuffix("\n"))
    except UnicodeDecodeError as error:
        raise ValueError(f"{name} is not UTF-8 text ({error.reason}): convert it first") from error


def _read_txt(path: Path) -> Iterator[Document]:
    with open(path, encoding="utf-8-sig") as lines:
        yield from _lines(lines, path)


def _read_jsonl(path: Path) -> Iterator[Document]:
    for number, document in enumerate(_read_txt(path), start=1):
        if not document.text.strip():
            continue
        where = f"{path}, line {number}"
        try:
            fields = json.loads(document.text)
        except (ValueError, RecursionError) as error:
            raise ValueError(f"{where} is not JSON ({error}): every line must be one JSON object") from error
        yield _document(fields, where)


def _read_parquet(path: Path) -> Iterator[Document]:
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
                    yield _document(fields, f"{path}, row {number}")
    except pyarrow.ArrowException as error:
        raise ValueError(f"{path} cannot be read as parquet ({error}): write it again") from error


def _document(fields: Any, where: str) -> Document:
    if not isinstance(fields, dict) or not isinstance(fields.get("text"), str):
        raise ValueError(f"{where} has no `text`: every document needs a `text` that is a string")
    title = fields.get("title")
    if not isinstance(title, str | None):
        raise ValueError(f"{where} has a `title` that is no string: mend it or leave it out")
    name = next((fields[key] for key in ("_id", "id") if fields.get(key) is not None), None)
    return Document(fields["text"], title or "", None if name is None else str(name))


_READERS = {".txt": _read_txt, ".jsonl": _read_jsonl, ".parquet": _read_parquet}


def check_output(path: Path) -> None:
    """Refuse, before any work is done, a file that could not be written.

    Raises:
        ValueError: it is not a .npy, .jsonl or .parquet file.
        FileNotFoundError: its folder does not exist.
        ModuleNotFoundError: pyarrow is needed and not installed.
    """
    if path.suffix not in _WRITERS:
        raise ValueError(f"cannot write {path}: vectors are written to {_choice(_WRITERS)} files")
    if not path.parent.is_dir():
        raise FileNotFoundError(f"cannot write {path}: make the folder {path.parent} first")
    if path.suffix == ".parquet":
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
        ValueError, FileNotFoundError, ModuleNotFoundError: as `check_output`; or there are no documents.
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
        ValueError, FileNotFoundError, ModuleNotFoundError: as `check_output`.
    """
    if output is None:
        return _write_jsonl(sys.stdout.buffer, chunks)
    check_output(output)
    with replacing(output) as beside, open(beside, "wb") as file:
        return _WRITERS[output.suffix](file, chunks)


def encode_stream(model: SentenceTransformer, file: BinaryIO) -> Chunks:
    """Yields (ids, vectors) of the one text that a file is, read in pieces; its id is 0. Progress goes to stderr.

    Args:
        model: as from `lam_model.load`.
        file: UTF-8 of any size.

    Raises:
        ValueError: it is not UTF-8.
    """
    from tqdm import tqdm

    from .stream import Stream

    stream, decoder = Stream(model), codecs.getincrementaldecoder("utf-8-sig")()
    size = os.fstat(file.fileno()).st_size or None  # a pipe has none
    with tqdm(total=size, unit="B", unit_scale=True, disable=None) as progress:
        try:
            while piece := file.read(_PIECE_BYTES):
                stream.feed(decoder.decode(piece))
                progress.update(len(piece))
            stream.feed(decoder.decode(b"", final=True))
        except UnicodeDecodeError as error:
            raise ValueError(f"{file.name} is not UTF-8 text ({error.reason}): convert it first") from error
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
