"""LAM among mteb's models.

`lam_models.py` is what mteb's own folder of model implementations would hold. As long as it does not, `register`
adds the same to mteb's table when mteb is imported, which `lam_model.startup` sees to.
"""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

KEYS = {"lam": "lam", "lam_base": "lam-base"}  # names in lam_models.py, and what `mteb run -m` takes for short


def register(registry: dict[str, Any]) -> None:
    """Add LAM and its base-only variant to mteb's `MODEL_REGISTRY`, by their names and short keys.

    With a folder in the environment variable LAM_MODEL_PATH, results are filed under that folder's weights.
    """
    from . import lam_models

    for name, key in KEYS.items():
        meta = getattr(lam_models, name)
        if folder := os.environ.get("LAM_MODEL_PATH"):
            meta = meta.model_copy(update={"revision": _revision(Path(folder))})
        registry[meta.name] = registry[key] = meta


def _revision(folder: Path) -> str:
    """As `lam_models.py` has it; a folder that is no LAM is refused, with its reason, when it is loaded."""
    try:
        manifest = json.loads((folder / "manifest.json").read_text(encoding="utf-8"))
        return manifest["deltanet_sha256"][:40]
    except (OSError, ValueError, KeyError):
        return "unverified"
