"""Documents to vectors, and vectors to files: a chunk at a time, in flat memory."""

from __future__ import annotations

import codecs
import json
import os
import sys
from collections.abc import Callable, Iterable, Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, BinaryIO, NamedTuple

import numpy as np

from ..files import check_file, replacing, utf8
from .documents import Document
from .parquet import choice, pyarrow_and_parquet

if TYPE_CHECKING:
    from ..reading.passages import Passages

# A chunk is encoded at once, sorted by length: it ends at so many texts, or at so many characters of long ones.
_CHUNK_TEXTS = 1024
_CHUNK_CHARS = 4_000_000
_PIECE_BYTES = 1 << 16  # of a stream


class Chunk(NamedTuple):
    """Some rows of an output.

    Args:
        columns: what stands beside a vector in each row, by name.
        vectors: float32 (rows, size).
    """

    columns: dict[str, list[Any]]
    vectors: np.ndarray


Chunks = Iterator[Chunk]


def check_output(path: Path, passages: bool = False) -> None:
    """Refuse, before any work is done, a file that could not be written.

    Args:
        passages: whether rows of passages are to be written.

    Raises:
        ValueError: it is not a .npy, .jsonl or .parquet file; or a .npy, which has no place for passages' numbers.
        OSError: it is a folder, its folder does not exist, or neither may be written to.
        ModuleNotFoundError: pyarrow is needed and not installed.
    """
    suffix = path.suffix.lower()
    if suffix not in _WRITERS:
        raise ValueError(f"cannot write {path}: vectors are written to {choice(_WRITERS)} files")
    if passages and suffix == ".npy":
        raise ValueError(f"cannot write {path}: rows of passages are written to .jsonl or .parquet files")
    check_file(path)
    if suffix == ".parquet":
        pyarrow_and_parquet()


def write_chunks(chunks: Chunks, output: Path | None) -> int:
    """Write vectors into a file, which is whole or not there at all.

    Args:
        chunks: as from `encode_chunks`, `encode_passages` or `encode_stream`.
        output: .npy, float32 (rows, size), the vectors alone; .jsonl, an object a row; .parquet, with the same
            columns; None: the objects to stdout.

    Returns:
        The number of rows.

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


def encode_stream(model: Any, file: BinaryIO) -> Chunks:
    """Yields the vector of the one text that a file is, read in pieces; its id is 0. Progress goes to stderr.

    Args:
        model: as for `Stream`.
        file: UTF-8 of any size.

    Raises:
        ValueError: it is not UTF-8.
    """
    from ..progress import progress
    from ..reading.stream import Stream

    stream, decoder = Stream(model), codecs.getincrementaldecoder("utf-8-sig")()
    size = os.fstat(file.fileno()).st_size or None  # a pipe has none
    with progress(total=size, unit="B", unit_scale=True) as bar, utf8(file.name):
        while piece := file.read(_PIECE_BYTES):
            stream.feed(decoder.decode(piece))
            bar.update(len(piece))
        stream.feed(decoder.decode(b"", final=True))
    yield Chunk({"id": ["0"]}, stream.vector()[None])


def encode_chunks(encode: Callable[[list[str]], np.ndarray], documents: Iterable[Document]) -> Chunks:
    """Yields rows of `id` and vector of some documents at a time; progress goes to stderr.

    Args:
        encode: texts to vectors, (texts, size), such as the method of a model.
        documents: read as needed. One without an id gets its number, counted from 0, as its id.

    Raises:
        ValueError: there are no documents.
    """
    for ids, chunk in _with_ids(documents):
        yield Chunk({"id": ids}, np.asarray(encode([document.whole for document in chunk]), np.float32))


def encode_passages(encode: Callable[[list[str]], Sequence[Passages]], documents: Iterable[Document]) -> Chunks:
    """Yields rows of passages: `id` of the document, `passage` (its number in it, from 0), `start`, `end` and vector.

    A passage is `document.whole[start:end]`. A document without a word has none.

    Args:
        encode: texts to their passages, such as the method `encode_passages` of a model.
        documents: as for `encode_chunks`.

    Raises:
        ValueError: there are no documents.
    """
    for ids, chunk in _with_ids(documents):
        found = encode([document.whole for document in chunk])
        counts = [len(one.vectors) for one in found]
        offsets = np.concatenate([one.offsets for one in found])
        columns = {
            "id": [name for name, count in zip(ids, counts, strict=True) for _ in range(count)],
            "passage": [number for count in counts for number in range(count)],
            "start": offsets[:, 0].tolist(),
            "end": offsets[:, 1].tolist(),
        }
        yield Chunk(columns, np.concatenate([one.vectors for one in found]))


def _with_ids(documents: Iterable[Document]) -> Iterator[tuple[list[str], list[Document]]]:
    count = 0
    for chunk in in_chunks(documents):
        yield [str(count + i) if d.id is None else d.id for i, d in enumerate(chunk)], chunk
        count += len(chunk)
    if not count:
        raise ValueError("there are no texts to encode: the input is empty")


def in_chunks(documents: Iterable[Document]) -> Iterator[list[Document]]:
    """Yields documents, as many at a time as are to be encoded together; progress goes to stderr."""
    from ..progress import progress

    with progress(unit=" texts") as bar:
        for chunk in _chunks(documents):
            yield chunk
            bar.update(len(chunk))


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
    for columns, vectors in chunks:
        for *values, vector in zip(*columns.values(), vectors.tolist(), strict=True):
            row = dict(zip(columns, values, strict=True)) | {"embedding": vector}
            file.write(json.dumps(row).encode() + b"\n")
        file.flush()
        count += len(vectors)
    return count


def _write_parquet(file: BinaryIO, chunks: Chunks) -> int:
    pyarrow, parquet = pyarrow_and_parquet()
    writer, count = None, 0
    try:
        for columns, vectors in chunks:
            flat = pyarrow.array(vectors.reshape(-1))
            embedding = pyarrow.FixedSizeListArray.from_arrays(flat, vectors.shape[1])
            types = {name: pyarrow.string() if name == "id" else pyarrow.int64() for name in columns}
            arrays = {name: pyarrow.array(values, types[name]) for name, values in columns.items()}
            table = pyarrow.table(arrays | {"embedding": embedding})
            writer = writer or parquet.ParquetWriter(file, table.schema)
            writer.write_table(table)
            count += len(vectors)
    finally:
        if writer:
            writer.close()
    return count


_WRITERS = {".npy": _write_npy, ".jsonl": _write_jsonl, ".parquet": _write_parquet}
