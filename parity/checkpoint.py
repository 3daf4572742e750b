"""Torch checkpoints, read without executing anything: `weights_only=True` always, with a short list of harmless types."""

from __future__ import annotations

import argparse
import pickle
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch

from mlx_lvm.core.mlx import mx
from mlx_lvm.errors import InvalidFile, IOFailed
from mlx_lvm.parity.bridge import to_mlx

STATES = ("model_state_dict", "state_dict", "model")  # where a checkpoint may hold the weights
# Plain data that training scripts leave in checkpoints; none of it runs code when it is rebuilt.
HARMLESS = [
    argparse.Namespace,
    np.dtype,
    np.ndarray,
    np.dtypes.Float64DType,
    np.dtypes.Float32DType,
    np.dtypes.Int64DType,
]


def read_checkpoint(path: Path) -> tuple[dict[str, mx.array], dict[str, Any]]:
    """(state dict by name, the checkpoint's other entries). Takes a bare state dict too.

    Raises InvalidFile where the file is no checkpoint, holds other objects than plain data, or no weights.
    """
    try:
        with torch.serialization.safe_globals([*HARMLESS, *_numpy_scalar()]):
            loaded = torch.load(path, map_location="cpu", weights_only=True)
    except FileNotFoundError:
        raise InvalidFile(f"{path}: no such file") from None
    except pickle.UnpicklingError as error:
        raise InvalidFile(
            f"{path}: holds more than weights and plain data, and nothing else is ever unpickled ({_first_line(error)})"
        ) from None
    except OSError as error:
        raise IOFailed(f"{path}: cannot be read ({error.strerror or error})") from error
    except (RuntimeError, EOFError, ValueError, KeyError, TypeError, AttributeError) as error:
        raise InvalidFile(f"{path}: not a torch checkpoint, or damaged ({_first_line(error)})") from None
    if not isinstance(loaded, Mapping):
        raise InvalidFile(
            f"{path}: holds {type(loaded).__name__}, expected a state dict or a checkpoint with one of {', '.join(STATES)}"
        )
    key = next((key for key in STATES if isinstance(loaded.get(key), Mapping)), None)
    state, rest = (loaded[key], {k: v for k, v in loaded.items() if k != key}) if key else (loaded, {})
    wrong = [
        str(name)
        for name, value in state.items()
        if not isinstance(name, str) or not isinstance(value, torch.Tensor)
    ]
    if wrong or not state:
        found = f"entries that are no tensors: {', '.join(wrong[:5])}" if wrong else "no tensors"
        raise InvalidFile(f"{path}: its state dict has {found}")
    return {
        name: to_mlx(value.float() if value.dtype == torch.float64 else value)
        for name, value in state.items()
    }, rest


def _first_line(error: Exception) -> str:
    return (str(error).splitlines() or [type(error).__name__])[0][:200]


def _numpy_scalar() -> list[Any]:
    """NumPy's rebuilder of scalars such as a recorded loss; its module was renamed in NumPy 2."""
    core = getattr(np, "_core", None) or np.core
    return [core.multiarray.scalar]
