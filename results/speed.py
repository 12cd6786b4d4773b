"""The tables of time and memory, and of the ONNX graphs."""

from __future__ import annotations

from itertools import chain
from typing import Any


def markdown(lines: list[list[str]]) -> str:
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)


def lengths(measured: dict[str, dict[str, dict[str, float]]]) -> str:
    """What to see in the plot of time and memory against length."""
    lam, minilm = measured["LAM"], measured["MiniLM"]
    both = [length for length in lam if length in minilm]
    *_, last = both
    times = [by_length[last]["seconds"] for by_length in (lam, minilm)]
    memory = [by_length["512"]["peak_mb"] for by_length in (lam, minilm)]
    more = max((int(n) for n in both if lam[n]["peak_mb"] > minilm[n]["peak_mb"]), default=0)
    return (
        f"Left: LAM's time grows in proportion to the length. MiniLM's attention compares all tokens with each other, "
        f"so its time grows faster. At {int(last):,} tokens LAM takes {times[0]:.1f} s, MiniLM {times[1]:.1f} s. "
        f"Right: LAM's memory hardly grows with the length. **LAM takes more memory than MiniLM up to {more:,} "
        f"tokens** ({memory[0]:.0f} MB against {memory[1]:.0f} MB at 512 tokens), and less above."
    )


def lengths_table(measured: dict[str, dict[str, dict[str, float]]]) -> str:
    """All that was measured, by length."""
    lines = [
        ["tokens", *(f"{name}: {what}" for name in measured for what in ("seconds", "peak MB")), "time, LAM / MiniLM"]
    ]
    lines.append(["---"] * len(lines[0]))
    for length in measured["LAM"]:
        rows = [by_length.get(length) for by_length in measured.values()]
        cells = chain(*((f"{row['seconds']:.3f}", f"{row['peak_mb']:.0f}") if row else ("", "") for row in rows))
        times = [measured[name].get(length, {}).get("seconds") for name in ("LAM", "MiniLM")]
        lines.append([f"{int(length):,}", *cells, f"{times[0] / times[1]:.2f}" if times[1] else ""])
    a_token = [measured["LAM"][n]["seconds"] / int(n) for n in ("32768", "512")]
    return (
        f"{markdown(lines)}\n\nA token of a text of 32,768 tokens takes {a_token[0] / a_token[1]:.2f} times as long as "
        f"one of a text of 512."
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
    held = "; ".join(
        f"`{row['reader']}` {row['megabytes_after_300']:.0f} MB after 300 batches and "
        f"{row['megabytes_after_3000']:.0f} MB after 3,000"
        for row in measured["many_batches"]
    )
    return (
        "Two figures in each cell: the mixed batch's time over that of its texts in batches of one length, and its "
        "peak memory over that of the longest text alone:\n\n"
        f"{markdown([*lines, *([name, *row] for name, row in cells.items())])}\n\n"
        f"Memory that a process holds after many batches of mixed lengths: {held}."
    )


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
    return (
        f"{markdown(lines)}\n\nWith int8 weights on ONNX Runtime, LAM's `encode` reads {min(short):.2f} to "
        f"{max(short):.2f} times as many short texts a second (16 to 128 tokens, 32 at once) as MiniLM's `encode` in "
        f"torch float32."
    )


def starts(measured: dict[str, dict[str, float]]) -> str:
    """Seconds from the start of a process on."""
    steps = list(dict.fromkeys(chain(*measured.values())))
    lines = [["seconds after the start, until done", *steps], ["---"] * (1 + len(steps))]
    for name, row in measured.items():
        lines.append([name, *(f"{row[step]:.2f}" if step in row else "" for step in steps)])
    return markdown(lines)
