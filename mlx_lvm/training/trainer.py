"""The training loop: epochs of compiled steps, validation beside two closed forms, checkpoints, exact resume.

Batch order is a function of (seed, epoch) and dropout of (seed, epoch, step), so a checkpoint holds no random state and
a resumed run does what the undisturbed one would have done, to the bit on a CPU.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from mlx_lvm.backend import mx
from mlx_lvm.data.corpus import Corpus
from mlx_lvm.data.splits import Split, split_corpus
from mlx_lvm.data.windows import windows
from mlx_lvm.errors import NumbersBroke
from mlx_lvm.evaluation.baselines import ContextMean, Predictor, fit_lag_filter, target_mean
from mlx_lvm.evaluation.metrics import mean_cosine
from mlx_lvm.models import VectorModel
from mlx_lvm.training import checkpoint as checkpoints
from mlx_lvm.training import run as runs
from mlx_lvm.training.checkpoint import Checkpoint
from mlx_lvm.training.config import TrainConfig
from mlx_lvm.training.schedule import Plateau
from mlx_lvm.training.step import NEVER, TrainStep, compile_validation

STEPS_IN_FLIGHT = 16  # steps queued before Python waits: enough to hide it, few enough that a report is fresh
VALIDATION_BLOCK = 1024


@dataclass
class Progress:
    """What a display may show while an epoch runs."""

    epoch: int
    step: int  # in the epoch
    steps: int
    loss: float
    cosine: float
    windows_per_second: float
    peak_memory: int  # bytes


@dataclass
class LoopState:
    """Where the loop stands; all plain values, saved with every checkpoint."""

    epoch: int = 0
    step: int = 0  # steps done in this epoch
    count: int = 0  # optimiser steps done
    best_epoch: int = 0
    best_cosine: float = -2.0
    seconds: float = 0.0
    trained_windows: int = 0
    plateau: dict[str, Any] = field(default_factory=dict)
    history: list[dict[str, Any]] = field(default_factory=list)


class Trainer:
    """Trains `model` on the corpus's train documents into `folder`.

    `stop` is asked after every step: when it says true, a checkpoint is written and `train` returns early.
    """

    def __init__(self, model: VectorModel, corpus: Corpus, config: TrainConfig, folder: Path, split: Split | None = None) -> None:
        self.model, self.corpus, self.config, self.folder = model, corpus, config, folder
        self.split = split or split_corpus(corpus, config.split_seed)
        self.train_windows = windows(corpus, self.split.train, config.context, "train")
        self.val_windows = windows(corpus, self.split.val, config.context, "val")
        self.train_step = TrainStep(model, corpus, config)
        self.state = LoopState(plateau=asdict(Plateau(config.lr, config.plateau_factor, config.plateau_patience)))
        self.mean = target_mean(corpus, self.split.train, config.context)
        self._validate = compile_validation(model, corpus, config, mx.array(self.mean))
        self.baselines = self._baselines()
        self.damaged: list[str] = []  # checkpoints that a resume passed over, and why

    @property
    def steps_per_epoch(self) -> int:
        return -(-len(self.train_windows) // self.config.batch_size)

    @property
    def checkpoint_folder(self) -> Path:
        return self.folder / "checkpoints"

    def resume(self) -> None:
        """Continue from the newest intact checkpoint; `damaged` says which newer ones were not."""
        loaded, _, self.damaged = checkpoints.load_newest(self.checkpoint_folder)
        self.model.load_weights(list(loaded.weights.items()), strict=True)
        self.state = LoopState(**loaded.state)
        self.train_step.load(loaded.optimizer, self.state.count)

    def train(
        self,
        on_step: Callable[[Progress], None] = lambda progress: None,
        on_epoch: Callable[[dict[str, Any]], None] = lambda record: None,
        stop: Callable[[], bool] = lambda: False,
        checkpoint_every: int = 0,
    ) -> bool:
        """Train to the last epoch. True when done, False when `stop` asked for an early end.

        Raises NumbersBroke where a loss or gradient is not finite, naming epoch and step; the last good checkpoint stays.
        """
        mx.reset_peak_memory()
        while self.state.epoch < self.config.epochs and not self._stopped_early():
            if not self._epoch(on_step, stop, checkpoint_every):
                self.save(("LATEST",))
                return False
            on_epoch(self._end_epoch())
        return True

    def _epoch(self, on_step: Callable[[Progress], None], stop: Callable[[], bool], checkpoint_every: int) -> bool:
        state, config = self.state, self.config
        self.model.train()
        order = epoch_order(len(self.train_windows), config.seed, state.epoch)
        started, seconds, done = time.perf_counter(), state.seconds, 0
        while state.step < self.steps_per_epoch:
            batch = order[state.step * config.batch_size : (state.step + 1) * config.batch_size]
            self.train_step(self.train_windows.targets[batch], state.plateau["lr"], step_key(config.seed, state.epoch, state.step))
            mx.async_eval(self.train_step.state())
            state.step, state.count, state.trained_windows = state.step + 1, state.count + 1, state.trained_windows + len(batch)
            done += len(batch)
            if state.step % STEPS_IN_FLIGHT == 0 or state.step == self.steps_per_epoch:
                sums = self.train_step.read_sums()
                self._require_finite(sums)
                elapsed = time.perf_counter() - started
                state.seconds = seconds + elapsed
                on_step(
                    Progress(
                        state.epoch + 1,
                        state.step,
                        self.steps_per_epoch,
                        sums["loss"],
                        sums["cosine"],
                        done / elapsed,
                        mx.get_peak_memory(),
                    )
                )
            if checkpoint_every and state.count % checkpoint_every == 0 and state.step < self.steps_per_epoch:
                self.save(("LATEST",))
            if stop():
                return False
        return True

    def _end_epoch(self) -> dict[str, Any]:
        """Validate, record, let the schedule look, write the checkpoint."""
        state, sums = self.state, self.train_step.read_sums()
        started = time.perf_counter()
        loss, cosine, centred = self.validate()
        state.seconds += time.perf_counter() - started
        record = {
            "epoch": state.epoch + 1,
            "step": state.count,
            "lr": state.plateau["lr"],
            "train_loss": sums["loss"],
            "train_cosine": sums["cosine"],
            "val_loss": loss,
            "val_cosine": cosine,
            "val_centred_cosine": centred,
        }
        plateau = Plateau(**state.plateau)
        plateau.observe(loss)
        state.plateau = asdict(plateau)
        state.history.append(record)
        state.epoch, state.step = state.epoch + 1, 0
        better = cosine > state.best_cosine
        if better:
            state.best_epoch, state.best_cosine = state.epoch, cosine
        self.train_step.clear_sums()
        self.save(("LATEST", "BEST") if better else ("LATEST",))
        return record | {"best": better, "seconds": state.seconds, "peak_memory": mx.get_peak_memory()}

    def save(self, pointers: tuple[str, ...]) -> Path:
        self._require_finite(self.train_step.read_sums())
        state = asdict(self.state)
        saved = Checkpoint(self.model.weights(), self.train_step.saved(), state)
        path = checkpoints.save(self.checkpoint_folder, saved, f"step-{self.state.count:08d}", pointers)
        runs.write_history(self.folder, self.state.history)
        checkpoints.prune(self.checkpoint_folder)
        return path

    def validate(self) -> tuple[float, float, float]:
        """Mean (loss, cosine, centred cosine) over the validation windows. Raises NumbersBroke where they are not finite."""
        self.model.eval()
        targets = self.val_windows.targets
        parts = [self._validate(mx.array(targets[block])) for block in self.val_windows.blocks(VALIDATION_BLOCK)]
        loss, cosine, centred = (float(x) / len(targets) for x in np.array(mx.stack(parts).sum(axis=0)))
        if not np.isfinite([loss, cosine, centred]).all():
            raise NumbersBroke(f"epoch {self.state.epoch + 1}: validation loss {loss}, cosine {cosine}. Lower --lr, or set --clip.")
        return loss, cosine, centred

    def _baselines(self) -> dict[str, float]:
        """Validation cosine of what needs no training."""
        predictors: list[Predictor] = [ContextMean(), fit_lag_filter(self.corpus, self.split.train, self.config.context)]
        return {predictor.name: mean_cosine(predictor, self.val_windows) for predictor in predictors}

    def _stopped_early(self) -> bool:
        return bool(self.config.early_stop) and self.state.epoch - self.state.best_epoch >= self.config.early_stop

    def _require_finite(self, sums: dict[str, float]) -> None:
        if sums["broken"] == NEVER:
            return
        step = int(sums["broken"])
        epoch, within = divmod(step - 1, self.steps_per_epoch)
        order = epoch_order(len(self.train_windows), self.config.seed, epoch)
        batch = order[within * self.config.batch_size : (within + 1) * self.config.batch_size]
        rows = self.train_windows.targets[batch]
        good = checkpoints.pointed(self.checkpoint_folder, "LATEST")
        raise NumbersBroke(
            f"loss or gradient is NaN or Inf at epoch {epoch + 1}, step {within + 1} (target rows {rows[:8].tolist()} ...). "
            + (f"The last good checkpoint is {self.checkpoint_folder / good}. " if good else "")
            + "Lower --lr, set --clip, or look at these rows with `lvm data check`."
        )


def epoch_order(count: int, seed: int, epoch: int) -> np.ndarray:
    """A permutation of the training windows that depends on seed and epoch alone."""
    return np.random.Generator(np.random.PCG64([seed, epoch])).permutation(count)


def step_key(seed: int, epoch: int, step: int) -> int:
    """A 64-bit seed for one step's dropout; neighbouring steps get unrelated ones."""
    low, high = np.random.SeedSequence([seed, epoch, step]).generate_state(2)
    return int(high) << 32 | int(low)
