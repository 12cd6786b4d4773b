"""`load`: a verified LAM as a `SentenceTransformer`."""

from __future__ import annotations

from pathlib import Path
from typing import Any, Literal

import torch

from ..folder.build import PACKAGED_WEIGHTS
from ..folder.hub import find
from ..folder.manifest import check
from .cache import cached
from .dims import check_dim, dims
from .onnx_encoder import DTYPES
from .onnx_module import OnnxModule
from .onnx_source import graph_files
from .sentence_transformers import Lam

_DTYPES = {"float32": torch.float32, "bfloat16": torch.bfloat16, "float16": torch.float16}
DISTILLED = "distilled"


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
        backend: "torch", or "onnx" for ONNX Runtime.
        on_truncate: what becomes of texts over `max_seq_length`, where you set one (nothing is over it before): they
            are cut with one warning, or refused with a ValueError.
        dim: size of the vectors: their own (384), or 256, 128 or 64, which is faster to search and somewhat worse.
        weights: "distilled", the packaged ones, or a file of DeltaNet layers that `lam train` wrote.

    Raises:
        FileNotFoundError: there is no such folder, name, revision or file.
        ValueError: a file is damaged, the model is not a LAM, or an argument is none of its choices.
    """
    for name, value, choices in (
        ("backend", backend, ("torch", "onnx")),
        ("on_truncate", on_truncate, ("warn", "error")),
    ):
        if value not in choices:
            raise ValueError(f"{name} is {value!r}: it must be {' or '.join(choices)}")
    on_onnx = backend == "onnx"
    if on_onnx and device not in (None, "cpu"):
        raise ValueError(f"device is {device!r}: ONNX Runtime runs LAM on the CPU, leave it out")
    dtypes = DTYPES if on_onnx else tuple(_DTYPES)
    if dtype not in (None, *dtypes) and (on_onnx or isinstance(dtype, str)):
        raise ValueError(f"dtype is {dtype!r}: it must be one of {', '.join(dtypes)}")
    if path_or_repo is None:
        file = PACKAGED_WEIGHTS if weights == DISTILLED else Path(weights)
        if not file.is_file():
            raise FileNotFoundError(f"weights {str(weights)!r} are neither a file nor {DISTILLED!r}")
        path, manifest = cached(file)
    else:
        if weights != DISTILLED:
            raise ValueError(
                f"weights {str(weights)!r} were given with {path_or_repo}, which has its own: leave one out"
            )
        path = find(path_or_repo, revision, graph_files(base_only, dtype == "int8") if on_onnx else ())
        manifest = check(path)
    if on_onnx:
        module = OnnxModule(path, str(dtype or "float32"), base_only)
        model = Lam(modules=[module], device="cpu", similarity_fn_name="cosine")
    else:
        model = Lam(
            str(path),
            device=device,
            local_files_only=True,
            model_kwargs={"dtype": _DTYPES[dtype] if isinstance(dtype, str) else dtype or torch.float32},
            config_kwargs={"base_only": True} if base_only else {},
        )
    model.manifest, model.on_truncate = manifest, on_truncate
    model.settle_tokenizer()
    # its name from sentence-transformers 6 on, and before
    own: Any = getattr(model, "get_embedding_dimension", model.get_sentence_embedding_dimension)
    model.dims = dims(own())
    if dim is not None:
        check_dim("dim", dim, model.dims)
        model.truncate_dim = dim
    return model
