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
    from .configuration_lam import LamConfig
    from .discriminant import document_vectors
    from .loading import load
    from .modeling_lam import LamModel
    from .onnx_encoder import OnnxEncoder
    from .passages import Passages
    from .stream import Stream

__version__ = "0.1.0"
__all__ = ["LamConfig", "LamModel", "OnnxEncoder", "Passages", "Stream", "document_vectors", "load"]

_HOMES = {
    "LamConfig": "configuration_lam",
    "LamModel": "modeling_lam",
    "OnnxEncoder": "onnx_encoder",
    "Passages": "passages",
    "Stream": "stream",
    "document_vectors": "discriminant",
    "load": "loading",
}


def __getattr__(name: str) -> Any:
    if name not in _HOMES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(f"{__name__}.{_HOMES[name]}"), name)


def _register_config(module: Any) -> None:
    from .configuration_lam import LamConfig

    module.AutoConfig.register(LamConfig.model_type, LamConfig)


def _register_model(module: Any) -> None:
    from .configuration_lam import LamConfig
    from .modeling_lam import LamModel

    module.AutoModel.register(LamConfig, LamModel)


def _register_in_mteb(module: Any) -> None:
    from .mteb import register

    register(module.MODEL_REGISTRY)


if wrapt:
    # As soon as the tables of models are there: at once, or when somebody imports them.
    for _hook, _module in (
        (_register_config, "transformers.models.auto.configuration_auto"),
        (_register_model, "transformers.models.auto.modeling_auto"),
        (_register_in_mteb, "mteb.models.model_implementations"),
    ):
        wrapt.register_post_import_hook(_hook, _module)
