"""What `lvm train` shows: a live bar and a row an epoch on a terminal, plain lines when piped. And how a signal stops it."""

from __future__ import annotations

import os
import signal
import sys
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.progress import BarColumn, Progress, TaskProgressColumn, TextColumn, TimeRemainingColumn
from rich.text import Text

from mlx_lvm.cli.common import Output
from mlx_lvm.cli.evaluate import show
from mlx_lvm.training import state
from mlx_lvm.training.trainer import Trainer

JUDGED = {
    "val_cosine": "cosine",
    "val_mrr": "MRR",
    "val_score": "cosine + 0.3 centred cosine",
}  # what chose the best epoch, in words


class TrainingDisplay:
    """Follows a Trainer: pass `step` and `epoch` to its `train`."""

    def __init__(self, out: Output, trainer: Trainer) -> None:
        self.out, self.trainer, self.headed = out, trainer, False
        config = trainer.config
        self.progress = Progress(
            TextColumn("epoch {task.fields[epoch]}/" + str(config.epochs)),
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
        trainer, say = self.trainer, self.out.say
        model, config = trainer.model, trainer.config
        total = config.epochs * trainer.steps_per_epoch
        done = trainer.state.epoch * trainer.steps_per_epoch + trainer.state.step
        say(f"{model.config.model_type}: {model.parameter_count():,} parameters, run folder {trainer.folder}")
        train, val = trainer.train_windows, trainer.val_windows
        count = getattr(
            train, "windows", len(train)
        )  # RAMN's batches are stretches of documents, with many windows each
        say(
            f"corpus {trainer.corpus.name}: {count:,} training windows of {config.context} in {len(trainer.split.train)} documents, "
            f"{len(val):,} validation windows in {len(trainer.split.val)}"
            + (f"; {train.skipped + val.skipped} documents too short" if train.skipped + val.skipped else "")
        )
        say(
            "validation cosine without training: "
            + ", ".join(f"{name} {value:.4f}" for name, value in trainer.baselines.items())
        )
        one, most = trainer.checkpoint_bytes()
        say(f"checkpoints: {one / 1e6:,.1f} MB each, at most {most / 1e6:,.1f} MB of disk")
        if not trainer.group.alone:
            say(f"{trainer.group.size} processes share every batch")
        for note in trainer.notes:
            self.out.notes.print(Text(note, style="yellow"))
        if done:
            say(
                f"resumed at epoch {trainer.state.epoch + 1}, step {trainer.state.step} of {trainer.steps_per_epoch}"
            )
        self.progress.start()
        self.task = self.progress.add_task(
            "",
            total=total,
            completed=done,
            epoch=trainer.state.epoch + 1,
            loss=0.0,
            cosine=0.0,
            rate=0.0,
            memory=0.0,
        )
        return self

    def __exit__(self, *_: object) -> None:
        self.progress.stop()

    def step(self, p: state.Progress) -> None:
        shown: dict[str, Any] = {
            "loss": p.loss,
            "cosine": p.cosine,
            "rate": p.windows_per_second,
            "memory": p.peak_memory / 1e6,
        }
        self.progress.update(self.task, completed=(p.epoch - 1) * p.steps + p.step, epoch=p.epoch, **shown)

    def epoch(self, r: dict[str, Any]) -> None:
        ranks = "val_mrr" in r
        if not self.headed:
            head = (
                f"{'epoch':>6} {'lr':>7} {'loss':>9} {'val loss':>9} {'cosine':>8} {'centred':>8}"
                + f" {'MRR':>7}" * ranks
            )
            self.out.say(f"{head} {'seconds':>7} {'MB':>6}", style="bold")
            self.headed = True
        epoch = f"{r['epoch']:>3}/{self.trainer.config.epochs:<2} {r['lr']:>7.2g} {r['train_loss']:>9.6f}"
        validation = f" {r['val_loss']:>9.6f} {r['val_cosine']:>8.4f} {r['val_centred_cosine']:>8.4f}"
        ranking = f" {r['val_mrr']:>7.4f}" if ranks else ""
        cost = f" {r['seconds']:>7.1f} {r['peak_memory'] / 1e6:>6.0f}"
        self.out.say(epoch + validation + ranking + cost + (" best" if r["best"] else ""))

    def verdict(self, result: dict[str, Any], folder: Path) -> None:
        """How the best checkpoint stands on the test documents, and what to do with it."""
        state = self.trainer.state
        judged = JUDGED.get(self.trainer.judged_by, self.trainer.judged_by)
        self.out.say(
            f"best validation {judged} {state.best_cosine:.4f} at epoch {state.best_epoch}; {state.seconds:.0f} s of training"
        )
        self.out.say()
        show(self.out, result)
        self.out.say(f"next: lvm parity {folder}   lvm export {folder} --out exported")


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
        self.before = {
            number: signal.signal(number, self._note) for number in (signal.SIGINT, signal.SIGTERM)
        }
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
