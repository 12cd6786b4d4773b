"""`load`: a verified LAM as a `SentenceTransformer` that says clearly what it cannot embed."""

from __future__ import annotations

import hashlib
import shutil
from pathlib import Path
from typing import Any

import torch
from huggingface_hub import constants, snapshot_download
from huggingface_hub.errors import HTTPError
from sentence_transformers import SentenceTransformer

from . import folder
from .base import sha256
from .texts import clean

_DTYPES = {"float32": torch.float32, "bfloat16": torch.bfloat16, "float16": torch.float16}


class Lam(SentenceTransformer):
    """A `SentenceTransformer` that takes a text or a list of texts, and nothing that only looks like one.

    Its `manifest` says which weights it was built from.
    """

    manifest: dict[str, Any]

    def encode(self, *args: Any, **kwargs: Any) -> Any:
        """As `SentenceTransformer.encode`.

        Raises:
            TypeError: something is not a string; the message says what, and at which index.
        """
        if args:
            return super().encode(clean(args[0]), *args[1:], **kwargs)
        # The texts are called `sentences` before sentence-transformers 6 and `inputs` from there on.
        name = "inputs" if "inputs" in kwargs else "sentences"
        return super().encode(**{**kwargs, name: clean(kwargs.get(name))})


def load(
    path_or_repo: str | Path | None = None,
    revision: str | None = None,
    device: str | None = None,
    dtype: str | torch.dtype | None = None,
    base_only: bool = False,
) -> SentenceTransformer:
    """Load a LAM, every file of it checked.

    Args:
        path_or_repo: a model folder, or a name on the Hub; the packaged weights if None.
        revision: branch, tag or commit on the Hub.
        device: as in torch; by default the fastest at hand.
        dtype: of the dense layers ("float32", "bfloat16", "float16" or a torch dtype); the delta rule stays in
            float32.
        base_only: skip the output of the DeltaNet layers.

    Raises:
        FileNotFoundError: there is no such folder, name, revision or file.
        ValueError: a file is damaged, or the model is not a LAM.
    """
    if isinstance(dtype, str) and dtype not in _DTYPES:
        raise ValueError(f"dtype is {dtype!r}: it must be one of {', '.join(_DTYPES)}")
    if path_or_repo is None:
        path, manifest = _packaged()
    else:
        path = _find(str(path_or_repo), revision)
        manifest = folder.check(path)
    model = Lam(
        str(path),
        device=device,
        local_files_only=True,
        model_kwargs={"dtype": _DTYPES.get(dtype, dtype) if dtype else torch.float32},
        config_kwargs={"base_only": True} if base_only else {},
    )
    model.manifest = manifest
    return model


def _find(path_or_repo: str, revision: str | None) -> Path:
    if Path(path_or_repo).is_dir():
        if revision:
            raise ValueError(f"revision {revision!r} was given with the local folder {path_or_repo}: leave it out")
        return Path(path_or_repo)
    if path_or_repo.count("/") != 1 or path_or_repo.startswith((".", "/", "~")):
        raise FileNotFoundError(f"{path_or_repo} is neither a folder nor a name on the Hub (owner/name)")
    try:
        return Path(snapshot_download(path_or_repo, revision=revision, ignore_patterns=["onnx/*"]))
    except (OSError, ValueError, HTTPError) as error:  # the hub's errors of every kind, a broken connection too
        at = f" at revision {revision}" if revision else ""
        reason = str(error).strip().splitlines()[0] if str(error).strip() else type(error).__name__
        raise FileNotFoundError(
            f"{path_or_repo}{at} is neither a folder nor to be had from the Hub: {reason}"
        ) from error


def _packaged() -> tuple[Path, dict[str, Any]]:
    """The model of the packaged weights, built once into the user's cache folder and again if it is damaged."""
    weights = folder.PACKAGED_WEIGHTS
    made_of = [weights, *(Path(__file__).parent / name for name in (*folder.CODE, "folder.py"))]
    key = hashlib.sha256("".join(map(sha256, made_of)).encode()).hexdigest()[:16]
    path = Path(constants.HF_HOME) / "lam" / key
    try:
        return path, folder.check(path)
    except (FileNotFoundError, ValueError):
        shutil.rmtree(path, ignore_errors=True)
        folder.build(path)
        return path, folder.check(path)
