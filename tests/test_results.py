"""The README's figures are those that the commands measured, of the weights that are packaged."""

from __future__ import annotations

import importlib.util
import json
from pathlib import Path

from lam_model.base import sha256
from lam_model.folder import PACKAGED_WEIGHTS

ROOT = Path(__file__).parents[1]


def test_the_readme_has_the_figures_of_results():
    spec = importlib.util.spec_from_file_location("tables", ROOT / "results" / "tables.py")
    tables = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(tables)
    text = (ROOT / "README.md").read_text(encoding="utf-8")
    assert tables.filled(text) == text


def test_the_figures_are_of_the_packaged_weights():
    figures = json.loads((ROOT / "results" / "compare.json").read_text(encoding="utf-8"))
    assert figures["deltanet_sha256"] == sha256(PACKAGED_WEIGHTS)


def test_the_packaged_weights_are_small_and_float16():
    from safetensors.torch import load_file

    assert PACKAGED_WEIGHTS.stat().st_size < 8_000_000
    assert all(str(t.dtype) == "torch.float16" for t in load_file(PACKAGED_WEIGHTS).values())
