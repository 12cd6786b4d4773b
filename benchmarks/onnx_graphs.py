"""Every ONNX graph of the packaged weights: size, agreement with torch, scores, and time beside MiniLM's own export.

`python benchmarks/onnx_graphs.py --folder DATA/mteb-tasks -o results/onnx.json`
"""

from __future__ import annotations

import argparse
import shlex
import statistics
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import lam_export
import numpy as np
import onnxruntime
import torch
from transformers import AutoModel

import lam_model
from lam_model.evaluation.provenance import provenance
from lam_model.evaluation.scores import evaluate
from lam_model.files import write_json
from lam_model.folder.base import find_base, sha256
from lam_model.folder.build import PACKAGED_WEIGHTS, build
from lam_model.runtime.embed import embed
from lam_model.runtime.onnx_source import graph_name

SHAPES = ((1, 128), (32, 128), (1, 512), (8, 512))  # texts, tokens
SECONDS = 1.5  # of repeats, for each shape and graph
TASKS = ("STSBenchmark", "SciFact")
SCORED = {(base_only, int8): graph_name(base_only, int8) for base_only in (False, True) for int8 in (False, True)}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--folder", type=Path, help="holds the tasks' data; no scores without it")
    parser.add_argument("-o", "--output", type=Path, required=True)
    args = parser.parse_args()
    output = args.output.resolve()
    with tempfile.TemporaryDirectory() as temporary:
        model = Path(temporary) / "lam"
        build(model, embed)
        graphs = {made["file"]: made for made in lam_export.export(model, int8=True, standard=True)}
        minilm = export_minilm(Path(temporary) / "minilm.onnx")
        for threads in (1, None):
            for name, ratios in time_graphs(minilm, [model / "onnx" / name for name in graphs], threads).items():
                graphs[name][f"time_to_minilm_{'one_thread' if threads else 'all_threads'}"] = ratios
        if args.folder:
            for (base_only, int8), file in SCORED.items():
                graphs[file]["scores"] = scores(model, args.folder.resolve(), base_only, int8)
    result = {
        "deltanet_sha256": sha256(PACKAGED_WEIGHTS),
        "onnxruntime": onnxruntime.__version__,
        "threads": torch.get_num_threads(),
        "graphs": graphs,
        **provenance(shlex.join(["python", *sys.argv]), [args.folder] if args.folder else []),
    }
    write_json(output, result)


class MiniLM(torch.nn.Module):
    """The base's hidden states alone, to its advantage: LAM's graphs pool and normalise.

    Tokens further on than it has positions for get the last one.
    """

    def __init__(self) -> None:
        super().__init__()
        self.bert = AutoModel.from_pretrained(find_base(), attn_implementation="eager", dtype=torch.float32)

    def forward(self, input_ids: torch.Tensor, attention_mask: torch.Tensor) -> torch.Tensor:
        position = torch.arange(input_ids.shape[1]).clamp(max=self.bert.config.max_position_embeddings - 1)
        return self.bert(input_ids, attention_mask, position_ids=position[None]).last_hidden_state


def export_minilm(path: Path) -> Path:
    ids = torch.ones(2, 8, dtype=torch.long)
    tokens = {0: "batch", 1: "length"}
    program = torch.onnx.export(
        MiniLM().eval(),
        kwargs={"input_ids": ids, "attention_mask": ids.clone()},
        dynamo=True,
        opset_version=20,
        dynamic_shapes={"input_ids": tokens, "attention_mask": tokens},
        input_names=["input_ids", "attention_mask"],
        external_data=False,
        verbose=False,
    )
    program.save(path)
    return path


def time_graphs(minilm: Path, graphs: list[Path], threads: int | None) -> dict[str, dict[str, float]]:
    """Of every graph the time of each shape over MiniLM's, batch for batch in turn, medians."""
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = threads or 0
    options.log_severity_level = 3
    sessions = [onnxruntime.InferenceSession(path, options) for path in [minilm, *graphs]]
    ratios: dict[str, dict[str, float]] = {path.name: {} for path in graphs}
    for batch, length in SHAPES:
        ids = np.random.default_rng(0).integers(1000, 20_000, (batch, length))
        feeds = [feed(session, ids) for session in sessions]
        times: list[list[float]] = [[] for _ in sessions]
        for session, inputs in zip(sessions, feeds, strict=True):
            session.run(None, inputs)  # the first call is slower
        until = time.perf_counter() + SECONDS * len(sessions)
        while time.perf_counter() < until or len(times[0]) < 3:
            for session, inputs, taken in zip(sessions, feeds, times, strict=True):
                begun = time.perf_counter()
                session.run(None, inputs)
                taken.append(time.perf_counter() - begun)
        base, *others = map(statistics.median, times)
        for path, median in zip(graphs, others, strict=True):
            ratios[path.name][f"{batch}x{length}"] = round(median / base, 2)
    return ratios


def feed(session: onnxruntime.InferenceSession, ids: np.ndarray) -> dict[str, np.ndarray]:
    inputs = {"input_ids": ids, "attention_mask": np.ones_like(ids)}
    for value in session.get_inputs():
        if value.name not in inputs:  # a state without a default
            inputs[value.name] = np.zeros((len(ids), *value.shape[1:]), np.float32)
    return inputs


def scores(model: Path, folder: Path, base_only: bool, int8: bool) -> dict[str, Any]:
    def load(**_: Any) -> Any:  # whichever variant a row is meant for, this graph
        return lam_model.load(model, base_only=base_only, backend="onnx", dtype="int8" if int8 else None)

    skip = {"MiniLM, 256 tokens": dict.fromkeys(TASKS, 0.0)}  # measured elsewhere
    measured, _ = evaluate(load, TASKS, folder, skip, only_pair=True)
    return next(by_task for row, by_task in measured.items() if row.startswith("LAM"))


if __name__ == "__main__":
    main()
