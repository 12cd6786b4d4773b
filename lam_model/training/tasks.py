"""What tuning learns from: retrieval sets, scored pairs, plain texts, read from folders, files or the Hub."""

from __future__ import annotations

import csv
import json
import math
import re
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeAlias

import numpy as np

from ..corpus.documents import Document, identifier
from ..evaluation.long_sets import queries_of
from ..files import kind, open_text
from .data import NOT_TEXT, is_held_out, is_held_out_document, normalise

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

MOST_SIMILAR = 5.0  # the highest score of a pair, as in the STS tasks
_QUERY_ID, _DOCUMENT_ID = "query-id", "corpus-id"  # of BEIR's judgements
_SCORES = ("score", "label")
_FILES = (".jsonl", ".csv", ".tsv", ".parquet")
_TEST = re.compile(r"(?<![a-z])test(?![a-z])", re.IGNORECASE)

Row: TypeAlias = "tuple[str, dict[str, Any]]"  # where it stands, and its fields


@dataclass(frozen=True)
class Retrieval:
    """Queries and the documents that answer them.

    Args:
        queries, corpus: texts by their ids.
        relevant: the ids of each query's documents.
        negatives: ids of documents that do not answer, where the data name some.
    """

    name: str
    queries: dict[str, str]
    corpus: dict[str, str]
    relevant: dict[str, list[str]]
    negatives: dict[str, list[str]]

    def __len__(self) -> int:
        return len(self.relevant)

    def only(self, queries: Iterable[str]) -> Retrieval:
        """The same with some of the queries."""
        kept = [query for query in queries if self.relevant.get(query)]
        return replace(
            self,
            queries={query: self.queries[query] for query in kept},
            relevant={query: self.relevant[query] for query in kept},
        )


@dataclass(frozen=True)
class Similarity:
    """Pairs of sentences and how alike people find them, from 0 to 1."""

    name: str
    pairs: list[tuple[str, str]]
    scores: list[float]

    def __len__(self) -> int:
        return len(self.pairs)

    def only(self, rows: Iterable[int]) -> Similarity:
        """The same with some of the pairs."""
        kept = list(rows)
        return replace(self, pairs=[self.pairs[i] for i in kept], scores=[self.scores[i] for i in kept])


@dataclass(frozen=True)
class Texts:
    """Texts alone: there is nothing to learn from them but to stay near the base."""

    name: str
    texts: list[str]

    def __len__(self) -> int:
        return len(self.texts)

    def only(self, rows: Iterable[int]) -> Texts:
        """The same with some of the texts."""
        return replace(self, texts=[self.texts[i] for i in rows])


Task: TypeAlias = "Retrieval | Similarity | Texts"


def read_task(source: str, splits: tuple[str, ...] = ("train",)) -> Task:
    """Read what a model is to learn, or to be watched by.

    Args:
        source: a folder with `corpus.jsonl`, `queries.jsonl` and `qrels/train.tsv` or `.jsonl` (BEIR, MTEB); a .jsonl,
            .csv, .tsv or .parquet file whose columns of text are, in this order, queries, documents and perhaps
            negatives, or two sentences beside a `score` from 0 to 5, or `title` and `text` of long documents, which
            are asked for by the title and by sentences, or a `text` alone; or the name of such a dataset on the Hub.
        splits: of judgements in a folder and of a dataset on the Hub; the first that is there.

    Raises:
        FileNotFoundError: there is no such file or split.
        ValueError: a row is malformed, naming file and line; or the data are a test split.
    """
    path = Path(source)
    if path.is_dir():
        return _read_folder(path, splits)
    if kind(path) in _FILES:
        if not path.is_file():
            raise FileNotFoundError(f"{path} does not exist: give the path of a {', '.join(_FILES)} file or a folder")
        stem = path.stem.removesuffix(".jsonl").removesuffix(".ndjson") if path.suffix.lower() == ".gz" else path.stem
        if _TEST.search(stem):
            raise ValueError(f"{path} is a test split, which must stay unseen: give a train split")
        return _from_rows(path.parent.name if stem in splits else stem, _rows(path), str(path))
    return _read_hub(source, splits)


