"""The training loop: epochs of compiled steps, validation beside two closed forms, checkpoints, exact resume.

Batch order is a function of (seed, epoch) and dropout of (seed, epoch, step), so a checkpoint holds no random state and
a resumed run does what the undisturbed one would have done, to the bit on a CPU.
"""

from __future__ import annotations

import json
import os
import time
from collections.abc import Callable, Iterator
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np

from mlx_lvm.core.files import write_json
from mlx_lvm.core.mlx import mx
from mlx_lvm.data.corpus import Corpus
from mlx_lvm.data.splits import Split, split_corpus
from mlx_lvm.data.windows import windows
from mlx_lvm.errors import InvalidFile, IOFailed, NumbersBroke
from mlx_lvm.metrics.figures import mean_cosine
from mlx_lvm.models import VectorModel
from mlx_lvm.models.weights import set_weights
from mlx_lvm.predictors.baselines import ContextMean, Predictor, fit_lag_filter, target_mean
from mlx_lvm.training import checkpoint as checkpoints
from mlx_lvm.training import run as runs
from mlx_lvm.training.checkpoint import Checkpoint
from mlx_lvm.training.config import Every, TrainConfig
from mlx_lvm.training.distributed import ALONE, Group
from mlx_lvm.training.schedule import Plateau
from mlx_lvm.training.state import LoopState, Progress, epoch_order, step_key
from mlx_lvm.training.step import NEVER, TrainStep, compile_validation

REPORT_EVERY = 16  # steps
VALIDATION_BLOCK = 1024


