"""Make `corpus.jsonl` beside this file: 4 whole articles, some 300 arXiv abstracts, some 90 answers on health.

    python demo/make_corpus.py DATA

DATA holds `pairs.parquet` and `long.parquet`. The choice is a function of these files and the seed alone.
"""

from __future__ import annotations

import json
import random
import re
import sys
from pathlib import Path

from pyarrow import parquet

SEED = 0
EACH = 6  # documents a topic

ARXIV_TOPICS = (
    *("galaxy", "black holes?", "exoplanets?", "solar", "asteroids?", "dark matter", "gravitational waves?"),
    *("neutrinos?", "lasers?", "graphene", "superconductors?", "turbulence", "quantum computing", "entanglement"),
    *("battery|batteries", "wind", "climate", "weather", "ocean", "earthquakes?", "water", "urban", "traffic"),
    *("markets?", "economic|economy", "auctions?", "inequality", "elections?|voting", "social media"),
    *("misinformation", "gender", "privacy", "students?", "education", "music", "sports?|football", "chess|games?"),
    *("robots?", "drones?", "translation", "speech", "software", "cryptograph\\w*", "primes?", "brain", "sleep"),
    *("proteins?", "epidemics?", "animals?|birds?", "crops?|agriculture"),
)
MACHINE_LEARNING = re.compile(
    r"learn|neural|network|model|transformer|diffusion|attention|prompt|benchmark|dataset|LLM|agent|embedding|token",
    re.IGNORECASE,
)
HEALTH_TOPICS = (
    *("sleep", "asthma", "diabetes", "anemia", "kidney", "heart", "blood pressure", "stroke", "migraine|headache"),
    *("allergy|hay fever", "skin|psoriasis|acne", "eye|glaucoma|cataract", "bone|osteoporosis|arthritis", "lung"),
    *("stomach|ulcer|celiac", "hearing|balance"),
)
# Published by BioMed Central, each under the Creative Commons Attribution License that its page names.
ARTICLES = {
    "Coffee intake and development of pain during computer work": (
        "Strøm, Røe, Knardahl, BMC Research Notes 5:480 (2012), doi:10.1186/1756-0500-5-480"
    ),
    "The effect of high correlated colour temperature office lighting on employee wellbeing and work performance": (
        "Mills, Tomkins, Schlangen, Journal of Circadian Rhythms 5:2 (2007), doi:10.1186/1740-3391-5-2"
    ),
    "Singing teaching as a therapy for chronic respiratory disease - a randomised controlled trial and "
    "qualitative evaluation": (
        "Lord, Cave, Hume, Flude, Evans, Kelly, Polkey, Hopkinson, BMC Pulmonary Medicine 10:41 (2010), "
        "doi:10.1186/1471-2466-10-41"
    ),
    "Do federal and state audits increase compliance with a grant program to improve municipal infrastructure "
    "(AUDIT study): study protocol for a randomized controlled trial": (
        "De La O, Martel García, BMC Public Health 14:912 (2014), doi:10.1186/1471-2458-14-912"
    ),
}


def rows(path: Path, source: str, title: str, text: str) -> list[tuple[str, str]]:
    """(title, text) of all rows of a source, in the file's order."""
    table = parquet.read_table(path, columns=[title, text], filters=[("source", "=", source)])
    return [(row[title], row[text]) for row in table.to_pylist()]


def choose(candidates: list[tuple[str, str]], topics: tuple[str, ...]) -> list[tuple[str, str]]:
    """For each topic some documents that have it in their title, none twice."""
    candidates = sorted(candidates)
    random.Random(SEED).shuffle(candidates)
    chosen: dict[str, tuple[str, str]] = {}
    for topic in topics:
        wanted = re.compile(rf"\b({topic})\b", re.IGNORECASE)
        found = (c for c in candidates if wanted.search(c[0]) and c[0] not in chosen)
        for document, _ in zip(found, range(EACH), strict=False):
            chosen[document[0]] = document
    return list(chosen.values())


def articles(folder: Path) -> list[dict[str, str]]:
    """The whole articles, without the marks that are left of their references, figures and tables."""
    texts = dict(rows(folder / "long.parquet", "pmc", "title", "text"))
    documents = []
    for title, citation in ARTICLES.items():
        text = re.sub(r"\s*\[[\s,;\u2013-]*\]", "", texts[title])
        text = re.sub(r" +([.,;])", r"\1", text).strip()
        documents.append({"title": title, "text": text, "source": citation, "licence": "CC BY"})
    return documents


def abstracts(folder: Path) -> list[dict[str, str]]:
    """arXiv's: of readable length, without formulas, and not all on machine learning as most of them are."""
    found = rows(folder / "pairs.parquet", "arxiv", "query", "passage")
    found = [(q, p) for q, p in found if 500 <= len(p) <= 1800 and not re.search(r"[$\\{}^_]|http", q + p)]
    chosen = choose([(q, p) for q, p in found if not MACHINE_LEARNING.search(q)], ARXIV_TOPICS)
    return [{"title": q, "text": p, "source": "arXiv", "licence": "CC0 1.0"} for q, p in chosen]


def answers(folder: Path) -> list[dict[str, str]]:
    """MedQuAD's answers to "What is (are) X ?"."""
    found = rows(folder / "pairs.parquet", "medquad", "query", "passage")
    found = [(q[len("What is (are) ") : -2], p) for q, p in found if q.startswith("What is (are) ")]
    chosen = choose([(q, p) for q, p in found if 400 <= len(p) <= 2400 and len(q) < 60], HEALTH_TOPICS)
    return [{"title": q, "text": p, "source": "MedQuAD", "licence": "CC BY 4.0"} for q, p in chosen]


def main(folder: Path) -> None:
    documents = articles(folder) + abstracts(folder) + answers(folder)
    with open(Path(__file__).with_name("corpus.jsonl"), "w", encoding="utf-8") as file:
        for number, document in enumerate(documents, start=1):
            file.write(json.dumps({"_id": f"{number:03}", **document}, ensure_ascii=False) + "\n")


if __name__ == "__main__":
    main(Path(sys.argv[1]))
