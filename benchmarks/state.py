"""What the states that a passage starts from are worth, and how far back they reach.

`python benchmarks/state.py DATA/context/fairytale-val --articles DATA/train/long.parquet -o results/state.json`.
Passages are read from both states, from the beginning's alone, from the passage before alone, and from none, without
the parts of both vectors that are added to theirs; and with these, from both states and from none. How far back: a
passage is asked for by some of its words and by the rarest words of the passage so many before it, among all passages
of held-out articles.
"""

from __future__ import annotations

import argparse
import re
import shlex
import sys
from collections import Counter
from itertools import chain
from pathlib import Path
from unittest.mock import patch

import numpy as np
from tqdm import tqdm

import lam_model
from lam_model.corpus.documents import Document
from lam_model.evaluation.carrying import carrying
from lam_model.evaluation.context import SIZE, Cut, cut_documents, figures
from lam_model.evaluation.context_sets import ContextSet, Question, made_up_sets, read_context_set
from lam_model.evaluation.provenance import provenance
from lam_model.files import write_json
from lam_model.reading import passages
from lam_model.reading.tokenizing import plain_tokenizer
from lam_model.runtime.sentence_transformers import Lam
from lam_model.training.data import is_held_out_document

BOTH: dict[str, bool] = {"beginning": True, "last": True}
ADDED = {"OF_BEGINNING": passages.OF_BEGINNING, "OF_BEFORE": passages.OF_BEFORE}  # the parts of their vectors
NOT_ADDED = dict.fromkeys(ADDED, 0.0)
WAYS = {
    "both": (BOTH, NOT_ADDED),
    "the beginning": ({"beginning": True}, NOT_ADDED),
    "the passage before": ({"last": True}, NOT_ADDED),
    "none": ({}, NOT_ADDED),
    "both, and their vectors": (BOTH, ADDED),
    "none, and their vectors": ({}, ADDED),
}
DISTANCES = (1, 4, 16, 64)  # passages back
ARTICLES, CHARS, TOKENS = 30, 20_000, 32
ASKED = 300  # passages
OWN, OTHERS = 0.25, 3  # share of a passage's own words in its query, and how many rare words of the other passage


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("folders", nargs="+", type=Path)
    parser.add_argument("--articles", type=Path, required=True)
    parser.add_argument("-o", "--output", type=Path, required=True)
    args = parser.parse_args()
    lam = lam_model.load(device="cpu")
    articles = held_out(args.articles)
    # Sets of the same documents are read once.
    groups = [{folder.name: read_context_set(folder)} for folder in args.folders]
    groups.append(made_up_sets(plain_tokenizer(lam.tokenizer), articles))
    found: dict[str, dict[str, dict[str, float]]] = {name: {} for name in WAYS}
    back: dict[str, dict[str, dict[str, float]]] = {name: {} for name in WAYS}
    far = far_sets(lam, articles)
    with tqdm(total=len(WAYS) * (len(groups) + 1), unit="reading") as progress:
        for way, (kept, added) in WAYS.items():
            for sets in groups:
                found[way] |= score(lam, sets, kept, added)
                progress.update()
            back[way] = score(lam, far, kept, added)
            progress.update()
    write_json(
        args.output,
        {
            "deltanet_sha256": lam.manifest["deltanet_sha256"],
            "states": found,
            "back": back,
            "passages_asked_for": ASKED,
            **provenance(shlex.join(["python", *sys.argv]), [*args.folders, args.articles]),
        },
    )


def held_out(path: Path) -> list[Document]:
    """The articles that no run was trained on."""
    import pyarrow.parquet

    rows = pyarrow.parquet.read_table(path).to_pylist()
    return [Document(row["text"], row["title"]) for row in rows if is_held_out_document(row["text"])]


def score(
    lam: Lam, sets: dict[str, ContextSet], kept: dict[str, bool], added: dict[str, float]
) -> dict[str, dict[str, float]]:
    """The figures of sets of the same documents, read from some states alone."""
    first = next(iter(sets.values()))
    cut: Cut = cut_documents(lam, first, first.size or SIZE)
    with carrying(lam, **kept), patch.multiple(passages, **added):
        read = lam.encode_passages(cut.texts, size=cut.size, title=cut.titles)
    vectors = np.concatenate([one.vectors for one in read])
    return {
        name: figures([lam.encode([q.query for q in one.questions]) @ vectors.T], one.questions, cut.offsets)
        for name, one in sets.items()
    }


def far_sets(lam: Lam, articles: list[Document], seed: int = 0) -> dict[str, ContextSet]:
    """By distance: passages that are asked for by their own words and rare words of the passage so far before."""
    rng = np.random.default_rng(seed)
    chosen = [articles[i]._replace(text=articles[i].text[:CHARS]) for i in rng.permutation(len(articles))[:ARTICLES]]
    cut = cut_documents(lam, ContextSet(chosen, [], size=TOKENS), TOKENS)
    words = [
        [re.findall(r"[a-z]{4,}", text[i:j].lower()) for i, j in offsets.tolist()]
        for text, offsets in zip(cut.texts, cut.offsets, strict=True)
    ]
    counts = Counter(chain(*chain(*words)))
    places = [
        (number, i)
        for number, passages in enumerate(words)
        for i in range(max(DISTANCES), len(passages))
        if len(set(passages[i])) >= 8 and all(len(set(passages[i - back])) >= OTHERS for back in DISTANCES)
    ]
    asked = [places[i] for i in rng.permutation(len(places))[:ASKED]]
    own = {
        place: sorted(rng.permutation(sorted(set(words[place[0]][place[1]])))[: _few(words, place)]) for place in asked
    }
    sets = {}
    for back in DISTANCES:
        questions = []
        for number, i in asked:
            others = set(words[number][i - back]) - set(words[number][i])
            rare = sorted(others, key=lambda word: (counts[word], word))[:OTHERS]
            span = tuple(cut.offsets[number][i].tolist())
            questions.append(Question(" ".join([*rare, *own[number, i]]), number, [span]))
        sets[str(back)] = ContextSet(chosen, questions, "accuracy", TOKENS)
    return sets


def _few(words: list[list[list[str]]], place: tuple[int, int]) -> int:
    return max(2, round(OWN * len(set(words[place[0]][place[1]]))))


if __name__ == "__main__":
    main()
