"""What `python benchmarks/million.py` found, as a table and a sentence."""

from __future__ import annotations

import json
from pathlib import Path

from speed import markdown

FIGURES = Path(__file__).parent / "million.json"


def million() -> str:
    """A row for each figure, a column for each of the two indexes."""
    found = json.loads(FIGURES.read_text(encoding="utf-8"))
    both = [found["real_alone"], found["million"]]
    built, searched = [one["build"] for one in both], [one["search"] for one in both]
    lines = [["", *(f"{one['passages']:,} passages" for one in built)], ["---", "---", "---"]]
    lines += [
        ["recall@10, questions", *(f"{one['recall_at_10_questions']:.3f}" for one in searched)],
        [
            "recall@10, passages that are not in the index",
            *(f"{one['recall_at_10_held_out_passages']:.3f}" for one in searched),
        ],
        ["recall@10 as printed by `lam index`", *(f"{one['recall_at_10_printed']:.3f}" for one in built)],
        ["one query, vectors alone", *(f"{one['milliseconds_vectors']['median']} ms" for one in searched)],
        ["one query, hybrid", *(f"{one['milliseconds_hybrid']['median']} ms" for one in searched)],
        ["one query, all vectors compared", *(f"{one['milliseconds_exact']} ms" for one in searched)],
        ["making the indexes", *(f"{one['of_these_indexing'] / 60:.0f} min" for one in built)],
        ["adding 100 documents", *(f"{one['seconds_to_add_100_documents']} s" for one in searched)],
        ["peak memory, building", *(f"{one['peak_memory_gb']} GB" for one in built)],
        ["peak memory, searching", *(f"{one['peak_memory_gb']} GB" for one in searched)],
        ["on disk", *(f"{one['gigabytes_on_disk']} GB" for one in built)],
    ]
    real, whole = (f"{one['passages']:,}" for one in built)
    return (
        f"{markdown(lines)}\n\nThe texts are real. Of the vectors of the {whole} passages, about {real} are real. The "
        "others are made: a real one plus 0.3 times the difference of two real ones, normalised. Queries are 500 "
        "questions and 500 passages, with real vectors. Times are without the model, on a machine that was busy with "
        "other work too."
    )
