"""Where a training loop stands, and what follows from that and a seed: the order of an epoch's batches, the key of a step."""

from __future__ import annotations

from dataclasses import asdict, dataclass, field
from typing import Any

import numpy as np

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

    epoch: int = 0
    step: int = 0  # steps done in this epoch
    count: int = 0  # optimiser steps done
    best_epoch: int = 0
    best_cosine: float = -2.0
    seconds: float = 0.0
    trained_windows: int = 0
    plateau: dict[str, Any] = field(default_factory=dict)
    history: list[dict[str, Any]] = field(default_factory=list)

    @classmethod
    def checked(cls, values: Any, steps_per_epoch: int, what: str) -> LoopState:
        """From the plain values of `what`. Raises InvalidFile where they do not parse, or cannot be of a run with so many steps."""
        try:
            state = cls(**values)
            kinds = {name: type(value) for name, value in asdict(cls()).items()}
            wrong = [
                name
                for name, kind in kinds.items()
                if not isinstance(getattr(state, name), (int, kind) if kind is float else kind)
            ]
            if wrong:
                raise ValueError(f"{', '.join(wrong)} of another type")
            Plateau(**state.plateau)
        except (TypeError, ValueError) as error:
            raise InvalidFile(f"{what}: its state does not parse ({error})") from None
        if (
            state.count != state.epoch * steps_per_epoch + state.step
            or not 0 <= state.step <= steps_per_epoch
        ):
            raise InvalidFile(
                f"{what}: epoch {state.epoch + 1}, step {state.step} cannot be optimiser step {state.count} "
                f"with {steps_per_epoch} steps an epoch; it belongs to another run"
            )
        return state


def epoch_order(count: int, seed: int, epoch: int) -> np.ndarray:
    """A permutation of the training windows that depends on seed and epoch alone."""
    return np.random.Generator(np.random.PCG64([seed, epoch])).permutation(count)


def step_key(seed: int, epoch: int, step: int, rank: int = 0) -> int:
    """A 64-bit seed for one step's dropout; neighbouring steps, and ranks, get unrelated ones."""
    low, high = np.random.SeedSequence([seed, epoch, step, *([rank] if rank else [])]).generate_state(2)
    return int(high) << 32 | int(low)
