"""Reduce-on-plateau: `torch.optim.lr_scheduler.ReduceLROnPlateau` with mode 'min' and default thresholds."""

from __future__ import annotations

import sys
from dataclasses import dataclass

THRESHOLD = 1e-4  # relative: a loss counts as better below best * (1 - THRESHOLD)
SMALLEST_CUT = 1e-8  # torch's eps: a cut smaller than this is not made


@dataclass
class Plateau:
    """The learning rate and what decides its cuts. Its fields are all there is to save."""

    lr: float
    factor: float
    patience: int
    best: float = sys.float_info.max  # infinity would not be JSON
    bad_epochs: int = 0

    def observe(self, loss: float) -> None:
        """Take an epoch's validation loss; after more than `patience` without a better one, cut the rate."""
        if loss < self.best * (1 - THRESHOLD):
            self.best, self.bad_epochs = loss, 0
        else:
            self.bad_epochs += 1
        if self.bad_epochs > self.patience:
            lower = self.lr * self.factor
            if self.lr - lower > SMALLEST_CUT:
                self.lr = lower
            self.bad_epochs = 0