def _read_folder(folder: Path, splits: tuple[str, ...]) -> Retrieval:
    judgements = [folder / "qrels" / f"{split}{suffix}" for split in splits for suffix in (".tsv", ".jsonl")]
    found = next((path for path in judgements if path.is_file()), None)
    if found is None:
        there = ", ".join(sorted(path.name for path in (folder / "qrels").glob("*"))) or "none"
        raise FileNotFoundError(
            f"{folder / 'qrels'} has no {' or '.join(splits)} split (there: {there}): a test split must stay unseen"
        )
    tests = [path for path in (folder / "qrels").glob("test.*") if kind(path) in _FILES]
    return _retrieval(
        folder.name,
        _rows(folder / "queries.jsonl"),
        _rows(folder / "corpus.jsonl"),
        _rows(found),
        (row for path in tests for row in _rows(path)),
    )


def _read_hub(name: str, splits: tuple[str, ...]) -> Task:
    from datasets import get_dataset_config_names, get_dataset_split_names, load_dataset

    if name.count("/") != 1:
        raise FileNotFoundError(f"{name} is neither a folder, nor a file, nor the name of a dataset on the Hub")

    def rows(config: str | None, split: str) -> Iterator[Row]:
        data = load_dataset(name, config, split=split)
        return ((f"{name}, {config or 'row'} {i}", row) for i, row in enumerate(data, start=1))

    configs = get_dataset_config_names(name)
    parts = [config for config in ("corpus", "queries") if config in configs]
    judged = next((config for config in configs if config not in parts), None) if len(parts) == 2 else None
    there = get_dataset_split_names(name, judged)
    split = next((split for split in splits if split in there), None)
    if split is None:
        raise FileNotFoundError(
            f"{name} has no {' or '.join(splits)} split (there: {', '.join(there)}): a test split must stay unseen"
        )
    short = name.split("/")[1]
    if not judged:
        return _from_rows(short, rows(None, split), name)
    tests = rows(judged, "test") if "test" in there else iter(())
    return _retrieval(short, rows("queries", "queries"), rows("corpus", "corpus"), rows(judged, split), tests)


def _rows(path: Path) -> Iterator[Row]:
    """The rows of a file as they are read, each with the file and line that it stands in."""
    if not path.is_file():
        raise FileNotFoundError(f"{path} is missing: a folder needs corpus.jsonl, queries.jsonl and qrels")
    if kind(path) == ".parquet":
        from pyarrow import ArrowException, parquet

        try:
            rows = parquet.read_table(path).to_pylist()
        except ArrowException as error:
            raise ValueError(f"{path} cannot be read as parquet ({error}): write it again") from error
        for number, row in enumerate(rows, start=1):
            yield f"{path}, row {number}", row
        return
    with open_text(path, newline="") as lines:
        if kind(path) == ".jsonl":
            for number, line in enumerate(lines, start=1):
                if line.strip():
                    yield f"{path}, line {number}", _json(line, f"{path}, line {number}")
            return
        reader = csv.DictReader(lines, delimiter="\t" if kind(path) == ".tsv" else ",")
        try:
            for row in reader:
                yield f"{path}, line {reader.line_num}", row
        except csv.Error as error:
            raise ValueError(f"{path}, line {reader.line_num + 1} cannot be read ({error}): mend it") from error


def _json(line: str, where: str) -> dict[str, Any]:
    try:
        row = json.loads(line)
    except ValueError as error:
        raise ValueError(f"{where} is not JSON ({error}): every line must be one JSON object") from error
    if not isinstance(row, dict):
        raise ValueError(f"{where} is no JSON object: every line must be one")
    return row


