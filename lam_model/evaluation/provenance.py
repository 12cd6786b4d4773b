"""What a measured figure came from: to be kept beside it."""

from __future__ import annotations

import platform
from collections.abc import Iterable
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

from ..folder.base import sha256

_PACKAGES = (
    "lam-model",
    "torch",
    "transformers",
    "sentence-transformers",
    "tokenizers",
    "onnxruntime",
    "mteb",
    "numpy",
    "numba",
    "accelerate",
    "bm25s",
)


def provenance(command: str, data: Iterable[Path] = ()) -> dict[str, Any]:
    """The command, the versions of Python and packages, and the sha256 of every data file by its name."""
    versions = {"python": platform.python_version()}
    for name in _PACKAGES:
        try:
            versions[name] = version(name)
        except PackageNotFoundError:
            continue
    files = [f for path in data for f in (sorted(path.rglob("*")) if path.is_dir() else [path]) if f.is_file()]
    return {
        "command": command,
        "versions": versions,
        "data_sha256": {f"{f.parent.name}/{f.name}": sha256(f) for f in files},
    }
