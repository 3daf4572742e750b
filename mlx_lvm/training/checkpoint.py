"""Checkpoints that are whole or absent.

A checkpoint is a new folder `step-<n>`: written under a temporary name, every file flushed, synced and read back against
its sha256, `manifest.json` last, then renamed; the pointer files LATEST and BEST are replaced after that. A kill at any
moment leaves the earlier checkpoint as it was.
"""

from __future__ import annotations

import json
import os
import shutil
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from mlx_lvm.backend import mx
from mlx_lvm.errors import InvalidFile, IOFailed, NumbersBroke
from mlx_lvm.files import open_safetensors, read_json, sha256, sync, sync_folder, to_bytes, write_atomic

FILES = ("model.safetensors", "optimizer.safetensors", "state.json")
POINTERS = ("LATEST", "BEST")
TEMPORARY = ".tmp-"
VERSION = 1


@dataclass(frozen=True)
class Checkpoint:
    """Weights by name, what the training step saved, and the loop's plain state."""

    weights: dict[str, mx.array]
    optimizer: dict[str, mx.array]
    state: dict[str, Any]


def save(folder: Path, checkpoint: Checkpoint, name: str, pointers: tuple[str, ...]) -> Path:
    """Write `folder/name` and point `pointers` at it. Raises IOFailed naming the cause, NumbersBroke for NaN or Inf weights."""
    for key, value in checkpoint.weights.items():
        if not mx.isfinite(value).all().item():
            raise NumbersBroke(f"weight '{key}' holds NaN or Inf; this checkpoint is not written, the last good one stays")
    contents = {
        "model.safetensors": to_bytes(checkpoint.weights, {"format": "pt"}),
        "optimizer.safetensors": to_bytes(checkpoint.optimizer, {}),
        "state.json": _json_bytes(checkpoint.state),
    }
    temporary = folder / f"{TEMPORARY}{name}-{os.getpid()}"
    try:
        _require_space(folder, sum(map(len, contents.values())))
        temporary.mkdir(parents=True)
        digests = {}
        for file, data in contents.items():
            digests[file] = _write_checked(temporary / file, data)
        _write_checked(temporary / "manifest.json", _manifest(name, digests))
        sync_folder(temporary)
        target = folder / name
        if target.exists():  # an earlier, damaged or abandoned one of the same step
            os.replace(target, folder / f"{TEMPORARY}old-{name}-{os.getpid()}")
        os.replace(temporary, target)
        sync_folder(folder)
    except OSError as error:
        shutil.rmtree(temporary, ignore_errors=True)
        raise IOFailed(
            f"checkpoint {folder / name}: cannot be written ({error.strerror or error}); earlier checkpoints are intact"
        ) from error
    for pointer in pointers:
        write_atomic(folder / pointer, (name + "\n").encode())
    return target


def _manifest(name: str, digests: dict[str, str]) -> bytes:
    """The manifest vouches for the files, its own digest for it."""
    body = {"version": VERSION, "name": name, "sha256": digests}
    return _json_bytes({**body, "digest": sha256(_json_bytes(body))})


def _json_bytes(value: Any) -> bytes:
    return (json.dumps(value, indent=2, sort_keys=True) + "\n").encode()


def _write_checked(path: Path, data: bytes) -> str:
    """Write, sync, read back; the sha256 of what is on the disk."""
    with open(path, "wb") as file:
        file.write(data)
        file.flush()
        sync(file.fileno())
    digest = sha256(data)
    if sha256(path.read_bytes()) != digest:
        raise IOFailed(f"{path}: what was read back is not what was written; the disk is failing")
    return digest


def _require_space(folder: Path, needed: int) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    free = shutil.disk_usage(folder).free
    if free < needed + (1 << 20):
        raise IOFailed(
            f"{folder}: a checkpoint needs {needed / 1e6:.0f} MB, the disk has {free / 1e6:.0f} MB free; earlier checkpoints are intact"
        )


def prune(folder: Path, keep_every: int = 0) -> None:
    """Remove what neither LATEST nor BEST points at, except every `keep_every`-th checkpoint, and stale temporaries."""
    kept = {pointed(folder, pointer) for pointer in POINTERS}
    for path in folder.iterdir():
        if path.name.startswith(TEMPORARY) or path.name.endswith(".tmp"):
            shutil.rmtree(path, ignore_errors=True) if path.is_dir() else path.unlink(missing_ok=True)
        elif path.is_dir() and path.name.startswith("step-") and path.name not in kept:
            number = int(path.name.removeprefix("step-"))
            if not keep_every or number % keep_every:
                # Renamed first, so that a kill in the middle leaves no half-removed checkpoint under a good name.
                doomed = folder / f"{TEMPORARY}old-{path.name}-{os.getpid()}"
                os.replace(path, doomed)
                shutil.rmtree(doomed, ignore_errors=True)


def pointed(folder: Path, pointer: str) -> str | None:
    """The checkpoint's name that a pointer file holds, None where there is none; names never become paths."""
    try:
        name = (folder / pointer).read_text("utf-8").strip()
    except (OSError, UnicodeDecodeError):
        return None
    return name if name.startswith("step-") and name[5:].isdigit() else None


def names(folder: Path) -> list[str]:
    """Checkpoints in the folder, newest first."""
    found = (
        [p.name for p in folder.iterdir() if p.is_dir() and p.name.startswith("step-") and p.name[5:].isdigit()] if folder.is_dir() else []
    )
    return sorted(found, key=lambda name: int(name[5:]), reverse=True)


def load(path: Path) -> Checkpoint:
    """Raises InvalidFile naming what is damaged: every file must have the sha256 that the manifest records."""
    manifest = read_json(path / "manifest.json")
    if not isinstance(manifest, dict) or manifest.get("version") != VERSION or not isinstance(manifest.get("sha256"), dict):
        raise InvalidFile(f"checkpoint {path}: its manifest is damaged or of another version")
    if manifest.get("name") != path.name:
        raise InvalidFile(f"checkpoint {path}: its manifest is that of '{manifest.get('name')}'")
    if set(manifest["sha256"]) != set(FILES) or (path / "manifest.json").read_bytes() != _manifest(path.name, manifest["sha256"]):
        raise InvalidFile(f"checkpoint {path}: its manifest is damaged")
    for file, digest in manifest["sha256"].items():
        try:
            found = sha256(np.fromfile(path / file, dtype=np.uint8))
        except OSError as error:
            raise InvalidFile(f"checkpoint {path}: {file} cannot be read ({error.strerror})") from None
        if found != digest:
            raise InvalidFile(f"checkpoint {path}: {file} is damaged (its sha256 is not the recorded one)")
    weights = open_safetensors(path / "model.safetensors").arrays()
    optimizer = open_safetensors(path / "optimizer.safetensors").arrays()
    return Checkpoint(weights, optimizer, read_json(path / "state.json"))


def load_newest(folder: Path, first: str = "LATEST") -> tuple[Checkpoint, str, list[str]]:
    """The checkpoint `first` points at, else the newest intact one: (checkpoint, its name, what was found damaged).

    Raises InvalidFile where none is intact, naming what is wrong with each.
    """
    wished = pointed(folder, first)
    order = ([wished] if wished else []) + [name for name in names(folder) if name != wished]
    damaged: list[str] = []
    for name in order:
        try:
            return load(folder / name), name, damaged
        except InvalidFile as error:
            damaged.append(str(error))
    raise InvalidFile("\n".join([f"{folder}: no intact checkpoint", *(f"  - {d}" for d in damaged)]))
