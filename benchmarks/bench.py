"""LAM beside all-MiniLM-L6-v2 wherever it runs: time by length and batch, and to start.

`make bench` runs `python benchmarks/bench.py -o results/bench.json`; `python results/tables.py` draws the plot.

All contenders of a shape run by turns, warm, and the median counts. MiniLM reads texts over 512 tokens with nothing cut
off, as in benchmarks/lengths.py. No figure is written unless all vectors are right.
"""

from __future__ import annotations

import argparse
import json
import shlex
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any
from unittest import mock

import numpy as np
import onnx
import onnxruntime
import torch
from lam_export.int8 import quantize
from onnx_graphs import export_minilm
from tqdm import tqdm
from transformers import AutoModel

import lam_model
from lam_model.evaluation.compare import load_base
from lam_model.evaluation.provenance import provenance
from lam_model.files import write_json
from lam_model.folder.base import find_base
from lam_model.model import delta_rule
from lam_model.runtime.cache import cached
from lam_model.runtime.onnx_encoder import OnnxEncoder

CORPUS = Path(__file__).parents[1] / "demo" / "corpus.jsonl"
LENGTHS = (16, 32, 64, 128, 256, 512, 2048, 8192, 32_768)  # tokens
BATCHES = (1, 32)  # texts
BLOCK = 512  # tokens: all that MiniLM has positions for
SECONDS = 0.2  # of repeats, for each contender and turn
TURNS = 3  # at least
SHAPE_SECONDS = 20.0  # after which there are no more turns
PAUSE = 0.2  # seconds before a burst: idle threads of the contender before spin for a while, and take a core
CHUNKED = " chunked"  # by that form instead of flash-linear-attention
MOST_SECONDS = 25.0  # what would take longer is not run
MOST_BATCH_SECONDS = 3.0  # likewise of several texts at once
STARTS = 3  # processes, of which the median counts

Read = Callable[[np.ndarray], np.ndarray]  # token ids (texts, tokens) to vectors (texts, size)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("-o", "--output", type=Path, required=True)
    output = parser.parse_args().output
    every = torch.get_num_threads()
    with tempfile.TemporaryDirectory() as temporary:
        folder, manifest = cached()
        minilm = export_minilm(Path(temporary) / "minilm.onnx")
        onnx.save(quantize(onnx.load(minilm)), minilm.with_stem("minilm_int8"))
        rows = []
        for threads in (1, every):
            torch.set_num_threads(threads)
            rows += measure("model", bare(folder, minilm, threads), threads)
            if threads == every:
                rows += measure("encode", by_encode(folder), threads)
        if torch.cuda.is_available():
            rows += measure("model", on_gpu("cuda"), every)
        starts = {name: started(code) for name, code in starting(folder).items()}
    result = {
        "deltanet_sha256": manifest["deltanet_sha256"],
        "onnxruntime": onnxruntime.__version__,
        "threads": every,
        "times": rows,
        "starts": starts,
        **provenance(shlex.join(["python", *sys.argv])),
    }
    write_json(output, result)


def bare(folder: Path, minilm: Path, threads: int) -> dict[str, Read]:
    """The models alone, from token ids to unit vectors."""
    readers: dict[str, Read] = {}
    for dtype in ("float32", "bfloat16"):
        readers[f"LAM, torch {dtype}"] = torch_lam(dtype)
        readers[f"MiniLM, torch {dtype}"] = torch_minilm(dtype)
    for kind in ("float32", "int8"):
        encoder = OnnxEncoder(folder, threads=threads, dtype=kind)
        readers[f"LAM, onnx {kind}"] = lambda ids, encoder=encoder: encoder.embed(ids, np.ones_like(ids))
        graph = minilm.with_stem("minilm_int8") if kind == "int8" else minilm
        readers[f"MiniLM, onnx {kind}"] = onnx_minilm(graph, threads)
    return readers


def on_gpu(device: str) -> dict[str, Read]:
    """The models alone on a GPU: LAM by flash-linear-attention, where it is installed, and by the chunked form."""
    readers: dict[str, Read] = {}
    for dtype in ("float32", "bfloat16"):
        readers[f"LAM, {device} {dtype}"] = lam = torch_lam(dtype, device)
        readers[f"LAM, {device} {dtype}{CHUNKED}"] = by_backend("chunked", lam)
        readers[f"MiniLM, {device} {dtype}"] = torch_minilm(dtype, device)
    return readers


