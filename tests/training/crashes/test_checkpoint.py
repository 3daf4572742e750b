"""Checkpoints are whole or absent, and damage is named."""

import json
import os
from pathlib import Path

import pytest

from mlx_lvm.core.mlx import mx
from mlx_lvm.errors import InvalidFile, IOFailed, NonFiniteError
from mlx_lvm.training import checkpoint as checkpoints
from mlx_lvm.training.checkpoint import Checkpoint


def make(value: float) -> Checkpoint:
    return Checkpoint({"w": mx.full((4,), value)}, {"first.w": mx.zeros((4,))}, {"epoch": int(value)})


def save(folder: Path, number: int, *pointers: str) -> None:
    checkpoints.save(folder, make(number), f"step-{number:08d}", pointers or ("LATEST",))


def test_what_is_saved_is_loaded(tmp_path: Path) -> None:
    save(tmp_path, 3, "LATEST", "BEST")
    save(tmp_path, 4)
    for pointer, value in (("LATEST", 4), ("BEST", 3)):
        loaded, name, damaged = checkpoints.load_newest(tmp_path, pointer)
        assert (loaded.weights["w"][0].item(), loaded.state["epoch"], name, damaged) == (
            value,
            value,
            f"step-{value:08d}",
            [],
        )


def test_prune_keeps_latest_best_and_every_kth(tmp_path: Path) -> None:
    for number in range(1, 7):
        save(tmp_path, number, *(("LATEST", "BEST") if number == 2 else ("LATEST",)))
    (tmp_path / ".tmp-step-00000009-1").mkdir()
    checkpoints.prune(tmp_path, keep_every=4)
    assert sorted(p.name for p in tmp_path.iterdir()) == [
        "BEST",
        "LATEST",
        "step-00000002",
        "step-00000004",
        "step-00000006",
    ]


@pytest.mark.parametrize(
    "file", ["model.safetensors", "optimizer.safetensors", "state.json", "manifest.json"]
)
@pytest.mark.parametrize("damage", ["flip", "cut", "remove"])
def test_damage_is_named_and_the_one_before_is_taken(tmp_path: Path, file: str, damage: str) -> None:
    save(tmp_path, 1)
    save(tmp_path, 2)
    path = tmp_path / "step-00000002" / file
    data = bytearray(path.read_bytes())
    if damage == "remove":
        path.unlink()
    elif damage == "cut":
        path.write_bytes(data[:-1])
    else:
        data[len(data) // 2] ^= 1
        path.write_bytes(data)
    with pytest.raises(InvalidFile):
        checkpoints.load(tmp_path / "step-00000002")
    loaded, name, damaged = checkpoints.load_newest(tmp_path)
    assert name == "step-00000001" and loaded.state["epoch"] == 1
    assert len(damaged) == 1 and "step-00000002" in damaged[0]


def test_nothing_intact_lists_all(tmp_path: Path) -> None:
    save(tmp_path, 1)
    (tmp_path / "step-00000001/state.json").unlink()
    with pytest.raises(InvalidFile, match="no intact checkpoint"):
        checkpoints.load_newest(tmp_path)


def test_a_pointer_cannot_leave_the_folder(tmp_path: Path) -> None:
    save(tmp_path / "in", 1)
    (tmp_path / "in/LATEST").write_text("../../etc")
    assert checkpoints.pointed(tmp_path / "in", "LATEST") is None
    assert checkpoints.load_newest(tmp_path / "in")[1] == "step-00000001"


def test_nan_is_not_saved(tmp_path: Path) -> None:
    save(tmp_path, 1)
    broken = Checkpoint({"w": mx.array([1.0, float("nan")])}, {}, {})
    with pytest.raises(NonFiniteError, match="'w' holds NaN or Inf"):
        checkpoints.save(tmp_path, broken, "step-00000002", ("LATEST",))
    assert checkpoints.names(tmp_path) == ["step-00000001"]


@pytest.mark.parametrize("call", ["fsync", "replace", "mkdir"])
@pytest.mark.parametrize("nth", [0, 1, 2, 3])
def test_a_failing_disk_leaves_the_earlier_checkpoint(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, call: str, nth: int
) -> None:
    save(tmp_path, 1, "LATEST", "BEST")
    real, calls = getattr(os, call), iter(range(10**6))

    def fail(*args: object, **kwargs: object) -> object:
        if next(calls) == nth:
            raise OSError(28, "No space left on device")
        return real(*args, **kwargs)

    with monkeypatch.context() as patch:
        patch.setattr(os, call, fail)
        try:
            save(tmp_path, 2)
        except IOFailed as error:
            assert "No space left" in str(error)
    loaded, name, damaged = checkpoints.load_newest(tmp_path)
    assert not damaged and loaded.state["epoch"] == int(name[-1]) in (1, 2)
    checkpoints.prune(tmp_path)
    assert not [p for p in tmp_path.iterdir() if "tmp" in p.name]


def test_too_little_space_is_said_before_writing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    usage = type("Usage", (), {"free": 1000})
    monkeypatch.setattr(checkpoints.shutil, "disk_usage", lambda _: usage)
    with pytest.raises(IOFailed, match="the disk has 0 MB free"):
        save(tmp_path, 1)
    assert list(tmp_path.iterdir()) == []


def test_a_renamed_checkpoint_is_not_taken_for_another(tmp_path: Path) -> None:
    save(tmp_path, 1)
    (tmp_path / "step-00000001").rename(tmp_path / "step-00000009")
    with pytest.raises(InvalidFile, match="is that of 'step-00000001'"):
        checkpoints.load(tmp_path / "step-00000009")


def test_manifest_of_another_version(tmp_path: Path) -> None:
    save(tmp_path, 1)
    path = tmp_path / "step-00000001/manifest.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | {"version": 99}))
    with pytest.raises(InvalidFile, match="another version"):
        checkpoints.load(path.parent)
