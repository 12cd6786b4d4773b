"""`load`: a verified LAM as a `SentenceTransformer` that says clearly what it cannot embed."""

from __future__ import annotations

import warnings
from collections.abc import Sequence
from contextvars import ContextVar
from pathlib import Path
from typing import Any, Literal

import torch
from huggingface_hub import hf_hub_download, snapshot_download
from huggingface_hub.errors import HTTPError
from sentence_transformers import SentenceTransformer
from torch import Tensor

from . import folder
from .onnx_encoder import graph_file
from .passages import PASSAGE_TOKENS, Passages, encode_passages
from .stream import pools_the_mean
from .texts import check, clean

_DTYPES = {"float32": torch.float32, "bfloat16": torch.bfloat16, "float16": torch.float16}
_ONNX_DTYPES = ("float32", "int8")
DISTILLED = "distilled"
_SMALL_DIMS = (256, 128, 64)
_VECTOR = "sentence_embedding"
_VECTORS_ONLY = ContextVar("_VECTORS_ONLY", default=False)  # whether nobody asks for the vectors of tokens


class Lam(SentenceTransformer):
    """A `SentenceTransformer` that takes a text or a list of texts, and nothing that only looks like one.

    Its `manifest` says which weights it was built from; `truncated_texts` counts what a limit in `max_seq_length` has
    cut (there is none, unless it is set). Vectors of one of its smaller `dims` (`load(dim=...)`, or `truncate_dim`) are
    the first numbers of the whole ones, of unit length again.
    """

    manifest: dict[str, Any]
    dims: tuple[int, ...]
    on_truncate: str = "warn"
    truncated_texts: int = 0
    _warned_of: int | None = None  # the limit

    def encode(self, *args: Any, **kwargs: Any) -> Any:
        """As `SentenceTransformer.encode`.

        Raises:
            TypeError: something is not a string; the message says what, and at which index.
            ValueError: a text is longer than `max_seq_length`, of a model loaded with `on_truncate="error"`; or
                `truncate_dim` is none of `dims`.
        """
        dim = kwargs.get("truncate_dim") or self.truncate_dim
        if dim:
            _check_dim("truncate_dim", dim, self.dims)
            kwargs["normalize_embeddings"] = True
        # The texts are called `sentences` before sentence-transformers 6 and `inputs` from there on.
        name = "inputs" if "inputs" in kwargs else "sentences"
        names = (name, "prompt_name", "prompt", "batch_size", "show_progress_bar", "output_value")
        named = dict(zip(names, args, strict=False)) | kwargs
        texts = clean(named.get(name))
        prompt = named.get("prompt") or self.prompts.get(named.get("prompt_name") or self.default_prompt_name) or ""
        self._check_lengths([prompt + text for text in ([texts] if isinstance(texts, str) else texts)])
        vectors_only = _VECTORS_ONLY.set(named.get("output_value", _VECTOR) == _VECTOR)
        try:
            if args:
                return super().encode(texts, *args[1:], **kwargs)
            return super().encode(**{**kwargs, name: texts})
        finally:
            _VECTORS_ONLY.reset(vectors_only)

    def forward(self, input: dict[str, Tensor], **kwargs: Any) -> dict[str, Tensor]:
        """As `SentenceTransformer.forward`; but within `encode`, memory does not grow with the length of the texts."""
        lam, mask = getattr(self[0], "auto_model", None), input["attention_mask"]
        several_blocks = lam is not None and mask.shape[1] > lam.config.block_size
        if not (several_blocks and _VECTORS_ONLY.get() and "prompt_length" not in input and pools_the_mean(self)):
            return super().forward(input, **kwargs)
        means = lam.mean(input["input_ids"], mask)[:, None]  # to be pooled as if each were a token
        features = {"token_embeddings": means, "attention_mask": mask.new_ones(means.shape[:2])}
        for module in list(self)[1:]:
            features = module(features)
        return features

    @SentenceTransformer.max_seq_length.setter
    def max_seq_length(self, limit: int | None) -> None:
        """Most tokens of a text, [CLS] and [SEP] counted; None: no limit."""
        self[0].max_seq_length = folder.NO_LIMIT if limit is None else limit

    def encode_passages(
        self, texts: str | Sequence[str], size: int = PASSAGE_TOKENS, batch_size: int = 8
    ) -> Passages | list[Passages]:
        """Embed texts and their passages in one pass, so that a passage knows those just before it.

        A passage is as many sentences as there is room for; a sentence over `size` is divided evenly between words. It
        is read as a block of its own, with a fifth of the state that the one before it left, so that in effect it knows
        the two or three before it. Its vector is the mean of its tokens' last hidden states, normalised. A text without
        a word has none.

        Args:
            texts: one string, or several.
            size: most tokens of a passage.
            batch_size: texts that are read together, a block of each at a time.

        Returns:
            For each text `Passages`: `vector` (size,), the mean over the tokens of all its passages, which is that of
            `encode` if there is one at most; `vectors` (passages, size); and `offsets` (passages, 2), the characters of
            the text where they begin and end.

        Raises:
            TypeError, ValueError: as `encode`; or `size` is that of no passage, or the model's pooling is not the mean.
        """
        texts = check(texts)
        several = [texts] if isinstance(texts, str) else texts
        self._check_lengths(clean(several))
        self.eval()
        found = encode_passages(self, several, size, batch_size)
        return found[0] if isinstance(texts, str) else found

    def _check_lengths(self, texts: list[str]) -> None:
        limit = self.max_seq_length
        if limit is None or limit >= folder.NO_LIMIT:
            return
        lengths: list[int] = []
        for start in range(0, len(texts), 1024):
            tokens = self.tokenizer(texts[start : start + 1024], truncation=False, padding=False, verbose=False)
            lengths += map(len, tokens["input_ids"])
        long = [i for i, length in enumerate(lengths) if length > limit]
        if not long:
            return
        if self.on_truncate == "error":
            raise ValueError(
                f"the text at index {long[0]} has {lengths[long[0]]} tokens, over max_seq_length={limit}: "
                f"raise the limit, or shorten the text"
            )
        self.truncated_texts += len(long)
        if self._warned_of != limit:
            self._warned_of = limit
            warnings.warn(
                f"{len(long)} of {len(texts)} texts are longer than max_seq_length={limit} tokens (the longest has "
                f"{max(lengths)}) and are cut there; later ones are only counted, in `truncated_texts`",
                stacklevel=3,
            )


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
    # its name from sentence-transformers 6 on, and before
    own = getattr(model, "get_embedding_dimension", model.get_sentence_embedding_dimension)()
    model.dims = (own, *(small for small in _SMALL_DIMS if small < own))
    if dim is not None:
        _check_dim("dim", dim, model.dims)
        model.truncate_dim = dim
    return model


def _check_dim(name: str, dim: int, dims: tuple[int, ...]) -> None:
    if dim not in dims:
        raise ValueError(f"{name} is {dim!r}: vectors have {', '.join(map(str, dims[:-1]))} or {dims[-1]} numbers")


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
    export(path, ["base" if "_base" in graph else "full"], int8="_int8" in graph)
    return OnnxModule(path, graph)
