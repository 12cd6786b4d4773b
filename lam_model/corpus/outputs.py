"""Vectors in one file, which is whole or not there at all."""

from __future__ import annotations

import json
import sys
from collections.abc import Iterable, Iterator
from itertools import chain
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np

from ..files import check_file, replacing
from .parquet import choice, pyarrow_and_parquet
from .vectors import Chunk

Types = dict[str, Any]  # pyarrow's, of columns by name
_NUMBERS = ("passage", "start", "end")
OWN = ("id", *_NUMBERS, "text", "embedding")  # the columns that are not kept ones


def check_output(path: Path, columns: bool = False) -> None:
    """Refuse, before any work is done, a file that could not be written.

    Args:
        columns: whether rows have more columns than an id: those of passages, or some that are kept.

    Raises:
        ValueError: it is not a .npy, .jsonl, .parquet or .lance; or a .npy, which has vectors alone.
        OSError: it is a folder, its folder does not exist, or neither may be written to.
        ModuleNotFoundError: pyarrow or lance is needed and not installed.
    """
    suffix = path.suffix.lower()
    if suffix not in _WRITERS:
        raise ValueError(f"cannot write {path}: vectors are written to {choice(_WRITERS)}, or to a folder without one")
    if columns and suffix == ".npy":
        raise ValueError(f"cannot write {path}: rows of more than a vector are written to .jsonl or .parquet files")
    if suffix != ".lance" or not path.parent.is_dir():
        check_file(path)
    elif path.exists():
        raise FileExistsError(f"cannot write {path}: it is there already, name another")
    if suffix in (".parquet", ".lance"):
        pyarrow_and_parquet()
    if suffix == ".lance":
        _lance()


def write_chunks(chunks: Iterable[Chunk], output: Path | None) -> int:
    """Write vectors into a file, which is whole or not there at all.

    Args:
        chunks: of the same columns.
        output: .npy, float32 (rows, size), the vectors alone; .jsonl, an object a row; .parquet, with the same
            columns; .lance, a dataset of them; None: the objects to stdout.

    Returns:
        The number of rows.

    Raises:
        ValueError, OSError, ModuleNotFoundError: as `check_output`, and as `table`.
    """
    if output is None:
        try:
            return _write_jsonl(sys.stdout.buffer, chunks)
        except OSError as error:
            error.filename = error.filename or "standard output"
            raise
    check_output(output)
    write = _WRITERS[output.suffix.lower()]
    with replacing(output) as beside:
        if write is _write_lance:
            return write(beside, chunks)
        with open(beside, "wb") as file:
            return write(file, chunks)


def types_of(kept: dict[str, list[Any]]) -> Types:
    """The types of the columns that are kept: what pyarrow takes some values for, strings if all are null.

    Raises:
        ValueError: the values of a column are of several types.
    """
    pyarrow, _ = pyarrow_and_parquet()
    types = {}
    for name, values in kept.items():
        try:
            found = pyarrow.array(values).type
        except pyarrow.ArrowException as error:
            raise ValueError(f"the column `{name}` has values of several types ({error}): leave it out") from error
        types[name] = pyarrow.string() if pyarrow.types.is_null(found) else found
    return types


def table(chunk: Chunk, types: Types) -> Any:
    """A chunk as a table of pyarrow, with the vectors as the column `embedding`.

    Args:
        types: as from `types_of`.

    Raises:
        ValueError: a value of a kept column is of another type; the message names the document.
    """
    pyarrow, _ = pyarrow_and_parquet()
    arrays = {}
    for name, values in chunk.columns.items():
        kind = types.get(name) or (pyarrow.int64() if name in _NUMBERS else pyarrow.string())
        try:
            arrays[name] = pyarrow.array(values, kind)
        except pyarrow.ArrowException:
            bad = next(i for i, value in enumerate(values) if not _fits(value, kind))
            raise ValueError(
                f"the document {chunk.columns['id'][bad]!r} has `{name}` {values[bad]!r:.60}, which is no {kind} as "
                f"before: mend it, or leave the column out of --keep"
            ) from None
    flat = pyarrow.array(chunk.vectors.reshape(-1))
    arrays["embedding"] = pyarrow.FixedSizeListArray.from_arrays(flat, chunk.vectors.shape[1])
    return pyarrow.table(arrays)


def _fits(value: Any, kind: Any) -> bool:
    pyarrow, _ = pyarrow_and_parquet()
    try:
        pyarrow.array([value], kind)
    except pyarrow.ArrowException:
        return False
    return True


def _tables(chunks: Iterable[Chunk]) -> Iterator[Any]:
    types = None
    for chunk in chunks:
        if types is None:
            types = types_of({name: values for name, values in chunk.columns.items() if name not in OWN})
        yield table(chunk, types)


def _write_npy(file: BinaryIO, chunks: Iterable[Chunk]) -> int:
    # numpy leaves room in its header for a longer first axis: it is written again when the count is known.
    count = 0
    for _, vectors, _ in chunks:
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


def _write_jsonl(file: BinaryIO, chunks: Iterable[Chunk]) -> int:
    count = 0
    for columns, vectors, _ in chunks:
        for *values, vector in zip(*columns.values(), vectors.tolist(), strict=True):
            row = dict(zip(columns, values, strict=True)) | {"embedding": vector}
            file.write(json.dumps(row, default=str).encode() + b"\n")  # of parquet, a value may be a date
        file.flush()
        count += len(vectors)
    return count


def _write_parquet(file: BinaryIO, chunks: Iterable[Chunk]) -> int:
    _, parquet = pyarrow_and_parquet()
    writer, count = None, 0
    try:
        for rows in _tables(chunks):
            writer = writer or parquet.ParquetWriter(file, rows.schema)
            writer.write_table(rows)
            count += rows.num_rows
    finally:
        if writer:
            writer.close()
    return count


def _write_lance(folder: Path, chunks: Iterable[Chunk]) -> int:
    pyarrow, _ = pyarrow_and_parquet()
    tables = _tables(chunks)
    first = next(tables)
    batches = (batch for rows in chain([first], tables) for batch in rows.to_batches())
    reader = pyarrow.RecordBatchReader.from_batches(first.schema, batches)
    return _lance().write_dataset(reader, str(folder)).count_rows()


def _lance() -> Any:
    try:
        import lance
    except ModuleNotFoundError as error:
        raise ModuleNotFoundError(".lance needs pylance: pip install 'lam-model[lance]'") from error
    return lance


_WRITERS: dict[str, Any] = {
    ".npy": _write_npy,
    ".jsonl": _write_jsonl,
    ".parquet": _write_parquet,
    ".lance": _write_lance,
}
