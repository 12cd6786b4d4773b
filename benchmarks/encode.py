"""How many short texts a second `lam encode` turns into vectors, beside MiniLM in other tools, on this machine.

`python benchmarks/encode.py DATA/train/text.parquet -o results/encode.json [--fastembed PYTHON]`. A row is one process
from its start to its end, with the model's loading. The machine should do nothing else meanwhile. Rows that the output
has of the same texts are kept. MiniLM reads 32 texts at once, in either tool.
"""

from __future__ import annotations

import argparse
import json
import os
import pickle
import random
import shlex
import shutil
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import pyarrow.parquet
import torch
from onnx_graphs import export_minilm
from tqdm import tqdm

from lam_model import OnnxEncoder
from lam_model.corpus.documents import USUAL
from lam_model.corpus.shards import Shards
from lam_model.evaluation.provenance import provenance
from lam_model.files import write_json
from lam_model.folder.base import find_base

WAYS = [(dtype, "processes", workers) for dtype in ("int8", "float32") for workers in (1, 2)]
WAYS += [("int8", "ray", workers) for workers in (1, 2)]
MINILM = """
import json, sys
from sentence_transformers import SentenceTransformer
texts = [json.loads(line)["text"] for line in open(sys.argv[2])]
SentenceTransformer(sys.argv[1], device="cpu").encode(texts, batch_size=32, show_progress_bar=False)
"""
FASTEMBED = """
import json, sys
from fastembed import TextEmbedding
from fastembed.common.model_description import ModelSource, PoolingType
texts = [json.loads(line)["text"] for line in open(sys.argv[2])]
TextEmbedding.add_custom_model(
    model="minilm", pooling=PoolingType.MEAN, normalization=True, sources=ModelSource(hf="minilm"), dim=384,
    model_file="model.onnx",
)
model = TextEmbedding("minilm", specific_model_path=sys.argv[1])
if __name__ == "__main__":
    for _ in model.embed(texts, batch_size=32, parallel=int(sys.argv[3]) or None): pass
"""


def minilm_graph(base: Path, folder: Path) -> None:
    """MiniLM as ONNX, with the files that fastembed reads, as its own all-MiniLM-L6-v2 is."""
    for name in ("config.json", "tokenizer.json", "tokenizer_config.json", "special_tokens_map.json"):
        shutil.copy(base / name, folder / name)
    export_minilm(folder / "model.onnx")


def reading(corpus: Path) -> float:
    """The seconds that the process takes which reads texts for all workers: to read, divide and pickle them."""
    start = time.perf_counter()
    shards = Shards(corpus.parent, [str(corpus)], USUAL, skip=False, key="")
    for shard in shards:
        pickle.dumps(shard)
    return time.perf_counter() - start


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("texts", type=Path, help="a parquet file with a column `text`")
    parser.add_argument("--count", type=int, default=20_000, help="texts, at random (default: 20,000)")
    parser.add_argument("--fastembed", type=Path, help="a Python that has fastembed")
    parser.add_argument("-o", "--output", type=Path, required=True)
    args = parser.parse_args()
    args.output.parent.mkdir(parents=True, exist_ok=True)
    texts = pyarrow.parquet.read_table(args.texts, columns=["text"])["text"].to_pylist()
    texts = random.Random(0).sample(texts, args.count)
    tokens = sum(len(one.ids) for one in OnnxEncoder().tokenizer.encode_batch(texts))
    about = {"texts": args.count, "tokens": tokens, "bytes": sum(len(text.encode()) for text in texts)}
    about |= {"dimension": OnnxEncoder().dimension, "cores": os.cpu_count(), "seed": 0}
    about["instructions"] = torch.backends.cpu.get_cpu_capability()
    source = provenance(shlex.join(["python", *sys.argv]), [args.texts])
    figures: dict[str, dict[str, float]] = {}
    if args.output.is_file():
        before = json.loads(args.output.read_text(encoding="utf-8"))
        same = ("texts", "data_sha256", "versions", "cores", "instructions")
        if all(before.get(name) == (source | about)[name] for name in same):
            figures = before["rows"]
    with tempfile.TemporaryDirectory() as temporary:
        folder = Path(temporary)
        corpus = folder / "texts.jsonl"
        corpus.write_text("".join(json.dumps({"text": text}) + "\n" for text in texts), encoding="utf-8")
        about["reading_seconds"] = round(reading(corpus), 3)
        lam = [str(Path(sys.executable).with_name("lam")), "encode", "--file", str(corpus), "-o"]
        rows: dict[str, list[Any]] = {}
        for dtype, engine, workers in WAYS:
            options = ["--dtype", dtype, "--engine", engine, "--workers", workers]
            rows[f"lam, {dtype}, {engine}, {workers}"] = [*lam, folder / f"{dtype}-{engine}-{workers}", *options]
        rows["lam, torch, one process"] = [*lam, folder / "v.npy", "--backend", "torch"]
        rows["MiniLM, sentence-transformers"] = [sys.executable, "-c", MINILM, find_base(), corpus]
        if args.fastembed:
            minilm_graph(find_base(), folder)
            script = folder / "fastembed_minilm.py"
            script.write_text(FASTEMBED)
            rows["MiniLM, fastembed"] = [args.fastembed, script, folder, corpus, 0]
            rows["MiniLM, fastembed, parallel=2"] = [args.fastembed, script, folder, corpus, 2]
        environment = os.environ | {"HF_HUB_OFFLINE": "1"}
        for name, command in tqdm([row for row in rows.items() if row[0] not in figures]):
            start = time.perf_counter()
            subprocess.run(list(map(str, command)), check=True, env=environment, capture_output=True)
            seconds = time.perf_counter() - start
            figures[name] = {"seconds": round(seconds, 1), "texts_per_second": round(args.count / seconds, 1)}
            write_json(args.output, source | about | {"rows": figures})


if __name__ == "__main__":
    main()
