"""What context training reads: sets of questions, documents, pairs and plain texts, guarded, a part held out."""

from __future__ import annotations

import json
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from tokenizers import Tokenizer

from ..corpus.documents import Document
from ..evaluation.context_sets import ContextSet, Question, read_context_set
from ..files import kind, open_text
from ..reading.tokenizing import plain_tokenizer
from .context import WATCHED_TOKENS, Watched
from .context_steps import MOST, Answered, Asked, MadeUp, Steps, in_sections
from .data import held_out_genres, is_held_out, is_held_out_document, normalise, read_texts
from .recipe import ContextRecipe
from .tune import Start

_HELD_OUT, _WATCHED = 16, 5  # of so many documents of a set, one is held out; so many of these are watched
_GENRE_TEXTS, _GENRE_TOKENS = 32, 256  # that are watched of each genre, and where they are cut
_PLAIN = 50_000  # texts that the anchor is drawn from


def prepare(
    folders: Sequence[Path],
    documents: Sequence[Path],
    pairs: Sequence[Path],
    texts: Sequence[str],
    sources: Sequence[str],
    guard: frozenset[str],
    start: Start,
    recipe: ContextRecipe,
) -> tuple[Steps, Watched]:
    """Read what a run is trained on, and what it is watched by.

    Args:
        folders: sets, as for `read_context_set`.
        documents: files of rows with `title` and `text`, or with `title`, `headings` and `sections`.
        pairs: files of rows with `query` and `passage`.
        texts: as for `read_texts`: the anchor, and by genre the held-out ones that are watched.
        sources: what the column `source` of pairs may say; anything if there are none.
        guard: normalised texts that are left out.

    Raises:
        FileNotFoundError, ValueError: naming the file that is missing or of another kind; or there are no sets.
    """
    tokenizer = plain_tokenizer(start.model.tokenizer)
    most = min(MOST, start.model[0].auto_model.config.block_size - 2)

    def vectors(some: list[str]) -> np.ndarray:
        return start.embedders.model(some, "topics")

    if not folders:
        raise ValueError("there are no questions to train on and to watch: give --sets")
    asked = []
    watched: dict[str, ContextSet] = {}
    for folder in folders:
        train, watched[folder.name] = _hold_out(read_context_set(folder), guard)
        asked.append(Asked(train.documents, train.questions, tokenizer, vectors, recipe.step_documents, most))
    whole, in_parts, headings = _documents(documents, guard)
    if headings:
        asked.append(Asked(in_parts, headings, tokenizer, vectors, recipe.step_documents, most))
    kinds: list[tuple[Any, float]] = [(one, recipe.asked / len(asked)) for one in asked]
    if whole or in_parts:
        kinds.append((MadeUp([*whole, *in_parts], tokenizer, vectors, recipe.step_documents, most), recipe.made_up))
    if answered := _pairs(pairs, sources, guard):
        kinds.append((Answered(answered, tokenizer, vectors, recipe.step_pairs), recipe.answered))
    plain = read_texts(texts)
    drawn = np.random.default_rng(recipe.seed).permutation(len(plain))[:_PLAIN]
    usable = [text for text in plain[drawn]["text"] if text and text.strip() and not _left_out(text, guard)]
    genres = {name: _shorter(tokenizer, some[:_GENRE_TEXTS]) for name, some in held_out_genres(plain, guard).items()}
    base = {name: start.embedders.base(some, f"{name}: the base") for name, some in genres.items()}
    texts_of = {name: (genres[name], base[name]) for name in genres}
    return Steps(kinds, usable, tokenizer, recipe, most), Watched(watched, texts_of, min(WATCHED_TOKENS, most))


def _hold_out(one: ContextSet, guard: frozenset[str]) -> tuple[ContextSet, ContextSet]:
    """A set in two: the questions to train on, and those of a few held-out documents, among these alone."""
    kept = range(0, len(one.documents), _HELD_OUT)[:_WATCHED]
    watched = [q._replace(document=kept.index(q.document)) for q in one.questions if q.document in kept]
    train = [q for q in one.questions if q.document % _HELD_OUT and normalise(q.query) not in guard]
    return ContextSet(one.documents, train), ContextSet([one.documents[i] for i in kept], watched)


def _documents(paths: Iterable[Path], guard: frozenset[str]) -> tuple[list[Document], list[Document], list[Question]]:
    """Documents as they are, documents made of sections, and questions about these, which are their headings."""
    whole: list[Document] = []
    in_parts: list[Document] = []
    headings: list[Question] = []
    for row in _rows(paths, ("title",)):
        if normalise(row["title"]) in guard:
            continue
        if "sections" in row:
            document, questions = in_sections(row["title"], row["headings"], row["sections"])
            if not is_held_out_document(document.text):
                headings += [question._replace(document=len(in_parts)) for question in questions]
                in_parts.append(document)
        elif not is_held_out_document(row["text"]):
            whole.append(Document(row["text"], row["title"]))
    return whole, in_parts, headings


def _pairs(paths: Iterable[Path], sources: Sequence[str], guard: frozenset[str]) -> list[tuple[str, str]]:
    return [
        (row["query"], row["passage"])
        for row in _rows(paths, ("query", "passage"))
        if (not sources or row.get("source") in sources)
        and not (_left_out(row["query"], guard) or _left_out(row["passage"], guard))
    ]


def _left_out(text: str, guard: frozenset[str]) -> bool:
    return is_held_out(text) or normalise(text) in guard


def _rows(paths: Iterable[Path], columns: Sequence[str]) -> Iterable[dict[str, Any]]:
    for path in paths:
        if kind(path) == ".parquet":
            import pyarrow.parquet

            rows = pyarrow.parquet.read_table(path).to_pylist()
        else:
            with open_text(path) as lines:
                rows = [json.loads(line) for line in lines if line.strip()]
        for number, row in enumerate(rows):
            if missing := [name for name in columns if not isinstance(row.get(name), str)]:
                raise ValueError(f"{path}, row {number} has no `{missing[0]}`: give rows with {', '.join(columns)}")
            yield row


def _shorter(tokenizer: Tokenizer, texts: list[str]) -> list[str]:
    encodings = tokenizer.encode_batch(texts, add_special_tokens=False)
    most = _GENRE_TOKENS - 2
    return [
        text[: encoding.offsets[most - 1][1]] if len(encoding) > most else text
        for text, encoding in zip(texts, encodings, strict=True)
    ]
