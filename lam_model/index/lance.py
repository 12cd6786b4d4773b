"""An index of documents in a folder, of any size: added to, changed, filtered and searched, and never read as a whole.

It is one LanceDB table, a row a passage. The rows of a document hold its text, once. Its version is a hash of all that
is kept of it: what has not changed is known by it, and what was replaced. Some documents together are one commit, so a
process that was killed is started again and does what is missing.
"""

from __future__ import annotations

import hashlib
from collections import defaultdict
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from .. import __version__
from ..corpus.documents import Document
from ..corpus.vectors import in_chunks
from ..folder.manifest import GOLDEN_TEXTS
from ..reading.cutting import PASSAGE_TOKENS, window
from ..texts import clean
from . import lance_table as tables
from .lance_table import Row
from .search import WINDOW, Hit, Passage

if TYPE_CHECKING:
    from lancedb.table import Table

    from ..runtime.onnx_encoder import OnnxEncoder
    from ..runtime.sentence_transformers import Lam

_FUSED = 60  # added to a rank before its reciprocal is taken
_SAME = 0.02  # the vectors of one model differ by less on all runtimes, devices and in bfloat16; in int8 by more
_ROWS = 100  # of each search at least: to be fused, and to find several documents among


class Added(NamedTuple):
    """How many documents were new, replaced another or were there already.

    Args:
        recall: of the ANN index, as from `lance_table.fold`; None if none was made.
    """

    new: int
    replaced: int
    unchanged: int
    recall: float | None


