"""Where the checkpoints of a training go: into a run's folder, into memory, or nowhere."""

from __future__ import annotations

import os
from pathlib import Path

from mlx_lvm.core.files.disk import write_json
from mlx_lvm.core.mlx import mx
from mlx_lvm.core.result import JsonObject
from mlx_lvm.errors import InvalidFile, IOFailed
from mlx_lvm.training import checkpoint as files
from mlx_lvm.training import run as runs
from mlx_lvm.training.checkpoint import Checkpoint
from mlx_lvm.training.state import LoopState


class Checkpoints:
    """Keeps nothing: for trainings whose weights nobody will read, and for the ranks that do not write."""

    def load(self) -> tuple[Checkpoint, str, list[str]] | None:
        """(the newest intact checkpoint, its name, what is damaged); None where there is none yet."""
        return None

    def open(self, state: LoopState, steps_per_epoch: int) -> list[str]:
        """Make ready to save, after a killed process too; what was found and cleared away."""
        return []

    def save(
        self, checkpoint: Checkpoint, state: LoopState, pointers: tuple[str, ...], keep_every: int
    ) -> None:
        """Keep a checkpoint of `state`; `pointers` of LATEST and BEST name it from now on.

        keep_every: every so many steps one is kept for good. Raises IOFailed where it cannot be written.
        """

    def report_broken(self, found: JsonObject) -> str:
        """Note the step whose numbers are not finite; a sentence that says where, and what is still good."""
        return ""

    def close(self) -> None:
        """Nothing is saved after that, until the next `open`."""


class BestInMemory(Checkpoints):
    """Keeps the weights of the best epoch."""

    weights: dict[str, mx.array] | None = None

    def save(
        self, checkpoint: Checkpoint, state: LoopState, pointers: tuple[str, ...], keep_every: int
    ) -> None:
        if "BEST" in pointers:
            files.require_finite(checkpoint.weights)
            self.weights = checkpoint.weights


class RunCheckpoints(Checkpoints):
    """Keeps checkpoints and history in a run's folder. The caller holds the run's lock."""

    def __init__(self, run: Path) -> None:
        self.run, self.folder = run, run / "checkpoints"
        self._opened: int | None = None  # descriptor of the run's folder, held while training into it

    def load(self) -> tuple[Checkpoint, str, list[str]] | None:
        """Raises InvalidFile where there are checkpoints and none is intact."""
        if not files.names(self.folder):
            return None
        loaded, name, damaged = files.load_newest(self.folder)
        return loaded, str(self.folder / name), damaged

    def open(self, state: LoopState, steps_per_epoch: int) -> list[str]:
        """Clear away what a killed process left, and finish what it could not: pointer BEST, history."""
        if self._opened is not None:
            return []
        try:
            self._opened = os.open(self.run, os.O_RDONLY)
        except OSError as error:
            raise IOFailed(f"{self.run}: cannot be opened ({error.strerror})") from error
        swept = files.sweep(self.run) + files.sweep(self.folder)
        notes = [f"removed, left unfinished by a killed process: {name}" for name in swept]
        if state.history:
            notes += self._repair_best(f"step-{state.best_epoch * steps_per_epoch:08d}")
            runs.write_history(self.run, state.history)
        return notes

    def _repair_best(self, best: str) -> list[str]:
        if files.pointed(self.folder, "BEST") == best:
            return []
        try:
            files.load(self.folder / best)
        except InvalidFile as error:
            return [f"the best checkpoint so far is lost: {error}"]
        files.point(self.folder, best, ("BEST",))
        return []

    def save(
        self, checkpoint: Checkpoint, state: LoopState, pointers: tuple[str, ...], keep_every: int
    ) -> None:
        """Raises IOFailed where the folder is gone, too."""
        if self._opened is not None and not names_still(self.run, self._opened):
            gone = f"{self.run}: was removed or replaced while training into it"
            raise IOFailed(f"{gone}; nothing more is written there")
        files.save(self.folder, checkpoint, f"step-{state.count:08d}", pointers)
        runs.write_history(self.run, state.history)
        files.prune(self.folder, keep_every)

    def report_broken(self, found: JsonObject) -> str:
        good, said = files.pointed(self.folder, "LATEST"), ""
        if self.run.is_dir():
            write_json(self.run / "broken.json", found)
            said = f"All its target rows are in {self.run / 'broken.json'}. "
        return said + (f"The last good checkpoint is {self.folder / good}. " if good else "")

    def close(self) -> None:
        if self._opened is not None:
            os.close(self._opened)
            self._opened = None


def names_still(folder: Path, descriptor: int) -> bool:
    """Whether the path names the folder that was opened: while it is, no other one can have its number."""
    try:
        there, opened = folder.stat(), os.fstat(descriptor)
    except OSError:
        return False
    return (there.st_dev, there.st_ino) == (opened.st_dev, opened.st_ino)
