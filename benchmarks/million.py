"""A million passages in an index, built and searched: time, memory, recall.

`python benchmarks/million.py DATA/train -o results/million.json`; `--vectors FILE` keeps vectors for another run.

All texts are real. So are the vectors of the first passages (`--real`) and those of the queries; to encode the others
would take hours. Theirs are made: a real vector, plus 0.3 times the difference of two others, normalised. Differences
of real vectors have the directions that real vectors have, in the same proportions. Beside the million, an index of the
real vectors alone is measured.
"""

from __future__ import annotations

import argparse
import json
import shlex
import shutil
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ProcessPoolExecutor
from contextlib import closing
from functools import partial
from importlib.metadata import version
from itertools import islice
from multiprocessing import get_context
from pathlib import Path
from resource import RUSAGE_SELF, getrusage
from typing import Any

import numpy as np
from pyarrow import concat_tables, parquet

from lam_model import OnnxEncoder, Passages
from lam_model.corpus.documents import Document
from lam_model.corpus.workers import cores, in_order
from lam_model.evaluation.provenance import provenance
from lam_model.files import write_json
from lam_model.index import lance_table
from lam_model.index.lance import LanceIndex
from lam_model.reading.cutting import PASSAGE_TOKENS, passage_offsets

SEED = 0
QUERIES = 500  # of each kind
TIMED = 100  # queries, one at a time
CHANGED = 100  # documents that are added to the whole index, and deleted
NEIGHBOURS = 10
DISTANCE = 0.3  # of a made vector from a real one


