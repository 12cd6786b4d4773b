"""Questions about passages of documents: people's, read from folders, and made-up ones that lean on earlier text."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from ..corpus.documents import Document, read
from ..files import open_text
from ..reading.cutting import passage_offsets

if TYPE_CHECKING:
    from tokenizers import Tokenizer

WITH_TITLE, WITHOUT_TITLE = "made up, with the title", "made up, without the title"
_ARTICLES = 60
_CHARS = 8000  # of an article: held-out ones are longer
_PASSAGES = 400  # that are asked for
_TOKENS = 32  # of a passage at most, which is 24 words or so
_LEAST_WORDS = 12  # of a passage that is asked for: a third of fewer says too little
_PRONOUNS = ("he", "she", "it", "they", "his", "her", "its", "their", "this", "these")


class Question(NamedTuple):
    """What is asked, and where the answer is.

    Args:
        query: a text.
        document: the index of the document.
        spans: the characters of the document's text that answer: [start, end), at least one.
    """

    query: str
    document: int
    spans: list[tuple[int, int]]


class ContextSet(NamedTuple):
    """Documents, and questions that a passage of one of them answers.

    Args:
        documents: their `text` is cut into passages; their `title` stands apart from it.
        metric: that the tables show, `ndcg@10` or `accuracy`.
        size: most tokens of a passage, of a set that was made for one size.
    """

    documents: list[Document]
    questions: list[Question]
    metric: str = "ndcg@10"
    size: int | None = None

    def about(self) -> dict[str, Any]:
        """How large the set is and what its score is."""
        return {"queries": len(self.questions), "documents": len(self.documents), "metric": self.metric}


def read_context_set(folder: Path) -> ContextSet:
    """The set of a folder with `documents.jsonl` and `queries.jsonl`.

    A document has `_id`, `title` and `text`. A query has `query`, `document` (an `_id`) and `spans`, a list of
    [start, end]: the characters of the document's text that answer it.

    Raises:
        FileNotFoundError: a file is not there.
        ValueError: a file is not as above; the message names the line.
    """
    for name in ("documents.jsonl", "queries.jsonl"):
        if not (folder / name).is_file():
            raise FileNotFoundError(f"{folder / name} does not exist: a set is documents.jsonl and queries.jsonl")
    documents = list(read(folder / "documents.jsonl"))
    places = {str(number) if one.id is None else one.id: number for number, one in enumerate(documents)}
    questions, path = [], folder / "queries.jsonl"
    with open_text(path) as lines:
        for number, line in enumerate(lines, start=1):
            if line.strip():
                questions.append(_question(line, f"{path}, line {number}", documents, places))
    if not questions:
        raise ValueError(f"{path} has no queries: give one at least")
    return ContextSet(documents, questions)


def _question(line: str, where: str, documents: list[Document], places: dict[str, int]) -> Question:
    try:
        fields = json.loads(line)
    except (ValueError, RecursionError) as error:
        raise ValueError(f"{where} is not JSON ({error}): every line must be one JSON object") from error
    if not isinstance(fields, dict) or not isinstance(fields.get("query"), str) or not fields["query"].strip():
        raise ValueError(f"{where} has no `query`: every line needs a `query` that is a string with a word")
    name = fields.get("document")
    if not isinstance(name, (str, int)) or str(name) not in places:
        raise ValueError(f"{where} has the `document` {name!r:.60}: it must be an `_id` of documents.jsonl")
    document, spans = places[str(name)], fields.get("spans")
    if not isinstance(spans, list) or not spans:
        raise ValueError(f"{where} has no `spans`: give a list of [start, end], in characters of the document's text")
    return Question(fields["query"], document, [_span(span, documents[document].text, where) for span in spans])


def _span(span: Any, text: str, where: str) -> tuple[int, int]:
    whole = isinstance(span, list) and len(span) == 2 and all(type(one) is int for one in span)
    if not whole or not 0 <= span[0] < span[1] <= len(text):
        raise ValueError(
            f"{where} has the span {span!r:.60}: it must be [start, end] with 0 <= start < end <= {len(text)}, the "
            f"number of characters of the document's text"
        )
    if not text[span[0] : span[1]].strip():
        raise ValueError(f"{where} has the span {span}, where there is only white space: name characters that answer")
    return span[0], span[1]


def made_up_sets(tokenizer: Tokenizer, articles: Sequence[Document], seed: int = 0) -> dict[str, ContextSet]:
    """Passages that lean on earlier text, asked for by a third of their words, with the article's title or without it.

    A passage is asked for if it has 12 words or more and begins with a pronoun: who or what is meant stands before it.

    Args:
        tokenizer: neither cuts nor pads.
        articles: up to 60 of those with a title are taken at random, the first 8,000 characters of each.
        seed: of the choice of articles, passages and words.

    Raises:
        ValueError: no passage of 12 words or more, of an article with a title, begins with a pronoun.
    """
    rng = np.random.default_rng(seed)
    titled = [article for article in articles if article.title.strip()]
    chosen = [titled[i] for i in rng.permutation(len(titled))[:_ARTICLES]]
    documents = [Document(article.text[:_CHARS], article.title) for article in chosen]
    found = [
        Question(document.text[start:end], number, [(start, end)])
        for number, (document, offsets) in enumerate(
            zip(documents, passage_offsets(tokenizer, [one.text for one in documents], _TOKENS), strict=True)
        )
        for start, end in offsets.tolist()
    ]
    leaning = [one for one in found if _leans(one.query.split())]
    if not leaning:
        raise ValueError("no passage of the articles begins with a pronoun: give more articles that have a title")
    without = [
        leaning[i]._replace(query=_third(leaning[i].query, rng)) for i in rng.permutation(len(leaning))[:_PASSAGES]
    ]
    with_title = [one._replace(query=f"{documents[one.document].title} {one.query}") for one in without]
    return {
        WITH_TITLE: ContextSet(documents, with_title, "accuracy", _TOKENS),
        WITHOUT_TITLE: ContextSet(documents, without, "accuracy", _TOKENS),
    }


def _leans(words: list[str]) -> bool:
    return len(words) >= _LEAST_WORDS and words[0].lower() in _PRONOUNS


def _third(text: str, rng: np.random.Generator) -> str:
    """A third of a text's words at random, at least one, in their order."""
    words = text.split()
    taken = rng.choice(len(words), size=-(-len(words) // 3), replace=False)
    return " ".join(words[i] for i in sorted(taken))
