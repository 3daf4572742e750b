"""Weights of a folder into a model, under torch's names."""

from __future__ import annotations

from pathlib import Path

from mlx_lvm.core.files.safetensors import SafeFile, open_safetensors
from mlx_lvm.core.mlx import mx, nn, tree_flatten
from mlx_lvm.encoders.base import OTHER_ENGINE, TextModel
from mlx_lvm.encoders.folder import read_object
from mlx_lvm.errors import InvalidFile, Problems

FILE, INDEX = "model.safetensors", "model.safetensors.index.json"
FLOATS = ("F32", "F16", "BF16", "F64")


def weight_files(folder: Path) -> list[Path]:
    """The files that hold a folder's weights: one, or the shards of an index. Raises InvalidFile where there
    are none.
    """
    if (folder / FILE).exists():
        return [folder / FILE]
    if (folder / INDEX).exists():
        shards = read_object(folder / INDEX).get("weight_map")
        if (
            isinstance(shards, dict)
            and shards
            and all(isinstance(s, str) and "/" not in s for s in shards.values())
        ):
            return [folder / shard for shard in sorted(set(shards.values()))]
        raise InvalidFile(f"{folder / INDEX}: no weight_map from names to files of this folder")
    older = next((name for name in ("pytorch_model.bin",) if (folder / name).exists()), None)
    remedy = f"{older} is a pickle: {OTHER_ENGINE}." if older else "Was the download cut off?"
    raise InvalidFile(f"{folder}: no {FILE}. {remedy}")


def load_weights(model: nn.Module, folder: Path, dtype: mx.Dtype) -> None:
    """Every parameter of `model` from the folder's files, as `dtype`. Raises InvalidFile naming all that does
    not fit.
    """
    stored = {
        name: file
        for path in weight_files(folder)
        for file in [open_safetensors(path)]
        for name in file.tensors
    }
    prefix = getattr(model, "prefix", "")
    ignored: tuple[str, ...] = getattr(model, "ignored", ())
    renamed = {name.removeprefix(prefix): (name, file) for name, file in stored.items()}
    wanted: dict[str, mx.array] = dict(tree_flatten(model.parameters()))
    problems = Problems(str(folder))
    for name in sorted(set(renamed) - set(wanted)):
        if not name.startswith(ignored or ("\0",)):
            problems.add(f"tensor '{name}' is no part of {type(model).__name__}")
    for name, parameter in wanted.items():
        problem = _unfit(renamed, name, parameter.shape)
        if problem:
            problems.add(problem)
    problems.raise_if_any(InvalidFile)
    model.load_weights([(name, _read(*renamed[name], dtype)) for name in wanted], strict=True)
    mx.eval(model.parameters())


def _unfit(stored: dict[str, tuple[str, SafeFile]], name: str, shape: tuple[int, ...]) -> str:
    """What keeps a stored tensor from being parameter `name`, in words."""
    if name not in stored:
        return f"no tensor '{name}'"
    key, file = stored[name]
    info = file.tensors[key]
    if info.shape != tuple(shape):
        return f"tensor '{name}' has shape {list(info.shape)}; config.json says {list(shape)}"
    return "" if info.dtype in FLOATS else f"tensor '{name}' is {info.dtype}; expected {', '.join(FLOATS)}"


def _read(key: str, file: SafeFile, dtype: mx.Dtype) -> mx.array:
    if file.tensors[key].dtype == "F64":  # which no GPU of Apple's knows
        return mx.array(file.numpy(key).astype("float32")).astype(dtype)
    return file.array(key).astype(dtype)


def require_finite(model: TextModel, folder: Path) -> None:
    """Raises InvalidFile where a weight is NaN or Inf: every vector would be."""
    bad = [name for name, finite in _finite(model) if not finite]
    if bad:
        raise InvalidFile(f"{folder}: {len(bad)} tensors hold NaN or Inf, the first {bad[0]}")


def _finite(model: TextModel) -> list[tuple[str, bool]]:
    names, sums = zip(
        *((name, mx.isfinite(value).all()) for name, value in model.weights().items()), strict=True
    )
    mx.eval(*sums)
    return [(name, bool(one)) for name, one in zip(names, sums, strict=True)]
