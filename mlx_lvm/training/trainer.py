"""The training loop: epochs of compiled steps, validation, checkpoints, exact resume.

Batch order is a function of (seed, epoch) and dropout of (seed, epoch, step), so a checkpoint holds no random
state and a resumed run does what the undisturbed one would have done, to the bit on a CPU.
"""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Iterator
from contextlib import suppress
from dataclasses import asdict

import numpy as np

from mlx_lvm.core.mlx import mx
from mlx_lvm.core.result import JsonObject
from mlx_lvm.errors import IOFailed, LvmError, NonFiniteError
from mlx_lvm.models.weights import set_weights
from mlx_lvm.training.checkpoint import Checkpoint
from mlx_lvm.training.config import Every
from mlx_lvm.training.schedule import Plateau
from mlx_lvm.training.state import LoopState, Progress, step_key
from mlx_lvm.training.step import NEVER
from mlx_lvm.training.store import Checkpoints
from mlx_lvm.training.tasks.base import Task

REPORT_EVERY = 16  # steps

OnStep = Callable[[Progress], None]
OnEpoch = Callable[[JsonObject], object]


class Trainer:
    """Trains what `task` describes and keeps it in `checkpoints`: of a group of processes, rank 0's."""

    def __init__(self, task: Task, checkpoints: Checkpoints) -> None:
        config = task.config
        self.task, self.checkpoints = task, checkpoints
        self.state = LoopState(plateau=Plateau(config.lr, config.plateau_factor, config.plateau_patience))
        # what the user should know, and what a resume found damaged or cleared away
        self.notes = list(task.notes)
        self._saved_at = 0.0

    def train(
        self,
        on_step: OnStep = lambda progress: None,
        on_epoch: OnEpoch = lambda record: None,
        stop: Callable[[], bool] = lambda: False,
    ) -> bool:
        """Train to the last epoch. True when done, False when `stop` asked for an early end.

        `stop` is asked after every step: when it says true, a checkpoint is saved and this returns. Raises
        NonFiniteError where a loss or gradient is not finite, naming epoch and step; the last good checkpoint
        stays.
        """
        config = self.task.config
        every = Every.parse(config.checkpoint_every)
        mx.reset_peak_memory()
        self.prepare()
        try:
            if self.task.scores_start and not (self.state.history or self.state.count):
                on_epoch(self._end_epoch(start=True))
            while self.state.epoch < config.epochs and not self._stopped_early():
                stopping = self.run_epoch(on_step, stop, every)
                if stopping and self.state.step < self.task.steps_per_epoch:
                    self.save(("LATEST",))
                    return False
                on_epoch(self._end_epoch())
                if stopping:
                    return False
            return True
        finally:
            self.task.close()
            self.checkpoints.close()

    def prepare(self) -> None:
        """Make ready to save; `train` does it too. A caller that wants all `notes` before does it first."""
        self._saved_at = time.monotonic()
        self.notes += self.checkpoints.open(self.state, self.task.steps_per_epoch)

    def run_epoch(
        self,
        on_step: OnStep = lambda progress: None,
        stop: Callable[[], bool] = lambda: False,
        every: Every = Every(),  # noqa: B008 (frozen)
    ) -> bool:
        """The rest of this epoch's steps, without validation. Whether `stop` asked for an end."""
        task, state, step, group = self.task, self.state, self.task.step, self.task.group
        task.model.train()
        began, before, windows = time.perf_counter(), state.seconds, 0
        earlier = step.broken()
        for batch in self._batches():
            key = step_key(task.config.seed, state.epoch, state.step, group.rank)
            with group.waiting():
                step(batch, task.learning_rate(state.count + 1, state.plateau.lr), key)
                mx.async_eval(step.arrays()) if group.single else mx.eval(step.arrays())
            # While the device works at this step, see whether the one before broke.
            if earlier.item() != NEVER:
                self._require_finite(step.read_sums())
            earlier = step.broken()
            state.step, state.count = state.step + 1, state.count + 1
            state.trained_windows, windows = state.trained_windows + len(batch), windows + len(batch)

            ends_epoch = state.step == task.steps_per_epoch
            reports = ends_epoch or state.step % REPORT_EVERY == 0
            if reports:
                seconds = time.perf_counter() - began
                state.seconds = before + seconds
                on_step(self._progress(windows / seconds))
            if not ends_epoch and self._due(every):
                self.save(("LATEST",))
            # The ranks must stop at the same step, and asking them all costs a round.
            if stop() if group.single else reports and group.any(stop()):
                return True
        return False

    def resume(self) -> None:
        """Continue from the newest intact checkpoint, else begin; `notes` says which were damaged.

        Rank 0 reads it and gives it to the others. Raises InvalidFile where it does not belong to this run.
        """
        found, group = self.checkpoints.load(), self.task.group
        if found is not None:
            checkpoint, name, damaged = found
            self.notes += [f"damaged, passed over: {problem}" for problem in damaged]
            self._take(checkpoint, name)
        elif group.rank == 0:
            self.notes.append("this run has no checkpoint yet: it starts from the beginning")
        if not group.single:
            self._take(self._broadcast(), "the checkpoint of rank 0")

    def save(self, pointers: tuple[str, ...]) -> None:
        """Save a checkpoint.

        Raises NonFiniteError where a step since the last one broke, IOFailed as the store.
        """
        task, state = self.task, self.state
        self._require_finite(task.step.read_sums())
        self._saved_at = time.monotonic()
        checkpoint = Checkpoint(task.model.weights(), task.step.state_dict(), asdict(state))
        keep_every = task.config.keep_every * task.steps_per_epoch
        self.checkpoints.save(checkpoint, state, pointers, keep_every)

    def validate(self) -> dict[str, float]:
        """The task's figures, the same on every rank. Raises NonFiniteError where one is not finite."""
        self.task.model.eval()
        figures = self.task.validate()
        # Machines that round differently must still agree on the schedule: rank 0's figures count.
        values = self.task.group.broadcast(np.array(list(figures.values())))
        if not np.isfinite(values).all():
            said = ", ".join(f"{name} {value:.6g}" for name, value in zip(figures, values, strict=True))
            raise NonFiniteError(f"epoch {self.state.epoch + 1}: {said}. Lower --lr, or set --clip.")
        return dict(zip(figures, values.tolist(), strict=True))

    def checkpoint_bytes(self) -> tuple[int, int]:
        """(bytes of one checkpoint, which is weights and two moments, the most that the run folder holds)."""
        config = self.task.config
        one = 3 * sum(weight.nbytes for weight in self.task.model.weights().values())
        kept = config.epochs // config.keep_every if config.keep_every else 0
        return one, one * (3 + kept)  # last, best, and the one being written

    def _batches(self) -> Iterator[np.ndarray]:
        """The rest of the epoch's. Where one cannot be read, the steps so far are saved first."""
        try:
            yield from self.task.batches(self.state.epoch, self.state.step)
        except LvmError:
            if self.state.count:
                with suppress(IOFailed):  # of two troubles the first is told
                    self.save(("LATEST",))
            raise

    def _progress(self, rate: float) -> Progress:
        sums = self.task.step.read_sums()
        self._require_finite(sums)
        state, steps = self.state, self.task.steps_per_epoch
        loss, cosine = sums["loss"], sums["cosine"]
        return Progress(state.epoch + 1, state.step, steps, loss, cosine, rate, mx.get_peak_memory())

    def _due(self, every: Every) -> bool:
        """Whether a checkpoint within the epoch is."""
        if every.steps and self.state.count % every.steps == 0:
            return True
        return bool(every.seconds) and time.monotonic() - self._saved_at >= every.seconds

    def _end_epoch(self, start: bool = False) -> JsonObject:
        """Validate, record, let the schedule look, save. start: of the model before any step, epoch 0."""
        task, state, sums = self.task, self.state, {} if start else self.task.step.read_sums()
        began = time.perf_counter()
        figures = self.validate()
        state.seconds += time.perf_counter() - began
        record = {
            "epoch": 0 if start else state.epoch + 1,
            "step": state.count,
            "lr": 0.0 if start else task.learning_rate(state.count, state.plateau.lr),
            "train_loss": sums.get("loss"),
            "train_cosine": sums.get("cosine"),
            **figures,
        }
        better = state.end_epoch(record, figures[task.selection_metric])
        task.step.clear_sums()
        self.save(("LATEST", "BEST") if better else ("LATEST",))
        return record | {"best": better, "seconds": state.seconds, "peak_memory": mx.get_peak_memory()}

    def _take(self, loaded: Checkpoint, what: str) -> None:
        set_weights(self.task.model, loaded.weights, what)
        self.state = LoopState.checked(loaded.state, self.task.steps_per_epoch, what)
        self.task.step.load_state_dict(loaded.optimizer, self.state.count)

    def _broadcast(self) -> Checkpoint:
        """Rank 0's state on every rank."""
        task, group = self.task, self.task.group
        text = group.broadcast_text(json.dumps(asdict(self.state)))
        saved = {f"optimizer.{name}": value for name, value in task.step.state_dict().items()}
        shared = group.broadcast_arrays({**task.model.weights(), **saved})
        optimizer = {name.removeprefix("optimizer."): shared.pop(name) for name in saved}
        return Checkpoint(shared, optimizer, json.loads(text))

    def _stopped_early(self) -> bool:
        patience = self.task.config.early_stop
        return bool(patience) and self.state.epoch - self.state.best_epoch >= patience

    def _require_finite(self, sums: dict[str, float]) -> None:
        if sums["broken"] == NEVER:
            return
        count, config = int(sums["broken"]), self.task.config
        epoch, step = divmod(count - 1, self.task.steps_per_epoch)
        rows = self.task.target_rows(epoch, step)
        found = {"epoch": epoch + 1, "step": step + 1, "count": count, "context": config.context}
        said = self.checkpoints.report_broken({**found, "target_rows": rows.tolist()})
        where = f"epoch {epoch + 1}, step {step + 1} (target rows {rows[:8].tolist()} ...)"
        remedy = "Lower --lr, set --clip, or look at these rows with `lvm data check`."
        raise NonFiniteError(f"loss or gradient is NaN or Inf at {where}. {said}{remedy}")
