"""Checkpoints that are whole or absent.

A checkpoint is a new folder `step-<n>`: written under a temporary name, every file flushed, `manifest.json`
with their sha256 last and all of it to the disk itself, then renamed; the pointer files LATEST and BEST are
replaced after that. A kill at any moment leaves the earlier checkpoint as it was, and `load` holds every file
against its sha256.
"""

from __future__ import annotations

import json
import os
import re
import shutil
import stat
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from mlx_lvm.core.arrays import not_finite
from mlx_lvm.core.files.disk import sha256, sync_folder, write_atomic, write_flushed
from mlx_lvm.core.files.safetensors import safetensors_from, to_bytes
from mlx_lvm.core.mlx import mx
from mlx_lvm.core.result import JsonObject
from mlx_lvm.errors import InvalidFile, IOFailed, NonFiniteError

FILES = ("model.safetensors", "optimizer.safetensors", "state.json")
POINTERS = ("LATEST", "BEST")
TEMPORARY = ".tmp-"
STEP = re.compile(r"step-[0-9]{1,18}")
VERSION = 1
KEYS = {"version", "name", "sha256", "digest"}  # of a manifest


@dataclass(frozen=True)
class Checkpoint:
    """Weights by name, what the training step saved, and the loop's plain state."""

    weights: dict[str, mx.array]
    optimizer: dict[str, mx.array]
    state: JsonObject


def save(folder: Path, checkpoint: Checkpoint, name: str, pointers: tuple[str, ...]) -> Path:
    """Write `folder/name` and point `pointers` at it.

    Raises IOFailed naming the cause, NonFiniteError for NaN or Inf weights.
    """
    require_finite(checkpoint.weights)
    model, optimizer = to_bytes(checkpoint.weights, {"format": "pt"}), to_bytes(checkpoint.optimizer, {})
    contents = dict(zip(FILES, (model, optimizer, _json_bytes(checkpoint.state)), strict=True))
    temporary = folder / f"{TEMPORARY}{name}-{os.getpid()}"
    try:
        folder.mkdir(exist_ok=True)  # but not its parent: a run folder that was removed stays removed
        _require_space(folder, sum(map(len, contents.values())))
        temporary.mkdir()
        for file, data in contents.items():
            write_flushed(temporary / file, data)
        digests = {file: sha256(data) for file, data in contents.items()}
        # It vouches for the files; read, it must be these bytes again. The one flush to the disk itself takes
        # the files before it along: on macOS each costs tens of milliseconds.
        manifest = _json_bytes({"version": VERSION, "name": name, "sha256": digests})
        write_flushed(temporary / "manifest.json", manifest, full=True)
        sync_folder(temporary)
        target = folder / name
        # a damaged or abandoned one of the same step; no pointer to an intact one is ever written again
        if target.exists():
            _set_aside(target)
        os.replace(temporary, target)
        sync_folder(folder)
    except (OSError, IOFailed) as error:
        shutil.rmtree(temporary, ignore_errors=True)
        if isinstance(error, IOFailed):
            raise
        raise IOFailed(
            f"checkpoint {folder / name}: cannot be written ({error.strerror or error}); earlier "
            "checkpoints are intact"
        ) from error
    point(folder, name, pointers)
    return target


def require_finite(weights: dict[str, mx.array]) -> None:
    """Raises NonFiniteError naming the first weight that holds NaN or Inf."""
    for name in not_finite(weights):
        raise NonFiniteError(
            f"weight '{name}' holds NaN or Inf; this checkpoint is not written, the last good one stays"
        )


def point(folder: Path, name: str, pointers: tuple[str, ...]) -> None:
    """Make the pointer files name a checkpoint."""
    for pointer in pointers:
        write_atomic(folder / pointer, (name + "\n").encode(), full=False)


def _json_bytes(value: Any) -> bytes:
    return (json.dumps(value, indent=2, sort_keys=True) + "\n").encode()


def _require_space(folder: Path, needed: int) -> None:
    free = shutil.disk_usage(folder).free
    if free < needed + (1 << 20):
        raise IOFailed(
            f"{folder}: a checkpoint needs {needed / 1e6:.0f} MB, the disk has {free / 1e6:.0f} MB free; "
            "earlier checkpoints are intact"
        )


def prune(folder: Path, keep_every: int = 0) -> None:
    """Remove stale temporaries, and what neither pointer names but at every `keep_every`-th step."""
    sweep(folder)
    kept = {pointed(folder, pointer) for pointer in POINTERS}
    for name in names(folder):
        if name not in kept and (not keep_every or int(name[5:]) % keep_every):
            shutil.rmtree(_set_aside(folder / name), ignore_errors=True)


