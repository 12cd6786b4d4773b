"""A tuning run from end to end on a tiny base: it learns, it can be killed, it stops when something is lost."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import load_file
from transformers import TrainerCallback

from lam_model.training import tune
from lam_model.training.recipe import TuneRecipe
from lam_model.training.tasks import Similarity
from lam_model.training.tune import Source, Tuning, pairs, prepare
from lam_model.training.weights import trained

RECIPE = TuneRecipe(
    epochs=2,
    batch_size=8,
    learning_rate=2e-3,
    warmup_steps=2,
    negatives=2,
    max_tokens=32,
    evaluate_steps=5,
    max_loss=100,
)


@pytest.fixture(scope="module", autouse=True)
def _own_cache(tmp_path_factory):
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(tune.constants, "HF_HOME", str(tmp_path_factory.mktemp("cache")))
        yield


@pytest.fixture(scope="module")
def files(sentences, tmp_path_factory):
    """Queries whose documents have two of their words, and pairs that are more alike the more words they share."""
    folder = tmp_path_factory.mktemp("data")
    documents = sentences(80, 20)
    pairs = [{"query": " ".join(document.split()[3:6:2]), "passage": document} for document in documents]
    ones, others = sentences(60, 6, seed=1), sentences(60, 6, seed=2)
    scored = [
        {"a": one, "b": " ".join(one.split()[: i % 6] + other.split()[i % 6 :]), "score": i % 6}
        for i, (one, other) in enumerate(zip(ones, others, strict=True))
    ]
    plain = [{"text": text} for text in sentences(40, 5, seed=3)]
    for name, rows in (("asked.jsonl", pairs), ("alike.jsonl", scored), ("plain.jsonl", plain)):
        (folder / name).write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    return folder


@pytest.fixture(scope="module")
def begin(tiny_base, tiny_weights, files):
    def begin(out: Path, recipe: TuneRecipe = RECIPE, sources=("asked", "alike"), watch=(), **source) -> Tuning:
        start = tune.start(out, tiny_weights, tiny_base, device="cpu", **source)
        chosen = [Source(str(files / f"{name}.jsonl")) for name in sources]
        data, watched, _ = prepare(
            chosen,
            [str(files / f"{n}.jsonl") for n in watch],
            recipe,
            frozenset(),
            start.model.tokenizer,
            start.embedders,
        )
        return Tuning(start, data, watched, out, recipe, {"command": "a test"})

    return begin


@pytest.fixture(scope="module")
def finished(begin, tmp_path_factory) -> Tuning:
    run = begin(tmp_path_factory.mktemp("finished"))
    run.train()
    return run


def weights(run: Tuning) -> dict[str, torch.Tensor]:
    return load_file(run.out / "deltanet.safetensors")


def test_run_learns_what_it_is_given(finished):
    log = [json.loads(line) for line in (finished.out / "log.jsonl").read_text().splitlines()]
    losses = [row["loss"] for row in log if "loss" in row]
    assert len(losses) == finished.trainer.state.global_step > 20
    assert sum(losses[-8:]) < 0.95 * sum(losses[:8])
    scores = [row["eval_score"] for row in log if "eval_score" in row]
    assert max(scores) > scores[0]
    assert all({"eval_asked", "eval_alike", "eval_cosine"} <= row.keys() for row in log if "eval_score" in row)


def test_run_keeps_the_best_weights_not_the_last(finished, begin, tmp_path):
    best = finished.best()
    assert best["score"] == max(row["eval_score"] for row in finished.log() if "eval_score" in row)
    again = finished.watch(finished.model)
    assert again["score"] == pytest.approx(best["score"], abs=1e-3)
    saved = json.loads((finished.out / "run.json").read_text())
    assert saved["best"] == best
    assert saved["command"] == "a test"
    assert TuneRecipe(**{**saved["recipe"], "dims": tuple(saved["recipe"]["dims"])}) == RECIPE
    assert (finished.out / "scores.png").read_bytes().startswith(b"\x89PNG")


def test_run_changes_the_deltanet_layers_alone(finished, tiny_weights):
    before, after = load_file(tiny_weights), weights(finished)
    assert before.keys() == after.keys()
    assert all(after[name].dtype == torch.float16 for name in after)
    assert any(not torch.equal(before[name], after[name]) for name in after)
    fresh = tune.load(finished.out / "start").state_dict()
    for name, tensor in finished.model.state_dict().items():
        # The factors of states have no part in texts of one block.
        assert torch.equal(tensor, fresh[name]) == (".delta_net." not in name or name.endswith(".carry")), name


def test_saved_weights_are_those_of_the_model(finished):
    parameters = trained(finished.model[0].auto_model)
    for name, tensor in weights(finished).items():
        assert torch.equal(tensor, parameters[name].detach().half())


class Kill(TrainerCallback):
    def __init__(self, step: int):
        self.step = step

    def on_step_end(self, args, state, control, **kwargs):
        if state.global_step == self.step:
            raise KeyboardInterrupt


def test_killed_run_goes_on_to_the_same_weights(begin, finished, tmp_path):
    out = tmp_path / "killed"
    run = begin(out)
    run.trainer.add_callback(Kill(13))
    with pytest.raises(KeyboardInterrupt):
        run.train()
    assert not (out / "deltanet.safetensors").exists()
    run = begin(out)
    run.train()
    assert run.trainer.state.global_step == finished.trainer.state.global_step
    for name, tensor in weights(finished).items():
        assert torch.allclose(weights(run)[name], tensor, atol=1e-5), name
    steps = [row["step"] for row in run.log() if "loss" in row]
    assert steps == list(range(1, run.trainer.state.global_step + 1))


def test_run_that_loses_too_much_stops_and_says_so(begin, tmp_path):
    recipe = TuneRecipe(**{**RECIPE.__dict__, "learning_rate": 0.5, "anchor": 0.0, "max_loss": 0.0001, "epochs": 20})
    run = begin(tmp_path / "lost", recipe, sources=["asked"], watch=["alike"])
    with pytest.raises(ValueError, match=r"(alike|asked) fell from .* --max-loss 0.0001"):
        run.train()
    assert run.trainer.state.global_step < 100
    kept = (tmp_path / "lost" / "deltanet.safetensors").exists()
    assert kept == (run.best()["step"] > 0)
    assert "fell from" in json.loads((tmp_path / "lost" / "run.json").read_text())["stopped"]


def test_run_that_is_never_better_than_its_start_keeps_nothing(begin, tmp_path):
    run = begin(tmp_path / "run", TuneRecipe(**{**RECIPE.__dict__, "learning_rate": 0.0}))
    with pytest.raises(ValueError, match="no checkpoint scored above the start"):
        run.train()
    assert not (tmp_path / "run" / "deltanet.safetensors").exists()
    assert json.loads((tmp_path / "run" / "run.json").read_text())["best"]["step"] == 0


def test_folder_of_another_recipe_is_refused(begin, finished, tmp_path):
    shutil.copytree(finished.out, tmp_path / "run")
    with pytest.raises(ValueError, match="holds a run of another recipe"):
        begin(tmp_path / "run", TuneRecipe(**{**RECIPE.__dict__, "anchor": 2.0}))


@pytest.mark.parametrize(
    "changed",
    [
        {"loss": "triplet"},
        {"loss": "teacher"},
        {"negatives": 0},
        {"false_negative_margin": 0.1},
        {"topic_batches": True},
        {"dims": (48, 16)},
    ],
    ids=lambda changed: "-".join(changed),
)
def test_every_way_of_training_runs(begin, tmp_path, base, changed):
    recipe = TuneRecipe(**{**RECIPE.__dict__, "epochs": 0.3, **changed})
    teacher = {"teacher": str(base)} if changed == {"loss": "teacher"} else {}
    run = begin(tmp_path / "run", recipe, **teacher)
    run.trainer.train()
    losses = [row["loss"] for row in run.log() if "loss" in row]
    assert len(losses) > 1
    assert torch.tensor(losses).isfinite().all()
    assert all(torch.isfinite(parameter).all() for parameter in run.model.parameters())


def test_rows_come_as_often_as_their_weight_says(begin, files, tiny_base, tiny_weights, tmp_path):
    start = tune.start(tmp_path, tiny_weights, tiny_base, device="cpu")
    sources = [Source(str(files / "asked.jsonl"), weight=1.5, limit=40)]
    data, watched, _ = prepare(sources, [], RECIPE, frozenset(), start.model.tokenizer, start.embedders)
    run = Tuning(start, data, watched, tmp_path, RECIPE)
    assert len(data["asked"][0]) == 36
    assert len(run.trainer.train_dataset["asked"]) == 54


def test_texts_hold_the_vectors_near_the_base(begin, tmp_path):
    recipe = TuneRecipe(**{**RECIPE.__dict__, "epochs": 4})
    run = begin(tmp_path / "run", recipe, sources=["asked", "plain"])
    run.train()
    near = [row["eval_plain"] for row in run.log() if "eval_score" in row]
    assert near[-1] > near[0] + 1
    assert run.best()["score"] == pytest.approx(run.best()["asked"], abs=1e-3)


def test_texts_alone_are_too_little(begin, tmp_path):
    with pytest.raises(ValueError, match="there are only plain texts"):
        begin(tmp_path / "run", sources=["plain"])


def test_a_teachers_cosines_take_the_place_of_scores():
    task = Similarity("alike", [("a", "b"), ("c", "d")], [0.0, 1.0])
    known = {"a": [1, 0], "b": [0.6, 0.8], "c": [0, 1], "d": [1, 0]}
    rows = pairs(task, lambda texts, what: np.array([known[text] for text in texts]))
    assert rows["score"][:] == pytest.approx([0.6, 0.0])
    assert pairs(task, None)["score"][:] == [0.0, 1.0]


def test_the_teachers_loss_needs_a_teacher(begin, tmp_path):
    with pytest.raises(ValueError, match="give --teacher"):
        begin(tmp_path, TuneRecipe(loss="teacher"))


def test_too_little_data_is_refused(files, tiny_base, tiny_weights, tmp_path):
    start = tune.start(tmp_path, tiny_weights, tiny_base, device="cpu")
    few = [Source(str(files / "asked.jsonl"), limit=9)]
    with pytest.raises(ValueError, match="has 9 rows to train on"):
        prepare(few, [], RECIPE, frozenset(), start.model.tokenizer, start.embedders)