class LanceIndex:
    """Documents that are kept in a folder, with the vectors of their passages.

    Args:
        folder: of an index, or where one is to be made.
        model: as from `lam_model.load`, or an `OnnxEncoder`; None if documents are only to be deleted.
        keep: the names of `Document.kept`; None: those that the index has.
        passage_size: most tokens of a passage; None: as in the index, 32 in a new one.

    Raises:
        ModuleNotFoundError: LanceDB is not installed.
        OSError: the index cannot be read.
        ValueError: the folder holds something else, or an index of another model, or with other columns or passages.
    """

    def __init__(
        self,
        folder: Path | str,
        model: Lam | OnnxEncoder | None = None,
        *,
        keep: Sequence[str] | None = None,
        passage_size: int | None = None,
    ) -> None:
        self.folder = Path(folder)
        self._model: Any = model
        self.keep = tuple(keep or ())
        self.passage_size = passage_size or PASSAGE_TOKENS
        for name in self.keep:
            if name.lower() in tables.COLUMNS or self.keep.count(name) > 1:
                raise ValueError(f"the column `{name}` cannot be kept: the index has one of that name already")
        self._table: Table | None = tables.open_table(self.folder)
        if self._table is not None:
            about = tables.about(self._table)
            self._check(about, keep, passage_size)
            self.keep, self.passage_size = tables.kept(self._table), about.passage_size

    def __len__(self) -> int:
        """How many passages there are.

        Raises:
            FileNotFoundError: there is no index in the folder.
        """
        return self._made().count_rows()

    def add(self, documents: Iterable[Document], batch_size: int = 32) -> Added:
        """Add documents; one with the id of another replaces it. Progress goes to stderr.

        Args:
            documents: read as needed. One without an id gets one that is made of its content.
            batch_size: as for `encode_passages`.

        Raises:
            OSError: the index cannot be written.
            ValueError: two documents have one id, or a value does not fit its column.
        """
        new = replaced = unchanged = 0
        given: set[str] = set()
        for chunk in in_chunks(documents):
            named: dict[str, tuple[str, Document]] = {}
            for document in chunk:
                document = document._replace(text=clean(document.text), title=clean(document.title))
                version = self._version(document)
                name = version if document.id is None else clean(document.id)
                if document.id is not None and name in given:
                    raise ValueError(f"two documents have the id {name!r}: give each its own")
                given.add(name)
                named[name] = version, document
            counts = self._add(named, batch_size)
            new, replaced, unchanged = new + counts[0], replaced + counts[1], unchanged + counts[2]
        if not given:
            raise ValueError("there are no documents to add: the input is empty")
        return Added(new, replaced, unchanged, tables.fold(self._made()))

    def delete(self, ids: Iterable[str]) -> int:
        """Delete documents.

        Returns:
            How many there were.

        Raises:
            FileNotFoundError: there is no index in the folder.
        """
        table = self._made()
        there = tables.versions(table, ids)
        if there:
            tables.delete(table, there)
            tables.fold(table)
        return len(there)

    def search(
        self, queries: Sequence[str], top_k: int = 5, where: str | None = None, hybrid: bool = True
    ) -> list[list[Hit]]:
        """The `top_k` documents that fit each query best, best first; fewer only if there are no more.

        A document counts as its best passage. The score is the cosine of that passage.

        Args:
            where: SQL on `id`, `title` and the kept columns, which the documents fulfil.
            hybrid: rank by reciprocal rank fusion of cosine and words (BM25); else by cosine alone.

        Raises:
            FileNotFoundError: there is no index in the folder.
            ValueError: `top_k` is not positive, a query or the index is empty, or `where` is no condition on columns.
        """
        if top_k < 1:
            raise ValueError(f"top_k is {top_k}: it must be at least 1")
        for i, query in enumerate(queries):
            if not query.strip():
                raise ValueError(f"the query at index {i} is empty: give words to look for")
        table = self._made()
        table.checkout_latest()
        if not len(self):
            raise ValueError(f"the index {self.folder} is empty: add documents to it")
        vectors = np.asarray(self._model.encode(list(queries)), np.float32)
        return [
            self._hits(_best(table, query, vector, top_k, where, hybrid), vector)
            for query, vector in zip(clean(queries), vectors, strict=True)
        ]

    def _check(self, about: tables.About, keep: Sequence[str] | None, passage_size: int | None) -> None:
        """Refuse to mix what is in the index with something else."""
        has, other = f"the index {self.folder} has", "or name another folder"
        if self._model is not None:
            own, golden = self._golden(), np.array(about.golden)
            if len(own) != len(golden):
                raise ValueError(
                    f"{has} vectors of {len(golden)} numbers, not of {len(own)}: give such a model, {other}"
                )
            if not np.linalg.norm(own - golden) <= _SAME:
                raise ValueError(f"{has} vectors of another model: give the model and dtype that made it, {other}")
        if keep is not None and tuple(keep) != tables.kept(self._table):
            columns = ", ".join(tables.kept(self._table)) or "none"
            raise ValueError(f"{has} other columns ({columns}): keep these, {other}")
        if passage_size not in (None, about.passage_size):
            raise ValueError(f"{has} passages of {about.passage_size} tokens: leave the size out, {other}")

    def _golden(self) -> np.ndarray:
        """The model's vector of one text, which the index keeps."""
        return np.asarray(self._model.encode(GOLDEN_TEXTS[:1])[0], np.float32)

    def _made(self) -> Table:
        if self._table is None:
            raise FileNotFoundError(f"{self.folder} holds no index: make one, with `lam index` or `LanceIndex.add`")
        return self._table

    def _version(self, document: Document) -> str:
        """A hash of all that is kept of a document."""
        if len(document.kept) != len(self.keep):
            columns = ", ".join(self.keep) or "none"
            raise ValueError(
                f"the document {document.id!r} keeps {len(document.kept)} values for the columns: {columns}"
            )
        content = repr((document.id, document.title, document.text, document.kept))
        return hashlib.sha256(content.encode("utf-8", "backslashreplace")).hexdigest()[:32]

    def _add(self, given: dict[str, tuple[str, Document]], batch_size: int) -> tuple[int, int, int]:
        """Add what is new, then delete what it replaces: two commits. Killed between them, the second is made up for.

        Args:
            given: documents by id, with their versions.
        """
        there = tables.versions(self._table, given) if self._table is not None else {}
        new = {name: one for name, one in given.items() if one[0] not in there.get(name, ())}
        if new:
            columns = self._embed(new, batch_size)
            if self._table is None:
                about = tables.About(self._golden().round(6).tolist(), self.passage_size, __version__)
                self._table = tables.make_table(self.folder, about, {name: columns[name] for name in self.keep})
            tables.add(self._table, columns)
        old = {name: versions - {given[name][0]} for name, versions in there.items()}
        if any(old.values()):
            tables.delete(self._made(), old)
        replaced = len(new.keys() & there.keys())
        return len(new) - replaced, replaced, len(given) - len(new)

    def _embed(self, new: dict[str, tuple[str, Document]], batch_size: int) -> dict[str, Any]:
        """The columns of documents' passages; a passage's text goes up to the next one, so that none of it is lost."""
        texts = [document.whole for _, document in new.values()]
        found = self._model.encode_passages(texts, self.passage_size, batch_size)
        names = [*tables.COLUMNS[:-1], *self.keep]
        columns: dict[str, Any] = {name: [] for name in names}
        for (name, (version, document)), text, one in zip(new.items(), texts, found, strict=True):
            offsets = one.offsets.tolist() or [[0, len(text)]]
            bounds = [0, *(start for start, _ in offsets[1:]), len(text)]
            for i, (start, end) in enumerate(offsets):
                row = (name, version, document.title, i, start, end, text[bounds[i] : bounds[i + 1]], *document.kept)
                for column, value in zip(names, row, strict=True):
                    columns[column].append(value)
        vectors = [one.vectors if len(one.vectors) else one.vector[None] for one in found]
        return columns | {"vector": np.concatenate(vectors).astype(np.float32)}

    def _hits(self, rows: list[Row], vector: np.ndarray) -> list[Hit]:
        contents = tables.contents(self._made(), [row.id for row in rows])
        hits = []
        for row in rows:
            title, parts, kept = contents[row.version]
            whole, passage = "".join(parts), None
            if len(parts) > 1:
                first, last = window(whole, row.start, row.end, WINDOW)
                passage = Passage(row.start, row.end, whole[row.start : row.end], whole[first:last])
            text = whole.removeprefix(f"{title} ") if title else whole
            hits.append(Hit(float(row.vector @ vector), row.id, title, text, passage, kept))
        return hits


def _best(table: Table, query: str, vector: np.ndarray, top_k: int, where: str | None, hybrid: bool) -> list[Row]:
    """The best passage of each of the best documents: more passages are looked at until there are so many documents."""
    count = max(_ROWS, 10 * top_k)
    while True:
        found = [tables.nearest(table, vector, count, where)]
        if hybrid:
            found.append(tables.matching(table, query, count, where))
        best: dict[str, Row] = {}
        for row in _fused(found):
            best.setdefault(row.id, row)
        if len(best) >= top_k or all(len(rows) < count for rows in found):
            return list(best.values())[:top_k]
        count *= 4


def _fused(found: list[list[Row]]) -> list[Row]:
    """Rows of several rankings in one, by the sums of the reciprocals of their ranks (reciprocal rank fusion)."""
    rows: dict[tuple[str, int], Row] = {}
    scores: dict[tuple[str, int], float] = defaultdict(float)
    for ranking in found:
        for rank, row in enumerate(ranking, start=1):
            rows[row.version, row.passage] = row
            scores[row.version, row.passage] += 1 / (_FUSED + rank)
    return [rows[one] for one in sorted(scores, key=scores.__getitem__, reverse=True)]
