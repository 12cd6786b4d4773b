"""The plots of this folder, drawn from its JSON files; `python results/tables.py` draws them all."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import numpy as np

from lam_model.training.plot import label_ends, new_figure, plain_numbers, plot, plot_tuning, save

RESULTS = Path(__file__).parent
LAM, STREAM, MINILM = "#1f77b4", "#2ca02c", "#d62728"  # colours
CONTEXT_ROWS = {
    "LAM alone": "#9ecae1",
    "LAM in its document": LAM,
    "LAM in its document + BM25": "#08306b",
    "MiniLM alone": MINILM,
    "MiniLM, late chunking": "#fc9272",
    "BM25": "#7f7f7f",
}
STATES = {
    "both, and their vectors": LAM,
    "none, and their vectors": "#c7c7c7",
    "both": "#6baed6",
    "the beginning": "#c6dbef",
    "the passage before": STREAM,
    "none": "#7f7f7f",
}
LENGTHS = (32, 512, 8192, 131_072)  # tokens, where numbers stand on an axis


def draw_all() -> None:
    """Every plot that the docs show."""
    draw_lengths()
    draw_ragged()
    draw_bench()
    draw_mixed()
    draw_context()
    draw_state()
    plot(whole_log(), RESULTS / "distill" / "loss.png")
    draw_sweep()
    for log in sorted(RESULTS.glob("tune/*/log.jsonl")):
        plot_tuning(read_lines(log), log.with_name("scores.png"))


def draw_lengths() -> None:
    """Time and peak memory of one text against its length."""
    measured = read("lengths.json")["lengths"]
    figure = new_figure()
    time, memory = figure.subplots(1, 2)
    for name, label, color in (("LAM", "LAM", LAM), ("MiniLM", "MiniLM", MINILM)):
        row = measured[name]
        time.plot([int(n) for n in row], [at["seconds"] for at in row.values()], "o-", ms=3, color=color, label=label)
    for name, label, color in (
        ("LAM", "LAM", LAM),
        ("LAM, stream", "LAM, as a stream", STREAM),
        ("MiniLM", "MiniLM", MINILM),
    ):
        row = measured[name]
        memory.plot([int(n) for n in row], [at["peak_mb"] for at in row.values()], "o-", ms=3, color=color, label=label)
    time.set(title="Seconds for one text", xlabel="tokens of the text", xscale="log", yscale="log")
    memory.set(title="Peak memory of the process, MB", xlabel="tokens of the text", xscale="log", ylim=(0, 1000))
    plain_numbers(time.yaxis, (0.01, 0.1, 1, 10))
    plain_numbers(memory.yaxis, range(0, 1001, 200))
    for axes in (time, memory):
        plain_numbers(axes.xaxis, LENGTHS)
        label_ends(axes)
    save(figure, RESULTS / "lengths.png")


def draw_ragged() -> None:
    """A batch of texts of mixed lengths against its texts in batches of one length, and its longest text alone."""
    rows = read("ragged.json")["mixtures"]
    mixtures = list(dict.fromkeys(row["mixture"] for row in rows))
    readers = list(dict.fromkeys(row["reader"] for row in rows))
    figure = new_figure(height=4.2)
    panels = figure.subplots(1, 2, sharey=True)
    for axes, title, over, under in (
        (panels[0], "Time, over that of batches of one length", "seconds", "seconds_apart"),
        (panels[1], "Peak memory, over that of the longest text", "megabytes", "megabytes_of_the_longest"),
    ):
        for number, reader in enumerate(readers):
            ratios = [row[over] / row[under] for row in rows if row["reader"] == reader]
            bars = axes.barh(np.arange(len(mixtures)) + 0.2 * number, ratios, 0.18, label=reader)
            axes.bar_label(bars, fmt="%.2f", fontsize=7, padding=2, bbox={"fc": "white", "ec": "none", "pad": 0.5})
        axes.axvline(1, color="grey", lw=1.2, zorder=0)
        axes.set_title(title, fontsize=10)
        axes.set_yticks(np.arange(len(mixtures)) + 0.3, mixtures)
        axes.set_xlim(right=1.1 * axes.get_xlim()[1])
    panels[0].invert_yaxis()
    panels[0].set_ylabel("words of the texts in the batch")
    figure.legend(*panels[0].get_legend_handles_labels(), loc="outside lower center", ncols=len(readers))
    save(figure, RESULTS / "ragged.png")


def draw_bench() -> None:
    """LAM's time over that of MiniLM on the same backend, all threads, against the texts' length."""
    measured = read("bench.json")
    rows = [row for row in measured["times"] if row["way"] == "model" and row["threads"] == measured["threads"]]
    seconds = {(row["model"], row["batch"], row["tokens"]): row["seconds"] for row in rows}
    backends = [name.removeprefix("LAM, ") for name in dict.fromkeys(row["model"] for row in rows) if "LAM" in name]
    figure = new_figure(height=4.0)
    batches = sorted({row["batch"] for row in rows})
    panels = figure.subplots(1, len(batches), sharey=True)
    for axes, batch in zip(panels, batches, strict=True):
        axes.set(xscale="log", yscale="log", xlabel="tokens of each text")
        axes.set_title(f"{batch} text{'s' * (batch > 1)} at once")
        for backend in backends:
            of_both = {
                tokens: (taken, seconds.get((f"MiniLM, {backend.removesuffix(' chunked')}", batch, tokens)))
                for (name, texts, tokens), taken in seconds.items()
                if name == f"LAM, {backend}" and texts == batch
            }
            ratios = {tokens: lam / minilm for tokens, (lam, minilm) in of_both.items() if minilm}
            axes.plot(list(ratios), list(ratios.values()), "o-", ms=3, label=backend.replace("onnx", "ONNX Runtime"))
        axes.axhline(1, color="grey", lw=1.2, zorder=0)
        plain_numbers(axes.xaxis, (16, 64, 256, 512) if batch > 1 else (16, 64, 256, 1024, 8192))
        plain_numbers(axes.yaxis, (0.05, 0.1, 0.2, 0.5, 1, 1.5))
        label_ends(axes)
    panels[0].annotate("as fast as MiniLM", (8192, 1), (0, 3), textcoords="offset points", ha="right")
    panels[0].set_ylabel("LAM's time / MiniLM's time")
    save(figure, RESULTS / "bench.png")


def draw_mixed() -> None:
    """What LAM's queries lose on MiniLM's documents, by how near they are to MiniLM's queries."""
    measured = read("mixed.json")
    figure = new_figure(10)
    panels = figure.subplots(1, len(measured["minilm"]), sharey=True)
    for axes, (name, own) in zip(panels, measured["minilm"].items(), strict=True):
        rows = [row[name] for row in measured["weights"]]
        cosines = np.array([row["cosine"] for row in rows])
        gained = [row["ndcg_at_10"] - own for row in rows]
        axes.errorbar(cosines, gained, [row["standard_error"] for row in rows], fmt="o", ms=4, capsize=3, color=LAM)
        axes.plot(cosines, -100 * (1 - cosines) * measured["trend"][name]["lost"], color=MINILM, lw=1.2)
        axes.axhline(0, color="grey", lw=1.2)
        axes.set(title=f"{name}: {measured['queries'][name]:,} queries", xlabel="cosine to MiniLM's queries")
        axes.set_xticks((0.96, 0.97, 0.98, 0.99))
    panels[0].set_ylabel("nDCG@10, points over MiniLM's queries")
    save(figure, RESULTS / "mixed.png")


