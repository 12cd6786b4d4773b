"""Write the figures of this folder into the pages, and draw the plots: `python results/tables.py`.

A page is README.md or one of docs/. A marker is `<!-- name -->`, and `<!-- /name -->` after what is generated.
"""

from __future__ import annotations

import json
import math
import re
from itertools import chain
from pathlib import Path
from typing import Any

import numpy as np
from card import card, losses
from plots import draw_all, read
from scale import cost, encode_table, killed_table, million
from speed import bench, lengths, lengths_table, markdown, onnx_table, ragged, starts
from tools import integrations

from lam_model.evaluation.context import context_table
from lam_model.evaluation.scores import table
from lam_model.folder.base import sha256
from lam_model.folder.build import PACKAGED_WEIGHTS

RESULTS = Path(__file__).parent
ROOT = RESULTS.parent
CARD = ROOT / "model_card.md"
PAGES = (ROOT / "README.md", *sorted((ROOT / "docs").rglob("*.md")))
STS = ("STSBenchmark", "STS12", "STS16", "SICK-R")
SCIFACT_ROWS = ("LAM, 256 tokens", "LAM, whole texts", "LAM's queries on MiniLM's documents")


# The blocks that may be of weights before the packaged ones, which they say then: to measure all takes hours.
MAY_BE_EARLIER = {
    "comparison": "long.json",
    "lengths": "lengths.json",
    "lengths-table": "lengths.json",
    "ragged": "ragged.json",
    "long": "long.json",
    "carried": "carried.json",
    "state": "state.json",
    "context-sizes": "context-sizes.json",
    "onnx": "onnx.json",
    "mixed": "mixed.json",
    "dims": "dims.json",
    "bench": "bench.json",
}


def blocks() -> dict[str, str]:
    """What stands between the markers, by their names."""
    made = _blocks()
    weights = sha256(PACKAGED_WEIGHTS)
    for name, file in MAY_BE_EARLIER.items():
        if (of := read(file).get("deltanet_sha256", weights)) != weights:
            which = "Those of long articles, time and memory" if name == "comparison" else "These figures"
            made[name] += f"\n\n{which} are of weights before the packaged ones (sha256 {of[:8]})."
    return made


def _blocks() -> dict[str, str]:
    evaluation, held_out = read("eval.json"), read("compare.json")["held_out"]
    return {
        "headline": f"**A cosine of {held_out['cosine']:.3f}** between LAM's vectors and those of all-MiniLM-L6-v2, on "
        f"{held_out['texts']} texts that LAM was not trained on.",
        "comparison": comparison(),
        "scores": f"{table(evaluation['scores'], evaluation['tasks'])}\n\n{losses(evaluation['scores'])} "
        f"Mean cosine to MiniLM's vectors on {held_out['texts']} held-out texts, queries and documents of up to "
        f"{held_out['max_tokens']} tokens: **{held_out['cosine']:.4f}** "
        f"(mean of the worst 5 %: {held_out['worst_5_percent']:.4f}).",
        "genres": genres(),
        "lengths": lengths(read("lengths.json")["lengths"]),
        "lengths-table": lengths_table(read("lengths.json")["lengths"]),
        "ragged": ragged(read("ragged.json")),
        "long": long(read("long.json")),
        "carried": carried(read("carried.json")),
        "context": context(read("context.json")),
        "context-summary": context_summary(read("context.json")["scores"]),
        "context-sizes": context_table(*(read("context-sizes.json")[name] for name in ("scores", "tasks"))),
        "state": state(read("state.json")),
        "onnx": onnx_table(read("onnx.json")),
        "training": training(),
        "mixed": mixed(read("mixed.json")),
        "tuning": tuning(),
        "ablations": ablations(),
        "dims": dims(read("dims.json")["scores"]),
        "bench": bench(read("bench.json")),
        "starts": starts(read("bench.json")["starts"]),
        "integrations": integrations(),
        "encode": encode_table("encode.json"),
        "encode-avx2": encode_table("encode-avx2.json"),
        "killed": killed_table(),
        "cost": cost(),
        "million": million(),
    }


