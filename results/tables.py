"""Write the figures of this folder into README.md, between its markers, and model_card.md.

`python results/tables.py`
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

from lam_model.evaluate import table
from lam_model.training.plot import plot

RESULTS = Path(__file__).parent
README = RESULTS.parent / "README.md"
CARD = RESULTS.parent / "model_card.md"
STS = ("STSBenchmark", "STS12", "STS16", "SICK-R")
SCIFACT_ROWS = ("LAM, 256 tokens", "LAM, whole texts", "LAM's queries on MiniLM's documents")


def blocks() -> dict[str, str]:
    """The generated parts of README.md by the names of their markers."""
    evaluation, held_out = read("eval.json"), read("compare.json")["held_out"]
    return {
        "headline": f"**Cosine {held_out['cosine']:.3f}** to all-MiniLM-L6-v2's own vectors on held-out texts.",
        "scores": f"{table(evaluation['scores'], evaluation['tasks'])}\n\n{losses(evaluation['scores'])} "
        f"Mean cosine to MiniLM's vectors on {held_out['texts']} held-out texts, queries and documents of up to "
        f"{held_out['max_tokens']} tokens: **{held_out['cosine']:.4f}** "
        f"(worst 5 %: {held_out['worst_5_percent']:.4f}).",
        "lengths": lengths(read("lengths.json")["lengths"]),
        "ragged": ragged(read("ragged.json")),
        "long": long(read("long.json")),
        "carried": carried(read("carried.json")),
        "onnx": onnx_table(read("onnx.json")),
        "training": training(),
        "mixed": mixed(read("mixed.json")),
        "tuning": tuning(),
        "ablations": ablations(),
        "dims": dims(read("dims.json")["scores"]),
        "bench": bench(read("bench.json")),
    }


def lengths(measured: dict[str, dict[str, dict[str, float]]]) -> str:
    """What time and memory do as a text grows."""
    lam, stream, minilm = measured["LAM"], measured["LAM, stream"], measured["MiniLM"]
    slower = lam["32768"]["seconds"] / 64 / lam["512"]["seconds"]
    ratios = {int(n): lam[n]["seconds"] / row["seconds"] for n, row in minilm.items()}
    beside = ", ".join(f"{ratio:.2f} at {n:,}" for n, ratio in ratios.items() if n >= 512)
    return (
        f"A token of a text of 32,768 takes {slower:.2f} times as long as one of 512. LAM's time over that of MiniLM "
        f"with its softmax over the whole text, by tokens: {beside}. Peak memory of the process: "
        f"{lam['2048']['peak_mb']:.0f} MB for a text of 2,048 tokens, {lam['32768']['peak_mb']:.0f} for 32,768, "
        f"{lam['131072']['peak_mb']:.0f} for 131,072; as a stream {stream['32768']['peak_mb']:.0f} for 32,768, "
        f"{stream['131072']['peak_mb']:.0f} for 131,072."
    )


def ragged(measured: dict[str, Any]) -> str:
    """Texts of all lengths in one batch, beside batches of one length each and the longest text alone."""
    rows = measured["mixtures"]
    readers = list(dict.fromkeys(row["reader"] for row in rows))
    cells: dict[str, list[str]] = {}
    for row in rows:
        time = row["seconds"] / row["seconds_apart"]
        memory = row["megabytes"] / row["megabytes_of_the_longest"]
        cells.setdefault(row["mixture"], []).append(f"{time:.2f}, {memory:.2f}")
    lines = [["words of the texts", *(f"`{name}`" for name in readers)], ["---"] * (len(readers) + 1)]
    held = ", ".join(
        f"{row['megabytes_after_300']:.0f} MB and {row['megabytes_after_3000']:.0f} by `{row['reader']}`"
        for row in measured["many_batches"]
    )
    return (
        "Time of the batch over that of its texts in batches of one length, and peak memory over that of the longest "
        f"text alone:\n\n{markdown([*lines, *([name, *row] for name, row in cells.items())])}\n\n"
        f"A process holds after 300 batches of mixed lengths and after 3,000: {held}."
    )


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
            f"Percent of nDCG@10 among whole documents ({'; '.join(about)}):",
            parts[0],
            f"Percent of queries whose document comes first, among {first['documents']} of one length:",
            *parts[1:],
            f"LAM in {measured['dtype']}, MiniLM in float32.",
        ]
    )


def carried(measured: dict[str, Any]) -> str:
    """Whether the carried state finds more pass keys."""
    lines = (
        f"{row['LAM']:.1f} and {row['LAM without carried state']:.1f} percent of {row['keys']:,} in texts of {length} "
        f"tokens (a difference of {row['LAM'] - row['LAM without carried state']:+.1f} ± {row['standard_error']:.1f})"
        for length, row in measured["found"].items()
    )
    return f"Pass keys found by `encode` with the carried state and without it, by more keys: {', '.join(lines)}."


def onnx_table(measured: dict[str, Any]) -> str:
    """Every graph, a line each."""
    times = ("time_to_minilm_one_thread", "time_to_minilm_all_threads")
    graphs = measured["graphs"]
    shapes = list(next(iter(graphs.values()))[times[0]])
    head = ["file", "MB", "largest difference", "mean cosine", "STS-B", "SciFact"]
    lines = [[*head, *(f"{shape}: {threads}" for shape in shapes for threads in ("1 thread", "all"))]]
    lines.append(["---"] * len(lines[0]))
    for name, graph in graphs.items():
        scores = graph.get("scores", {})
        lines.append(
            [
                f"`{name}`",
                f"{graph['bytes'] / 1e6:.1f}",
                f"{graph['largest_difference']:.1e}",
                f"{graph['cosine']:.4f}",
                *(f"{scores[task]:.2f}" if task in scores else "" for task in ("STSBenchmark", "SciFact")),
                *(f"{graph[kind][shape]:.2f}" for shape in shapes for kind in times),
            ]
        )
    return markdown(lines)


def tuning() -> str:
    """What tuning did, beside the weights that it started from."""
    lines = [["weights", *STS, "mean", "SciFact, 256 tokens", "whole texts", "LAM's queries on MiniLM's documents"]]
    lines.append(["---"] * len(lines[0]))
    files = {"distilled": "eval.json"}
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
    other = ", ".join(f"{name} {score:.2f}" for name, score in pairs["ndcg_at_10"].items())
    return (
        f"{markdown(lines)}\n\nOther retrieval, {pairs['queries']:,} questions, titles and terms among "
        f"{pairs['passages']:,} passages, nDCG@10 before and after `scifact`: {other}.\n\n"
        f"{kept(read('tune/long/scifact.json'))}"
    )


def kept(measured: dict[str, Any]) -> str:
    """What tuning on long documents left of SciFact, by more queries than mteb asks."""
    lengths = "; ".join(
        f"{length}: "
        + ", ".join(
            f"{name} ({measured['queries'].get(name, sum(measured['queries'].values())):,} queries) "
            f"{scores['before']:.2f} and {scores['after']:.2f} ± {scores['standard_error']:.2f}"
            for name, scores in splits.items()
        )
        for length, splits in measured["ndcg_at_10"].items()
    )
    return (
        "SciFact by all its judged queries, on none of which either was trained, before and after `long`, with the "
        f"standard error of the difference. {lengths}."
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


def bench(measured: dict[str, Any]) -> str:
    """Time over MiniLM's on the same backend, and how long it takes to begin."""
    threads = measured["threads"]
    seconds = {(r["way"], r["threads"], r["model"], r["batch"], r["tokens"]): r["seconds"] for r in measured["times"]}
    lengths = sorted({r["tokens"] for r in measured["times"]})
    lines = [["", "threads", "texts", *(f"{length:,}" for length in lengths)]]
    lines.append(["---"] * len(lines[0]))
    lams = dict.fromkeys((r["way"], r["model"]) for r in measured["times"] if r["model"].startswith("LAM"))
    for way, lam in lams:
        backend = lam.removeprefix("LAM, ")
        minilm = f"MiniLM, {backend.removesuffix(' chunked')}"
        label = f"{backend}, `encode`" if way == "encode" else backend
        for cores in (1, threads):
            for batch in sorted({r["batch"] for r in measured["times"]}):
                cells = []
                for length in lengths:
                    taken = [seconds.get((way, cores, model, batch, length)) for model in (lam, minilm)]
                    cells.append(f"{taken[0] / taken[1]:.2f}" if all(taken) else "")
                if any(cells):
                    lines.append([label, str(cores), str(batch), *cells])
    short = [
        seconds["encode", threads, "MiniLM, torch float32", 32, length]
        / seconds["encode", threads, "LAM, onnx int8", 32, length]
        for length in lengths
        if length <= 128
    ]
    starts = "; ".join(
        f"{name} {', '.join(f'{what} {taken:.2f} s' for what, taken in row.items())}"
        for name, row in measured["starts"].items()
    )
    return (
        f"{markdown(lines)}\n\n`encode` on ONNX Runtime with int8 weights reads {min(short):.2f} to {max(short):.2f} "
        f"times as many short texts (16 to 128 tokens, 32 at once) as MiniLM's in torch. "
        f"Seconds from the start of a process, warm files: {starts}."
    )


