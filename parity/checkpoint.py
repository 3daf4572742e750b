"""Torch checkpoints, read without executing anything: `weights_only=True`, with a few harmless types."""

from __future__ import annotations

import argparse
import codecs
import collections
import datetime
import pathlib
import pickle
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch

from mlx_lvm.core.mlx import mx
from mlx_lvm.core.result import JsonObject
from mlx_lvm.errors import InvalidFile, IOFailed
from mlx_lvm.parity.sides.bridge import to_mlx

STATES = (
    *("model_state_dict", "state_dict", "model", "module", "net", "network", "weights"),
    *("ema_state_dict", "ema"),
)
DEPTH = 3  # how deep in a checkpoint the weights may lie
# Plain data that training scripts leave in checkpoints; none of it runs code when it is rebuilt.
HARMLESS: list[Any] = [
    argparse.Namespace,
    collections.Counter,
    *(list, dict, set, tuple, int, float, str, bool, complex),  # what a defaultdict may be made of
    codecs.encode,  # how pickles of protocol 2 hold bytes
    *(datetime.datetime, datetime.date, datetime.timedelta),
    *(pathlib.PosixPath, pathlib.WindowsPath, pathlib.PurePosixPath, pathlib.PureWindowsPath),
    np.dtype,
    np.ndarray,
    *(kind for kind in vars(np.dtypes).values() if isinstance(kind, type)),
]


def read_checkpoint(path: Path) -> tuple[dict[str, mx.array], JsonObject]:
    """(state dict by name, the checkpoint's other entries). Takes a bare state dict too.

    Raises InvalidFile where the file is no checkpoint, holds other objects than plain data, or no weights.
    """
    try:
        with torch.serialization.safe_globals([*HARMLESS, *_builders()]):
            loaded = torch.load(path, map_location="cpu", weights_only=True)
    except FileNotFoundError:
        raise InvalidFile(f"{path}: no such file") from None
    except pickle.UnpicklingError as error:
        raise InvalidFile(
            f"{path}: holds {_offending(path) or _first_line(error)}, and nothing but weights and plain data "
            "is ever unpickled. Where it was written, `torch.save(model.state_dict(), ...)` saves the "
            "weights alone"
        ) from None
    except OSError as error:
        raise IOFailed(f"{path}: cannot be read ({error.strerror or error})") from error
    except (RuntimeError, EOFError, ValueError, KeyError, TypeError, AttributeError) as error:
        raise InvalidFile(f"{path}: not a torch checkpoint, or damaged ({_first_line(error)})") from None
    if not isinstance(loaded, Mapping):
        raise InvalidFile(
            f"{path}: holds {type(loaded).__name__}, expected a state dict or a checkpoint with one of "
            f"{', '.join(STATES)}"
        )
    place, state = _weights(loaded)
    if not state:
        entries = ", ".join(map(str, list(loaded)[:8]))
        raise InvalidFile(f"{path}: its state dict has no tensors (entries: {entries})")
    rest = {key: value for key, value in loaded.items() if key != place} if place else {}
    single = ((name, v.float() if v.dtype == torch.float64 else v) for name, v in state.items())
    return {name: to_mlx(value) for name, value in single}, rest


def _weights(loaded: Mapping[Any, Any]) -> tuple[str, dict[str, torch.Tensor]]:
    """(entry of the checkpoint, the weights in it): a known name first, else where most tensors lie."""
    found: list[tuple[tuple[int, int], str, dict[str, torch.Tensor]]] = []

    def look(values: Mapping[Any, Any], top: str, key: str, depth: int) -> None:
        named = {name: value for name, value in values.items() if isinstance(name, str)}
        tensors = {name: value for name, value in named.items() if isinstance(value, torch.Tensor)}
        if tensors:
            rank = STATES.index(key) if key in STATES else len(STATES)
            found.append(((rank, -len(tensors)), top, tensors))
        for name, value in values.items():
            if isinstance(value, Mapping) and depth < DEPTH and "optim" not in str(name).lower():
                look(value, top or str(name), str(name), depth + 1)

    look(loaded, "", "", 0)
    return min(found, key=lambda item: item[0])[1:] if found else ("", {})


def _offending(path: Path) -> str:
    """The types in the file that are not plain data, by name; empty where torch cannot tell."""
    try:
        with torch.serialization.safe_globals([*HARMLESS, *_builders()]):
            types = torch.serialization.get_unsafe_globals_in_checkpoint(path)
    except Exception:  # a file too damaged to be looked through; the caller has torch's own word
        return ""
    return f"objects of {', '.join(sorted(types)[:5])}" if types else ""


def _first_line(error: Exception) -> str:
    return (str(error).splitlines() or [type(error).__name__])[0][:200]


def _plain_dict(*_: Any) -> dict[Any, Any]:
    """In the place of a defaultdict, which torch's restricted unpickler cannot fill."""
    return {}


def _builders() -> list[Any]:
    """NumPy's rebuilders of scalars and arrays, such as a recorded loss, by their old names too."""
    core = getattr(np, "_core", None) or np.core
    known = (core.multiarray.scalar, core.multiarray._reconstruct)
    places = [f"numpy.{place}.multiarray" for place in ("core", "_core")]
    named = [(function, f"{place}.{function.__name__}") for function in known for place in places]
    return [*known, (_plain_dict, "collections.defaultdict"), *named]