def comparison() -> str:
    """LAM beside MiniLM in one table: quality, speed, memory and length."""
    scores = read("eval.json")["scores"]
    articles = {name: row["articles"] for name, row in read("long.json")["scores"].items()}
    lam, minilm = scores["LAM, 256 tokens"], scores["MiniLM, 256 tokens"]
    sts = [sum(row[task] for task in STS) / len(STS) for row in (lam, minilm)]
    pieces, first = articles["MiniLM, mean of pieces"], articles["MiniLM, 256 tokens"]
    measured = read("lengths.json")["lengths"]
    lines = [
        ["", "LAM", "all-MiniLM-L6-v2"],
        ["---"] * 3,
        ["longest text", "any", "256 tokens; the rest is cut off"],
        ["similarity: mean of four STS tasks", *(f"{score:.2f}" for score in sts)],
        ["retrieval: SciFact, first 256 tokens", f"{lam['SciFact']:.2f}", f"{minilm['SciFact']:.2f}"],
        [
            "retrieval: SciFact, whole texts",
            f"{scores['LAM, whole texts']['SciFact']:.2f}",
            f"{scores['MiniLM, 512 tokens']['SciFact']:.2f}, first 512 tokens",
        ],
        ["long articles, one vector", f"{articles['LAM']:.2f}", f"{first:.2f}; mean of pieces: {pieces:.2f}"],
        [
            "long articles, best passage",
            f"{articles['LAM, best passage']:.2f}",
            f"{articles['MiniLM, best piece']:.2f}, best piece",
        ],
    ]
    for length, note in (("512", ""), ("8192", ", made to read it whole")):
        cells = [f"{1000 * measured[name][length]['seconds']:,.0f} ms" for name in ("LAM", "MiniLM")]
        lines.append([f"time, one text of {int(length):,} tokens", cells[0], cells[1] + note])
    for length, note in (("512", ""), ("16384", ", made to read it whole")):
        cells = [f"{measured[name][length]['peak_mb']:.0f} MB" for name in ("LAM", "MiniLM")]
        lines.append([f"peak memory, one text of {int(length):,} tokens", cells[0], cells[1] + note])
    return (
        f"{markdown(lines)}\n\nSimilarity is Spearman's correlation, retrieval nDCG@10, both in percent. Keyword "
        f"search (BM25) has {scores['BM25']['SciFact']:.2f} on SciFact and {articles['BM25']:.2f} on the articles. "
        f"MiniLM's pieces have 510 tokens. Times and memory are of torch in float32 on two CPU cores."
    )


def genres() -> str:
    """The cosine to the base by kind of text, before and after the runs that learned from all kinds."""
    files = {
        "before": "distill/genres/compare-before.json",
        "distilled on with genres": "distill/genres/compare.json",
        "packaged": "compare.json",
    }
    found = {name: read(file)["genres"] for name, file in files.items()}
    lines = [["kind of text", "texts", *files], ["---"] * (len(files) + 2)]
    for genre, row in found["packaged"].items():
        lines.append([genre, f"{row['texts']}", *(f"{rows[genre]['cosine']:.4f}" for rows in found.values())])
    return markdown(lines)


def long(measured: dict[str, Any]) -> str:
    """Retrieval among long documents: real ones, and apart from them facts hidden in texts of so many tokens."""
    sets, scores = measured["tasks"], measured["scores"]
    hidden = {kind: [name for name in sets if name.startswith(f"{kind} ")] for kind in ("needle", "passkey")}
    real = [name for name in sets if name not in chain(*hidden.values())]
    parts = []
    for kind, names in {"": real, **hidden}.items():
        heads = [f"{kind}, in tokens" if kind else "", *(name.removeprefix(f"{kind} ") for name in names)]
        lines = [heads, ["---"] * len(heads)]
        for row, by_set in scores.items():
            lines.append([row, *(f"{by_set[name]:g}" if name in by_set else "" for name in names)])
        parts.append(markdown(lines))
    about = (f"{name}: {sets[name]['queries']:,} queries, {sets[name]['documents']} documents" for name in real)
    first = sets[hidden["passkey"][0]]
    return "\n\n".join(
        [
            f"nDCG@10 in percent among whole documents ({'; '.join(about)}):",
            parts[0],
            f"Percent of the queries whose document is ranked first, among {first['documents']} documents of one "
            f"length. Each document hides one fact (needle) or one pass key:",
            *parts[1:],
            f"LAM in {measured['dtype']}, MiniLM in float32.",
        ]
    )


