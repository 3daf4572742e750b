"""NaN and Inf in data, gradients, weights and loss at random steps: training stops there, says where, and
neither what was saved nor what is in memory has taken the broken step."""

import json
from pathlib import Path

import numpy as np
import pytest

from mlx_lvm.core.mlx import mx
from mlx_lvm.errors import NonFiniteError
from mlx_lvm.models import Prediction
from mlx_lvm.training import checkpoint as checkpoints
from mlx_lvm.training import losses
from mlx_lvm.training.config import TrainConfig
from mlx_lvm.training.session import start_run
from mlx_lvm.training.state import epoch_order
from mlx_lvm.training.trainer import Trainer

BATCH = 64


def begin(folder: Path, corpus: Path) -> Trainer:
    options = TrainConfig(corpus=str(corpus), epochs=3, batch_size=BATCH, lr=1e-3)
    return start_run("amn", {"attention_dim": 8, "hidden_dim": 16}, options, folder)


def batch_of(trainer: Trainer, step: int) -> np.ndarray:
    """The windows of optimiser step 1, 2, ..."""
    epoch, within = divmod(step - 1, trainer.task.steps_per_epoch)
    return epoch_order(len(trainer.task.train_windows), 0, epoch)[within * BATCH : (within + 1) * BATCH]


def held(trainer: Trainer) -> dict[str, np.ndarray]:
    """Weights and moments in memory."""
    moments = {
        name: value for name, value in trainer.task.step.state_dict().items() if not name.startswith("sums.")
    }
    return {name: np.array(value) for name, value in {**trainer.task.model.weights(), **moments}.items()}


def gradient_without_value(prediction: Prediction, target: mx.array, temperature: float) -> mx.array:
    """mse plus a term whose gradient, but not whose value, is NaN for a target of zeros."""
    weighed = mx.sqrt(mx.square(prediction.raw * target).sum(axis=-1)).sum()
    return losses.mse(prediction, target, temperature) + 1e-6 * weighed


@pytest.mark.slow
@pytest.mark.parametrize("seed", range(3))
@pytest.mark.parametrize("kind", ["data", "inf data", "loss", "gradient", "weights"])
def test_it_stops_at_the_step_and_names_the_batch(
    tmp_path: Path, small_file: Path, monkeypatch: pytest.MonkeyPatch, kind: str, seed: int
) -> None:
    step = int(np.random.default_rng([seed, len(kind)]).integers(12, 26))
    if kind == "gradient":
        monkeypatch.setitem(losses.LOSS_FUNCTIONS, "mse", gradient_without_value)
    trainer = begin(tmp_path / "run", small_file)
    windows = batch_of(trainer, step)
    row = int(trainer.task.train_windows.targets[windows[7]])
    value = {"data": float("nan"), "inf data": float("inf"), "loss": 1e25, "gradient": 0.0}.get(kind)
    sound = trainer.task.step._vectors[0]
    spoiled = mx.array(
        np.where(np.arange(len(trainer.task.corpus))[:, None] == row, np.float32(value or 0), np.array(sound))
    )
    real = trainer.task.step.__call__
    before: dict[str, np.ndarray] = {}

    def spoil(targets: np.ndarray, lr: float, key: int) -> None:
        at = trainer.state.count + 1 == step
        if at and kind == "weights":
            weight = trainer.task.model.query_encoder.weight
            trainer.task.model.query_encoder.weight = mx.where(
                mx.arange(weight.size).reshape(weight.shape) == 3, float("nan"), weight
            )
        trainer.task.step._vectors[0] = spoiled if at and kind != "weights" else sound
        if at:
            before.update(held(trainer))
        real(targets, lr, key)

    monkeypatch.setattr(type(trainer.task.step), "__call__", lambda self, *arguments: spoil(*arguments))
    trainer.task.config = trainer.task.config.replace(checkpoint_every="5")
    with pytest.raises(NonFiniteError) as error:
        trainer.train()
    epoch, within = divmod(step - 1, trainer.task.steps_per_epoch)
    assert f"epoch {epoch + 1}, step {within + 1} " in str(error.value) and error.value.exit_code == 5
    assert trainer.state.count <= step + 1, "at most the step that was under way already"
    for name, value in held(trainer).items():
        np.testing.assert_array_equal(
            value, before[name], err_msg=f"{name} after the broken step, and one more in flight"
        )
    written = json.loads((tmp_path / "run/broken.json").read_text())
    assert (written["epoch"], written["step"], written["count"]) == (epoch + 1, within + 1, step)
    assert (
        written["target_rows"] == trainer.task.train_windows.targets[windows].tolist()
        and row in written["target_rows"]
    )
    loaded, name, damaged = checkpoints.load_newest(tmp_path / "run/checkpoints")
    assert not damaged and int(name[5:]) < step and name in str(error.value)
    assert all(
        mx.isfinite(value).all().item() for value in [*loaded.weights.values(), *loaded.optimizer.values()]
    )


def test_no_step_after_a_broken_one_changes_anything(tmp_path: Path, small_file: Path) -> None:
    """However many were sent to the device before the host looks."""
    trainer = begin(tmp_path / "run", small_file)
    step, batches = trainer.task.step, [batch_of(trainer, number) for number in range(1, 9)]
    for number, batch in enumerate(batches, 1):
        if number == 4:
            before, sound = held(trainer), step._vectors
            step._vectors = [mx.full(sound[0].shape, float("inf")), *sound[1:]]
        step(trainer.task.train_windows.targets[batch], 1e-3, number)
        if number == 4:
            step._vectors = sound
    assert step.broken().item() == 4
    for name, value in held(trainer).items():
        np.testing.assert_array_equal(value, before[name], err_msg=name)
