"""LAM in the tables of models of transformers and mteb; `startup` calls this when they are imported."""

from __future__ import annotations

from types import ModuleType


def config(auto: ModuleType) -> None:
    """Make `AutoConfig` know LAM."""
    from .model.configuration_lam import LamConfig

    auto.AutoConfig.register(LamConfig.model_type, LamConfig, exist_ok=True)


def model(auto: ModuleType) -> None:
    """Make `AutoModel` know LAM."""
    from .model.configuration_lam import LamConfig
    from .model.modeling_lam import LamModel

    auto.AutoModel.register(LamConfig, LamModel, exist_ok=True)


def in_mteb(models: ModuleType) -> None:
    """Add LAM to mteb's table of models."""
    from .evaluation.mteb import register

    register(models.MODEL_REGISTRY)