def by_backend(backend: str, read: Read) -> Read:
    def read_by_it(ids: np.ndarray) -> np.ndarray:
        with mock.patch.object(delta_rule, "_fastest", return_value=backend):
            return read(ids)

    return read_by_it


def torch_lam(dtype: str, device: str = "cpu") -> Read:
    model = lam_model.load(device=device, dtype=dtype)

    def read(ids: np.ndarray) -> np.ndarray:
        with torch.inference_mode():
            tokens = torch.from_numpy(ids).to(device)
            features = {"input_ids": tokens, "attention_mask": torch.ones_like(tokens)}
            return model(features)["sentence_embedding"].float().cpu().numpy()

    return read


def torch_minilm(dtype: str, device: str = "cpu") -> Read:
    bert = AutoModel.from_pretrained(find_base(), dtype=getattr(torch, dtype)).to(device).eval()

    def read(ids: np.ndarray) -> np.ndarray:
        with torch.inference_mode():
            tokens = torch.from_numpy(ids).to(device)
            positions = torch.arange(ids.shape[1], device=device).clamp(max=BLOCK - 1).expand(ids.shape)
            hidden = bert(input_ids=tokens, position_ids=positions).last_hidden_state
            return torch.nn.functional.normalize(hidden.float().mean(1), dim=-1).cpu().numpy()

    return read


def onnx_minilm(path: Path, threads: int) -> Read:
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads, options.log_severity_level = threads, 3
    session = onnxruntime.InferenceSession(path, options)

    def read(ids: np.ndarray) -> np.ndarray:
        hidden = session.run(None, {"input_ids": ids, "attention_mask": np.ones_like(ids)})[0].mean(1)
        return hidden / np.linalg.norm(hidden, axis=1, keepdims=True)

    return read


def by_encode(folder: Path) -> dict[str, Read]:
    """`encode`, from texts: tokenised, sorted, in batches of 32."""
    models = {f"LAM, torch {dtype}": lam_model.load(device="cpu", dtype=dtype) for dtype in ("float32", "bfloat16")}
    models |= {
        f"LAM, onnx {dtype}": lam_model.load(folder, backend="onnx", dtype=dtype) for dtype in ("float32", "int8")
    }
    models["MiniLM, torch float32"] = base = load_base()
    base.max_seq_length = BLOCK

    def of(model: Any) -> Read:
        def read(ids: np.ndarray) -> np.ndarray:
            return model.encode(base.tokenizer.batch_decode(ids[:, 1:-1]), show_progress_bar=False)

        return read

    return {name: of(model) for name, model in models.items()}


def some_texts(batch: int, length: int) -> np.ndarray:
    """Token ids of stretches of the demo's corpus, which is read again and again where it is too short."""
    documents = [json.loads(line)["text"] for line in CORPUS.read_text(encoding="utf-8").splitlines()]
    tokenizer = load_base().tokenizer
    ids = np.array(tokenizer(" ".join(documents), add_special_tokens=False, verbose=False)["input_ids"])
    begins = np.random.default_rng(length).integers(len(ids), size=batch)
    texts = np.stack([np.resize(np.roll(ids, -begin), length) for begin in begins])
    texts[:, 0], texts[:, -1] = tokenizer.cls_token_id, tokenizer.sep_token_id
    return texts


def check(readers: dict[str, Read]) -> None:
    """Refuse to measure a wrong vector: all of LAM's are alike and near to MiniLM's, and so are all of MiniLM's."""
    for shape in ((3, 17), (2, 300), (1, BLOCK)):
        ids = some_texts(*shape)
        vectors = {name: read(ids) for name, read in readers.items()}
        for name, found in vectors.items():
            right = of_model(name.split(",")[0], vectors)
            rounded = "bfloat16" in name or "cuda" in name  # flash-linear-attention rounds float32, too
            least = 0.97 if "int8" in name else 0.995 if rounded else 0.99999
            if not (cosine := float((found * right).sum(1).min())) > least:
                raise SystemExit(f"{name} has a cosine of {cosine:.4f} to float32 on {shape}: nothing was measured")
        if not float((of_model("LAM", vectors) * of_model("MiniLM", vectors)).sum(1).min()) > 0.9:
            raise SystemExit(f"LAM's vectors are not near to MiniLM's on {shape}: nothing was measured")


def of_model(model: str, vectors: dict[str, np.ndarray]) -> np.ndarray:
    """Its vectors by torch in float32, which come first."""
    return next(found for name, found in vectors.items() if name.startswith(f"{model},"))


