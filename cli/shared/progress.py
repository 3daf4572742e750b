"""What `lvm train` shows: a live bar and a row an epoch, or plain lines; and how a signal stops it."""

from __future__ import annotations

import os
import signal
import sys
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.progress import BarColumn, Progress, TaskProgressColumn, TextColumn, TimeRemainingColumn
from rich.text import Text

from mlx_lvm.cli.shared.common import Output
from mlx_lvm.cli.shared.study import show
from mlx_lvm.core.kernel_store import is_cold
from mlx_lvm.core.linux_cpu import tuning
from mlx_lvm.core.result import JsonObject
from mlx_lvm.evaluation.evaluate import Evaluation
from mlx_lvm.training import state
from mlx_lvm.training.config import SCRATCH
from mlx_lvm.training.trainer import Trainer

METRICS = {  # what may choose the best epoch, in words
    "val_cosine": "cosine",
    "val_mrr": "MRR",
    "val_score": "cosine + 0.3 centred cosine",
    "val_lead": "lead over the start, less its standard error,",
}


class TrainingDisplay:
    """Follows a Trainer into `folder`: pass `step` and `epoch` to its `train`."""

    def __init__(self, out: Output, trainer: Trainer, folder: Path) -> None:
        self.out, self.trainer, self.folder, self.headed = out, trainer, folder, False
        self.progress = Progress(
            TextColumn("epoch {task.fields[epoch]}/" + str(trainer.task.config.epochs)),
            BarColumn(bar_width=None),
            TaskProgressColumn(),
            TextColumn("loss {task.fields[loss]:.6f} cosine {task.fields[cosine]:.4f}"),
            TextColumn("{task.fields[rate]:,.0f} windows/s {task.fields[memory]:.0f} MB"),
            TimeRemainingColumn(compact=True),
            expand=True,
            console=out.console,
            transient=True,
            disable=not out.terminal,
        )

    def __enter__(self) -> TrainingDisplay:
        trainer, task, state = self.trainer, self.trainer.task, self.trainer.state
        for line in headings(trainer, self.folder):
            self.out.say(line)
        if is_cold(tuning().kernels):
            once = "first run here: kernels are compiled once, for half a minute, and kept in"
            self.out.notes.print(Text(f"{once} {tuning().kernels.folder}"))
        for note in trainer.notes:
            self.out.notes.print(Text(note, style="yellow"))
        steps = task.steps_per_epoch
        done = state.epoch * steps + state.step
        if done:
            self.out.say(f"resumed at epoch {state.epoch + 1}, step {state.step} of {steps}")
        self.progress.start()
        shown: JsonObject = dict.fromkeys(("loss", "cosine", "rate", "memory"), 0.0)
        shown |= {"total": task.config.epochs * steps, "completed": done, "epoch": state.epoch + 1}
        self.task = self.progress.add_task("", **shown)
        return self

    def __exit__(self, *_: object) -> None:
        self.progress.stop()

    def step(self, p: state.Progress) -> None:
        shown: JsonObject = {"loss": p.loss, "cosine": p.cosine, "rate": p.windows_per_second}
        done, memory = (p.epoch - 1) * p.steps + p.step, p.peak_memory / 1e6
        self.progress.update(self.task, completed=done, epoch=p.epoch, memory=memory, **shown)

    def epoch(self, r: JsonObject) -> None:
        ranks = "val_mrr" in r
        if not self.headed:
            head = f"{'epoch':>6} {'lr':>7} {'loss':>9} {'val loss':>9} {'cosine':>8} {'centred':>8}"
            self.out.say(head + f" {'MRR':>7}" * ranks + f" {'seconds':>7} {'MB':>6}", style="bold")
            self.headed = True
        loss = "" if r["train_loss"] is None else f"{r['train_loss']:.6f}"  # none before the first step
        epoch = f"{r['epoch']:>3}/{self.trainer.task.config.epochs:<2} {r['lr']:>7.2g} {loss:>9}"
        validation = f" {r['val_loss']:>9.6f} {r['val_cosine']:>8.4f} {r['val_centred_cosine']:>8.4f}"
        ranking = f" {r['val_mrr']:>7.4f}" if ranks else ""
        cost = f" {r['seconds']:>7.1f} {r['peak_memory'] / 1e6:>6.0f}"
        self.out.say(epoch + validation + ranking + cost + (" best" if r["best"] else ""))

    def verdict(self, found: Evaluation) -> None:
        """How the best checkpoint stands on the test documents, and what to do with it."""
        state, metric = self.trainer.state, self.trainer.task.selection_metric
        at = f"at epoch {state.best_epoch}" if state.best_epoch else "before the first step"
        self.out.say(
            f"best validation {METRICS.get(metric, metric)} {state.best_score:.4f} {at}; "
            f"{state.seconds:.0f} s of training"
        )
        if not state.best_epoch:
            named = self.trainer.task.config.start_from
            start = "the untrained network" if named in ("", SCRATCH) else named
            self.out.say(
                f"No epoch serves validation documents better than {start} with this corpus's statistics, as "
                "it began: that is what was kept."
            )
        self.out.say()
        show(self.out, found)
        self.out.say(f"next: lvm parity {self.folder}   lvm export {self.folder} --out exported")


def headings(trainer: Trainer, folder: Path) -> list[str]:
    """What is known of a training before its first step."""
    task = trainer.task
    model, split, validation = task.model, task.split, len(task.val_windows)
    short = f"; {task.skipped} documents too short" if task.skipped else ""
    baselines = ", ".join(f"{name} {value:.4f}" for name, value in task.baselines.items())
    each, most = trainer.checkpoint_bytes()
    lines = [
        f"{model.config.model_type}: {model.parameter_count():,} parameters, run folder {folder}",
        f"corpus {task.corpus.name}: {task.train_count:,} training windows of {task.config.context} in "
        f"{len(split.train)} documents, {validation:,} validation windows in {len(split.val)}{short}",
        f"validation cosine without training: {baselines}",
        f"checkpoints: {each / 1e6:,.1f} MB each, at most {most / 1e6:,.1f} MB of disk",
    ]
    if task.config.start_from not in ("", SCRATCH):
        lines.append(f"begins with {task.config.start_from}; --from scratch draws weights anew")
    if not task.group.single:
        shared = "share every batch" if task.shares_batches else "each compute every batch: one would do"
        lines.append(f"{task.group.size} processes {shared}")
    return lines


class Silent(Output):
    """The output of a process that is not the first of its group."""

    def __init__(self) -> None:
        super().__init__(as_json=False)
        nowhere = open(os.devnull, "w")  # noqa: SIM115 (as long as the process)
        self.terminal = False
        self.console = self.notes = Console(file=nowhere)


class StopOnSignal:
    """SIGINT and SIGTERM ask the loop to stop after its step; a second one leaves at once.

    `at_once`, once set, lets the first one leave at once with these words.
    """

    def __init__(self) -> None:
        self.received = 0
        self.at_once = ""

    def __enter__(self) -> StopOnSignal:
        numbers = (signal.SIGINT, signal.SIGTERM)
        self.before = {number: signal.signal(number, self._note) for number in numbers}
        return self

    def _note(self, number: int, frame: Any) -> None:
        if self.at_once:
            print(self.at_once, file=sys.stderr)
        if self.received or self.at_once:
            sys.exit(128 + number)
        self.received = number

    def __exit__(self, *_: object) -> None:
        for number, handler in self.before.items():
            signal.signal(number, handler)
