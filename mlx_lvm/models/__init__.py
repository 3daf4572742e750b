"""The architectures by name."""

from __future__ import annotations

from typing import Any

from mlx_lvm.errors import UsageError, nearest
from mlx_lvm.models.amn import AMN, AMNConfig
from mlx_lvm.models.base import MAX_CONTEXT, ModelConfig, Prediction, VectorModel, as_dict, normalize
from mlx_lvm.models.emn import EMN, EMNConfig
from mlx_lvm.models.filter import Filter, FilterConfig
from mlx_lvm.models.gru import GRU, GRUConfig
from mlx_lvm.models.lstm import LSTM, LSTMConfig
from mlx_lvm.models.ramn import RAMN, RAMNConfig
from mlx_lvm.models.transformer import Transformer, TransformerConfig

MODELS: dict[str, tuple[type[VectorModel], type[ModelConfig]]] = {
    "amn": (AMN, AMNConfig),
    "lstm": (LSTM, LSTMConfig),
    "gru": (GRU, GRUConfig),
    "transformer": (Transformer, TransformerConfig),
    "ramn": (RAMN, RAMNConfig),
    "emn": (EMN, EMNConfig),
    "filter": (Filter, FilterConfig),
}
TRAINED = tuple(name for name in MODELS if name != "filter")  # a filter is fitted in closed form

__all__ = [
    "MAX_CONTEXT",
    "MODELS",
    "TRAINED",
    "ModelConfig",
    "Prediction",
    "VectorModel",
    "as_dict",
    "build",
    "config_from_dict",
    "normalize",
]


def architecture(name: str) -> tuple[type[VectorModel], type[ModelConfig]]:
    """Raises UsageError naming the nearest architecture where `name` is none."""
    if name not in MODELS:
        raise UsageError(f"unknown model '{name}'.{nearest(name, list(MODELS))}")
    return MODELS[name]


def config_from_dict(values: dict[str, Any]) -> ModelConfig:
    """The config that `as_dict` wrote; `model_type` says which."""
    if not isinstance(values, dict):
        raise UsageError(f"model config: 'model' is {values!r}; expected a table with 'model_type'")
    rest = dict(values)
    name = rest.pop("model_type", None)
    if not isinstance(name, str):
        raise UsageError(f"model config: 'model_type' is {name!r}; expected one of {', '.join(MODELS)}")
    return architecture(name)[1].from_dict(rest)


def build(config: ModelConfig) -> VectorModel:
    """A model with torch's initial laws, drawn from `mx.random`'s current state."""
    return architecture(config.model_type)[0](config)
