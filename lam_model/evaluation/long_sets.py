"""Retrieval among long documents: real articles, and facts hidden in long texts by the recipes of LongEmbed."""

from __future__ import annotations

import re
import sys
from collections.abc import Iterator, Sequence
from itertools import cycle, islice
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
from tqdm import tqdm

from .scores import reading_from

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

    from ..corpus.documents import Document

LENGTHS = tuple(256 << i for i in range(8))  # tokens, as in LongEmbed: 256 to 32,768
LONGEMBED = (
    "LEMBNarrativeQARetrieval",
    "LEMBQMSumRetrieval",
    "LEMBSummScreenFDRetrieval",
    "LEMBWikimQARetrieval",
    "LEMBNeedleRetrieval",
    "LEMBPasskeyRetrieval",
)
_THIRDS = 3
_QUERY_WORDS = (8, 40)  # of a sentence that is a query
_SENTENCE_END = re.compile(r"(?<=[.!?])\s+(?=[A-Z])")

_PASSKEY_TASK = (
    "There is an important info hidden inside a lot of irrelevant text. Find it and memorize it. "
    "I will quiz you about the important information there."
)
_PASSKEY_FILLER = (
    "The grass is green.",
    "The sky is blue.",
    "The sun is yellow.",
    "Here we go.",
    "There and back again.",
)
# fmt: off
_PEOPLE = (
    "Amara Okafor", "Boris Lindqvist", "Chloe Moreau", "Dmitri Sokolov", "Elena Petrova", "Farid Haddad",
    "Greta Hofmann", "Hiro Tanaka", "Ingrid Solberg", "Jamal Whitfield", "Keiko Mori", "Lars Nyberg",
    "Maeve Gallagher", "Nikhil Rao", "Olivia Carrington", "Pablo Herrera", "Quentin Dubois", "Rosa Delgado",
    "Samir Nasser", "Tova Bergman", "Umberto Conti", "Valeria Rossi", "Wendell Pierce", "Ximena Flores",
    "Yusuf Demir", "Zofia Nowak", "Arjun Mehta", "Beatrix Vogel", "Caleb Turner", "Daria Ivanova", "Emeka Nwosu",
    "Fiona Campbell", "Gustav Eriksen", "Hanna Weiss", "Ismael Ortega", "Jolanda Bakker", "Kwame Mensah",
    "Leila Farouk", "Magnus Thorsen", "Noemi Szabo", "Oskar Jansson", "Priya Nair", "Rafael Costa", "Sigrid Aalto",
    "Tomas Novak", "Uma Krishnan", "Viktor Horvat", "Winona Blake", "Yara Aziz", "Zane Mitchell",
)
_CITIES = (
    "Lisbon", "Kyoto", "Nairobi", "Montreal", "Prague", "Valparaiso", "Hanoi", "Oslo", "Marrakesh", "Tbilisi",
    "San Francisco", "Cusco", "Dublin", "Istanbul", "Melbourne", "Reykjavik", "Zanzibar", "Vienna", "Havana", "Seoul",
    "Edinburgh", "Jaipur", "Buenos Aires", "Tallinn", "Cape Town", "Naples", "Chicago", "Luang Prabang", "Porto",
    "Helsinki", "Cartagena", "Athens", "Vancouver", "Krakow", "Beirut", "Wellington", "Seville", "Ulaanbaatar",
    "New Orleans", "Bergen", "Dakar", "Singapore", "Sarajevo", "Quito", "Bruges", "Muscat", "Yerevan", "Honolulu",
    "Antwerp", "Kathmandu",
)
# fmt: on
_DOINGS = (
    "eat a sandwich and sit in the park on a sunny day",
    "take the first ferry and watch the harbour wake up",
    "climb the old bell tower just before sunset",
    "drink mint tea with the chess players behind the market",
    "borrow a bicycle and follow the river out of town",
)


