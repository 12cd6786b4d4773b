"""A distillation run from end to end on a tiny base: it learns, it can be killed, it leaves the base alone."""

from __future__ import annotations

import json
import shutil
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from conftest import BLOCK
from datasets import Dataset
from safetensors.torch import load_file, save_file

from lam_model.folder.base import sha256
from lam_model.training import data, distill
from lam_model.training.data import normalise
from lam_model.training.distill import Run, learning_rate, normalised_error
from lam_model.training.recipe import Recipe
from lam_model.training.start import convert
from lam_model.training.weights import trained

RECIPE = Recipe(
    stage1_tokens=6000,
    stage2_tokens=4000,
    stage1_lr=1e-2,
    stage2_lr=2e-3,
    warmup_tokens=500,
    batch_tokens=256,
    long_tokens=150,
    long_share=0.3,
)
STEPS_OF_STAGE_1 = 20  # at least


@pytest.fixture(scope="module", autouse=True)
def _small_scale():
    """Many held-out texts in few, everything logged, a checkpoint after every step."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(data, "HELD_OUT", 16)
        patch.setattr(distill, "LOG_STEPS", 1)
        patch.setattr(distill, "CHECKPOINT_SECONDS", 0)
        yield


@pytest.fixture(scope="module")
def texts(sentences) -> Dataset:
    rows = [text for words in range(2, 62) for text in sentences(8, words, seed=words)] + sentences(60, 200, seed=1)
    return Dataset.from_dict({"text": rows, "column": ["text"] * len(rows)})


@pytest.fixture(scope="module")
def start_run(tiny_base, texts):
    def start(out: Path, recipe: Recipe = RECIPE, texts: Dataset = texts, **kwargs) -> Run:
        return Run(tiny_base, texts, out, recipe, **{"dtype": "float32", **kwargs})

    return start


@pytest.fixture(scope="module")
def finished(start_run, tmp_path_factory) -> Run:
    """A run that nothing disturbed."""
    run = start_run(tmp_path_factory.mktemp("finished"))
    run.train()
    return run


def read_log(run: Run) -> list[dict]:
    return [json.loads(line) for line in (run.out / "log.jsonl").read_text().splitlines()]


def test_run_lowers_the_loss_of_both_stages(finished):
    for stage in (1, 2):
        losses = [row["loss"] for row in read_log(finished) if row["stage"] == stage and "loss" in row]
        assert len(losses) > 10
        assert sum(losses[-5:]) < 0.95 * sum(losses[:5])


def test_held_out_texts_are_scored_every_so_many_tokens(start_run, tmp_path):
    recipe = replace(RECIPE, evaluate_tokens=RECIPE.stage2_tokens // 3)
    run = start_run(tmp_path, recipe)
    run.train()
    scored = [row["tokens"] for row in read_log(run) if row["stage"] == 2 and "cosine" in row]
    assert {tokens // recipe.evaluate_tokens for tokens in scored} == {1, 2, 3}


def test_run_comes_closer_to_the_base_on_held_out_texts(finished, tiny_base):
    before = finished.held_out.score(convert(tiny_base))
    after = read_log(finished)[-1]
    assert after["cosine"] > before["cosine"] + 0.02
    assert {"cosine", "worst_5_percent", "long_cosine"} <= after.keys()


def test_run_writes_the_trained_weights_alone_in_float16(finished):
    weights = load_file(finished.out / "deltanet.safetensors")
    parameters = trained(finished.model)
    assert weights.keys() == parameters.keys()
    assert all(".delta_net." in name for name in weights)
    for name, weight in weights.items():
        assert weight.dtype == torch.float16
        assert torch.equal(weight, parameters[name].detach().half())


def test_run_writes_its_log_summary_and_plot(finished, tiny_base):
    log = read_log(finished)
    assert [row["step"] for row in log if "loss" in row] == list(range(1, finished.step + 1))
    assert {row["stage"] for row in log} == {1, 2}
    for stage, total in ((1, RECIPE.stage1_tokens), (2, RECIPE.stage2_tokens)):
        read = [row["tokens"] for row in log if row["stage"] == stage]
        assert read == sorted(read)
        assert total <= read[-1] < total + RECIPE.batch_tokens
    summary = json.loads((finished.out / "run.json").read_text())
    assert Recipe(**summary["recipe"]) == RECIPE
    assert summary["base_sha256"] == sha256(tiny_base / "model.safetensors")
    assert summary["final"] == log[-1]
    assert summary["steps"] == finished.step
    assert summary["held_out"] > 0
    assert (finished.out / "loss.png").read_bytes().startswith(b"\x89PNG")
    leftovers = {path.name for path in finished.out.iterdir() if path.name.startswith(".")}
    assert not leftovers


def test_training_leaves_the_frozen_weights_as_they_were(finished, tiny_base):
    before, after = convert(tiny_base).state_dict(), finished.model.state_dict()
    for name, weight in before.items():
        assert torch.equal(weight, after[name]) != (".delta_net." in name), name
    for name, parameter in finished.model.named_parameters():
        assert parameter.requires_grad == (".delta_net." in name), name


def train_and_die(run: Run, steps: int) -> None:
    """The run is killed after so many more steps."""
    calls = iter(range(steps))

    def dying(*args):
        if next(calls, None) is None:
            raise KeyboardInterrupt
        return learning_rate(*args)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(distill, "learning_rate", dying)
        with pytest.raises(KeyboardInterrupt):
            run.train()


@pytest.mark.parametrize("deaths", [[1], [9], [STEPS_OF_STAGE_1 + 15], [5, 7, 20]], ids=str)
def test_killed_run_goes_on_to_the_weights_of_one_that_was_not(finished, start_run, tmp_path, deaths):
    for steps in deaths:
        train_and_die(start_run(tmp_path), steps)
        assert (tmp_path / "checkpoint.pt").is_file()
    run = start_run(tmp_path)
    assert run.step == sum(deaths)
    run.train()
    for name, parameter in trained(finished.model).items():
        torch.testing.assert_close(trained(run.model)[name], parameter, rtol=0, atol=1e-6, msg=name)
    timeless = [[{k: v for k, v in row.items() if k != "seconds"} for row in read_log(r)] for r in (run, finished)]
    assert timeless[0] == timeless[1]


def test_killed_run_counts_the_texts_that_it_left_out_as_one_that_was_not(finished, start_run, tmp_path):
    train_and_die(start_run(tmp_path), 5)
    train_and_die(start_run(tmp_path), finished.step - 10)
    run = start_run(tmp_path)
    run.train()
    assert run.batches.held_out == finished.batches.held_out


def test_death_while_a_checkpoint_is_written_leaves_the_one_before(start_run, tmp_path, monkeypatch):
    train_and_die(start_run(tmp_path), 3)
    before = (tmp_path / "checkpoint.pt").read_bytes()

    def half(state, path):
        Path(path).write_bytes(before[:1000])
        raise OSError("disk full")

    run = start_run(tmp_path)
    with monkeypatch.context() as patch:
        patch.setattr(torch, "save", half)
        with pytest.raises(OSError, match="disk full"):
            run.train()
    assert (tmp_path / "checkpoint.pt").read_bytes() == before
    assert start_run(tmp_path).step == 3


def test_checkpoint_of_another_recipe_is_refused(finished, start_run, tmp_path):
    shutil.copy(finished.out / "checkpoint.pt", tmp_path)
    with pytest.raises(ValueError, match="another recipe"):
        start_run(tmp_path, Recipe(seed=1))


def test_finished_run_started_again_trains_no_further(finished, start_run, tmp_path):
    shutil.copytree(finished.out, tmp_path, dirs_exist_ok=True)
    run = start_run(tmp_path)
    run.train()
    assert run.step == finished.step
    for name, parameter in trained(run.model).items():
        assert torch.equal(parameter, trained(finished.model)[name])


def test_run_can_start_from_trained_weights(finished, start_run, tmp_path):
    run = start_run(tmp_path, weights=finished.out / "deltanet.safetensors")
    for name, parameter in trained(run.model).items():
        assert torch.equal(parameter, trained(finished.model)[name].half().float())


def test_seed_of_the_recipe_decides_the_order_of_the_texts(start_run, tmp_path):
    first = [next(iter(start_run(tmp_path / str(seed), Recipe(seed=seed)).batches))[0] for seed in (0, 0, 5)]
    assert torch.equal(first[0], first[1])
    assert not torch.equal(first[0], first[2])


@pytest.mark.parametrize("fault", ["name", "shape"])
def test_weights_of_another_base_are_refused(finished, start_run, tmp_path, fault):
    weights = load_file(finished.out / "deltanet.safetensors")
    name = "layers.2.delta_net.scale"
    weight = weights.pop(name)
    weights["layers.3.delta_net.scale" if fault == "name" else name] = (
        weight if fault == "name" else weight[:-1].clone()
    )
    save_file(weights, tmp_path / "other.safetensors")
    with pytest.raises(ValueError, match="another base"):
        start_run(tmp_path / "out", weights=tmp_path / "other.safetensors")


def test_guard_of_a_run_is_heeded_in_training_and_measuring(start_run, texts, tmp_path):
    guard = frozenset(normalise(text) for text in texts["text"][::2])
    guarded, free = (start_run(tmp_path / str(len(g)), guard=g) for g in (guard, frozenset()))
    assert len(guarded.held_out.short) < len(free.held_out.short)
    next(iter(guarded.batches))
    assert guarded.batches.guarded > 10


def test_no_phrase_is_a_text_that_measures(start_run, texts, tmp_path, monkeypatch):
    """Even where it is written in another way than the text that is held out."""
    monkeypatch.setattr(data, "is_held_out", lambda text: text.isupper())
    words = sorted({word for text in texts["text"] for word in text.split()})
    rows = [*texts["text"], *map(str.upper, words)]
    run = start_run(tmp_path, texts=Dataset.from_dict({"text": rows, "column": ["text"] * len(rows)}))
    assert len(run.held_out.short) == len(words)
    batches = iter(run.batches)
    assert all((next(batches)[1].sum(1) > 3).all() for _ in range(20))  # never one word alone


def test_texts_of_several_blocks_are_read_in_blocks_of_several_sizes(start_run, tmp_path):
    run = start_run(tmp_path)
    sizes = {BLOCK: set(), BLOCK + 1: set()}
    for run.step in range(40):
        for length, seen in sizes.items():
            with run._block_size_for(length):
                assert run.model.config.block_size == run.teacher.block_size
                seen.add(run.teacher.block_size)
    assert sizes == {BLOCK: {BLOCK}, BLOCK + 1: {BLOCK, BLOCK // 2, BLOCK // 4, BLOCK // 8}}
    with pytest.raises(RuntimeError), run._block_size_for(BLOCK + 1):
        raise RuntimeError
    assert run.model.config.block_size == run.teacher.block_size == BLOCK


def test_run_in_bfloat16_learns_too(start_run, tmp_path):
    run = start_run(tmp_path, dtype="bfloat16")
    run.train()
    losses = [row["loss"] for row in read_log(run) if row["stage"] == 1 and "loss" in row]
    assert sum(losses[-5:]) < 0.95 * sum(losses[:5])
    assert all(p.dtype == torch.float32 and p.isfinite().all() for p in trained(run.model).values())
    assert json.loads((tmp_path / "run.json").read_text())["dtype"] == "bfloat16"


def test_learning_rate_warms_up_and_decays():
    rates = [learning_rate(0.5, tokens, 10_000, 1_000) for tokens in range(0, 10_001, 50)]
    peak = rates.index(max(rates))
    assert 0 < rates[0] < 0.001
    assert rates[: peak + 1] == sorted(rates[: peak + 1])
    assert rates[peak:] == sorted(rates[peak:], reverse=True)
    assert peak in (19, 20)  # at about 1,000 tokens
    assert 0.45 < max(rates) <= 0.5
    assert rates[100] == pytest.approx(0.25)  # half the way: half the peak
    assert rates[-1] == pytest.approx(0.0, abs=1e-12)
    assert learning_rate(0.5, 12_000, 10_000, 1_000) == pytest.approx(0.0, abs=1e-12)
    assert learning_rate(0.5, 0, 10_000, 0) == 0.5


def test_normalised_error_is_one_for_the_mean_and_blind_to_pads():
    target = torch.randn(2, 9, 5, generator=torch.Generator().manual_seed(0))
    mask = torch.ones(2, 9)
    mask[1, 4:] = 0
    mean = target[mask.bool()].mean(0).expand_as(target)
    assert normalised_error(mean, target, mask).item() == pytest.approx(1.0, abs=1e-5)
    assert normalised_error(target.masked_fill(mask[..., None] == 0, 1e6), target, mask).item() == 0.0
    assert normalised_error(10 * mean, 10 * target, mask).item() == pytest.approx(1.0, abs=1e-5)
