"""Somebody's folder of weights in the Hub's layout: its files, shards by index, what its config says."""

from __future__ import annotations

from pathlib import Path

from mlx_lvm.core.files.disk import read_json
from mlx_lvm.core.result import JsonObject
from mlx_lvm.errors import InvalidFile

INDEXES = ("model.safetensors.index.json", "pytorch_model.bin.index.json")
NAMES = ("model.safetensors", "pytorch_model.bin")
ENDINGS = (".safetensors", ".bin", ".pt", ".pth")


def weight_files(folder: Path) -> list[Path]:
    """The files that hold the weights. Raises InvalidFile for none, or several without an index of them."""
    index = next((folder / name for name in INDEXES if (folder / name).is_file()), None)
    if index is not None:
        values = read_json(index)
        names = values.get("weight_map") if isinstance(values, dict) else None
        if not isinstance(names, dict) or not all(
            isinstance(n, str) and n == Path(n).name for n in names.values()
        ):
            raise InvalidFile(f"{index}: 'weight_map' must map tensors to files of this folder")
        return [folder / name for name in sorted(set(names.values()))]
    known = [folder / name for name in NAMES if (folder / name).is_file()]
    found = known[:1] or sorted(p for p in folder.iterdir() if p.suffix in ENDINGS and p.is_file())
    if len(found) != 1:
        held = f"several ({', '.join(path.name for path in found[:5])})" if found else "none"
        raise InvalidFile(
            f"{folder}: expected one file of weights or an index of them, found {held}; give the file itself"
        )
    return found


def described(folder: Path) -> JsonObject:
    """What `config.json` says: the kind of model, and its sizes. Empty where there is none."""
    path = folder / "config.json"
    values = read_json(path) if path.is_file() else {}
    if not isinstance(values, dict):
        return {}
    return {"model_type": values.get("model_type"), "model_config": values}
