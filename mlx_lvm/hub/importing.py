"""Weights from elsewhere: which architecture and which sizes a state dict has, told by its names and shapes.

What shapes cannot tell (the number of attention heads) is asked for, never guessed.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from mlx_lvm.config import Options
from mlx_lvm.core.mlx import mx
from mlx_lvm.errors import InvalidFile, LvmError, UsageError
from mlx_lvm.hub.load import Loaded, take_buffers
from mlx_lvm.models import ModelConfig, architecture, architectures, build
from mlx_lvm.models.weights import set_weights


def infer(
    tensors: Mapping[str, mx.array], model: str | None = None, said: Mapping[str, Any] | None = None
) -> ModelConfig:
    """The config of these names and shapes. `model` chooses where several fit, `said` has what none tells.

    Raises InvalidFile where none fits, UsageError where something must be asked.
    """
    shapes = {name: tuple(value.shape) for name, value in tensors.items()}
    kinds = {model: architecture(model)} if model else architectures()
    found = {name: sizes for name, kind in kinds.items() if (sizes := kind.sizes_in(shapes)) is not None}
    if not found:
        raise InvalidFile(
            f"no architecture of {', '.join(kinds)} has tensors such as {', '.join(sorted(tensors)[:4])}. "
            "Expected a state dict with torch's names; see `lvm import --help`."
        )
    if len(found) > 1:
        raise UsageError(f"the names and shapes fit {' and '.join(found)}; say which with --model")
    name, sizes = next(iter(found.items()))
    for option in kinds[name].not_in_shapes:
        if option not in (said or {}):
            raise UsageError(f"'{option}' of a {name} does not show in its shapes ({sizes}): pass --{option}")
        sizes[option] = (said or {})[option]
    return kinds[name].config_class.from_dict(sizes)


def to_model(
    state: Mapping[str, mx.array],
    described: Mapping[str, Any],
    model: str | None,
    given: Mapping[str, Any],
    what: str,
) -> Loaded:
    """A model with these weights.

    described: what the file says of itself (model_type, model_config, epoch, ...)
    given:     options that no shape tells, from the caller

    Raises InvalidFile listing every name and shape that does not fit.
    """
    config = described.get("model_config")
    described_sizes = config if isinstance(config, Mapping) else {}
    claimed = str(described.get("model_type", "")).lower()
    kind = model or (claimed if claimed in architectures() else None)
    try:
        tensors, left = unwrap(dict(state), kind)
        built = build(infer(tensors, kind, {**_sizes_said(described_sizes), **given}))
    except LvmError as error:
        raise type(error)(f"{what}: {error}") from None
    take_buffers(built, tensors, what)
    parts = {name.split(".")[0] for name in built.weights()}
    strangers = [name for name in tensors if "." in name and name.split(".")[0] not in parts]
    left += sorted(strangers)  # metrics and losses that lie next to the model
    for name in strangers:
        del tensors[name]
    set_weights(built, tensors, what)
    figures = {key: described.get(key) for key in ("epoch", "val_loss", "val_cosine")}
    kept = {key: value for key, value in figures.items() if isinstance(value, (int, float))}
    loaded = Loaded(built, built.config.model_type, imported={"model_type": built.config.model_type, **kept})
    if left:
        shown = ", ".join(left[:8]) + (f" and {len(left) - 8} more" if len(left) > 8 else "")
        loaded.notes.append(f"left out, as no tensor of the model: {shown}")
    return loaded


def unwrap(tensors: dict[str, mx.array], model: str | None = None) -> tuple[dict[str, mx.array], list[str]]:
    """(the tensors under the wrapper's prefix that an architecture fits under, names without it; the names
    left out).

    Any prefix is taken, as `module.` of torch's DistributedDataParallel or `net.` of a module that holds the
    model. Raises UsageError where models lie under several. Where none fits, all tensors come back as they
    are.
    """
    kinds = [architecture(model)] if model else list(architectures().values())
    fitting: dict[str, dict[str, mx.array]] = {}
    for prefix in _prefixes(tensors):
        inside = [name for name in tensors if name.startswith(prefix)]
        under = {name.removeprefix(prefix): tensors[name] for name in inside}
        shapes = {name: tuple(value.shape) for name, value in under.items()}
        if any(kind.sizes_in(shapes) is not None for kind in kinds):
            fitting[prefix] = under
    plain = [prefix for prefix in fitting if not any(part in AVERAGES for part in prefix.split("."))]
    first = plain or list(fitting)
    if len(first) > 1:
        raise UsageError(f"models lie under {' and '.join(map(repr, first))}; keep one of them in the file")
    if not first:
        return tensors, []
    return fitting[first[0]], sorted(name for name in tensors if not name.startswith(first[0]))


AVERAGES = ("ema", "ema_model", "teacher", "shadow", "averaged")  # parts of names of a second, averaged model


def _prefixes(tensors: Mapping[str, mx.array]) -> list[str]:
    """Every beginning of names up to a dot, the empty one first."""
    parts = {name[: k + 1] for name in tensors for k, letter in enumerate(name) if letter == "."}
    return ["", *sorted(parts, key=lambda prefix: (prefix.count("."), prefix))]


def _sizes_said(config: Mapping[str, Any]) -> Options:
    """What other people's config says of options that no shape tells, under any name that they go by."""
    return {
        option: config[key]
        for model in architectures().values()
        for option, names in model.not_in_shapes.items()
        for key in reversed(names)
        if isinstance(config.get(key), int)
    }