def _set_aside(path: Path) -> Path:
    """Rename a checkpoint before it is removed, so that a kill leaves no half of one under a good name."""
    aside = path.with_name(f"{TEMPORARY}old-{path.name}-{os.getpid()}")
    shutil.rmtree(aside, ignore_errors=True)
    os.replace(path, aside)
    return aside


def sweep(folder: Path) -> list[str]:
    """Remove what killed processes left under a temporary name. Only for the holder of the run's lock."""
    found = [p for p in folder.iterdir() if is_temporary(p.name)] if folder.is_dir() else []
    for path in found:
        if path.is_dir() and not path.is_symlink():
            shutil.rmtree(path, ignore_errors=True)
        else:
            path.unlink(missing_ok=True)
    return [path.name for path in found]


def is_temporary(name: str) -> bool:
    """Whether `save` or `write_atomic` gives such names to what is not finished."""
    return name.startswith(TEMPORARY) or (name.startswith(".") and name.endswith(".tmp"))


def pointed(folder: Path, pointer: str) -> str | None:
    """The checkpoint's name that a pointer file holds, None where there is none; names never become paths."""
    try:
        with open(folder / pointer, encoding="ascii") as file:
            name = file.read(64).strip()
    except (OSError, UnicodeDecodeError):
        return None
    return name if STEP.fullmatch(name) else None


def names(folder: Path) -> list[str]:
    """Checkpoints in the folder, newest first."""
    there = folder.iterdir() if folder.is_dir() else ()
    found = [path.name for path in there if STEP.fullmatch(path.name) and path.is_dir()]
    return sorted(found, key=lambda name: int(name[5:]), reverse=True)


def load(path: Path) -> Checkpoint:
    """Raises InvalidFile naming what is damaged: every file must have the sha256 that the manifest records.

    Each file is read once; what was checked is what is used, whatever happens to the folder meanwhile.
    """
    written = _read(path / "manifest.json").tobytes()
    manifest = _json(path / "manifest.json", written)
    known = isinstance(manifest, dict) and manifest.get("version") == VERSION
    if not known or not isinstance(manifest.get("sha256"), dict):
        raise InvalidFile(f"checkpoint {path}: its manifest is damaged or of another version")
    if manifest.get("name") != path.name:
        raise InvalidFile(f"checkpoint {path}: its manifest is that of '{str(manifest.get('name'))[:40]}'")
    # Other keys: the digest of itself, which earlier versions wrote.
    if set(manifest["sha256"]) != set(FILES) or set(manifest) - KEYS or written != _json_bytes(manifest):
        raise InvalidFile(f"checkpoint {path}: its manifest is damaged")
    data = {file: _read(path / file) for file in FILES}
    for file, digest in manifest["sha256"].items():
        if sha256(data[file]) != digest:
            raise InvalidFile(f"checkpoint {path}: {file} is damaged (its sha256 is not the recorded one)")
    tensors = {file: safetensors_from(path / file, data[file]).arrays() for file in FILES[:2]}
    return Checkpoint(tensors[FILES[0]], tensors[FILES[1]], _json(path / FILES[2], data[FILES[2]].tobytes()))


def _read(path: Path) -> np.ndarray:
    try:
        if not stat.S_ISREG(path.stat().st_mode):  # opening a pipe would wait for ever
            raise InvalidFile(f"checkpoint {path.parent}: {path.name} is no regular file")
        return np.fromfile(path, dtype=np.uint8)
    except OSError as error:
        why = error.strerror or error
        raise InvalidFile(f"checkpoint {path.parent}: {path.name} cannot be read ({why})") from None


def _json(path: Path, data: bytes) -> Any:
    try:
        return json.loads(data.decode("utf-8"))
    except (ValueError, RecursionError) as error:
        damaged = f"checkpoint {path.parent}: {path.name} is damaged"
        raise InvalidFile(f"{damaged}, not valid JSON ({error})") from None


def load_newest(folder: Path, first: str = "LATEST") -> tuple[Checkpoint, str, list[str]]:
    """The checkpoint `first` points at, else the newest intact one: (checkpoint, its name, what is damaged).

    A run that trains meanwhile may remove a checkpoint under a reader's eyes; the reader then starts over
    with the folder as it is by now. Raises InvalidFile where none is intact, naming what is wrong with each.
    """
    while True:
        wished, there = pointed(folder, first), names(folder)
        damaged: list[str] = []
        loaded = None
        for name in dict.fromkeys([wished, *there] if wished else there):
            try:
                loaded = (load(folder / name), name, damaged)
                break
            except InvalidFile as error:
                damaged.append(str(error))
        if damaged and (pointed(folder, first), names(folder)) != (wished, there):
            continue
        if loaded is None:
            raise InvalidFile("\n".join([f"{folder}: no intact checkpoint", *(f"  - {d}" for d in damaged)]))
        return loaded
