"""The roofline of a machine for a model: its multiplications at the machine's peak, or its bytes at the
memory's speed.

    roofline = max(FLOPs / peak FLOP/s, bytes / peak bytes/s)

No program can be faster, and none is as fast: what is left between it and a measured time is the part that
work could win. FLOPs are those of the models as they are computed here (`VectorModel.products`), a
multiplication and an addition counted as two; only products of matrices are counted.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from mlx_lvm.models import VectorModel

FLOAT = 4  # bytes
# Passes of a training step over all parameters: read forward and backward, gradient written and read for its
# norm, AdamW reads four arrays and writes three.
PASSES = 11


@dataclass(frozen=True)
class Work:
    """What one call must do."""

    flops: float
    bytes: float

    def roofline(self, flops_per_second: float, bytes_per_second: float) -> float:
        """Seconds."""
        return max(self.flops / flops_per_second, self.bytes / bytes_per_second)


@dataclass(frozen=True)
class Cost:
    """What decides a model's work: multiplications of a window (see `Products`), parameters, input."""

    products: float
    no_gradient: float
    parameters: int
    dim: int
    context: int

    @classmethod
    def of(cls, model: VectorModel, context: int) -> Cost:
        """Raises ValueError for a model whose multiplications nobody counted."""
        total, no_gradient = type(model).products(model.config, context)
        return cls(total, no_gradient, model.parameter_count(), model.config.dim, context)

    def forward(self, batch: int) -> Work:
        """A forward pass: weights and contexts are read, predictions written, once."""
        return Work(2.0 * batch * self.products, FLOAT * (self.parameters + self._vectors(batch)))

    def step(self, batch: int) -> Work:
        """A training step: backward multiplies twice as much, less what the context's gradient would take."""
        flops = 2.0 * batch * (3 * self.products - self.no_gradient)
        return Work(flops, FLOAT * (PASSES * self.parameters + self._vectors(batch)))

    def work(self, task: str, batch: int, windows: int = 0) -> Work:
        """Of a task of `lvm bench`. windows: those of an epoch."""
        if task == "train":
            return self.step(batch)
        if task == "epoch":
            one, steps = self.step(batch), windows / batch
            return Work(one.flops * steps, one.bytes * steps)
        return self.forward(1 if task == "load" else batch)

    def _vectors(self, batch: int) -> int:
        return batch * (self.context + 1) * self.dim


@dataclass(frozen=True)
class Chip:
    """An Apple chip with its largest GPU. Public figures, none of them measured here."""

    name: str
    bandwidth: float  # bytes per second, as Apple's announcements and technical specifications give it
    flops: float  # float32 FLOP/s of the GPU: announced by Apple for M1 and M2, else from `by_clock`


def by_clock(cores: int, gigahertz: float) -> float:
    """FLOP/s of Apple's GPUs: 128 multiply-adds a core and cycle; its clock as hmc-tech.com has it."""
    return cores * 128 * 2 * gigahertz * 1e9


# Announcements: apple.com/newsroom of 2020-11-10 (M1), 2021-10-18 (M1 Pro, Max), 2022-03-08 (M1 Ultra),
# 2022-06-06 (M2), 2023-01-17 (M2 Pro, Max), 2023-06-05 (M2 Ultra), 2023-10-30 (M3 family), 2024-10-30 (M4
# family), 2025-10-15 (M5), 2026-03-03 (M5 Max). M5's matrix units in the GPU are left out: they do not
# multiply float32 without rounding it.
CHIPS = (
    Chip("M1", 68.25e9, 2.6e12),
    Chip("M1 Pro", 200e9, 5.2e12),
    Chip("M1 Max", 400e9, 10.4e12),
    Chip("M1 Ultra", 800e9, 21e12),
    Chip("M2", 100e9, 3.6e12),
    Chip("M2 Pro", 200e9, 6.8e12),
    Chip("M2 Max", 400e9, 13.6e12),
    Chip("M2 Ultra", 800e9, 27.2e12),
    Chip("M3", 100e9, by_clock(10, 1.398)),
    Chip("M3 Pro", 150e9, by_clock(18, 1.398)),
    Chip("M3 Max", 400e9, by_clock(40, 1.398)),
    Chip("M4", 120e9, by_clock(10, 1.47)),
    Chip("M4 Pro", 273e9, by_clock(20, 1.47)),
    Chip("M4 Max", 546e9, by_clock(40, 1.47)),
    Chip("M5", 153e9, by_clock(10, 1.74)),
    Chip("M5 Max", 614e9, by_clock(40, 1.74)),
)
