"""Epoch records as TensorBoard and Weights & Biases get them."""

import json
import sys
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from mlx_lvm.errors import SetupInvalid, UsageError
from mlx_lvm.training import reporting
from mlx_lvm.training.reporting import require_reporter, scalars

RECORD = {
    "epoch": 2,
    "step": 38,
    "lr": 0.5,
    "train_loss": 1.5,
    "val_cosine": 0.25,
    "val_centred_cosine": 0.125,
    "best": True,
}


def test_tensorboard_holds_what_the_history_holds(lvm: Callable, tmp_path: Path, small_file: Path) -> None:
    pytest.importorskip("tensorboard", reason="pip install 'mlx-lvm[tensorboard]'")
    small = ("--attention-dim", 8, "--hidden-dim", 16)
    out = lvm(
        "train",
        "amn",
        "--corpus",
        small_file,
        "--epochs",
        2,
        "--out",
        tmp_path / "run",
        "--report-to",
        "tensorboard",
        *small,
    )
    assert out.code == 0, out.err
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator
    from tensorboard.util import tensor_util

    events = EventAccumulator(str(tmp_path / "run/tensorboard"))
    events.Reload()
    for line in (tmp_path / "run/history.jsonl").read_text().splitlines():
        record = json.loads(line)
        for tag, key in (
            ("val/cosine", "val_cosine"),
            ("val/centred_cosine", "val_centred_cosine"),
            ("train/loss", "train_loss"),
            ("lr", "lr"),
        ):
            found = {
                event.step: float(tensor_util.make_ndarray(event.tensor_proto))
                for event in events.Tensors(tag)
            }
            assert found[record["step"]] == pytest.approx(record[key], rel=1e-6)


def test_wandb_gets_each_epoch_and_one_identity_a_run(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Against a stand-in with the library's interface: nothing is sent anywhere."""
    opened: list[dict[str, Any]] = []
    logged: list[tuple[dict[str, float], int]] = []

    def init(**options: Any) -> SimpleNamespace:
        opened.append(options)
        return SimpleNamespace(
            log=lambda values, step: logged.append((values, step)), finish=lambda: logged.append(({}, -1))
        )

    monkeypatch.setitem(sys.modules, "wandb", SimpleNamespace(init=init, __spec__=SimpleNamespace()))
    for _ in range(2):
        with reporting.reporting("wandb", tmp_path, {"lr": 0.5}) as report:
            report(RECORD)
    assert (
        opened[0]["id"] == opened[1]["id"]
        and opened[0]["resume"] == "allow"
        and opened[0]["config"] == {"lr": 0.5}
    )
    assert logged[0] == ({"lr": 0.5, "train/loss": 1.5, "val/cosine": 0.25, "val/centred_cosine": 0.125}, 38)
    assert logged[1] == ({}, -1), "a run that ends must be closed"


def test_names_and_numbers() -> None:
    assert scalars(RECORD) == {"lr": 0.5, "train/loss": 1.5, "val/cosine": 0.25, "val/centred_cosine": 0.125}


def test_refusals(monkeypatch: pytest.MonkeyPatch) -> None:
    require_reporter(None)
    with pytest.raises(UsageError, match="Did you mean 'tensorboard'"):
        require_reporter("tensorbaord")
    monkeypatch.setattr(reporting, "find_spec", lambda name: None)
    with pytest.raises(SetupInvalid, match=r"pip install 'mlx-lvm\[wandb\]'"):
        require_reporter("wandb")