def _retrieval(
    name: str, queries: Iterator[Row], corpus: Iterator[Row], judgements: Iterator[Row], tests: Iterator[Row]
) -> Retrieval:
    asked, documents = _texts(queries, "query"), _texts(corpus, "document")
    relevant: dict[str, list[str]] = {}
    for where, row in judgements:
        query, document = (identifier(row, where, [key]) for key in (_QUERY_ID, _DOCUMENT_ID))
        if query not in asked:
            raise ValueError(
                f"{where}: the query {query!r} is not among the queries: the judgements are of another set"
            )
        if document not in documents:
            raise ValueError(f"{where}: the document {document!r} is missing from the corpus")
        if _number(row.get("score", 1), where, math.inf) > 0:
            relevant.setdefault(query, []).append(document)
    if not relevant:
        raise ValueError(f"{name} has no judgement above 0: there is nothing to learn")
    # A test query that was worded alike would be learned with its answer.
    tested = (identifier(row, where, [_QUERY_ID]) for where, row in tests)
    unseen = {normalise(asked[query]) for query in tested if query in asked}
    train = [query for query in relevant if normalise(asked[query]) not in unseen]
    return Retrieval(name, asked, documents, relevant, {}).only(train)


def _texts(rows: Iterator[Row], kind: str) -> dict[str, str]:
    texts: dict[str, str] = {}
    for where, row in rows:
        name = identifier(row, where)
        if not name:
            raise ValueError(f"{where} has no `_id`: every {kind} needs one")
        if name in texts:
            raise ValueError(f"{where}: the id {name!r} was given to another {kind} before")
        title, text = row.get("title") or "", row.get("text")
        if not isinstance(text, str) or not (title + text).strip():
            raise ValueError(f"{where}: the {kind} {name!r} is empty: give it a `text`, or leave it out")
        texts[name] = f"{title} {text}" if title else text
    return texts


def _from_rows(name: str, rows: Iterator[Row], source: str) -> Task:
    rows = iter(rows)
    first = next(rows, None)
    if first is None:
        raise ValueError(f"{source} holds no rows")
    score = next((column for column in _SCORES if column in first[1]), None)
    columns = [column for column in first[1] if column not in NOT_TEXT and column != score]
    columns = [column for column in columns if isinstance(first[1][column], str)]
    alone = columns == ["text"] and not score
    long = set(columns) == {"title", "text"} and not score
    if not alone and (len(columns) < 2 or (score and len(columns) > 2)):
        raise ValueError(
            f"{source} has the columns {', '.join(first[1])}: it needs a query, a document and perhaps negatives, "
            "or two sentences and a `score`, or a `text` alone"
        )
    if long:
        columns.remove("title")  # which may be empty

    def texts() -> Iterator[tuple[str, list[str], dict[str, Any]]]:
        for where, row in (first, *rows):
            found: list[Any] = [row.get(column) for column in columns]
            if empty := [
                c for c, text in zip(columns, found, strict=True) if not isinstance(text, str) or not text.strip()
            ]:
                raise ValueError(f"{where}: `{empty[0]}` is empty: give it a text, or leave the row out")
            yield where, found, row

    if score:
        pairs, scores = [], []
        for where, (one, other), row in texts():
            pairs.append((one, other))
            scores.append(_number(row[score], where, MOST_SIMILAR) / MOST_SIMILAR)
        return Similarity(name, pairs, scores)
    if alone:
        return Texts(name, [text for _, (text,), _row in texts()])
    if long:
        documents = (Document(text, row["title"] or "") for _, (text,), row in texts())
        return _judged(name, ((query, [document.text]) for document in documents for query in queries_of(document)))
    return _judged(name, ((query, documents) for _, (query, *documents), _row in texts()))


def _judged(name: str, rows: Iterable[tuple[str, list[str]]]) -> Retrieval:
    """Queries, each with the document that answers it and perhaps some that do not; texts that are equal are one."""
    ids: dict[str, str] = {}
    relevant: dict[str, list[str]] = {}
    negatives: dict[str, list[str]] = {}
    asked: dict[str, str] = {}
    for query, documents in rows:
        positive, *others = (ids.setdefault(text, str(len(ids))) for text in documents)
        asked.setdefault(query, str(len(asked)))
        for found, known in ((relevant, [positive]), (negatives, others)):
            kept = found.setdefault(asked[query], [])
            kept += [document for document in known if document not in kept]
    return Retrieval(
        name,
        {number: query for query, number in asked.items()},
        {number: text for text, number in ids.items()},
        relevant,
        {query: known for query, known in negatives.items() if known},
    )


