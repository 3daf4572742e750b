"""Weights of a folder into a model, under torch's names."""

from __future__ import annotations

from pathlib import Path

from mlx_lvm.core.files.safetensors import SafeFile, open_safetensors
from mlx_lvm.core.mlx import mx, nn, tree_flatten
from mlx_lvm.encoders.base import OTHER_ENGINE
from mlx_lvm.encoders.folder import read_object
from mlx_lvm.errors import InvalidFile, Problems

FILE, INDEX, PICKLE = "model.safetensors", "model.safetensors.index.json", "pytorch_model.bin"
FLOATS = ("F32", "F16", "BF16", "F64")


def weight_files(folder: Path) -> list[Path]:
    """The files of a folder's weights: one, or the shards of an index. Raises InvalidFile without them."""
    if (folder / FILE).exists():
        return [folder / FILE]
    if (folder / INDEX).exists():
        shards = read_object(folder / INDEX).get("weight_map")
        files = set(shards.values()) if isinstance(shards, dict) else set()
        if files and all(isinstance(file, str) and "/" not in file for file in files):
            return [folder / file for file in sorted(files)]
        raise InvalidFile(f"{folder / INDEX}: no weight_map from names to files of this folder")
    pickled = (folder / PICKLE).exists()
    remedy = f"{PICKLE} is a pickle: {OTHER_ENGINE}." if pickled else "Was the download cut off?"
    raise InvalidFile(f"{folder}: no {FILE}. {remedy}")


def load_weights(model: nn.Module, folder: Path, dtype: mx.Dtype) -> None:
    """Every parameter of `model` from the folder's files, as `dtype`. Raises InvalidFile naming misfits."""
    prefix, ignored = getattr(model, "prefix", ""), getattr(model, "ignored", ())
    files = [open_safetensors(path) for path in weight_files(folder)]
    stored = {key.removeprefix(prefix): (key, file) for file in files for key in file.tensors}
    wanted: dict[str, mx.array] = dict(tree_flatten(model.parameters()))
    problems = Problems(str(folder))
    for name in sorted(set(stored) - set(wanted)):
        if not name.startswith(ignored):
            problems.add(f"tensor '{name}' is no part of {type(model).__name__}")
    for name, parameter in wanted.items():
        if problem := _unfit(stored, name, parameter.shape):
            problems.add(problem)
    problems.raise_if_any(InvalidFile)
    model.load_weights([(name, _read(*stored[name], dtype)) for name in wanted], strict=True)
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