def draw_context() -> None:
    """Retrieval of passages among all of a set and within the right document, against the passages' size."""
    scores = read("context-sizes.json")["scores"]
    figure = new_figure(10)
    panels = figure.subplots(1, 2)
    for axes, key, title in (
        (panels[0], "all", "all documents"),
        (panels[1], "within", "the right document"),
    ):
        for row, color in CONTEXT_ROWS.items():
            by_size = scores[row]["fairytale-val"]
            sizes, heights = [int(size) for size in by_size], [one[key] for one in by_size.values()]
            axes.plot(sizes, heights, "o-", ms=3, color=color, label=row)
        axes.set(title=f"nDCG@10, {title}", xlabel="most tokens of a passage", xscale="log")
        plain_numbers(axes.xaxis, (32, 64, 128, 256))
        label_ends(axes)
    save(figure, RESULTS / "context.png")


def draw_state() -> None:
    """What the states that passages start from are worth, and how far back they reach."""
    measured = read("state.json")
    figure = new_figure()
    worth, far = figure.subplots(1, 2)
    sets = list(measured["states"]["both"])
    for number, (name, rows) in enumerate(measured["states"].items()):
        color = STATES[name]
        values = [rows[one]["first" if "made up" in one else "all"] for one in sets]
        errors = [rows[one]["first_error" if "made up" in one else "all_error"] for one in sets]
        worth.bar(np.arange(len(sets)) + 0.14 * number, values, 0.14, yerr=errors, color=color, label=name)
        back = measured["back"][name]
        far.errorbar(
            [int(n) for n in back],
            [one["all"] for one in back.values()],
            [one["all_error"] for one in back.values()],
            fmt="o-", ms=3, color=color, label=name,
        )  # fmt: skip
    worth.set(title="nDCG@10 among all passages; made up: first hits")
    worth.set_xticks(np.arange(len(sets)) + 0.35, [one.replace("made up, ", "").replace(" the ", " ") for one in sets])
    worth.tick_params(axis="x", labelsize=7)
    far.legend(title="passages start from", fontsize=8, title_fontsize=8)
    far.set(title="nDCG@10, by words of a passage before", xlabel="passages back", xscale="log")
    plain_numbers(far.xaxis, [int(n) for n in measured["back"]["both"]])
    save(figure, RESULTS / "state.png")


def draw_sweep() -> None:
    """The held-out error at the end of the short runs, the best first."""
    ends = {
        re.sub(r"(?<!\de)-", " ", file.stem): 1 - [row["cosine"] for row in read_lines(file) if "cosine" in row][-1]
        for file in sorted((RESULTS / "distill" / "sweep").glob("*.jsonl"))
    }
    names = sorted(ends, key=ends.get)
    figure = new_figure(8, 5)
    axes = figure.subplots()
    colors = [MINILM if name == "plain" else LAM for name in names]
    bars = axes.barh(names, [ends[name] for name in names], color=colors)
    axes.bar_label(bars, fmt="%.3f", fontsize=8, padding=2)
    axes.invert_yaxis()
    axes.set_title("1 - cosine to the base on held-out texts; red: the plain recipe")
    save(figure, RESULTS / "distill" / "sweep.png")


def whole_log() -> list[dict[str, Any]]:
    """All runs as one: a stage that was gone on with in another run continues its tokens."""
    rows, begun = [], {}
    for file in sorted((RESULTS / "distill").glob("*.jsonl")):
        log = read_lines(file)
        stage = log[0]["stage"]
        log = [row for row in log if row["stage"] == stage]
        before = begun.get(stage, 0)
        rows += [row | {"tokens": before + row["tokens"]} for row in log]
        begun[stage] = before + log[-1]["tokens"]
    return rows


def read(name: str) -> Any:
    return json.loads((RESULTS / name).read_text(encoding="utf-8"))


def read_lines(path: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]
