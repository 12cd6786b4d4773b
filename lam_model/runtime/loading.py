"""`load`: a verified LAM as a `SentenceTransformer` that says clearly what it cannot embed."""

from __future__ import annotations

from pathlib import Path
from typing import Literal

import torch
from huggingface_hub import hf_hub_download, snapshot_download
from huggingface_hub.errors import HTTPError

from ..folder import manifest as folder
from .onnx_encoder import graph_file
from .sentence_transformers import Lam, check_dim

_DTYPES = {"float32": torch.float32, "bfloat16": torch.bfloat16, "float16": torch.float16}
_ONNX_DTYPES = ("float32", "int8")
DISTILLED = "distilled"
_SMALL_DIMS = (256, 128, 64)


def load(
    path_or_repo: str | Path | None = None,
    revision: str | None = None,
    device: str | None = None,
    dtype: str | torch.dtype | None = None,
    base_only: bool = False,
    backend: Literal["torch", "onnx"] = "torch",
    on_truncate: Literal["warn", "error"] = "warn",
    dim: int | None = None,
    weights: str | Path = DISTILLED,
) -> Lam:
    """Load a LAM, every file of it checked.

    Args:
        path_or_repo: a model folder, or a name on the Hub; one built from `weights` if None.
        revision: branch, tag or commit on the Hub.
        device: as in torch; by default the fastest at hand. ONNX Runtime runs LAM on the CPU only.
        dtype: of the dense layers ("float32", "bfloat16", "float16" or a torch dtype); the delta rule stays in
            float32. For ONNX Runtime "float32" or "int8".
        base_only: skip the output of the DeltaNet layers.
        backend: "torch", or "onnx" for ONNX Runtime, from the folder's graphs; those of the packaged weights are
            exported once into the user's cache folder.
        on_truncate: what becomes of texts over `max_seq_length`, where you set one (nothing is over it before): they
            are cut with one warning, or refused with a ValueError.
        dim: size of the vectors: their own (384), or 256, 128 or 64, which is faster to search and somewhat worse.
        weights: "distilled", the packaged ones, or a file of DeltaNet layers that `lam train` wrote.

    Raises:
        FileNotFoundError: there is no such folder, name, revision or file.
        ValueError: a file is damaged, the model is not a LAM, or an argument is none of its choices.
        ImportError: `backend` needs what is not installed.
    """
    for name, value, choices in (
        ("backend", backend, ("torch", "onnx")),
        ("on_truncate", on_truncate, ("warn", "error")),
    ):
        if value not in choices:
            raise ValueError(f"{name} is {value!r}: it must be {' or '.join(choices)}")
    graph = graph_file(base_only, int8=dtype == "int8") if backend == "onnx" else None
    if graph and device not in (None, "cpu"):
        raise ValueError(f"device is {device!r}: ONNX Runtime runs LAM on the CPU, leave it out")
    dtypes = _ONNX_DTYPES if graph else tuple(_DTYPES)
    if dtype not in (None, *dtypes) and (graph or isinstance(dtype, str)):
        raise ValueError(f"dtype is {dtype!r}: it must be one of {', '.join(dtypes)}")
    if path_or_repo is None:
        file = folder.PACKAGED_WEIGHTS if weights == DISTILLED else Path(weights)
        if not file.is_file():
            raise FileNotFoundError(f"weights {str(weights)!r} are neither a file nor {DISTILLED!r}")
        path, manifest = folder.cached(file)
    else:
        if weights != DISTILLED:
            raise ValueError(
                f"weights {str(weights)!r} were given with {path_or_repo}, which has its own: leave one out"
            )
        path = _find(str(path_or_repo), revision, graph)
        manifest = folder.check(path)
    if graph:
        module = _onnx_module(path, graph, packaged=path_or_repo is None)
        model = Lam(modules=[module], device="cpu", similarity_fn_name="cosine")
    else:
        model = Lam(
            str(path),
            device=device,
            local_files_only=True,
            model_kwargs={"dtype": _DTYPES.get(dtype, dtype) if dtype else torch.float32},
            config_kwargs={"base_only": True} if base_only else {},
        )
    model.manifest, model.on_truncate = manifest, on_truncate
    model.settle_tokenizer()
    # its name from sentence-transformers 6 on, and before
    own = getattr(model, "get_embedding_dimension", model.get_sentence_embedding_dimension)()
    model.dims = (own, *(small for small in _SMALL_DIMS if small < own))
    if dim is not None:
        check_dim("dim", dim, model.dims)
        model.truncate_dim = dim
    return model


def _find(path_or_repo: str, revision: str | None, graph: str | None) -> Path:
    if Path(path_or_repo).is_dir():
        if revision:
            raise ValueError(f"revision {revision!r} was given with the local folder {path_or_repo}: leave it out")
        return Path(path_or_repo)
    if path_or_repo.count("/") != 1 or path_or_repo.startswith((".", "/", "~")):
        raise FileNotFoundError(f"{path_or_repo} is neither a folder nor a name on the Hub (owner/name)")
    try:
        path = Path(snapshot_download(path_or_repo, revision=revision, ignore_patterns=[f"{folder.ONNX}*"]))
        if graph:
            hf_hub_download(path_or_repo, graph, revision=path.name)
        return path
    except (OSError, ValueError, HTTPError) as error:  # the hub's errors of every kind, a broken connection too
        at = f" at revision {revision}" if revision else ""
        reason = str(error).strip().splitlines()[0] if str(error).strip() else type(error).__name__
        raise FileNotFoundError(
            f"{path_or_repo}{at} is neither a folder nor to be had from the Hub: {reason}"
        ) from error


def _onnx_module(path: Path, graph: str, packaged: bool) -> torch.nn.Module:
    """A folder's graph; those of the packaged weights are exported once, and again if they are damaged."""
    from .onnx_module import OnnxModule

    try:
        return OnnxModule(path, graph)
    except (FileNotFoundError, ValueError):
        if not packaged:
            raise
    try:
        from lam_export import export
    except ImportError as error:
        raise ImportError("the graphs must be exported first: pip install 'lam-model[export]'") from error
    with folder.locked(path):
        try:
            return OnnxModule(path, graph)  # another thread or process has exported it meanwhile
        except (FileNotFoundError, ValueError):
            export(path, ["base" if "_base" in graph else "full"], int8="_int8" in graph)
        return OnnxModule(path, graph)