def state(measured: dict[str, Any]) -> str:
    """What the states that passages start from are worth, and how far back they reach."""
    first = next(iter(measured["states"].values()))
    asked = {name: "all" if "made up" not in name else "first" for name in first}
    heads = [f"{name}: {'first hits' if kind == 'first' else 'all / within'}" for name, kind in asked.items()]
    lines = [["passages start from", *heads], ["---"] * (len(first) + 1)]
    for name, sets in measured["states"].items():
        cells = [
            f"{sets[one]['first']:.1f} ± {sets[one]['first_error']:.1f}"
            if kind == "first"
            else f"{sets[one]['all']:.1f} ± {sets[one]['all_error']:.1f} / {sets[one]['within']:.1f}"
            for one, kind in asked.items()
        ]
        lines.append([name, *cells])
    back = [["passages start from", *(f"{n} back" for n in measured["back"]["none"])]]
    back.append(["---"] * len(back[0]))
    for name, sets in measured["back"].items():
        back.append([name, *(f"{one['all']:.1f} ± {one['all_error']:.1f}" for one in sets.values())])
    return f"{markdown(lines)}\n\n{markdown(back)}"


def carried(measured: dict[str, Any]) -> str:
    """Whether the carried state finds more pass keys."""
    lines = [["tokens of the texts", "pass keys", "with the carried state", "without it", "difference"], ["---"] * 5]
    for length, row in measured["found"].items():
        found, without = row["LAM"], row["LAM without carried state"]
        difference = f"{found - without:+.1f} ± {row['standard_error']:.1f}"
        lines.append([length, f"{row['keys']:,}", f"{found:.1f}", f"{without:.1f}", difference])
    return markdown(lines)


def context(measured: dict[str, Any]) -> str:
    """Retrieval of passages that are part of a document."""
    sets = measured["tasks"]
    about = (f"{name}: {one['queries']:,} queries, {one['documents']} documents" for name, one in sets.items())
    return f"{context_table(measured['scores'], sets)}\n\nQueries and documents: {'; '.join(about)}."


def context_summary(scores: dict[str, Any]) -> str:
    """What to see in the plot of passages against their size, by the size that is not in it."""
    rows = {
        "LAM's passages alone": "LAM alone",
        "LAM's passages in their document": "LAM in its document",
        "the same fused with BM25": "LAM in its document + BM25",
        "BM25": "BM25",
    }
    found = {name: scores[row]["fairytale-val"]["80"] for name, row in rows.items()}
    parts = (f"{name} {one['all']:.1f} and {one['within']:.1f}" for name, one in found.items())
    return (
        "People's questions about stories; left: among the passages of all stories, right: among those of the right "
        f"story. With passages of up to 80 tokens nDCG@10 is, left and right: {', '.join(parts)}. "
        "Figures of different sizes are not to be compared: longer passages are fewer, so the right one is easier to "
        "find."
    )


