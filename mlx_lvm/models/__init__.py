"""The architectures, each in the file of its name, and the registry that finds them by name."""

from mlx_lvm.models.base import MAX_CONTEXT, ModelConfig, Prediction, VectorModel, as_dict, normalize
from mlx_lvm.models.registry import architecture, architectures, build, config_from_dict, trained

__all__ = [
    "MAX_CONTEXT",
    "ModelConfig",
    "Prediction",
    "VectorModel",
    "architecture",
    "architectures",
    "as_dict",
    "build",
    "config_from_dict",
    "normalize",
    "trained",
]
