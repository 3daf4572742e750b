"""The least time a machine needs for a model: its multiplications at the machine's peak, or its bytes at the memory's speed.

    floor = max(FLOPs / peak FLOP/s, bytes / peak bytes/s)

No program can be faster, and none is as fast: what is left between it and a measured time is the part that work could win.
FLOPs are those of the models as they are computed here (AMN does not project its context, the transformer's last layer
makes one position), a multiplication and an addition counted as two; only products of matrices are counted.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

FLOAT = 4  # bytes
# Passes of a training step over all parameters: read forward and backward, gradient written and read for its norm, AdamW
# reads four arrays and writes three.
PASSES = 11
EMN_ROWS, EMN_FEATURES, EMN_EACH = (
    22,
    108,
    18,
)  # of EMN: rows, features of all together, of each row with its kind
MIXTURES, SEEN, MAPPED = 12, 5, 3  # of RAMN: all, those its network reads, those its map reads


@dataclass(frozen=True)
class Work:
    """What one call must do."""

    flops: float
    bytes: float

    def floor(self, flops_per_second: float, bytes_per_second: float) -> float:
        """Seconds."""
        return max(self.flops / flops_per_second, self.bytes / bytes_per_second)


def products(config: Any, context: int) -> tuple[float, float]:
    """(multiplications of one window forward, those of them whose input is the context itself and needs no gradient).

    config: a model's, or anything with its sizes and `model_type`. Raises ValueError for a model that is not counted.
    """
    d, length = config.dim, context
    if config.model_type == "amn":
        a, h = config.attention_dim, config.hidden_dim
        return 2 * d * a + 2 * length * d + 2 * d * h + h * (h // 2) + (h // 2) * d, d * a
    h = config.hidden_dim
    if config.model_type == "lstm":
        first = length * d * 4 * h
        recurrent = (length - 1) * 4 * h * h  # the first state is zero
        return first + recurrent + (config.layers - 1) * (length * 4 * h * h + recurrent) + h * d, first
    if config.model_type == "gru":
        first = length * d * h
        return first + config.layers * (2 * length - 1) * 3 * h * h + h * d, first
    if config.model_type == "transformer":
        first, f = length * d * h, config.ffn_dim

        def layer(queries: int) -> float:
            attention = (
                2 * queries + 2 * length
            ) * h * h + 2 * queries * length * h  # q, output; k, v; scores and mixture
            return 2 * attention + 2 * queries * h * f

        return first + (config.layers - 1) * layer(length) + layer(1) + h * h + h * d, first
    if config.model_type == "ramn" and (config.head, config.horizons, config.queries) == ("regress", 1, 0):
        width = min(config.rank, d)
        mixing, rotation = (
            MIXTURES * length * d,
            MIXTURES * d * d,
        )  # ages and the context need no gradient, nor do mixtures of them
        network = (SEEN * width + 2) * h + h * h + h * width
        return mixing + rotation + network + MAPPED * width * d + 2 * d * d, 2 * mixing + rotation
    if config.model_type == "emn" and config.expert != "yes":
        outputs = 1 if config.head == "predict" else 2
        mixing, pairs = (
            (EMN_ROWS - 2) * length * d,
            EMN_ROWS * EMN_ROWS * d,
        )  # of inputs that need no gradient
        network = EMN_FEATURES * h + h * h + h * EMN_ROWS * outputs
        network += EMN_ROWS * (EMN_EACH * h + h * h + h * outputs) + h * h
        out = 2 * EMN_ROWS * d + (
            d * d if config.head == "rank" else 0
        )  # filter and corrections, or two directions
        return mixing + pairs + network + out, 2 * mixing + 2 * pairs + EMN_FEATURES * h
    raise ValueError(f"no count of {config.model_type}'s multiplications")


def forward_work(config: Any, parameters: int, batch: int, context: int = 5) -> Work:
    """A forward pass: weights and contexts are read, predictions written, once."""
    total, _ = products(config, context)
    return Work(2.0 * batch * total, FLOAT * (parameters + batch * (context + 1) * config.dim))


def step_work(config: Any, parameters: int, batch: int, context: int = 5) -> Work:
    """A training step: twice as many multiplications backward as forward, less those that would give the context's gradient."""
    total, first = products(config, context)
    return Work(
        2.0 * batch * (3 * total - first), FLOAT * (PASSES * parameters + batch * (context + 1) * config.dim)
    )


def work(config: Any, parameters: int, task: str, batch: int, context: int = 5, windows: int = 0) -> Work:
    """Of a task of `lvm bench`. windows: those of an epoch."""
    if task == "train":
        return step_work(config, parameters, batch, context)
    if task == "epoch":
        one = step_work(config, parameters, batch, context)
        steps = windows / batch
        return Work(one.flops * steps, one.bytes * steps)
    return forward_work(config, parameters, 1 if task == "load" else batch, context)


@dataclass(frozen=True)
class Chip:
    """An Apple chip with its largest GPU. Public figures, none of them measured here."""

    name: str
    bandwidth: float  # bytes per second, as Apple's announcements and technical specifications give it
    flops: float  # float32 FLOP/s of the GPU: announced by Apple for M1 and M2, else from `by_clock`


def by_clock(cores: int, gigahertz: float) -> float:
    """FLOP/s of a GPU of Apple's: 128 multiply-adds a core and cycle. Its clock is not published; here as hmc-tech.com lists it."""
    return cores * 128 * 2 * gigahertz * 1e9


# Announcements: apple.com/newsroom of 2020-11-10 (M1), 2021-10-18 (M1 Pro, Max), 2022-03-08 (M1 Ultra), 2022-06-06 (M2),
# 2023-01-17 (M2 Pro, Max), 2023-06-05 (M2 Ultra), 2023-10-30 (M3 family), 2024-10-30 (M4 family), 2025-10-15 (M5),
# 2026-03-03 (M5 Max). M5's matrix units in the GPU are left out: they do not multiply float32 without rounding it.
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
