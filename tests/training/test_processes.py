"""Two processes train as one does: the same losses and weights, also if they were killed on the way.

This file is also the program of such a process: see the end.
"""

from __future__ import annotations

import json
import os
import socket
import subprocess
import sys
from contextlib import suppress
from pathlib import Path

import pytest
import torch
from transformers import TrainerCallback

from lam_model.training import context, context_data, data, distill, processes, tune
from lam_model.training.recipe import ContextRecipe, Recipe, TuneRecipe
from lam_model.training.weights import trained

STEPS = 6  # of each kind at least
DISTILL = Recipe(
    stage1_tokens=600,
    stage2_tokens=900,
    stage1_lr=1e-2,
    stage2_lr=2e-3,
    warmup_tokens=200,
    batch_tokens=256,
    long_tokens=150,  # one text is a batch: one of the processes has none
    long_share=0.5,
    evaluate_tokens=500,
)
TUNE = TuneRecipe(
    epochs=1.0,
    batch_size=9,  # one process has a text more than the other
    learning_rate=2e-3,
    warmup_steps=2,
    negatives=1,
    max_tokens=32,
    evaluate_steps=3,
    max_loss=100,
    dims=(48, 16),
)
CONTEXT = ContextRecipe(
    steps=STEPS, learning_rate=2e-3, warmup_steps=2, step_documents=3, step_pairs=5, anchor_texts=3, evaluate_steps=3
)


class Kill(TrainerCallback):
    def on_step_end(self, args, state, control, **kwargs):
        if state.global_step == 4:  # a step after a checkpoint
            raise KeyboardInterrupt


def train(kind: str, place: Path, out: Path, *callbacks: TrainerCallback) -> tuple[list[dict], dict[str, torch.Tensor]]:
    """Train as the command does; the log and the trained weights."""
    base, weights = place / "base", place / "weights.safetensors"
    if kind == "distill":
        run = distill.Run(base, data.read_texts([str(place / "texts.jsonl")]), out, DISTILL, dtype="float32")
        run.train()
        return run.log, trained(run.model)
    with processes.in_turn():
        start = tune.start(out, weights, base, device="cpu")
    if kind == "tune":
        sources = [tune.Source(str(place / f"{name}.jsonl")) for name in ("asked", "alike")]
        rows, watch, _ = tune.prepare(sources, [], TUNE, frozenset(), start.model.tokenizer, start.embedders)
        tuning = tune.Tuning(start, rows, watch, out, TUNE)
        tuning.trainer.callback_handler.callbacks += callbacks
        tuning.train()
        return tuning.trainer.state.log_history, trained(start.model[0].auto_model)
    steps, watched = context_data.prepare(
        [place / "stories"], [], [place / "asked.jsonl"], [str(place / "plain.jsonl")], [], frozenset(), start, CONTEXT
    )
    training = context.ContextTraining(start.model, start.base, steps, watched, out, CONTEXT)
    training.args.logging_steps = 1
    training.callback_handler.callbacks += callbacks
    training.run()
    return training.state.log_history, trained(training.model)


def write(path: Path, rows: list[dict]) -> None:
    path.parent.mkdir(exist_ok=True)
    path.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")


@pytest.fixture(scope="module")
def place(tmp_path_factory, tiny_base, tiny_weights, sentences) -> Path:
    """A folder of all that is read."""
    place = tmp_path_factory.mktemp("place")
    (place / "base").symlink_to(tiny_base)
    (place / "weights.safetensors").symlink_to(tiny_weights)
    short = [text for words in range(2, 40) for text in sentences(4, words, seed=words)]
    write(place / "texts.jsonl", [{"text": text} for text in short + sentences(30, 200, seed=1)])
    documents = sentences(60, 20)
    write(place / "asked.jsonl", [{"query": " ".join(text.split()[3:6:2]), "passage": text} for text in documents])
    ones, others = sentences(40, 6, seed=1), sentences(40, 6, seed=2)
    alike = [
        (a, " ".join(a.split()[: i % 6] + b.split()[i % 6 :]))
        for i, (a, b) in enumerate(zip(ones, others, strict=True))
    ]
    write(place / "alike.jsonl", [{"a": a, "b": b, "score": i % 6} for i, (a, b) in enumerate(alike)])
    write(place / "plain.jsonl", [{"text": text, "genre": "prose"} for text in sentences(60, 9, seed=7)])
    parts = [sentences(6, 18, seed=i) for i in range(12)]
    texts = [". ".join(some) for some in parts]
    stories = [{"_id": f"d{i}", "title": text[:9], "text": text} for i, text in enumerate(texts)]
    write(place / "stories" / "documents.jsonl", stories)
    asked = []
    for i, text in enumerate(texts):
        for part in (parts[i][1], parts[i][4]):
            start = text.index(part)
            asked.append({"query": part[:30], "document": f"d{i}", "spans": [[start, start + len(part)]]})
    write(place / "stories" / "queries.jsonl", asked)
    return place


def small_scale(patch, cache: Path) -> None:
    patch(tune.constants, "HF_HOME", str(cache))
    patch(data, "HELD_OUT", 8)
    patch(distill, "LOG_STEPS", 1)
    patch(tune, "autocast_dtype", lambda device: torch.float32)  # halves of a batch are rounded otherwise in bfloat16


def of_process(place: Path) -> None:
    """What one of the processes does."""
    small_scale(setattr, place / "cache")
    processes.join("cpu")
    for kind in ("distill", "tune", "context"):
        if kind != "distill":
            with suppress(KeyboardInterrupt):
                train(kind, place, place / kind, Kill())
        log, weights = train(kind, place, place / kind)
        torch.save({"log": log, "weights": dict(weights)}, place / f"{kind}-{processes.index()}.pt")


@pytest.fixture(scope="module")
def two(place) -> Path:
    """The folder in which two processes have trained."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    # What `torchrun --nproc_per_node 2`, and with it `accelerate launch`, tells them.
    told = {"WORLD_SIZE": "2", "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(port)}
    told |= {"OMP_NUM_THREADS": "1", "PYTHONPATH": str(Path(__file__).parents[2])}
    begun = [
        subprocess.Popen(
            [sys.executable, __file__, str(place)], env=os.environ | told | {"RANK": str(i), "LOCAL_RANK": str(i)}
        )
        for i in range(2)
    ]
    try:
        assert [one.wait(timeout=900) for one in begun] == [0, 0]
    finally:
        for one in begun:
            one.kill()
    return place


@pytest.mark.parametrize("kind", ["distill", "tune", "context"])
def test_two_processes_train_as_one_does(two, place, kind, tmp_path, monkeypatch):
    small_scale(monkeypatch.setattr, tmp_path / "cache")
    log, weights = train(kind, place, tmp_path / "out")
    for index in range(2):
        found = torch.load(two / f"{kind}-{index}.pt")
        losses = [[row["loss"] for row in rows if "loss" in row] for rows in (found["log"], log)]
        assert len(losses[1]) >= (STEPS if kind != "context" else 1)
        assert losses[0] == pytest.approx(losses[1], rel=1e-4)
        for name, weight in weights.items():
            torch.testing.assert_close(found["weights"][name], weight, rtol=0, atol=1e-4, msg=name)


if __name__ == "__main__":
    of_process(Path(sys.argv[1]))