def markdown(lines: list[list[str]]) -> str:
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)


def model_card() -> str:
    """The whole text of model_card.md."""
    return card(read("eval.json"), read("compare.json"), training())


def training() -> str:
    """A sentence or two on the runs that led to the packaged weights."""
    log = training_log()
    tokens = sum(max(row["tokens"] for row in rows) for rows in log)
    minutes = sum(rows[-1]["seconds"] for rows in log) / 60
    final = [row for rows in log for row in rows if "long_cosine" in row][-1]
    return (
        f"Packaged weights: {sum(rows[-1]['step'] for rows in log):,} steps in {len(log)} runs, one after another, "
        f"{tokens / 1e6:.1f}M tokens, {minutes:.0f} minutes on two CPU cores. Held-out documents of up to 8k tokens "
        f"had, at their end, a cosine of {final['long_cosine']:.4f} to the mean of MiniLM's vectors over pieces. "
        f"{prediction(log)}"
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
        f"Through the ends of {len(ends)} runs goes an error of {math.exp(factor):.4f} x (tokens of stage 2 in "
        f"millions)^{power:.3f}: a cosine of {expected}."
    )


def training_log() -> list[list[dict[str, Any]]]:
    """The logs of the runs that led to the packaged weights, each started from the one before."""
    files = sorted((RESULTS / "distill").glob("*.jsonl"))
    return [[json.loads(line) for line in file.read_text(encoding="utf-8").splitlines()] for file in files]


