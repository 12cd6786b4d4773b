"""Tables of many texts: encoding them, kills, what it costs with more workers, and an index of a million passages."""

from __future__ import annotations

from plots import read
from speed import markdown

_MINILM = "MiniLM, sentence-transformers"
_ENGINES = {"processes": "`--workers`", "ray": "`--engine ray`"}


def encode_table(file: str) -> str:
    """Texts a second of every way, from start to end of the process."""
    measured = read(file)
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


def million() -> str:
    """Building and searching an index of a million passages, and one of the real vectors alone."""
    measured = read("million.json")
    columns = [measured[name]["build"] | measured[name]["search"] for name in ("real_alone", "million")]
    memory = [
        max(measured[name][step]["peak_memory_gb"] for step in ("build", "search"))
        for name in ("real_alone", "million")
    ]
    lines = [
        ["", "real vectors alone", "with made vectors"],
        ["passages", *(f"{one['passages']:,}" for one in columns)],
        ["documents", *(f"{one['documents']:,}" for one in columns)],
        ["time to build, without encoding", *(f"{one['seconds']:,} s" for one in columns)],
        ["peak memory of building and of searching, the larger", *(f"{most:.1f} GB" for most in memory)],
        ["size on disk", *(f"{one['gigabytes_on_disk']:.1f} GB" for one in columns)],
        ["recall@10, questions", *(f"{one['recall_at_10_questions']:.3f}" for one in columns)],
        [
            "recall@10, passages that are not in it",
            *(f"{one['recall_at_10_held_out_passages']:.3f}" for one in columns),
        ],
        ["a search by vectors, median and 95th percentile", *(_times(one["milliseconds_vectors"]) for one in columns)],
        ["a hybrid search", *(_times(one["milliseconds_hybrid"]) for one in columns)],
        ["comparing all vectors", *(f"{one['milliseconds_exact']:,} ms" for one in columns)],
        ["adding 100 documents", *(f"{one['seconds_to_add_100_documents']} s" for one in columns)],
        ["deleting 100 documents", *(f"{one['seconds_to_delete_100_documents']} s" for one in columns)],
    ]
    return f"Vectors: {measured['vectors']}.\n\n{markdown([lines[0], ['---'] * 3, *lines[1:]])}"


def _times(milliseconds: dict[str, float]) -> str:
    return f"{milliseconds['median']:,} / {milliseconds['p95']:,} ms"
