"""Faults of RAMN's own training to plant: in its losses, its groups, its moving average and its schedule."""

from __future__ import annotations

import math
from typing import Any

from mlx_lvm.core.mlx import mx
from mlx_lvm.parity.checks import document_training
from mlx_lvm.parity.faults.planting import Fault, replacing
from mlx_lvm.training.ramn import losses
from mlx_lvm.training.ramn import step as steps

LOSS, GRADIENT, OPTIMISER = ("loss",), ("gradient or clipping",), ("optimiser",)
SCHEDULE, AVERAGE = ("schedule",), ("average of the weights",)


def _constant_rate(config: Any, number: int, total: int) -> float:
    return config.lr * min(1.0, number / steps.WARMUP)


def _no_warmup(config: Any, number: int, total: int) -> float:
    return config.lr * 0.5 * (1 + math.cos(math.pi * (number - 1) / total))


def _all_targets(rows: mx.array, valid: mx.array) -> mx.array:
    """Without leaving out what lies in a target's context."""
    return mx.where(valid[None, :], 0.0, losses.MASKED_LOGIT) + mx.zeros((rows.size, 1))


def _itself_too(rows: mx.array, drawn: mx.array) -> mx.array:
    """A random chunk may be the target itself."""
    back = rows[:, None] - drawn[None, :]
    return mx.where((back > 0) & (back <= 5), losses.MASKED_LOGIT, 0.0)


def _cross_entropy(log_probability: mx.array, q: float) -> mx.array:
    return -log_probability


def _late(number: int) -> float:
    return min(steps.AVERAGE, (number + 1) / (number + 11))


def _rates(name: str, rate: float, decays: bool) -> dict[str, tuple[float, bool]]:
    return {**steps.GROUPS, name: (rate, decays)}


Rows = dict[str, tuple[tuple[str, ...], Any, str, Any]]  # name: expect, where what is replaced, by what


def _faults(rows: Rows) -> list[Fault]:
    return [
        Fault(f"training on documents: {name}", "ramn", expect, replacing(*replaced), "training")
        for name, (expect, *replaced) in rows.items()
    ]


# that head retrieve shows
RETRIEVE = _faults(
    {
        "cross entropy for generalised": (LOSS, losses, "generalised_cross_entropy", _cross_entropy),
        "q of 0.4": (LOSS, losses, "GCE_Q", 0.4),
        "chunks of the context as candidates": (LOSS, losses, "target_mask", _all_targets),
        "the target among its random negatives": (LOSS, losses, "negative_mask", _itself_too),
        "half of the random negatives": (LOSS, losses, "RANDOM_NEGATIVES", 512),
        "filter at the network's rate": (OPTIMISER, steps, "GROUPS", _rates("filter", 1.0, False)),
        "filter decays": (OPTIMISER, steps, "GROUPS", _rates("filter", 2.0, True)),
        "scalars at 30 times the rate": (OPTIMISER, steps, "GROUPS", _rates("scalars", 30.0, False)),
        "network does not decay": (OPTIMISER, steps, "GROUPS", _rates("net", 1.0, False)),
        "average one step late": (AVERAGE, steps, "kept_share", _late),
        "no average": (AVERAGE, steps, "kept_share", lambda number: 0.0),
        "no cosine fall": (SCHEDULE, document_training, "learning_rate", _constant_rate),
    }
)
# and that head regress shows
REGRESS = _faults(
    {
        "no warm-up": (OPTIMISER, document_training, "learning_rate", _no_warmup),
        "no centred cosine": (LOSS, losses, "CENTRED", 0.0),
        "squared error in full": (LOSS, losses, "SQUARED", 1.0),
        "gradient not clipped": (GRADIENT, steps, "clip_gradients", lambda gradients, norm, most: gradients),
        "the filter is trained": (GRADIENT, steps, "FILTERS", ()),
    }
)
