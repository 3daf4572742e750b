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


def _late(number: int) -> float:
    return min(steps.AVERAGE, (number + 1) / (number + 11))


def _rates(name: str, rate: float, decays: bool) -> dict[str, tuple[float, bool]]:
    return {**steps.GROUPS, name: (rate, decays)}


def _fault(name: str, expect: tuple[str, ...], target: Any, attribute: str, value: Any) -> Fault:
    plant = replacing(target, attribute, value)
    return Fault(f"training on documents: {name}", "ramn", expect, plant, "training")


# that head retrieve shows
RETRIEVE = [
    _fault("cross entropy for generalised", LOSS, losses, "generalised_cross_entropy", lambda p, q: -p),
    _fault("q of 0.4", LOSS, losses, "GCE_Q", 0.4),
    _fault("chunks of the context as candidates", LOSS, losses, "target_mask", _all_targets),
    _fault("the target among its random negatives", LOSS, losses, "negative_mask", _itself_too),
    _fault("half of the random negatives", LOSS, losses, "RANDOM_NEGATIVES", 512),
    _fault("filter at the network's rate", OPTIMISER, steps, "GROUPS", _rates("filter", 1.0, False)),
    _fault("filter decays", OPTIMISER, steps, "GROUPS", _rates("filter", 2.0, True)),
    _fault("scalars at 30 times the rate", OPTIMISER, steps, "GROUPS", _rates("scalars", 30.0, False)),
    _fault("network does not decay", OPTIMISER, steps, "GROUPS", _rates("net", 1.0, False)),
    _fault("average one step late", AVERAGE, steps, "kept_share", _late),
    _fault("no average", AVERAGE, steps, "kept_share", lambda number: 0.0),
    _fault("no cosine fall", SCHEDULE, document_training, "learning_rate", _constant_rate),
]
# and that head regress shows
REGRESS = [
    _fault("no warm-up", OPTIMISER, document_training, "learning_rate", _no_warmup),
    _fault("no centred cosine", LOSS, losses, "CENTRED", 0.0),
    _fault("squared error in full", LOSS, losses, "SQUARED", 1.0),
    _fault("gradient not clipped", GRADIENT, steps, "clip_gradients", lambda g, norm, most: g),
    _fault("the filter is trained", GRADIENT, steps, "FILTERS", ()),
]