def tuning() -> str:
    """What tuning did, beside the weights that it started from."""
    lines = [["weights", *STS, "mean", "SciFact, 256 tokens", "whole texts", "LAM's queries on MiniLM's documents"]]
    lines.append(["---"] * len(lines[0]))
    files = {"packaged": "eval.json"}
    files |= {
        path.parent.name: f"tune/{path.parent.name}/eval.json" for path in sorted(RESULTS.glob("tune/*/eval.json"))
    }
    for name, file in files.items():
        rows = read(file)["scores"]
        scores = [rows["LAM, 256 tokens"][task] for task in STS]
        cells = [*scores, sum(scores) / len(scores)]
        cells += [rows.get(row, {}).get("SciFact") for row in SCIFACT_ROWS]
        lines.append([name, *("" if cell is None else f"{cell:.2f}" for cell in cells)])
    pairs = read("tune/scifact/pairs.json")
    other = [["", "MiniLM", "LAM", "LAM, tuned (`scifact`)"], ["---"] * 4]
    other.append(["nDCG@10", *(f"{score:.2f}" for score in pairs["ndcg_at_10"].values())])
    return (
        f"{markdown(lines)}\n\nOther retrieval before and after `scifact`: {pairs['queries']:,} questions, titles and "
        f"terms among {pairs['passages']:,} passages:\n\n{markdown(other)}\n\n"
        f"{kept(read('tune/long/scifact.json'))}"
    )


def kept(measured: dict[str, Any]) -> str:
    """What tuning on long documents left of SciFact, by more queries than mteb asks."""
    lines = [["texts", "queries", "number", "before", "after", "standard error of the difference"], ["---"] * 6]
    for length, splits in measured["ndcg_at_10"].items():
        for name, scores in splits.items():
            number = measured["queries"].get(name, sum(measured["queries"].values()))
            figures = (f"{scores[key]:.2f}" for key in ("before", "after", "standard_error"))
            lines.append([length, name, f"{number:,}", *figures])
    return (
        "SciFact before and after `long`, by all of its judged queries (nDCG@10). Neither weights were trained on them:"
        f"\n\n{markdown(lines)}"
    )


def ablations() -> str:
    """The last held-out scores of short runs, and what they gained."""
    lines = [["run", "SciFact, training queries (nDCG@10)", "STS-B (Spearman)", "cosine to MiniLM"]]
    lines.append(["---"] * len(lines[0]))
    for path in sorted(RESULTS.glob("tune/ablations/*/log.jsonl")):
        rows = [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]
        first, *_, last = (row for row in rows if "eval_score" in row)
        cells = [
            f"{last[key]:.2f} ({last[key] - first[key]:+.2f})"
            for key in ("eval_scifact", "eval_stsbenchmark-sts", "eval_cosine")
        ]
        lines.append([path.parent.name, *cells])
    return markdown(lines)


def dims(scores: dict[str, dict[str, dict[str, float]]]) -> str:
    """Scores of vectors cut to fewer numbers, LAM's and MiniLM's."""
    lines = [["model", "numbers", *STS, "mean", "SciFact, 256 tokens"]]
    lines.append(["---"] * len(lines[0]))
    for name, by_dim in scores.items():
        for dim, by_task in by_dim.items():
            sts = [by_task[task] for task in STS]
            cells = [*sts, sum(sts) / len(sts), by_task["SciFact"]]
            lines.append([name, dim, *(f"{cell:.2f}" for cell in cells)])
    return markdown(lines)


def model_card() -> str:
    """The whole text of model_card.md."""
    return card(read("eval.json"), read("compare.json"), training())


def training() -> str:
    """A sentence or two on the runs that led to the packaged weights."""
    log = training_log()
    tokens = sum(max(row["tokens"] for row in rows) for rows in log)
    minutes = sum(rows[-1]["seconds"] for rows in log) / 60
    final = [row for rows in log for row in rows if "long_cosine" in row][-1]
    genres, context = read("distill/genres/run.json"), [read(f"context/{run}/run.json") for run in range(1, 5)]
    return (
        f"Distillation took {sum(rows[-1]['step'] for rows in log):,} steps in {len(log)} runs, one after another: "
        f"{tokens / 1e6:.1f}M tokens, {minutes:.0f} minutes on two CPU cores. At the end, the cosine between LAM's "
        f"vectors of held-out documents (up to 8k tokens) and the mean of MiniLM's vectors of their pieces was "
        f"{final['long_cosine']:.4f}. {prediction(log)} A last run added {genres['final']['tokens'] / 1e6:.1f}M tokens "
        f"of more genres. Context training took {sum(run['recipe']['steps'] for run in context):,} steps in "
        f"{len(context)} runs. The last began from the third's weights plus half of what the second had changed."
    )


