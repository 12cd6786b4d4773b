"""The LanceDB table of an index, a row a passage: opened, made, its indexes kept up to date, its rows found."""

from __future__ import annotations

import json
import os
import re
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from datetime import timedelta
from itertools import chain
from operator import itemgetter
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from ..files import is_free

if TYPE_CHECKING:
    import pyarrow
    from lancedb.table import Table

_NAME = "passages"
COLUMNS = ("id", "version", "title", "passage", "start", "end", "text", "vector")  # before those that are kept
ANN_ROWS = 100_000  # fewer are compared one by one
_PARTITION = 8192  # rows that are searched together
_PROBED = 0.5  # of the partitions: half of them hold nearly all of the nearest rows
_REFINED = 2  # times as many as asked for are compared by their own vectors, not by those of 8 bits
_SAMPLE = 100  # passages whose neighbours say what the ANN index finds
_NEIGHBOURS = 10
_OLD = timedelta(hours=1)  # for so long a search that has begun may read what was replaced


class Row(NamedTuple):
    """A passage: the document's id and version, the number in it, where it lies in the document, its vector."""

    id: str
    version: str
    passage: int
    start: int
    end: int
    vector: np.ndarray


class About(NamedTuple):
    """What an index keeps of itself, beside its rows.

    Args:
        golden: the vector that the model gives to one text, which tells it from other models.
        passage_size: most tokens of a passage.
        lam: the version that made it.
    """

    golden: list[float]
    passage_size: int
    lam: str


def lancedb() -> Any:
    """The module `lancedb`.

    Raises:
        ModuleNotFoundError: it is not installed.
    """
    try:
        import lancedb
    except ModuleNotFoundError as error:
        raise ModuleNotFoundError("an index needs LanceDB: pip install 'lam-model[index]'") from error
    return lancedb


def open_table(folder: Path) -> Table | None:
    """The table of a folder; None where one can be made.

    Raises:
        ModuleNotFoundError: LanceDB is not installed.
        OSError: it cannot be read.
        ValueError: something else is in the folder, or a table that LAM did not make.
    """
    module = lancedb()
    if not any(folder.glob(f"{_NAME}.lance/_versions/*.manifest")):
        if not is_free(folder) and os.listdir(folder) != [f"{_NAME}.lance"]:  # that a killed process has left
            raise ValueError(f"{folder} is no index: name one, or a folder that is new or empty")
        return None
    with _naming(folder):
        table = module.connect(folder).open_table(_NAME)
    if b"lam" not in (table.schema.metadata or {}):
        raise ValueError(f"{folder} holds a table that LAM did not make: name another folder")
    _index_ids_and_words(table)
    return table


def about(table: Table) -> About:
    return About(**json.loads(table.schema.metadata[b"lam"]))


def kept(table: Table) -> tuple[str, ...]:
    """The columns that are kept beside LAM's own."""
    return tuple(table.schema.names[len(COLUMNS) :])


def make_table(folder: Path, about: About, kept: dict[str, list[Any]]) -> Table:
    """A table without rows.

    Args:
        kept: the first values of the columns that are kept, which say their types.
    """
    import pyarrow

    text, number, vector = pyarrow.string(), pyarrow.int64(), pyarrow.list_(pyarrow.float32(), len(about.golden))
    types = dict(zip(COLUMNS, (text, text, text, number, number, number, text, vector), strict=True))
    for name, values in kept.items():
        found = _array(name, values).type
        types[name] = text if pyarrow.types.is_null(found) else found
    schema = pyarrow.schema(types.items(), metadata={"lam": json.dumps(about._asdict())})
    with _naming(folder):
        table = lancedb().connect(folder).create_table(_NAME, schema=schema)
    _index_ids_and_words(table)
    return table


def _index_ids_and_words(table: Table) -> None:
    """Make these indexes if they are not there, as where a process was killed that made the table."""
    from lancedb.index import FTS, BTree

    with _naming(table):
        for column, config in (("id", BTree()), ("text", FTS())):
            if not _has_index(table, column):
                table.create_index(column, config=config)


def add(table: Table, columns: dict[str, Any]) -> None:
    """Add rows, in one commit.

    Args:
        columns: lists by name; an array (rows, dimension) of `vector`.

    Raises:
        ValueError: a value does not fit its column.
    """
    import pyarrow

    arrays = []
    for field in table.schema:
        values = columns[field.name]
        if field.name == "vector":
            arrays.append(pyarrow.FixedSizeListArray.from_arrays(values.reshape(-1), values.shape[1]))
        else:
            arrays.append(_array(field.name, values, field.type))
    with _naming(table):
        table.add(pyarrow.table(arrays, schema=table.schema))


def _array(name: str, values: list[Any], type: pyarrow.DataType | None = None) -> pyarrow.Array:
    import pyarrow

    try:
        return pyarrow.array(values, type)
    except (pyarrow.ArrowException, OverflowError, UnicodeError) as error:
        expected = f"values of the type {type}" if type else "values of one type"
        raise ValueError(f"the column `{name}` needs {expected}: {_first_line(error)}") from error


def versions(table: Table, ids: Iterable[str]) -> dict[str, set[str]]:
    """The versions of those documents that are there, by id: mostly one, two if a process was killed."""
    found: dict[str, set[str]] = {}
    with _naming(table):
        rows = table.search().where(f"{_among('id', ids)} AND passage = 0").select(["id", "version"]).to_list()
    for row in rows:
        found.setdefault(row["id"], set()).add(row["version"])
    return found