def measure(way: str, readers: dict[str, Read], threads: int) -> list[dict[str, Any]]:
    """The median time of each contender and shape, in seconds a batch, once their vectors are right."""
    check(readers)
    rows, last = [], {}
    for batch in BATCHES:
        for length in tqdm(LENGTHS, desc=f"{way}, {threads} threads, batch {batch}"):
            able = {name: read for name, read in readers.items() if runs(way, name, batch, length)}
            # At worst a reader is quadratic.
            growth = (length / LENGTHS[max(0, LENGTHS.index(length) - 1)]) ** 2
            able = {name: read for name, read in able.items() if last.get((name, batch), 0) * growth < MOST_SECONDS}
            if batch > 1:
                able = {n: r for n, r in able.items() if last.get((n, 1, length), 0) * batch < MOST_BATCH_SECONDS}
            if not able:
                continue
            for name, seconds in in_turn(able, some_texts(batch, length)).items():
                rows.append({"way": way, "threads": threads, "model": name, "batch": batch, "tokens": length})
                rows[-1]["seconds"] = last[name, batch] = last[name, batch, length] = seconds
    return rows


def runs(way: str, name: str, batch: int, length: int) -> bool:
    """MiniLM's `encode` would cut what is over 512 tokens, and its softmax over 32 such texts takes tens of GB."""
    return length <= BLOCK or name.startswith("LAM") or (way == "model" and batch == 1)


def in_turn(readers: dict[str, Read], ids: np.ndarray) -> dict[str, float]:
    """The median time of each, in bursts by turns."""
    times: dict[str, list[float]] = {name: [] for name in readers}
    start = time.perf_counter()
    turn = 0
    while turn < TURNS or time.perf_counter() - start < SHAPE_SECONDS:
        turn += 1
        for name, read in readers.items():
            time.sleep(PAUSE)
            begun = time.perf_counter()
            read(ids)  # the first call is slower, unless it takes long anyway
            if (taken := time.perf_counter() - begun) > 3 * SECONDS:
                times[name].append(taken)
                continue
            until = time.perf_counter() + SECONDS
            while not times[name] or time.perf_counter() < until:
                begun = time.perf_counter()
                read(ids)
                times[name].append(time.perf_counter() - begun)
    return {name: statistics.median(taken) for name, taken in times.items()}


def starting(folder: Path) -> dict[str, str]:
    """Programs that print seconds from their first line on: to import, to load, for the first vector."""
    clock = "import json, time; begun = time.perf_counter(); seconds = {}\n"
    done = "seconds['%s'] = time.perf_counter() - begun\n"
    lam = clock + "import lam_model\n" + done % "import" + "model = lam_model.load(%s)\n" + done % "load"
    first = "model.encode('a sentence')\n" + done % "first vector" + "print(json.dumps(seconds))"

    def command(*arguments: str) -> str:
        run = [sys.executable, "-m", "lam_model.cli", *arguments]
        call = f"import subprocess\nsubprocess.run({run!r}, check=True, capture_output=True)\n"
        return clock + call + done % "first vector" + "print(json.dumps(seconds))"

    base = f"model = sentence_transformers.SentenceTransformer({str(find_base())!r}, device='cpu')\n"
    return {
        "LAM, torch float32": lam % "device='cpu'" + first,
        "LAM, onnx int8": lam % f"{str(folder)!r}, backend='onnx', dtype='int8'" + first,
        "LAM, OnnxEncoder": clock
        + "import lam_model\n"
        + done % "import"
        + f"model = lam_model.OnnxEncoder({str(folder)!r})\n"
        + done % "load"
        + first,
        "MiniLM, torch float32": clock
        + "import sentence_transformers\n"
        + done % "import"
        + base
        + done % "load"
        + first,
        "`lam encode x --backend torch`": command("encode", "x", "--backend", "torch"),
        "`lam encode x --backend onnx`": command("encode", "x", "--backend", "onnx"),
        "`lam encode x`, the graph at hand": command("encode", "x"),
    }


def started(code: str) -> dict[str, float]:
    """The median of each time over several processes, after one that warms the caches."""
    runs = []
    for _ in range(STARTS + 1):
        run = subprocess.run([sys.executable, "-c", code], check=True, capture_output=True, text=True)
        runs.append(json.loads(run.stdout.splitlines()[-1]))
    return {name: round(statistics.median(run[name] for run in runs[1:]), 3) for name in runs[0]}


if __name__ == "__main__":
    main()
