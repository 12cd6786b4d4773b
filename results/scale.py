"""Tables of encoding many texts: speed, kills, and what it costs with more workers."""

from __future__ import annotations

from plots import read
from speed import markdown

_MINILM = "MiniLM, sentence-transformers"
_ENGINES = {"processes": "`--workers`", "ray": "`--engine ray`"}


def encode_table() -> str:
    """Texts a second of every way, from start to end of the process."""
    measured = read("encode.json")
    base = measured["rows"][_MINILM]["texts_per_second"]
    rows = [["", "seconds", "texts a second", "times MiniLM in sentence-transformers"], ["---"] * 4]
    for name, row in measured["rows"].items():
        rate = row["texts_per_second"]
        rows.append([_name(name), f"{row['seconds']:,.0f}", f"{rate:.0f}", f"{rate / base:.1f}"])
    mean = measured["tokens"] / measured["texts"]
    return (
        f"{measured['texts']:,} texts of {mean:.0f} tokens on average, {measured['cores']} cores, one run each. "
        f"The time is that of the whole process, loading included.\n\n{markdown(rows)}"
    )


def _name(name: str) -> str:
    parts = name.split(", ")
    if len(parts) != 4:
        return name
    _, dtype, engine, workers = parts
    how = f"`--workers {workers}`" if engine == "processes" else f"`--engine ray --workers {workers}`"
    return f"LAM, {dtype}, {how}"


def killed_table() -> str:
    """What was missing or doubled after kills at random times."""
    heads = ["", "texts", "times the command was killed", "times a worker was", "rows missing", "rows doubled"]
    rows = [heads, ["---"] * len(heads)]
    for engine, one in read("killed.json").items():
        counts = [one["texts"], one["kills"]["driver"], one["kills"]["worker"], one["missing"], one["doubled"]]
        rows.append([_ENGINES[engine], *(f"{count:,}" for count in counts)])
    return f"Killed at random times (SIGKILL) and started again:\n\n{markdown(rows)}"


def cost() -> str:
    """The time and the bytes of a million texts by 1, 10 and 1,000 workers, from what one worker and the reader do."""
    measured = read("encode.json")
    one = measured["rows"]["lam, int8, processes, 1"]["texts_per_second"] / measured["cores"]
    both = measured["rows"]["lam, int8, processes, 2"]["texts_per_second"]
    a_core = max(one, both / measured["cores"])
    reader = measured["texts"] / measured["reading_seconds"]
    tokens, size = measured["tokens"] / measured["texts"], measured["bytes"] / measured["texts"]
    limit, vector = reader / a_core, 4 * measured["dimension"]
    heads = ["workers, a core each", "texts a second", "minutes for a million texts", "MB a second moved"]
    rows = [heads, ["---"] * len(heads)]
    for workers in (1, 10, 1000):
        rate = min(workers * a_core, reader)
        moved = rate * (2 * size + vector)
        rows.append([f"{workers:,}", f"{rate:,.0f}", f"{1e6 / rate / 60:,.1f}", f"{moved / 1e6:,.1f}"])
    return (
        f"From the figures above, int8, texts of {tokens:.0f} tokens and {size:.0f} bytes:\n\n"
        f"- A core encodes {a_core:.0f} texts a second, which is {a_core * tokens:,.0f} tokens.\n"
        "- The process that reads, divides, hashes and hands on the texts does "
        f"{reader:,.0f} texts a second, measured alone.\n"
        "- A text is moved twice, from the file to the reader and from the reader to a worker. A vector is moved once, "
        f"to its file: 2 x {size:.0f} + {vector:,} = {2 * size + vector:,.0f} bytes.\n\n"
        f"{markdown(rows)}\n\n"
        f"So one reader keeps up with about {reader:,.0f} / {a_core:.0f} = {limit:,.0f} workers. Beyond that, divide "
        "the input, and run a command for each part. The rows of 10 and 1,000 workers are computed: this machine has "
        f"{measured['cores']} cores. Longer texts move the limit up, for they take longer to encode than to read."
    )