class Ready:
    """Stands in for a model: gives vectors that are there, and then those that are made of them."""

    key = "ready"

    def __init__(self, vectors: np.ndarray, queries: dict[str, np.ndarray]) -> None:
        self.vectors, self.queries, self.given = vectors, queries, 0
        self.random = np.random.default_rng(SEED)
        self.tokenizer = OnnxEncoder(dtype="int8").tokenizer

    def encode(self, texts: list[str]) -> np.ndarray:
        return np.stack([self.queries.get(text, self.vectors[0]) for text in texts])

    def encode_passages(self, texts: list[str], size: int, batch_size: int) -> list[Passages]:
        offsets = passage_offsets(self.tokenizer, texts, size)
        ends = np.cumsum([max(1, len(one)) for one in offsets])
        found = np.split(self._next(ends[-1]), ends[:-1])
        return [Passages(rows[0], rows[: len(one)], one) for rows, one in zip(found, offsets, strict=True)]

    def _next(self, many: int) -> np.ndarray:
        real = self.vectors[self.given : self.given + many]
        self.given += many
        a, b, c = self.random.integers(len(self.vectors), size=(3, many - len(real)))
        made = self.vectors[a] + DISTANCE * (self.vectors[b] - self.vectors[c])
        return np.concatenate([real, made / np.linalg.norm(made, axis=1, keepdims=True)])


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("data", type=Path, help="the folder of text.parquet, genres.parquet and pairs.parquet")
    parser.add_argument("-o", "--output", type=Path, required=True)
    parser.add_argument("--rows", type=int, default=1_000_000, help="passages of the index")
    parser.add_argument("--real", type=int, default=130_000, help="of them with real vectors")
    parser.add_argument("--vectors", type=Path, help="a .npz that is read, or written if it is not there")
    args = parser.parse_args()
    with tempfile.TemporaryDirectory() as place:
        vectors = args.vectors or Path(place) / "vectors.npz"
        if not vectors.exists():
            alone(embed, args.data, args.real, vectors)
        measured = {}
        # Up to a chunk of documents more are added: for that, some real vectors are left.
        for name, rows in {"real_alone": args.real * 9 // 10, "million": args.rows}.items():
            folder = Path(place) / "index"
            built = alone(build, args.data, vectors, rows, folder)
            measured[name] = {"build": built, "search": alone(search, args.data, vectors, folder)}
            shutil.rmtree(folder)
            sys.stdout.write(f"{json.dumps({name: measured[name]})}\n")
            sys.stdout.flush()
        files = [args.data / name for name in ("text.parquet", "genres.parquet", "pairs.parquet")]
        result = {
            "deltanet_sha256": str(np.load(vectors)["weights"]),
            "seed": SEED,
            "vectors": f"int8; of the million {args.real:,} are real, the others a real one plus {DISTANCE} times the "
            "difference of two real ones, normalised",
            **measured,
            "lancedb": version("lancedb"),
            **provenance(shlex.join(["python", *sys.argv]), files),
        }
        write_json(args.output, result)


def alone(step: Callable[..., Any], *arguments: Any) -> Any:
    """What a step returns, done in a process of its own, whose memory is its own."""
    with ProcessPoolExecutor(1, get_context("spawn")) as pool:
        return pool.submit(step, *arguments).result()


def documents(data: Path) -> Iterator[Document]:
    """The texts of general and of other genres, shuffled together."""
    files = [data / "text.parquet", data / "genres.parquet"]
    texts = concat_tables(parquet.read_table(file, columns=["text"]) for file in files)["text"]
    for i in np.random.default_rng(SEED).permutation(len(texts)).tolist():
        yield Document(texts[i].as_py(), id=str(i))


def questions(data: Path) -> list[str]:
    texts = parquet.read_table(data / "pairs.parquet", columns=["query"])["query"]
    return [texts[i].as_py() for i in np.random.default_rng(SEED).choice(len(texts), QUERIES, replace=False).tolist()]


def embed(data: Path, real: int, output: Path) -> None:
    """Write the vectors of questions, of the first passages, and of those after them, which are queries."""
    model = OnnxEncoder(dtype="int8", threads=1)
    rows: list[np.ndarray] = []
    texts = (document.text for document in documents(data))
    with closing(in_order(partial(vectors_of, model), iter(lambda: list(islice(texts, 512)), []), cores())) as found:
        while len(rows) < real + QUERIES:
            rows += next(found)
    np.savez(
        output,
        weights=model.weights,
        questions=model.encode(questions(data)),
        passages=np.stack(rows[:real]),
        held_out=np.stack(rows[real : real + QUERIES]),
    )


def vectors_of(model: OnnxEncoder, texts: list[str]) -> list[np.ndarray]:
    """Those of the texts' passages; of a text without a passage its own."""
    passages = model.encode_passages(texts, PASSAGE_TOKENS, 32)
    return [row for one in passages for row in (one.vectors if len(one.vectors) else [one.vector])]


def ready(data: Path, vectors: Path) -> tuple[Ready, np.ndarray]:
    """The model, and the vectors of the held-out passages."""
    with np.load(vectors) as file:
        known = dict(zip(questions(data), file["questions"], strict=True))
        return Ready(file["passages"], known), file["held_out"]


def build(data: Path, vectors: Path, rows: int, folder: Path) -> dict[str, Any]:
    model, _ = ready(data, vectors)
    seconds = {name: timed(name) for name in ("add", "fold", "recall")}
    index = LanceIndex(folder, model)  # type: ignore[arg-type]
    begin = time.perf_counter()
    added = index.add(until(rows, model, documents(data)))
    whole = time.perf_counter() - begin
    return {
        "passages": len(index),
        "documents": added.new,
        "seconds": round(whole),
        "of_these_writing": round(sum(seconds["add"])),
        "of_these_indexing": round(sum(seconds["fold"]) - sum(seconds["recall"])),
        "of_these_measuring_recall": round(sum(seconds["recall"])),
        "recall_at_10_printed": round(added.recall or 0, 4),
        "gigabytes_on_disk": round(sum(file.stat().st_size for file in folder.rglob("*") if file.is_file()) / 1e9, 2),
        "peak_memory_gb": peak(),
    }


def until(rows: int, model: Ready, documents: Iterator[Document]) -> Iterator[Document]:
    """Documents, until so many passages have been given: somewhat more, as a chunk is encoded at once."""
    for document in documents:
        if model.given >= rows:
            return
        yield document


def search(data: Path, vectors: Path, folder: Path) -> dict[str, Any]:
    model, held_out = ready(data, vectors)
    index = LanceIndex(folder, model)  # type: ignore[arg-type]
    table: Any = index._table
    found: dict[str, Any] = {}
    for name, queries in (("questions", np.stack(list(model.queries.values()))), ("held_out_passages", held_out)):
        found[f"recall_at_{NEIGHBOURS}_{name}"] = round(lance_table.recall(table, queries, NEIGHBOURS), 4)
    for name, hybrid in (("vectors", False), ("hybrid", True)):
        times = []
        for query in [*model.queries][:TIMED]:
            begin = time.perf_counter()
            index.search([query], NEIGHBOURS, hybrid=hybrid)
            times.append(1000 * (time.perf_counter() - begin))
        found[f"milliseconds_{name}"] = {"median": round(np.median(times)), "p95": round(np.quantile(times, 0.95))}
    vector = next(iter(model.queries.values()))
    begin = time.perf_counter()
    table.search(vector).distance_type("cosine").bypass_vector_index().limit(NEIGHBOURS).select(["id"]).to_arrow()
    found["milliseconds_exact"] = round(1000 * (time.perf_counter() - begin))
    some = [Document(f"a new text {i}", id=f"new {i}") for i in range(CHANGED)]
    for name, change in (("add", lambda: index.add(some)), ("delete", lambda: index.delete(one.id for one in some))):
        begin = time.perf_counter()
        change()
        found[f"seconds_to_{name}_{CHANGED}_documents"] = round(time.perf_counter() - begin, 1)
    return found | {"peak_memory_gb": peak()}


def timed(name: str) -> list[float]:
    """The seconds of each call of a function of `lance_table`, from now on."""
    function, seconds = getattr(lance_table, name), []

    def call(*arguments: Any) -> Any:
        begin = time.perf_counter()
        try:
            return function(*arguments)
        finally:
            seconds.append(time.perf_counter() - begin)

    setattr(lance_table, name, call)
    return seconds


def peak() -> float:
    return round(getrusage(RUSAGE_SELF).ru_maxrss / 1e6, 2)


if __name__ == "__main__":
    main()
