"""LAM: all-MiniLM-L6-v2 that reads whole documents.

    import lam_model

    model = lam_model.load()
    vectors = model.encode(["a sentence", "a whole document"])

Importing this package also makes `SentenceTransformer("org/lam")`, `AutoModel` and mteb know LAM. It imports none of
torch, transformers and mteb by itself.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

try:
    import wrapt
except ImportError:  # installed without its dependencies, for `OnnxEncoder` alone
    wrapt = None

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
    return getattr(import_module(f"{__name__}.{_HOMES[name]}"), name)


def _register_config(module: Any) -> None:
    from .model.configuration_lam import LamConfig

    module.AutoConfig.register(LamConfig.model_type, LamConfig)


def _register_model(module: Any) -> None:
    from .model.configuration_lam import LamConfig
    from .model.modeling_lam import LamModel

    module.AutoModel.register(LamConfig, LamModel)


def _register_in_mteb(module: Any) -> None:
    from .evaluation.mteb import register

    register(module.MODEL_REGISTRY)


if wrapt:
    # As soon as the tables of models are there: at once, or when somebody imports them.
    for _hook, _module in (
        (_register_config, "transformers.models.auto.configuration_auto"),
        (_register_model, "transformers.models.auto.modeling_auto"),
        (_register_in_mteb, "mteb.models.model_implementations"),
    ):
        wrapt.register_post_import_hook(_hook, _module)
