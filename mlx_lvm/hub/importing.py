"""Weights from elsewhere: which architecture and which sizes a state dict has, told by its names and shapes.

What shapes cannot tell (the number of attention heads) is asked for, never guessed.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from typing import Any

from mlx_lvm.core.mlx import mx
from mlx_lvm.errors import InvalidFile, LvmError, UsageError
from mlx_lvm.hub.load import Loaded, take_buffers
from mlx_lvm.models import MODELS, ModelConfig, architecture, build
from mlx_lvm.models.weights import set_weights

WRAPPERS = (
    "module.",
    "_orig_mod.",
    "model.",
)  # torch's DistributedDataParallel, torch.compile, a module that holds the model
HEADS = (
    "heads",
    "nhead",
    "num_heads",
    "n_heads",
)  # names under which configs of others hold the number of heads


def infer(tensors: Mapping[str, mx.array], model: str | None = None, heads: int | None = None) -> ModelConfig:
    """The config whose names and shapes these are. `model` chooses where several fit, `heads` says what no shape tells.

    Raises InvalidFile naming the nearest architecture's differences where none fits, UsageError where something must be
    asked.
    """
    names = [architecture(model)[1].model_type] if model else list(MODELS)
    found = {name: READERS[name](tensors) for name in names if name in READERS}
    fitting = {name: sizes for name, sizes in found.items() if sizes is not None}
    if not fitting:
        raise InvalidFile(
            f"no architecture of {', '.join(names)} has tensors such as {', '.join(sorted(tensors)[:4])}. "
            "Expected a state dict with torch's names; see `lvm import --help`."
        )
    if len(fitting) > 1:
        raise UsageError(f"the names and shapes fit {' and '.join(fitting)}; say which with --model")
    name, sizes = next(iter(fitting.items()))
    if name == "transformer":
        if heads is None:
            raise UsageError(
                f"how many attention heads share the width of {sizes['hidden_dim']}? Shapes do not tell: pass --heads"
            )
        sizes["heads"] = heads
    return architecture(name)[1].from_dict(sizes)


def to_model(
    state: Mapping[str, mx.array],
    described: Mapping[str, Any],
    model: str | None,
    heads: int | None,
    what: str,
) -> Loaded:
    """A model with these weights. `described`: what the file says of itself (model_type, model_config, epoch, ...).

    Raises InvalidFile listing every name and shape that does not fit.
    """
    tensors = unwrap(dict(state))
    config = described.get("model_config")
    said = config if isinstance(config, Mapping) else {}
    if heads is None:
        heads = next((int(said[key]) for key in HEADS if isinstance(said.get(key), int)), None)
    claimed = described.get("model_type")
    kind = model or (claimed.lower() if isinstance(claimed, str) and claimed.lower() in MODELS else None)
    try:
        built = build(infer(tensors, kind, heads))
    except LvmError as error:
        raise type(error)(f"{what}: {error}") from None
    take_buffers(built, tensors, what)
    set_weights(built, tensors, what)
    kept = {
        key: described[key]
        for key in ("epoch", "val_loss", "val_cosine")
        if isinstance(described.get(key), (int, float))
    }
    return Loaded(built, built.config.model_type, imported={"model_type": built.config.model_type, **kept})


def unwrap(tensors: dict[str, mx.array]) -> dict[str, mx.array]:
    """Names without a wrapper's prefix, where every name has it."""
    for prefix in WRAPPERS:
        if tensors and all(name.startswith(prefix) for name in tensors):
            return unwrap({name.removeprefix(prefix): value for name, value in tensors.items()})
    return tensors


def _shape(tensors: Mapping[str, mx.array], name: str, rank: int = 2) -> tuple[int, ...] | None:
    found = tensors.get(name)
    return tuple(found.shape) if found is not None and found.ndim == rank else None


def _count(tensors: Mapping[str, mx.array], pattern: str) -> int:
    """One more than the highest layer number in the names that match."""
    numbers = [int(match.group(1)) for name in tensors if (match := re.match(pattern, name))]
    return max(numbers, default=-1) + 1


def _amn(tensors: Mapping[str, mx.array]) -> dict[str, Any] | None:
    keys, first = _shape(tensors, "context_encoder.weight"), _shape(tensors, "residual_net.0.weight")
    return {"dim": keys[1], "attention_dim": keys[0], "hidden_dim": first[0]} if keys and first else None


def _lstm(tensors: Mapping[str, mx.array]) -> dict[str, Any] | None:
    first = _shape(tensors, "lstm.weight_ih_l0")
    return (
        {
            "dim": first[1],
            "hidden_dim": first[0] // 4,
            "layers": _count(tensors, r"lstm\.weight_ih_l(\d{1,3})$"),
        }
        if first
        else None
    )


def _gru(tensors: Mapping[str, mx.array]) -> dict[str, Any] | None:
    first = _shape(tensors, "input_proj.weight")
    layers = _count(tensors, r"blocks\.(\d{1,3})\.gru\.")
    return {"dim": first[1], "hidden_dim": first[0], "layers": layers} if first and layers else None


def _transformer(tensors: Mapping[str, mx.array]) -> dict[str, Any] | None:
    first, ffn = (
        _shape(tensors, "input_proj.weight"),
        _shape(tensors, "transformer_decoder.layers.0.linear1.weight"),
    )
    layers = _count(tensors, r"transformer_decoder\.layers\.(\d{1,3})\.")
    return (
        {"dim": first[1], "hidden_dim": first[0], "layers": layers, "ffn_dim": ffn[0]}
        if first and ffn
        else None
    )


READERS: dict[str, Callable[[Mapping[str, mx.array]], dict[str, Any] | None]] = {
    "amn": _amn,
    "lstm": _lstm,
    "gru": _gru,
    "transformer": _transformer,
}
