"""One training with its display: train, judge the best checkpoint on the test documents, sum up."""

from __future__ import annotations

import signal
from contextlib import nullcontext
from pathlib import Path
from typing import Any

import typer

from mlx_lvm.cli.common import Output
from mlx_lvm.cli.progress import StopOnSignal, TrainingDisplay
from mlx_lvm.models import as_dict
from mlx_lvm.training.distributed import Group
from mlx_lvm.training.reporting import reporting
from mlx_lvm.training.run import Lock, read_config
from mlx_lvm.training.session import finish, judge, resume_run
from mlx_lvm.training.trainer import Trainer


def resume_locked(folder: Path, named: dict[str, Any], force: bool, group: Group) -> Trainer:
    """`resume_run` while nobody else trains into the folder."""
    read_config(folder) if group.rank == 0 else None  # before the lock, which would make the folder
    with Lock(folder) if group.rank == 0 else nullcontext():
        return resume_run(folder, named, force, group)


def run(
    trainer: Trainer, out: Output, report_to: str | None = None, again: Path | None = None
) -> dict[str, Any]:
    """Train with a display, then judge the best checkpoint on the test documents; the run's summary.

    `again`: the folder to resume where a stop was asked for, the trainer's own by default.
    """
    again = again or trainer.folder
    display, speaks = TrainingDisplay(out, trainer), trainer.group.rank == 0
    options = {**as_dict(trainer.model.config), **trainer.config.to_dict()}
    with (
        Lock(trainer.folder) if speaks else nullcontext(),
        StopOnSignal() as signals,
        reporting(report_to if speaks else None, trainer.folder, options) as report,
    ):
        trainer.prepare()

        def epoch(record: dict[str, Any]) -> None:
            display.epoch(record)
            report(record)

        with display:
            done = trainer.train(display.step, epoch, lambda: bool(signals.received))
        if not done:
            out.say(
                f"stopped at epoch {trainer.state.epoch + 1}, step {trainer.state.step}; continue: lvm train --resume {again}"
            )
            raise typer.Exit(
                128 + (signals.received or signal.SIGTERM)
            )  # another rank's signal counts as SIGTERM here
        if not speaks:
            return {}
        signals.at_once = (
            f"training is done, the test documents are not: lvm train --resume {again} judges them"
        )
        with out.notes.status("") as status:
            verdict = judge(trainer.folder, lambda line: status.update(f"test documents: {line}"))
        display.verdict(verdict, trainer.folder)
        return finish(trainer, verdict)
