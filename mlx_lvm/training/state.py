"""Where a training loop stands, and what follows from that and a seed: the order of batches, a step's key."""

from __future__ import annotations

import sys
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from mlx_lvm.core.result import JsonObject
from mlx_lvm.errors import InvalidFile
from mlx_lvm.training.schedule import Plateau


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

    plateau: Plateau
    epoch: int = 0
    step: int = 0  # steps done in this epoch
    count: int = 0  # optimiser steps done
    best_epoch: int = 0
    best_score: float = -sys.float_info.max  # of the task's selection metric; infinity would not be JSON
    seconds: float = 0.0
    trained_windows: int = 0
    history: list[JsonObject] = field(default_factory=list)

    def end_epoch(self, record: JsonObject, score: float) -> bool:
        """Take an epoch's record; the schedule looks at its validation loss.

        Whether its score is the best so far.
        """
        self.plateau.observe(record["val_loss"])
        self.history.append(record)
        self.epoch, self.step = record["epoch"], 0
        better = score > self.best_score
        if better:
            self.best_epoch, self.best_score = self.epoch, score
        return better

    @classmethod
    def checked(cls, values: Any, steps_per_epoch: int, what: str) -> LoopState:
        """From the plain values of `what`.

        Raises InvalidFile where they do not parse, or cannot be of a run with so many steps.
        """
        try:
            known = {RENAMED.get(str(name), str(name)): value for name, value in dict(values).items()}
            state = cls(**{**known, "plateau": Plateau(**known["plateau"])})
            wrong = [name for name, kinds in KINDS.items() if not isinstance(getattr(state, name), kinds)]
            if wrong:
                raise ValueError(f"{', '.join(wrong)} of another type")
        except (TypeError, ValueError, KeyError) as error:
            raise InvalidFile(f"{what}: its state does not parse ({error})") from None
        known_step = 0 <= state.step <= steps_per_epoch
        if state.count != state.epoch * steps_per_epoch + state.step or not known_step:
            raise InvalidFile(
                f"{what}: epoch {state.epoch + 1}, step {state.step} cannot be optimiser step {state.count} "
                f"with {steps_per_epoch} steps an epoch; it belongs to another run"
            )
        return state


RENAMED = {"best_cosine": "best_score"}  # in checkpoints of earlier versions
KINDS: dict[str, type | tuple[type, ...]] = {
    **dict.fromkeys(("epoch", "step", "count", "best_epoch", "trained_windows"), int),
    **dict.fromkeys(("best_score", "seconds"), (int, float)),
    "history": list,
}


def epoch_order(count: int, seed: int, epoch: int) -> np.ndarray:
    """A permutation of the training windows that depends on seed and epoch alone."""
    return np.random.Generator(np.random.PCG64([seed, epoch])).permutation(count)


def step_key(seed: int, epoch: int, step: int, rank: int = 0) -> int:
    """A 64-bit seed for one step's dropout; neighbouring steps, and ranks, get unrelated ones."""
    low, high = np.random.SeedSequence([seed, epoch, step, *([rank] if rank else [])]).generate_state(2)
    return int(high) << 32 | int(low)