class Trainer:
    """Trains `model` on the corpus's train documents into `folder`.

    `stop` is asked after every step: when it says true, a checkpoint is written and `train` returns early.
    Of a group of processes, rank 0 alone writes; with `writes` false nobody does.
    """

    judged_by = "val_cosine"  # figure of an epoch's record that decides which checkpoint is the best

    def __init__(
        self,
        model: VectorModel,
        corpus: Corpus,
        config: TrainConfig,
        folder: Path,
        split: Split | None = None,
        group: Group = ALONE,
    ) -> None:
        self.model, self.corpus, self.config, self.folder, self.group = model, corpus, config, folder, group
        self.writes = group.rank == 0
        self.split = split or split_corpus(corpus, config.split_seed)
        self.train_windows = windows(corpus, self.split.train, config.context, "train")
        self.val_windows = windows(corpus, self.split.val, config.context, "val")
        self.train_step = TrainStep(model, corpus, config, group)
        self.state = LoopState(
            plateau=asdict(Plateau(config.lr, config.plateau_factor, config.plateau_patience))
        )
        self.mean = target_mean(corpus, self.split.train, config.context)
        self._validate = compile_validation(model, corpus, config, mx.array(self.mean))
        self.baselines = self._baselines()
        self.notes: list[str] = []  # what a resume found damaged or cleared away
        self._saved_at = 0.0
        self._place: int | None = None  # the run folder itself, held open while training into it

    @property
    def steps_per_epoch(self) -> int:
        return -(-len(self.train_windows) // self.config.batch_size)

    @property
    def checkpoint_folder(self) -> Path:
        return self.folder / "checkpoints"

    def checkpoint_bytes(self) -> tuple[int, int]:
        """(bytes of one checkpoint, the most that the run folder will hold of them): weights and two moments each."""
        one = 3 * sum(weight.nbytes for weight in self.model.weights().values())
        kept = self.config.epochs // self.config.keep_every if self.config.keep_every else 0
        return one, one * (3 + kept)  # last, best, and the one being written

    def resume(self) -> None:
        """Continue from the newest intact checkpoint; `notes` says which newer ones were damaged. With none yet, from the beginning.

        Rank 0 reads it and gives it to the others. Raises InvalidFile where it does not belong to this run.
        """
        if self.group.rank == 0 and not checkpoints.names(self.checkpoint_folder):
            self.notes.append("this run has no checkpoint yet: it starts from the beginning")
        elif self.group.rank == 0:
            loaded, name, damaged = checkpoints.load_newest(self.checkpoint_folder)
            self.notes += [f"damaged, passed over: {problem}" for problem in damaged]
            self._take(loaded, str(self.checkpoint_folder / name))
        if not self.group.alone:
            text = self.group.first_text(json.dumps(asdict(self.state)))
            arrays = {
                **self.model.weights(),
                **{f"optimizer.{k}": v for k, v in self.train_step.saved().items()},
            }
            shared = self.group.first_arrays(arrays)
            optimizer = {
                k.removeprefix("optimizer."): shared.pop(k)
                for k in list(shared)
                if k.startswith("optimizer.")
            }
            self._take(Checkpoint(shared, optimizer, json.loads(text)), "the checkpoint of rank 0")

    def _take(self, loaded: Checkpoint, what: str) -> None:
        set_weights(self.model, loaded.weights, what)
        self.state = LoopState.checked(loaded.state, self.steps_per_epoch, what)
        self.train_step.load(loaded.optimizer, self.state.count)

    def train(
        self,
        on_step: Callable[[Progress], None] = lambda progress: None,
        on_epoch: Callable[[dict[str, Any]], None] = lambda record: None,
        stop: Callable[[], bool] = lambda: False,
        checkpoint_every: str | int | None = None,
    ) -> bool:
        """Train to the last epoch. True when done, False when `stop` asked for an early end.

        `checkpoint_every` as in the config, whose value it replaces. Raises NumbersBroke where a loss or gradient is not
        finite, naming epoch and step; the last good checkpoint stays. The caller holds the run's lock.
        """
        every = Every.parse(
            self.config.checkpoint_every if checkpoint_every is None else str(checkpoint_every)
        )
        mx.reset_peak_memory()
        self.prepare()
        try:
            while self.state.epoch < self.config.epochs and not self._stopped_early():
                asked = self._epoch(on_step, stop, every)
                if asked and self.state.step < self.steps_per_epoch:
                    self.save(("LATEST",))
                    return False
                on_epoch(self._end_epoch())
                if asked:
                    return False
            return True
        finally:
            if self._place is not None:
                os.close(self._place)
                self._place = None

    def prepare(self) -> None:
        """Clear away what a killed process left, and finish what it had no time for: the pointer BEST, the history.

        `train` does this; a caller that wants the `notes` before does it first. The caller holds the run's lock.
        """
        self._saved_at = time.monotonic()
        if not self.writes or self._place is not None:
            return
        try:
            self._place = os.open(self.folder, os.O_RDONLY)
        except OSError as error:
            raise IOFailed(f"{self.folder}: cannot be opened ({error.strerror})") from error
        swept = checkpoints.sweep(self.folder) + checkpoints.sweep(self.checkpoint_folder)
        self.notes += [f"removed, left unfinished by a killed process: {name}" for name in swept]
        if not self.state.count:
            return
        if self.state.best_epoch:
            best = f"step-{self.state.best_epoch * self.steps_per_epoch:08d}"
            if checkpoints.pointed(self.checkpoint_folder, "BEST") != best:
                try:
                    checkpoints.load(self.checkpoint_folder / best)
                    checkpoints.point(self.checkpoint_folder, best, ("BEST",))
                except InvalidFile as error:
                    self.notes.append(f"the best checkpoint so far is lost: {error}")
        runs.write_history(self.folder, self.state.history)

    def _epoch(self, on_step: Callable[[Progress], None], stop: Callable[[], bool], every: Every) -> bool:
        """The rest of this epoch's steps. Whether `stop` asked for an end: at once, or at the last step, which ends the epoch."""
        state, config, group = self.state, self.config, self.group
        self.model.train()
        batches = self.batches(state.epoch, state.step)
        started, seconds, done, asked, earlier = (
            time.perf_counter(),
            state.seconds,
            0,
            False,
            self.train_step.broken(),
        )
        while state.step < self.steps_per_epoch and not asked:
            batch = next(batches)
            key = step_key(config.seed, state.epoch, state.step, group.rank)
            with group.waiting():
                self.train_step(batch, state.plateau["lr"], key)
                mx.async_eval(self.train_step.state()) if group.alone else mx.eval(self.train_step.state())
            # While the device works at this step, see whether the one before broke.
            if earlier.item() != NEVER:
                self._require_finite(self.train_step.read_sums())
            earlier = self.train_step.broken()
            state.step, state.count, state.trained_windows = (
                state.step + 1,
                state.count + 1,
                state.trained_windows + len(batch),
            )
            done += len(batch)
            report = state.step % REPORT_EVERY == 0 or state.step == self.steps_per_epoch
            if report:
                sums = self.train_step.read_sums()
                self._require_finite(sums)
                elapsed = time.perf_counter() - started
                state.seconds = seconds + elapsed
                position = (state.epoch + 1, state.step, self.steps_per_epoch)
                on_step(
                    Progress(*position, sums["loss"], sums["cosine"], done / elapsed, mx.get_peak_memory())
                )
            if self._due(every) and state.step < self.steps_per_epoch:
                self.save(("LATEST",))
            if group.alone:
                asked = stop()
            elif report:  # the ranks must stop at the same step, and asking them all costs a round
                asked = group.any(stop())
        return asked

    def batches(self, epoch: int, first: int) -> Iterator[np.ndarray]:
        """Target rows of each step of an epoch, from step `first` on, as the training step counts rows."""
        order, size = epoch_order(len(self.train_windows), self.config.seed, epoch), self.config.batch_size
        for step in range(first, self.steps_per_epoch):
            yield self.train_windows.targets[order[step * size : (step + 1) * size]]

    def target_rows(self, epoch: int, step: int) -> np.ndarray:
        """Rows of the corpus that a step predicts."""
        return next(self.batches(epoch, step))

    def _due(self, every: Every) -> bool:
        return bool(every.steps and self.state.count % every.steps == 0) or bool(
            every.seconds and time.monotonic() - self._saved_at >= every.seconds
        )

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
            **self.further_figures(),
        }
        plateau = Plateau(**state.plateau)
        plateau.observe(loss)
        state.plateau = asdict(plateau)
        state.history.append(record)
        state.epoch, state.step = state.epoch + 1, 0
        better = record[self.judged_by] > state.best_cosine
        if better:
            state.best_epoch, state.best_cosine = state.epoch, record[self.judged_by]
        self.train_step.clear_sums()
        self.save(("LATEST", "BEST") if better else ("LATEST",))
        return record | {"best": better, "seconds": state.seconds, "peak_memory": mx.get_peak_memory()}

    def save(self, pointers: tuple[str, ...]) -> None:
        """Write a checkpoint and the history. Raises IOFailed where the run folder is gone or cannot be written."""
        self._require_finite(self.train_step.read_sums())
        self._saved_at = time.monotonic()
        if not self.writes:
            return
        if self._place is not None and not _is(self.folder, self._place):
            raise IOFailed(
                f"{self.folder}: was removed or replaced while training into it; nothing more is written there"
            )
        saved = Checkpoint(self.model.weights(), self.train_step.saved(), asdict(self.state))
        checkpoints.save(self.checkpoint_folder, saved, f"step-{self.state.count:08d}", pointers)
        runs.write_history(self.folder, self.state.history)
        checkpoints.prune(self.checkpoint_folder, self.config.keep_every * self.steps_per_epoch)

    def further_figures(self) -> dict[str, float]:
        """Validation figures of an architecture's own, for the record."""
        return {}

    def validate(self) -> tuple[float, float, float]:
        """Mean (loss, cosine, centred cosine) over the validation windows. Raises NumbersBroke where they are not finite."""
        self.model.eval()
        targets = self.val_windows.targets
        parts = [
            self._validate(mx.array(targets[block])) for block in self.val_windows.blocks(VALIDATION_BLOCK)
        ]
        # Machines that round differently must still agree on the schedule: rank 0's figures count.
        sums = self.group.first(np.array(mx.stack(parts).sum(axis=0)).astype(np.float64))
        loss, cosine, centred = (float(x) / len(targets) for x in sums)
        if not np.isfinite([loss, cosine, centred]).all():
            raise NumbersBroke(
                f"epoch {self.state.epoch + 1}: validation loss {loss}, cosine {cosine}. Lower --lr, or set --clip."
            )
        return loss, cosine, centred

    def _baselines(self) -> dict[str, float]:
        """Validation cosine of what needs no training."""
        predictors: list[Predictor] = [
            ContextMean(),
            fit_lag_filter(self.corpus, self.split.train, self.config.context),
        ]
        return {predictor.name: mean_cosine(predictor, self.val_windows) for predictor in predictors}

    def _stopped_early(self) -> bool:
        return (
            bool(self.config.early_stop)
            and self.state.epoch - self.state.best_epoch >= self.config.early_stop
        )

    def _require_finite(self, sums: dict[str, float]) -> None:
        if sums["broken"] == NEVER:
            return
        step = int(sums["broken"])
        epoch, within = divmod(step - 1, self.steps_per_epoch)
        rows = self.target_rows(epoch, within)
        good = checkpoints.pointed(self.checkpoint_folder, "LATEST")
        if self.writes and self.folder.is_dir():
            found = {"epoch": epoch + 1, "step": within + 1, "count": step, "context": self.config.context}
            write_json(self.folder / "broken.json", {**found, "target_rows": rows.tolist()})
        raise NumbersBroke(
            f"loss or gradient is NaN or Inf at epoch {epoch + 1}, step {within + 1} (target rows {rows[:8].tolist()} ...; "
            f"all in {self.folder / 'broken.json'}). "
            + (f"The last good checkpoint is {self.checkpoint_folder / good}. " if good else "")
            + "Lower --lr, set --clip, or look at these rows with `lvm data check`."
        )


def _is(folder: Path, descriptor: int) -> bool:
    """Whether the path still names the folder that was opened. While it is open, no other folder can have its number."""
    try:
        there, opened = folder.stat(), os.fstat(descriptor)
    except OSError:
        return False
    return (there.st_dev, there.st_ino) == (opened.st_dev, opened.st_ino)
