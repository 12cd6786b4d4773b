"""Retrieval of passages that are part of a document, by encoders that know the document and by those that do not.

As in ConTEB: Conti et al., "Context is Gold to find the Gold Passage" (2025), arXiv 2505.24782. Some
rows write the title before each passage: the plain way to tell an encoder of passages what they are about.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from itertools import chain
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
import torch

from ..progress import progress
from ..reading.cutting import passage_offsets
from ..reading.tokenizing import plain_tokenizer
from ..texts import clean
from .compare import limited, load_base
from .context_sets import ContextSet, Question
from .long import bm25, score_each
from .scores import BASE_MOST

if TYPE_CHECKING:
    from sentence_transformers import SentenceTransformer

    from ..runtime.sentence_transformers import Lam

ALONE, IN_DOCUMENT, TITLED = "LAM alone", "LAM in its document", "LAM, title before each passage"
MINILM, MINILM_TITLED, LATE = "MiniLM alone", "MiniLM, title before each passage", "MiniLM, late chunking"
BM25, BM25_TITLED, FUSED = "BM25", "BM25, title before each passage", f"{IN_DOCUMENT} + BM25"
SIZE = 80  # tokens of a passage at most, which is 60 words or so
TRAINED_ON = frozenset({"fairytale-train", "qmsum-train"})  # sets that the packaged weights were trained on
_RRF = 60  # the constant of reciprocal rank fusion: Cormack, Clarke, Büttcher (SIGIR 2009)
_WINDOWS = 16  # that MiniLM reads at once

Figures = dict[str, float]
ContextScores = dict[str, dict[str, dict[str, Figures]]]  # {row: {set: {tokens of a passage: figures}}}


class Cut(NamedTuple):
    """The documents of a set, cut into passages of at most `size` tokens.

    Args:
        texts, titles: of the documents.
        offsets: of each document, as `Passages.offsets`.
        passages, titled: the texts of all passages, in order; the same with the document's title before each.
    """

    texts: list[str]
    titles: list[str]
    size: int
    offsets: list[np.ndarray]
    passages: list[str]
    titled: list[str]


# Similarities float32 (queries, passages): those of one ranking, or of several to be fused.
Rankings = list[np.ndarray]


def evaluate_context(
    lam: Lam,
    sets: dict[str, ContextSet],
    sizes: Sequence[int] = (SIZE,),
    scores: ContextScores | None = None,
    done: Callable[[ContextScores], None] = lambda scores: None,
) -> ContextScores:
    """Score all rows on all sets. A passage is right if it overlaps a span that answers.

    Args:
        lam: as from `lam_model.load`, in torch and without a limit to the text's length.
        sets: by name.
        sizes: most tokens of a passage, for sets that are not made for one size.
        scores: of an earlier call: they are not measured again.
        done: called with all scores after each reading of the documents.

    Returns:
        In percent for each row, set and size: `all`, nDCG@10 among the passages of all documents; `within`, nDCG@10
        among those of the right document; `first`, how often a right passage is first of all; and the standard errors
        of these means over the queries, `all_error` and so on.

    Raises:
        ImportError: bm25s is not installed.
        ValueError: a size is that of no passage, or a span of a question holds no token.
    """
    for size in sizes:
        if not 1 <= size <= BASE_MOST - 2:
            raise ValueError(f"size is {size}: a passage has from 1 to {BASE_MOST - 2} tokens")
    encoders = _encoders(lam, load_base())
    scores = {row: dict((scores or {}).get(row, {})) for rows in encoders for row in rows}
    todo = [(name, size) for name, one in sets.items() for size in ([one.size] if one.size else sizes)]
    with progress(total=len(todo) * len(encoders), unit="row") as bar:
        for name, size in todo:
            questions = sets[name].questions
            cut = cut_documents(lam, sets[name], size)
            for rows, rank in encoders.items():
                bar.set_description(f"{name}, {size} tokens: {rows[0]}")
                if any(str(size) not in scores[row].get(name, {}) for row in rows):
                    for row, rankings in zip(rows, rank([one.query for one in questions], cut), strict=True):
                        scores[row].setdefault(name, {})[str(size)] = figures(rankings, questions, cut.offsets)
                    done(scores)
                bar.update()
    return scores


def cut_documents(lam: Lam, one: ContextSet, size: int) -> Cut:
    """The documents of a set in the passages of `lam.encode_passages`."""
    texts = [document.text for document in one.documents]
    offsets = passage_offsets(plain_tokenizer(lam.tokenizer), texts, size)
    passages = [[text[i:j] for i, j in bounds.tolist()] for text, bounds in zip(texts, offsets, strict=True)]
    titled = [
        document._replace(text=passage).whole
        for document, some in zip(one.documents, passages, strict=True)
        for passage in some
    ]
    return Cut(texts, [document.title for document in one.documents], size, offsets, list(chain(*passages)), titled)


def figures(rankings: Rankings, questions: Sequence[Question], offsets: list[np.ndarray]) -> Figures:
    """The figures of a row, as `evaluate_context` returns them.

    Args:
        rankings: similarities (queries, passages): one, or several to be fused.
        offsets: of each document, those of its passages.

    Raises:
        ValueError: no passage overlaps a span of a question.
    """
    ends = np.cumsum([len(bounds) for bounds in offsets])
    of_each: dict[str, list[float]] = {"all": [], "within": [], "first": []}
    for number, question in enumerate(questions):
        own = right_passages(question, offsets[question.document])
        begin = int(ends[question.document]) - len(offsets[question.document])
        everywhere = _fused([one[number] for one in rankings])
        inside = _fused([one[number, begin : ends[question.document]] for one in rankings])
        right = [{begin + i for i in own}]
        of_each["all"] += score_each(everywhere, right, "ndcg@10").tolist()
        of_each["within"] += score_each(inside, [own], "ndcg@10").tolist()
        of_each["first"] += score_each(everywhere, right, "accuracy").tolist()
    found = {}
    for name, values in of_each.items():
        found[name] = round(100 * float(np.mean(values)), 2)
        found[f"{name}_error"] = round(100 * float(np.std(values)) / len(values) ** 0.5, 2)
    return found


def right_passages(question: Question, offsets: np.ndarray) -> set[int]:
    """The passages of the question's document that overlap a span.

    Raises:
        ValueError: there are none.
    """
    begins, ends = offsets.T
    right = {int(i) for start, end in question.spans for i in np.flatnonzero((begins < end) & (ends > start))}
    if not right:
        raise ValueError(f"no passage has the spans {question.spans} of the query {question.query!r:.80}: mend them")
    return right


def context_table(scores: ContextScores, sets: dict[str, dict[str, Any]]) -> str:
    """The scores as a markdown table, a line a row, with their standard errors.

    Of sets whose metric is nDCG@10 there are two figures, among all passages and within the right document.
    """
    columns = [
        (name, size) for name in sets for size in dict.fromkeys(chain(*(row.get(name, {}) for row in scores.values())))
    ]
    lines = [["", *(_head(name, size, sets[name]) for name, size in columns)], ["---"] * (len(columns) + 1)]
    for row, by_set in scores.items():
        cells = [by_set.get(name, {}).get(size, {}) for name, size in columns]
        shown = [_cell(cell, sets[name]["metric"]) for cell, (name, _) in zip(cells, columns, strict=True)]
        lines.append([row, *shown])
    table = "\n".join(f"| {' | '.join(line)} |" for line in lines)
    return f"{table}\n\n\\* LAM was trained on this set." if TRAINED_ON & sets.keys() else table


def _head(name: str, size: str, about: dict[str, Any]) -> str:
    mark = r"\*" if name in TRAINED_ON else ""
    what = "first hits" if about["metric"] == "accuracy" else "all / within"
    return f"{name}{mark}, {size} tokens: {what}"


def _cell(found: Figures, metric: str) -> str:
    shown = ("first",) if metric == "accuracy" else ("all", "within")
    return " / ".join(f"{found[name]:.1f} ± {found[f'{name}_error']:.1f}" for name in shown) if found else ""


def _encoders(lam: Lam, base: SentenceTransformer) -> dict[tuple[str, ...], Callable[..., Iterator[Rankings]]]:
    """Of the rows that need the documents to be read in the same way, the functions that give their rankings."""

    def alone(queries: list[str], cut: Cut) -> Iterator[Rankings]:
        yield [lam.encode(queries) @ lam.encode(cut.passages).T]

    def in_document(queries: list[str], cut: Cut) -> Iterator[Rankings]:
        found = lam.encode_passages(cut.texts, size=cut.size, title=cut.titles)
        similarity = lam.encode(queries) @ np.concatenate([one.vectors for one in found]).T
        yield [similarity]
        words = bm25(queries, cut.passages)
        yield [similarity, np.where(words > 0, words, -np.inf)]

    def titled(queries: list[str], cut: Cut) -> Iterator[Rankings]:
        yield [lam.encode(queries) @ lam.encode(cut.titled).T]

    def minilm_alone(queries: list[str], cut: Cut) -> Iterator[Rankings]:
        yield [minilm(queries) @ minilm(cut.passages).T]

    def minilm_titled(queries: list[str], cut: Cut) -> Iterator[Rankings]:
        yield [minilm(queries) @ minilm(cut.titled).T]

    def late(queries: list[str], cut: Cut) -> Iterator[Rankings]:
        yield [minilm(queries) @ late_chunking(base, cut).T]

    def minilm(texts: list[str]) -> np.ndarray:
        with limited(base, BASE_MOST):  # a title and a passage may have more than 256 tokens
            return base.encode(texts)

    def words_alone(queries: list[str], cut: Cut) -> Iterator[Rankings]:
        yield [bm25(queries, cut.passages)]

    def words_titled(queries: list[str], cut: Cut) -> Iterator[Rankings]:
        yield [bm25(queries, cut.titled)]

    return {
        (ALONE,): alone,
        (IN_DOCUMENT, FUSED): in_document,
        (TITLED,): titled,
        (MINILM,): minilm_alone,
        (MINILM_TITLED,): minilm_titled,
        (LATE,): late,
        (BM25,): words_alone,
        (BM25_TITLED,): words_titled,
    }


def _fused(rankings: Rankings) -> np.ndarray:
    """One query's similarities to candidates as (1, candidates): those of one ranking, or several by reciprocal ranks.

    A passage has the sum of 1 / (60 + rank) over the rankings, ranks from 1. What has -inf is not in a ranking.
    """
    if len(rankings) == 1:
        return rankings[0][None]
    total = np.zeros(len(rankings[0]))
    for one in rankings:
        ranks = np.argsort(np.argsort(-one, kind="stable")) + 1
        total += np.where(np.isneginf(one), 0.0, 1 / (_RRF + ranks))
    return total[None]


@torch.inference_mode()
def late_chunking(base: SentenceTransformer, cut: Cut) -> np.ndarray:
    """Unit vectors of all passages: means of token embeddings that were computed with the text around them.

    Günther et al., "Late Chunking" (2024), arXiv 2409.04701. MiniLM reads 512 tokens at most, so a document is read in
    windows without overlap, each of as many whole passages as there is room for.

    Returns:
        float32 (passages, size), in order.
    """
    tokenizer, room = base.tokenizer, BASE_MOST - 2  # [CLS] and [SEP]
    windows: list[list[list[int]]] = []  # the token ids of the passages in each
    for encoding, bounds in zip(
        plain_tokenizer(tokenizer).encode_batch(clean(cut.texts), add_special_tokens=False), cut.offsets, strict=True
    ):
        begins = np.searchsorted([start for start, _ in encoding.offsets], bounds[:, 0])
        left = 0
        for ids in (part.tolist() for part in np.split(np.array(encoding.ids, np.int64), begins)[1:]):
            if len(ids) > left:
                windows.append([])
                left = room
            windows[-1].append(ids)
            left -= len(ids)
    vectors: list[np.ndarray] = [np.empty(0)] * len(windows)
    order = sorted(range(len(windows)), key=lambda i: -sum(map(len, windows[i])))  # alike in length, with few pads
    for start in range(0, len(order), _WINDOWS):
        rows = order[start : start + _WINDOWS]
        whole = [[tokenizer.cls_token_id, *chain(*windows[i]), tokenizer.sep_token_id] for i in rows]
        tokens = base(dict(tokenizer.pad({"input_ids": whole}, return_tensors="pt")))["token_embeddings"]
        for i, embeddings in zip(rows, tokens.numpy(), strict=True):
            bounds = np.cumsum([1, *map(len, windows[i])])
            sums = np.add.reduceat(embeddings[: bounds[-1]], bounds[:-1])
            vectors[i] = sums / np.linalg.norm(sums, axis=1, keepdims=True)
    return np.concatenate(vectors)