def prediction(log: list[list[dict[str, Any]]]) -> str:
    """What more tokens of stage 2 would give, by a power law through the ends of the runs that were annealed."""
    total, ends = 0, []
    for rows in log:
        rates = [row["lr"] for row in rows if row["stage"] == 2 and "lr" in row]
        if rates:
            total += rows[-1]["tokens"]
            if rates[-1] < 0.01 * max(rates):
                ends.append((total / 1e6, 1 - [row["cosine"] for row in rows if "cosine" in row][-1]))
    power, factor = np.polyfit(*np.log(np.array(ends)).T, 1)
    expected = ", ".join(f"{1 - math.exp(factor) * tokens**power:.3f} at {tokens}M" for tokens in (10, 30, 100, 500))
    return (
        f"The error (1 - cosine) at the ends of {len(ends)} runs follows {math.exp(factor):.4f} x (million tokens of "
        f"stage 2)^{power:.3f}, which gives a cosine of {expected}."
    )


def training_log() -> list[list[dict[str, Any]]]:
    """The logs of the runs that led to the packaged weights, each started from the one before."""
    files = sorted((RESULTS / "distill").glob("*.jsonl"))
    return [[json.loads(line) for line in file.read_text(encoding="utf-8").splitlines()] for file in files]


def mixed(measured: dict[str, Any]) -> str:
    """What LAM's queries find less among MiniLM's vectors than MiniLM's own."""
    last = measured["weights"][-1]
    lines = [["queries of", "queries", "MiniLM's queries", "LAM's queries", "loss", "loss for each 0.01 of cosine"]]
    lines.append(["---"] * len(lines[0]))
    for name, own in measured["minilm"].items():
        found, line = last[name], measured["trend"][name]
        lines.append(
            [
                name,
                f"{measured['queries'][name]:,}",
                f"{own:.2f}",
                f"{found['ndcg_at_10']:.2f}",
                f"{own - found['ndcg_at_10']:.2f} ± {found['standard_error']:.2f}",
                f"{line['lost']:.2f} ± {line['standard_error']:.2f}",
            ]
        )
    first, own = next(iter(measured["minilm"].items()))
    surest = min(measured["trend"], key=lambda name: measured["trend"][name]["standard_error"])
    expected = own - 100 * (1 - last[first]["cosine"]) * measured["trend"][surest]["lost"]
    return (
        f"{markdown(lines)}\n\nThe last column is the slope of a line through all {len(measured['weights'])} weights "
        f"that were ever packaged. The slope of `{surest}` has the smallest standard error. It predicts "
        f"{expected:.2f} for LAM's queries on `{first}`; {last[first]['ndcg_at_10']:.2f} was measured. With errors as "
        f"large as LAM's, but exchanged at random between the queries, MiniLM's queries have "
        f"{last['by_chance']['mean']:.2f} ± {last['by_chance']['deviation']:.2f} there."
    )


def filled() -> dict[Path, str]:
    """The text of each page, with everything between its markers as it should be.

    Raises:
        ValueError: a marker without a block, or a block without a place.
    """
    made, texts, used = blocks(), {}, set()
    for path in PAGES:
        texts[path] = path.read_text(encoding="utf-8")
        for name in re.findall(r"<!-- /(\S+) -->", texts[path]):
            if name not in made:
                raise ValueError(f"{path} has a marker `{name}`, which nothing fills")
            pattern = re.compile(rf"(?<=<!-- {name} -->\n).*?(?=<!-- /{name} -->)", re.DOTALL)
            texts[path] = pattern.sub(lambda _, name=name: f"{made[name]}\n", texts[path])
            used.add(name)
    if unused := sorted(made.keys() - used):
        raise ValueError(f"no page has a marker for {', '.join(unused)}")
    return texts


if __name__ == "__main__":
    for page, text in filled().items():
        page.write_text(text, encoding="utf-8")
    CARD.write_text(model_card(), encoding="utf-8")
    draw_all()