class RetrievalSet(NamedTuple):
    """Queries and the documents that they are asked of.

    Args:
        queries, documents: texts.
        relevant: of each query, the indices of the documents that answer it.
        metric: `accuracy` of the first rank, or `ndcg@10`.
    """

    queries: list[str]
    documents: list[str]
    relevant: list[set[int]]
    metric: str

    def about(self) -> dict[str, Any]:
        """How large the set is and what its score is."""
        return {"queries": len(self.queries), "documents": len(self.documents), "metric": self.metric}


def all_sets(
    tokenizer: PreTrainedTokenizerBase, documents: Sequence[Document], folder: Path | None = None
) -> dict[str, RetrievalSet]:
    """The sets of LongEmbed that are at hand, and those that are built: real documents first, the longest texts last.

    Args:
        tokenizer: counts the tokens that a text may have.
        documents: real ones, for `articles` and as the haystack of `needle`; without them there are only pass keys.
        folder: holds LongEmbed's data as on the Hub; if None, they come from the Hub, if it can be reached.

    Raises:
        ImportError: mteb is not installed.
    """
    sets, haystack = longembed(folder), []
    if documents:
        sets["articles"], haystack = articles(documents), counted_sentences(tokenizer, documents)
    for length in LENGTHS:
        if haystack:
            sets[f"needle {length:,}"] = needle(tokenizer, length, haystack)
        sets[f"passkey {length:,}"] = passkey(tokenizer, length)
    return sets


def articles(documents: Sequence[Document]) -> RetrievalSet:
    """Real documents, each asked for by its title and by a sentence from each third of it.

    A title is not part of what is encoded: it would be found for its words.
    """
    queries, relevant = [], []
    for i, document in enumerate(documents):
        found = queries_of(document)
        queries += found
        relevant += [{i}] * len(found)
    return RetrievalSet(queries, [document.text for document in documents], relevant, "ndcg@10")


def queries_of(document: Document) -> list[str]:
    """What a long document is asked for by: its title, if it has one, and a whole sentence from each third of it."""
    return list(filter(None, [document.title, *map(_middle_sentence, _thirds(document.text))]))


def passkey(tokenizer: PreTrainedTokenizerBase, length: int, seed: int = 0) -> RetrievalSet:
    """Personal pass keys, each hidden in a text of five short sentences over and over.

    Zhu et al., "LongEmbed: Extending Embedding Models for Long Context Retrieval" (2024), section 3.
    """
    rng = np.random.default_rng([seed, length])
    keys = zip(_PEOPLE, rng.choice(np.arange(10_000, 100_000), len(_PEOPLE), replace=False), strict=True)
    facts = [f"{name}'s pass key is {key}. Remember it. {key} is the pass key for {name}." for name, key in keys]
    counts = _token_counts(tokenizer, [_PASSKEY_TASK, *_PASSKEY_FILLER])
    documents = []
    for fact, room in zip(facts, _rooms(tokenizer, facts, length), strict=True):
        filler = cycle(zip(_PASSKEY_FILLER, counts[1:], strict=True))
        documents.append(f"{_PASSKEY_TASK} {_hide(fact, _fill(filler, room - counts[0]), rng)}")
    return RetrievalSet([f"What is the pass key for {name}?" for name in _PEOPLE], documents, *_one_each(_PEOPLE))


def needle(
    tokenizer: PreTrainedTokenizerBase, length: int, haystack: Sequence[tuple[str, int]], seed: int = 0
) -> RetrievalSet:
    """Facts such as "the best thing to do in Lisbon is ...", each hidden in a real text on something else.

    The needle is Kamradt's ("Needle In A Haystack", 2023), for many cities; one needle a document as in LongEmbed. Its
    haystack, Graham's essays, may not be passed on: here it is other texts, from a random sentence on.

    Args:
        haystack: as from `counted_sentences`.
    """
    rng = np.random.default_rng([seed, length])
    facts = [f"The best thing to do in {city} is {_DOINGS[i % len(_DOINGS)]}." for i, city in enumerate(_CITIES)]
    documents = []
    for fact, room in zip(facts, _rooms(tokenizer, facts, length), strict=True):
        start = int(rng.integers(len(haystack)))
        documents.append(_hide(fact, _fill(islice(cycle(haystack), start, None), room), rng))
    return RetrievalSet(
        [f"What is the best thing to do in {city}?" for city in _CITIES], documents, *_one_each(_CITIES)
    )