def _number(value: Any, where: str, most: float) -> float:
    try:
        number = float(value)
    except (TypeError, ValueError):
        number = math.nan
    if not 0 <= number <= most:
        upto = f"from 0 to {most:g}" if most < math.inf else "0 or more"
        raise ValueError(f"{where}: the score {value!r} is out of range: it must be a number, {upto}")
    return number


def guarded(task: Task, guard: frozenset[str]) -> tuple[Task, int]:
    """A task without the texts that must not be trained on, and how many rows that cost.

    Left out are texts of the guard list, and those that are held out from distillation to measure with.
    """

    def usable(text: str) -> bool:
        return not (is_held_out(text) or is_held_out_document(text) or (guard and normalise(text) in guard))

    if not isinstance(task, Retrieval):
        rows = task.pairs if isinstance(task, Similarity) else [(text,) for text in task.texts]
        kept = [i for i, row in enumerate(rows) if all(map(usable, row))]
        return task.only(kept), len(rows) - len(kept)
    corpus = {name: text for name, text in task.corpus.items() if usable(text)}
    relevant = {query: [d for d in known if d in corpus] for query, known in task.relevant.items()}
    negatives = {query: [d for d in known if d in corpus] for query, known in task.negatives.items()}
    task_kept = replace(task, corpus=corpus, relevant=relevant, negatives=negatives)
    task_kept = task_kept.only([query for query, text in task.queries.items() if usable(text)])
    return task_kept, len(task.queries) - len(task_kept.queries)


def sample(task: Task, count: int, seed: int = 0) -> Task:
    """A draw of at most so many queries, with their own documents as the corpus, or pairs or texts."""
    rng = np.random.default_rng(seed)
    if not isinstance(task, Retrieval):
        return task.only(np.sort(rng.permutation(len(task))[:count]).tolist())
    if len(task.queries) <= count:
        return task
    drawn = task.only(rng.permutation(list(task.relevant))[:count].tolist())
    known = {
        d for by_query in (drawn.relevant, drawn.negatives) for query in drawn.queries for d in by_query.get(query, ())
    }
    return replace(drawn, corpus={name: text for name, text in task.corpus.items() if name in known})


def cut(task: Task, tokenizer: PreTrainedTokenizerBase, max_tokens: int) -> Task:
    """A task whose texts end after so many tokens, special ones counted.

    A query that quotes a part of its document that is cut away is left out.
    """
    if isinstance(task, Similarity):
        first, second = (_cut(side, tokenizer, max_tokens) for side in zip(*task.pairs, strict=True))
        return replace(task, pairs=list(zip(first, second, strict=True)))
    if isinstance(task, Texts):
        return replace(task, texts=_cut(task.texts, tokenizer, max_tokens))

    def shorter(texts: dict[str, str]) -> dict[str, str]:
        return dict(zip(texts, _cut(texts.values(), tokenizer, max_tokens), strict=True))

    corpus = shorter(task.corpus)
    relevant = {
        query: [d for d in known if (task.queries[query] in task.corpus[d]) == (task.queries[query] in corpus[d])]
        for query, known in task.relevant.items()
    }
    kept = [query for query, known in relevant.items() if known]
    return replace(task, queries=shorter(task.queries), corpus=corpus, relevant=relevant).only(kept)


def _cut(texts: Iterable[str], tokenizer: PreTrainedTokenizerBase, max_tokens: int) -> list[str]:
    texts = list(texts)
    shorter = []
    for start in range(0, len(texts), 1024):
        some = texts[start : start + 1024]
        offsets = tokenizer(
            some, add_special_tokens=False, return_offsets_mapping=True, truncation=False, verbose=False
        )["offset_mapping"]
        ends = [spans[max_tokens - 3][1] if len(spans) > max_tokens - 2 else None for spans in offsets]
        shorter += [text[:end] for text, end in zip(some, ends, strict=True)]
    return shorter