def sweep_logs() -> dict[str, list[dict[str, Any]]]:
    """The held-out scores of each short run, by all tokens read."""
    logs = {}
    for file in sorted((RESULTS / "distill" / "sweep").glob("*.jsonl")):
        log, before = [json.loads(line) for line in file.read_text(encoding="utf-8").splitlines()], 0
        for stage in sorted({row["stage"] for row in log}):
            rows = [row for row in log if row["stage"] == stage]
            scored = [row | {"tokens": before + row["tokens"]} for row in rows if "cosine" in row]
            logs[file.stem] = logs.get(file.stem, []) + scored
            before += rows[-1]["tokens"]
    return logs


def draw_sweep() -> None:
    """The held-out error of the short runs against the tokens read."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(8, 5), layout="constrained")
    axes = figure.subplots()
    for number, (name, rows) in enumerate(sweep_logs().items()):
        line = ("o-", "s--")[number // 10 % 2]  # ten colours
        axes.plot([row["tokens"] / 1e6 for row in rows], [1 - row["cosine"] for row in rows], line, ms=3, label=name)
    axes.set(title="1 - cosine to the base, held out", xlabel="million tokens", yscale="log")
    axes.grid(alpha=0.3, which="both")
    axes.legend(loc="upper left", bbox_to_anchor=(1, 1))
    figure.savefig(RESULTS / "distill" / "sweep.png", dpi=120, format="png")


def mixed(measured: dict[str, Any]) -> str:
    """What LAM's queries find less among MiniLM's vectors than MiniLM's own."""
    last = measured["weights"][-1]
    lost = [
        f"{own - last[name]['ndcg_at_10']:.2f} ± {last[name]['standard_error']:.2f} on {measured['queries'][name]:,} "
        f"queries ({name})"
        for name, own in measured["minilm"].items()
    ]
    rising = ", ".join(
        f"{line['lost']:.2f} ± {line['standard_error']:.2f} ({name})" for name, line in measured["trend"].items()
    )
    first, own = next(iter(measured["minilm"].items()))
    surest = min(measured["trend"], key=lambda name: measured["trend"][name]["standard_error"])
    expected = own - 100 * (1 - last[first]["cosine"]) * measured["trend"][surest]["lost"]
    return (
        f"Asked by LAM, MiniLM's vectors give less than asked by MiniLM: {', '.join(lost)}. Errors as large as "
        f"LAM's, but dealt out to the test queries at random, give {last['by_chance']['mean']:.2f} ± "
        f"{last['by_chance']['deviation']:.2f} for MiniLM's {own:.2f}. Through all {len(measured['weights'])} weights "
        f"that were ever packaged goes a loss for each 0.01 of cosine of {rising}. By that of {surest}, {expected:.2f} "
        f"is to be expected of the test queries, where {last[first]['ndcg_at_10']:.2f} was measured."
    )


def draw() -> None:
    """All runs as one curve: a stage that was gone on with in another run continues its tokens."""
    rows, read = [], {}
    for log in training_log():
        stage = log[0]["stage"]
        begun = read.get(stage, 0)
        log = [row for row in log if row["stage"] == stage]
        rows += [row | {"tokens": begun + row["tokens"]} for row in log]
        read[stage] = begun + log[-1]["tokens"]
    plot(rows, RESULTS / "distill" / "loss.png")


def read(name: str) -> Any:
    return json.loads((RESULTS / name).read_text(encoding="utf-8"))


def filled(text: str) -> str:
    """README.md's text with all generated parts as they should be."""
    for name, block in blocks().items():
        pattern = re.compile(rf"(<!-- {name} -->\n).*?(<!-- /{name} -->)", re.DOTALL)
        text, count = pattern.subn(lambda match, block=block: f"{match[1]}{block}\n{match[2]}", text)
        if count != 1:
            raise ValueError(f"{README} has {count} places for `{name}`: it needs one")
    return text


if __name__ == "__main__":
    README.write_text(filled(README.read_text(encoding="utf-8")), encoding="utf-8")
    CARD.write_text(model_card(), encoding="utf-8")
    draw()
    draw_sweep()
