"""Steps of context training: queries, and documents in passages of which some are right.

A step is a function of its number and the seed alone. Its documents are on one topic, so that the passages of the
others are hard negatives, as are the other passages of the same document ("in-sequence negatives": Conti et al.,
"Context is Gold to find the Gold Passage", 2025, arXiv 2505.24782, section 4).
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from itertools import chain, pairwise
from typing import TYPE_CHECKING, NamedTuple

import numpy as np
from torch.utils.data import Dataset

from ..corpus.documents import Document
from ..evaluation.context_sets import Question
from ..reading.cutting import divide
from ..reading.passages import beginning_of
from ..texts import clean
from .recipe import ContextRecipe
from .topics import by_topic

if TYPE_CHECKING:
    from tokenizers import Tokenizer

_LEAST = 16  # tokens of a passage: from here to the most, drawn on a logarithmic scale
_TOKENS = 2880  # of all documents' passages in a step, or so
_PASSAGES = (2, 24)  # of a document in a step
_UNTITLED = 0.15  # share of documents whose title is not told
_QUERIES = 5  # of a document at most
_SHARE_OF_WORDS = (0.2, 0.8)  # of a passage, in a query that is made of them
_LEAST_WORDS = 8  # of a passage that a query is made of
_CHARS = 60_000  # of a document that queries are made of: as much as is tokenised for a step
MOST = 254  # tokens of a passage, a query or a plain text, at most

Rng = np.random.Generator


@dataclass(frozen=True)
class Step:
    """What is read in one step, as token ids with [CLS] and [SEP].

    Args:
        queries: of each, its tokens.
        documents: of each, the tokens of its parts: where there is context, the beginning, then passages.
        context: whether each document's first part is its beginning, which is no passage.
        right: whether a passage answers a query, (queries, passages of all documents).
        texts: plain texts, and some of the passages, whose vectors without context stay near the base's.
    """

    queries: list[list[int]]
    documents: list[list[list[int]]]
    context: bool
    right: np.ndarray
    texts: list[list[int]]


class _Cut(NamedTuple):
    """Some successive passages of a document, and the tokens of its beginning."""

    beginning: list[int]
    passages: list[list[int]]
    offsets: np.ndarray


Vectors = Callable[[list[str]], np.ndarray]
Made = tuple[list[str], list[_Cut], np.ndarray]  # queries, documents, which passages are right


class Asked:
    """Questions about documents, with the characters that answer them."""

    def __init__(
        self,
        documents: Sequence[Document],
        questions: Sequence[Question],
        tokenizer: Tokenizer,
        vectors: Vectors,
        count: int,
        most: int = MOST,
    ) -> None:
        self._documents, self._tokenizer, self._most, self._tokens = documents, tokenizer, most, _TOKENS // count
        self._questions: list[list[Question]] = [[] for _ in documents]
        for question in questions:
            self._questions[question.document].append(question)
        asked = [i for i, some in enumerate(self._questions) if some]
        self._groups = _groups(asked, [_start(documents[i]) for i in asked], vectors, count)

    def __call__(self, rng: Rng) -> Made:
        size, queries, cuts, right = _size(rng, self._most), [], [], []
        for number in self._groups[rng.integers(len(self._groups))]:
            questions = self._questions[number]
            first = questions[rng.integers(len(questions))]
            whole = _cut(self._tokenizer, self._documents[number], size, rng)
            wanted = _overlap(first, whole.offsets)
            if not (whole.beginning and wanted.any()):
                continue
            cut = _around(whole, wanted, self._tokens // size, rng)
            cuts.append(cut)
            answered = [(one.query, _overlap(one, cut.offsets)) for one in questions]
            answered = [one for one in answered if one[1].any()]
            for i in rng.permutation(len(answered))[:_QUERIES]:
                queries.append(answered[i][0])
                right.append((len(cuts) - 1, answered[i][1]))
        return queries, cuts, _judged(right, cuts)


class MadeUp:
    """Queries made of some of a passage's words, half of them with the document's title in front.

    What they ask for is the document as much as the passage: a step has twice as many documents, half as much of each.
    """

    def __init__(
        self, documents: Sequence[Document], tokenizer: Tokenizer, vectors: Vectors, count: int, most: int = MOST
    ) -> None:
        count *= 2
        self._documents, self._tokenizer, self._most, self._tokens = documents, tokenizer, most, _TOKENS // count
        self._groups = _groups(range(len(documents)), list(map(_start, documents)), vectors, count)

    def __call__(self, rng: Rng) -> Made:
        size, queries, cuts, right = _size(rng, self._most), [], [], []
        for number in self._groups[rng.integers(len(self._groups))]:
            document = self._documents[number]
            document = document._replace(text=document.text[:_CHARS])
            whole = _cut(self._tokenizer, document, size, rng)
            if not whole.beginning:
                continue
            cut = _around(whole, np.ones(len(whole.passages), bool), self._tokens // size, rng)
            cuts.append(cut)
            words = [document.text[i:j].split() for i, j in cut.offsets.tolist()]
            long = [i for i, some in enumerate(words) if len(some) >= _LEAST_WORDS]
            for i in rng.permutation(long)[:_QUERIES].tolist():
                taken = math.ceil(rng.uniform(*_SHARE_OF_WORDS) * len(words[i]))
                some = np.sort(rng.choice(len(words[i]), taken, replace=False))
                title = [document.title] if rng.random() < 0.5 else []
                queries.append(" ".join([*title, *(words[i][j] for j in some)]))
                right.append((len(cuts) - 1, np.arange(len(words)) == i))
        return queries, cuts, _judged(right, cuts)


class Answered:
    """Queries and the passages that answer them, which are part of no document."""

    def __init__(self, pairs: Sequence[tuple[str, str]], tokenizer: Tokenizer, vectors: Vectors, count: int) -> None:
        self._pairs, self._tokenizer = pairs, tokenizer
        self._groups = _groups(range(len(pairs)), [query for query, _ in pairs], vectors, count)

    def __call__(self, rng: Rng) -> Made:
        pairs = [self._pairs[i] for i in self._groups[rng.integers(len(self._groups))]]
        passages = list(dict.fromkeys(passage for _, passage in pairs))
        encodings = self._tokenizer.encode_batch(clean(passages), add_special_tokens=False)
        cuts = [_Cut([], [encoding.ids], np.empty((1, 2))) for encoding in encodings]
        right = np.array([[passage == own for passage in passages] for _, own in pairs])
        return [query for query, _ in pairs], cuts, right


class Steps(Dataset):
    """So many steps.

    Args:
        kinds: what a step may be, with its share of the steps.
        texts: plain texts.
        most: tokens of a passage, a query or a plain text, without [CLS] and [SEP]; the rest is left out.
    """

    def __init__(
        self,
        kinds: Sequence[tuple[Callable[[Rng], Made], float]],
        texts: Sequence[str],
        tokenizer: Tokenizer,
        recipe: ContextRecipe,
        most: int = MOST,
    ) -> None:
        self._kinds = [kind for kind, _ in kinds]
        shares = np.array([share for _, share in kinds])
        self._shares = shares / shares.sum()
        self._texts, self._tokenizer, self._recipe, self._most = texts, tokenizer, recipe, most
        self._cls, self._sep = tokenizer.encode("").ids

    def __len__(self) -> int:
        return self._recipe.steps

    def __getitem__(self, number: int) -> Step:
        rng = np.random.default_rng([self._recipe.seed, number])
        queries: list[str] = []
        while not queries:  # of no document that was drawn is a passage long enough
            queries, cuts, right = self._kinds[rng.choice(len(self._kinds), p=self._shares)](rng)
        passages = [*chain(*(cut.passages for cut in cuts))]
        beside = [passages[i] for i in rng.permutation(len(passages))[: self._recipe.anchor_passages]]
        drawn = rng.integers(len(self._texts), size=self._recipe.anchor_texts)
        texts = self._ids([self._texts[int(i)] for i in drawn])
        context = bool(cuts[0].beginning)
        return Step(
            [
                self._with_ends(one.ids)
                for one in self._tokenizer.encode_batch(clean(queries), add_special_tokens=False)
            ],
            [list(map(self._with_ends, [cut.beginning] * context + cut.passages)) for cut in cuts],
            context,
            right,
            list(map(self._with_ends, [*beside * context, *texts])),
        )

    def _ids(self, texts: list[str]) -> list[list[int]]:
        return [one.ids for one in self._tokenizer.encode_batch(clean(texts), add_special_tokens=False)]

    def _with_ends(self, ids: list[int]) -> list[int]:
        return [self._cls, *ids[: self._most], self._sep]


def in_sections(title: str, headings: Sequence[str], sections: Sequence[str]) -> tuple[Document, list[Question]]:
    """A document made of its sections, whose headings are asked for, with its title in front and without it."""
    parts = [
        f"{heading}\n{section}" if heading else section for heading, section in zip(headings, sections, strict=True)
    ]
    ends = np.cumsum([0, *(len(part) + 1 for part in parts)])
    found = [
        Question(query, 0, [(int(start) + len(heading), int(end) - 1)])
        for heading, section, (start, end) in zip(headings, sections, pairwise(ends), strict=True)
        if heading.strip() and section.strip()
        for query in (f"{title} {heading}", heading)
    ]
    return Document("\n".join(parts), title), found


def _groups(rows: Sequence[int], texts: list[str], vectors: Vectors, count: int) -> list[list[int]]:
    """Rows in groups of one topic."""
    order = by_topic(vectors(texts), count)
    return [[rows[i] for i in order[start : start + count]] for start in range(0, len(order), count)]


def _start(document: Document) -> str:
    return document.whole[:300]


def _size(rng: Rng, most: int) -> int:
    return round(_LEAST * (most / _LEAST) ** rng.random())


def _cut(tokenizer: Tokenizer, document: Document, size: int, rng: Rng) -> _Cut:
    title, text = clean([document.title, document.text])
    told = [] if rng.random() < _UNTITLED else tokenizer.encode(title, add_special_tokens=False).ids
    passages, offsets = divide(tokenizer.encode(text, add_special_tokens=False), text, size)
    return _Cut(beginning_of(told, passages), passages, offsets)


def _around(cut: _Cut, wanted: np.ndarray, count: int, rng: Rng) -> _Cut:
    """So many successive passages, one that is wanted among them."""
    count = min(len(cut.passages), int(np.clip(count, *_PASSAGES)))
    own = int(rng.choice(np.flatnonzero(wanted)))
    start = int(rng.integers(max(0, own - count + 1), min(own, len(cut.passages) - count) + 1))
    return _Cut(cut.beginning, cut.passages[start : start + count], cut.offsets[start : start + count])


def _overlap(question: Question, offsets: np.ndarray) -> np.ndarray:
    begins, ends = offsets.T
    return np.any([(begins < end) & (ends > start) for start, end in question.spans], axis=0)


def _judged(right: list[tuple[int, np.ndarray]], cuts: list[_Cut]) -> np.ndarray:
    """Which passages of all documents are right, from the right ones of each query's own document."""
    ends = np.cumsum([0, *(len(cut.passages) for cut in cuts)])
    judged = np.zeros((len(right), int(ends[-1])), bool)
    for row, (document, own) in enumerate(right):
        judged[row, ends[document] : ends[document + 1]] = own
    return judged