def counted_sentences(tokenizer: PreTrainedTokenizerBase, documents: Sequence[Document]) -> list[tuple[str, int]]:
    """The sentences of documents, one after another, with their numbers of tokens."""
    sentences = [sentence for document in documents for sentence in _SENTENCE_END.split(document.text)]
    return list(zip(sentences, _token_counts(tokenizer, sentences), strict=True))


def longembed(folder: Path | None = None) -> dict[str, RetrievalSet]:
    """The sets of mteb's LongEmbed tasks, by task and split; those that cannot be had are named on stderr."""
    sets = {}
    with reading_from(folder):
        try:
            import mteb
        except ImportError as error:
            raise ImportError("LongEmbed needs mteb: pip install 'lam-model[mteb]'") from error
        for task in mteb.get_tasks(tasks=list(LONGEMBED)):
            try:
                task.load_data()
            except (OSError, ValueError) as error:  # of the Hub, of datasets
                reason = str(error).strip().splitlines()[0]
                tqdm.write(f"{task.metadata.name} is left out: {reason}", file=sys.stderr)
                continue
            metric = {"ndcg_at_1": "accuracy", "ndcg_at_10": "ndcg@10"}[task.metadata.main_score]
            for split, data in task.dataset["default"].items():
                sets[f"{task.metadata.name} {split}"] = _from_mteb(data, metric)
    return sets


def _from_mteb(data: Any, metric: str) -> RetrievalSet:
    place = {name: i for i, name in enumerate(data["corpus"]["id"])}
    judged = data["relevant_docs"]
    return RetrievalSet(
        list(data["queries"]["text"]),
        list(data["corpus"]["text"]),
        [{place[name] for name, score in judged[query].items() if score} for query in data["queries"]["id"]],
        metric,
    )


def _one_each(queries: Sequence[str]) -> tuple[list[set[int]], str]:
    return [{i} for i in range(len(queries))], "accuracy"


def _thirds(text: str) -> list[str]:
    size = -(-len(text) // _THIRDS)
    return [text[i : i + size] for i in range(0, len(text), size)]


def _middle_sentence(text: str) -> str | None:
    """The whole sentence of a fair length that is nearest to the middle of a text."""
    sentences = _SENTENCE_END.split(text)[1:-1]  # those at the ends may be cut
    least, most = _QUERY_WORDS
    fair = [i for i, sentence in enumerate(sentences) if least <= len(sentence.split()) <= most]
    return sentences[min(fair, key=lambda i: abs(2 * i - len(sentences)))] if fair else None


def _token_counts(tokenizer: PreTrainedTokenizerBase, texts: Sequence[str]) -> list[int]:
    return list(map(len, tokenizer(list(texts), add_special_tokens=False, verbose=False)["input_ids"]))


def _rooms(tokenizer: PreTrainedTokenizerBase, facts: list[str], length: int) -> list[int]:
    """The number of a document's tokens without [CLS], [SEP] and its fact."""
    return [length - 2 - count for count in _token_counts(tokenizer, facts)]


def _fill(counted: Iterator[tuple[str, int]], room: int) -> list[str]:
    """Sentences in their order, as many as there is room for."""
    taken: list[str] = []
    for sentence, count in counted:
        room -= count
        if room < 0:
            return taken
        taken.append(sentence)
    return taken


def _hide(fact: str, sentences: list[str], rng: np.random.Generator) -> str:
    depth = int(rng.integers(len(sentences) + 1))
    return " ".join([*sentences[:depth], fact, *sentences[depth:]])
