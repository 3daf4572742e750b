"""One training with its display: train, judge the best checkpoint on the test documents, sum up."""

from __future__ import annotations

import signal
from pathlib import Path

import typer

from mlx_lvm.api.training import start_named
from mlx_lvm.cli.shared.common import Output
from mlx_lvm.cli.shared.progress import StopOnSignal, TrainingDisplay
from mlx_lvm.core.result import JsonObject
from mlx_lvm.evaluation.judge import judge_run
from mlx_lvm.models import as_dict
from mlx_lvm.training.distributed import Group
from mlx_lvm.training.reporting import reporting
from mlx_lvm.training.run import Lock, read_config
from mlx_lvm.training.session import finish, resume_run
from mlx_lvm.training.store import RunCheckpoints
from mlx_lvm.training.trainer import Trainer


def resume_locked(folder: Path, named: JsonObject, force: bool, group: Group) -> Trainer:
    """`resume_run` while nobody else trains into the folder."""
    if group.rank:
        return resume_run(folder, named, force, group, start_named)
    read_config(folder)  # before the lock, which would make the folder
    with Lock(folder):
        return resume_run(folder, named, force, group, start_named)


def run(trainer: Trainer, out: Output, report_to: str | None = None, again: Path | None = None) -> JsonObject:
    """Train with a display, then judge the best checkpoint on the test documents; the run's summary.

    again: the folder to resume where a stop was asked for, the run's own by default. Of a group of processes,
    one whose checkpoints go nowhere only computes; its summary is empty.
    """
    store = trainer.checkpoints
    if isinstance(store, RunCheckpoints):
        return _run(trainer, store.run, out, report_to, again or store.run)
    with StopOnSignal() as signals:
        if not trainer.train(stop=lambda: bool(signals.received)):
            raise typer.Exit(exit_code(signals))
    return {}


def _run(trainer: Trainer, folder: Path, out: Output, report_to: str | None, again: Path) -> JsonObject:
    task, display = trainer.task, TrainingDisplay(out, trainer, folder)
    options = {**as_dict(task.model.config), **task.config.to_dict()}
    with Lock(folder), StopOnSignal() as signals, reporting(report_to, folder, options) as report:
        trainer.prepare()

        def epoch(record: JsonObject) -> None:
            display.epoch(record)
            report(record)

        with display:
            done = trainer.train(display.step, epoch, lambda: bool(signals.received))
        if not done:
            at = f"epoch {trainer.state.epoch + 1}, step {trainer.state.step}"
            out.say(f"stopped at {at}; continue: lvm train --resume {again}")
            raise typer.Exit(exit_code(signals))
        judges = f"lvm train --resume {again} judges them"
        signals.at_once = f"training is done, the test documents are not: {judges}"
        with out.status() as progress:
            verdict = judge_run(folder, lambda line: progress(f"test documents: {line}"))
        display.verdict(verdict)
        return finish(trainer, folder, verdict.to_dict())


def exit_code(signals: StopOnSignal) -> int:
    """The shell's for a signal; another rank's signal counts as SIGTERM here."""
    return 128 + (signals.received or signal.SIGTERM)
