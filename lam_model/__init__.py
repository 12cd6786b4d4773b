"""LAM: all-MiniLM-L6-v2 that reads whole documents.

    import lam_model

    vectors = lam_model.OnnxEncoder().encode(["a sentence", "a whole document"])
    model = lam_model.load()  # a SentenceTransformer, with the extra `torch`

Importing this package also makes `SentenceTransformer("org/lam")`, `AutoModel` and mteb know LAM. It imports none of
torch, transformers and mteb by itself.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

from . import startup as _startup  # noqa: F401

if TYPE_CHECKING:
    from .model.configuration_lam import LamConfig
    from .model.modeling_lam import LamModel
    from .reading.discriminant import document_vectors
    from .reading.passages import Passages
    from .reading.stream import Stream
    from .runtime.loading import load
    from .runtime.onnx_encoder import OnnxEncoder

__version__ = "0.1.0"
__all__ = ["LamConfig", "LamModel", "OnnxEncoder", "Passages", "Stream", "document_vectors", "load"]

_HOMES = {
    "LamConfig": "model.configuration_lam",
    "LamModel": "model.modeling_lam",
    "OnnxEncoder": "runtime.onnx_encoder",
    "Passages": "reading.passages",
    "Stream": "reading.stream",
    "document_vectors": "reading.discriminant",
    "load": "runtime.loading",
}


def __getattr__(name: str) -> Any:
    if name not in _HOMES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    try:
        return getattr(import_module(f"{__name__}.{_HOMES[name]}"), name)
    except ModuleNotFoundError as error:
        if (error.name or "").startswith(__name__):
            raise
        raise ModuleNotFoundError(
            f"lam_model.{name} needs {error.name}: pip install 'lam-model[torch]'. Without it, lam_model.OnnxEncoder() "
            f"embeds texts, documents and passages",
            name=error.name,
        ) from error
