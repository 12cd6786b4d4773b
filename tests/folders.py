"""Model folders as the commands make them: with the vectors of whichever runtime fits."""

from __future__ import annotations

from pathlib import Path

from lam_model.folder import build as building
from lam_model.folder import manifest
from lam_model.folder.build import CODE, PACKAGED_WEIGHTS
from lam_model.folder.manifest import GOLDEN_TEXTS, MANIFEST, ONNX, check
from lam_model.folder.tensors import WEIGHTS
from lam_model.runtime.cache import cached
from lam_model.runtime.embed import embed

__all__ = ["CODE", "GOLDEN_TEXTS", "MANIFEST", "ONNX", "PACKAGED_WEIGHTS", "WEIGHTS", "cached", "check"]


def build(out: Path, weights: Path = PACKAGED_WEIGHTS, base: Path | None = None) -> Path:
    return building.build(out, embed, weights, base)


def verify(folder: Path) -> list[str]:
    return manifest.verify(folder, embed)


def adopt(folder: Path) -> None:
    building.adopt(folder, embed)
