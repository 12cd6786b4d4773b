"""The figures of README and model card are those that the commands measured, of the weights that are packaged."""

from __future__ import annotations

import importlib
import json
from pathlib import Path

import pytest
from huggingface_hub import ModelCard

from lam_model.base import sha256
from lam_model.evaluate import OFFICIAL
from lam_model.folder import PACKAGED_WEIGHTS

ROOT = Path(__file__).parents[1]


@pytest.fixture
def tables(monkeypatch):
    monkeypatch.syspath_prepend(str(ROOT / "results"))
    return importlib.import_module("tables")


def test_the_readme_has_the_figures_of_results(tables):
    text = (ROOT / "README.md").read_text(encoding="utf-8")
    assert tables.filled(text) == text


def test_the_model_card_has_the_figures_of_results(tables):
    assert (ROOT / "model_card.md").read_text(encoding="utf-8") == tables.model_card()


def test_the_model_card_has_what_the_hub_reads():
    card = ModelCard.load(ROOT / "model_card.md")
    assert card.data.license == "apache-2.0"
    assert card.data.base_model == "sentence-transformers/all-MiniLM-L6-v2"
    assert card.data.library_name == "sentence-transformers"
    assert card.data.pipeline_tag == "sentence-similarity"
    assert {"mteb", "sentence-transformers"} <= set(card.data.tags)
    tasks = json.loads((ROOT / "results" / "eval.json").read_text(encoding="utf-8"))["tasks"]
    assert {result.dataset_name for result in card.data.eval_results} == {f"MTEB {task}" for task in tasks}
    assert all(0 < result.metric_value < 100 for result in card.data.eval_results)


@pytest.mark.parametrize(
    "name",
    [
        "compare.json",
        "eval.json",
        "long.json",
        "carried.json",
        "lengths.json",
        "onnx.json",
        "bench.json",
        "dims.json",
        "mixed.json",
    ],
)
def test_the_figures_are_of_the_packaged_weights(name):
    figures = json.loads((ROOT / "results" / name).read_text(encoding="utf-8"))
    assert figures["deltanet_sha256"] == sha256(PACKAGED_WEIGHTS)


def test_the_row_of_the_base_gives_the_official_figures():
    scores = json.loads((ROOT / "results" / "eval.json").read_text(encoding="utf-8"))["scores"]
    for task, score in scores["MiniLM, 256 tokens"].items():
        assert score == pytest.approx(OFFICIAL[task], abs=0.3)


def test_the_packaged_weights_are_small_and_float16():
    from safetensors.torch import load_file

    assert PACKAGED_WEIGHTS.stat().st_size < 8_000_000
    assert all(str(t.dtype) == "torch.float16" for t in load_file(PACKAGED_WEIGHTS).values())