def delete(table: Table, versions: dict[str, set[str]]) -> None:
    """Delete versions of documents, in one commit."""
    with _naming(table):
        table.delete(f"{_among('id', versions)} AND {_among('version', chain(*versions.values()))}")


def contents(table: Table, ids: Iterable[str]) -> dict[str, tuple[str, list[str], dict[str, Any]]]:
    """The title, the parts of the text and what is kept of some documents, by version."""
    names = kept(table)
    with _naming(table):
        query = table.search().where(_among("id", ids)).select(["version", "title", "passage", "text", *names])
        rows = sorted(query.to_list(), key=itemgetter("passage"))
    found: dict[str, tuple[str, list[str], dict[str, Any]]] = {}
    for row in rows:
        one = found.setdefault(row["version"], (row["title"], [], {name: row[name] for name in names}))
        one[1].append(row["text"])
    return found


def fold(table: Table) -> float | None:
    """Take new rows into the indexes; from `ANN_ROWS` on there is one of the vectors.

    Returns:
        If that was made now, its recall@10 against the exact search, for passages drawn from the table.
    """
    from lancedb.index import IvfSq

    with _naming(table):
        table.optimize(cleanup_older_than=_OLD)
        if _has_index(table, "vector") or table.count_rows() < ANN_ROWS:
            return None
        table.create_index("vector", config=IvfSq(distance_type="cosine", target_partition_size=_PARTITION))
        return _recall_of_others(table)


def nearest(table: Table, vector: np.ndarray, count: int, where: str | None = None) -> list[Row]:
    """The rows of the highest cosine, best first; fewer than `count` only if there are no more.

    Args:
        where: SQL, which these rows fulfil.
    """
    query = table.search(vector, vector_column_name="vector").distance_type("cosine")
    if _has_index(table, "vector"):
        query = query.refine_factor(_REFINED).nprobes(int(_PROBED * table.count_rows() / _PARTITION) + 1)
        if where or count > _PARTITION:
            query = query.maximum_nprobes(0)  # all, for the others may not have so many rows
    return _rows(query, "_distance", count, where)


def matching(table: Table, text: str, count: int, where: str | None) -> list[Row]:
    """The rows with words of a text, best first by BM25; fewer than `count` only if there are no more."""
    from lancedb.query import MatchQuery

    return _rows(table.search(MatchQuery(text, "text"), query_type="fts"), "_score", count, where)


def _rows(query: Any, score: str, count: int, where: str | None) -> list[Row]:
    query = query.select([*Row._fields, score]).limit(count)
    try:
        found = (query.where(where, prefilter=True) if where else query).to_arrow()
    except (RuntimeError, ValueError) as error:
        if not where:
            raise OSError(f"an index cannot be searched: {_first_line(error)}") from error
        raise ValueError(f"documents cannot be filtered by {where!r}: {_first_line(error)}") from error
    flat = found["vector"].combine_chunks().flatten().to_numpy()
    vectors = flat.reshape(-1, found.schema.field("vector").type.list_size)
    columns = (found[name].to_pylist() for name in Row._fields[:-1])
    return [Row(*values) for values in zip(*columns, vectors, strict=True)]


def _has_index(table: Table, column: str) -> bool:
    return any(index.columns == [column] for index in table.list_indices())


def recall(table: Table, queries: np.ndarray, count: int) -> float:
    """The share of the rows nearest to each query that the ANN index finds, against a comparison with all rows."""
    best = np.full((len(queries), count), -np.inf, np.float32)
    for batch in table.search().select(["vector"]).to_batches(_PARTITION):
        scores = queries @ batch["vector"].flatten().to_numpy().reshape(-1, queries.shape[1]).T
        best = -np.partition(-np.concatenate([best, scores], axis=1), count - 1)[:, :count]
    least = best.min(axis=1) - 1e-6  # rounding
    found = [[row.vector @ query for row in nearest(table, query, count)] for query in queries]
    return float(np.mean([np.sum(scores >= one) / count for scores, one in zip(found, least, strict=True)]))


def _recall_of_others(table: Table) -> float:
    """The recall@10 for passages drawn from the table, which are not to find themselves."""
    drawn = np.random.default_rng(0).choice(table.count_rows(), _SAMPLE, replace=False).tolist()
    vectors = np.array(table.take_offsets(drawn).select(["vector"]).to_arrow()["vector"].to_pylist(), np.float32)
    return (recall(table, vectors, _NEIGHBOURS + 1) * (_NEIGHBOURS + 1) - 1) / _NEIGHBOURS


def _among(column: str, values: Iterable[str]) -> str:
    """SQL for a column that has one of some values."""
    quoted = ["'" + value.replace("'", "''") + "'" for value in values]
    return f"{column} IN ({', '.join(quoted)})" if quoted else "false"


@contextmanager
def _naming(place: Path | Table) -> Iterator[None]:
    """Name the folder in an error of LanceDB's.

    Raises:
        OSError: LanceDB could not read or write it.
    """
    try:
        yield
    except (RuntimeError, OSError, ValueError) as error:
        folder = place if isinstance(place, Path) else Path(place.uri).parent
        raise OSError(f"the index {folder} cannot be read or written: {_first_line(error)}") from error


def _first_line(error: Exception) -> str:
    """Without the place in LanceDB's own source."""
    line = str(error).splitlines()[0] if str(error) else type(error).__name__
    return re.sub(r",? \S+\.rs(:\d+)+", "", line)
