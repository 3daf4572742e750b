"""Arrays and weights across the frameworks to the bit: none is rounded twice, bfloat16 travels as bits."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
import torch

from mlx_lvm.core.mlx import mx
from mlx_lvm.errors import SetupInvalid
from mlx_lvm.parity.twins import twin_class
from mlx_lvm.parity.twins.base import Twin

TORCH = {
    "float64": torch.float64,
    "float32": torch.float32,
    "bfloat16": torch.bfloat16,
    "float16": torch.float16,
}
MLX = {"float32": mx.float32, "bfloat16": mx.bfloat16, "float16": mx.float16}


def to_torch(array: mx.array) -> torch.Tensor:
    """The same bits as a torch tensor."""
    if array.dtype == mx.bfloat16:
        return torch.from_numpy(np.array(array.view(mx.int16))).view(torch.bfloat16)
    return torch.from_numpy(np.array(array))


def to_mlx(tensor: torch.Tensor) -> mx.array:
    """The same bits as an MLX array."""
    tensor = tensor.detach().contiguous().cpu()
    if tensor.dtype == torch.bfloat16:
        return mx.array(tensor.view(torch.int16).numpy()).view(mx.bfloat16)
    return mx.array(tensor.numpy())


def to_float64(value: mx.array | torch.Tensor) -> np.ndarray:
    """Exactly the same numbers as NumPy float64."""
    tensor = to_torch(value) if isinstance(value, mx.array) else value.detach()
    return tensor.to(torch.float64).numpy()


def twin(config: Any, weights: Mapping[str, mx.array], dtype: str = "float32") -> Twin:
    """The torch twin of a config with these weights (buffers included), cast to `dtype`, in evaluation mode.

    Loads with strict=True: a missing or unknown name, or a wrong shape, raises SetupInvalid in torch's words.
    """
    kind = config["model_type"] if isinstance(config, Mapping) else config.model_type
    with torch.device("meta"):  # sizes only: the weights come from the file
        out = twin_class(kind)(config)
    state = {name: to_torch(value).to(TORCH[dtype]) for name, value in weights.items()}
    try:
        out.load_state_dict(state, strict=True, assign=True)
    except RuntimeError as error:
        raise SetupInvalid(f"torch's {kind} does not hold these weights: {error}") from None
    return out.eval()
