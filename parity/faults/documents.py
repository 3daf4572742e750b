"""Faults of RAMN's own training to plant: in its losses, its groups, its moving average and its schedule."""

from __future__ import annotations

import math
from collections.abc import Callable
from contextlib import AbstractContextManager
from dataclasses import dataclass
from functools import partial
from typing import Any

from mlx_lvm.core.mlx import mx
from mlx_lvm.parity.checks import document_training
from mlx_lvm.parity.faults.planting import patch
from mlx_lvm.training.ramn import losses
from mlx_lvm.training.ramn import step as steps

LOSS, GRADIENT, OPTIMISER = ("loss",), ("gradient or clipping",), ("optimiser",)
SCHEDULE, AVERAGE = ("schedule",), ("average of the weights",)


@dataclass(frozen=True)
class DocumentFault:
    """head: of the RAMN that shows it."""

    name: str
    head: str
    expect: tuple[str, ...]
    patch: Callable[[], AbstractContextManager[None]]


def _one_rate(name: str, rate: float, decays: bool) -> Callable[[], AbstractContextManager[None]]:
    return partial(patch, steps, "GROUPS", {**steps.GROUPS, name: (rate, decays)})


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


def _set(target: Any, name: str, value: Any) -> Callable[[], AbstractContextManager[None]]:
    return partial(patch, target, name, value)


DOCUMENT_FAULTS = [
    DocumentFault(
        "cross entropy for generalised",
        "retrieve",
        LOSS,
        _set(losses, "generalised_cross_entropy", _cross_entropy),
    ),
    DocumentFault("q of 0.4", "retrieve", LOSS, _set(losses, "GCE_Q", 0.4)),
    DocumentFault(
        "chunks of the context as candidates", "retrieve", LOSS, _set(losses, "target_mask", _all_targets)
    ),
    DocumentFault(
        "the target among its random negatives", "retrieve", LOSS, _set(losses, "negative_mask", _itself_too)
    ),
    DocumentFault("half of the random negatives", "retrieve", LOSS, _set(losses, "RANDOM_NEGATIVES", 512)),
    DocumentFault("filter at the network's rate", "retrieve", OPTIMISER, _one_rate("filter", 1.0, False)),
    DocumentFault("filter decays", "retrieve", OPTIMISER, _one_rate("filter", 2.0, True)),
    DocumentFault("scalars at 30 times the rate", "retrieve", OPTIMISER, _one_rate("scalars", 30.0, False)),
    DocumentFault("network does not decay", "retrieve", OPTIMISER, _one_rate("net", 1.0, False)),
    DocumentFault("average one step late", "retrieve", AVERAGE, _set(steps, "kept_share", _late)),
    DocumentFault("no average", "retrieve", AVERAGE, _set(steps, "kept_share", lambda number: 0.0)),
    DocumentFault(
        "no cosine fall", "retrieve", SCHEDULE, _set(document_training, "learning_rate", _constant_rate)
    ),
    DocumentFault("no warm-up", "regress", OPTIMISER, _set(document_training, "learning_rate", _no_warmup)),
    DocumentFault("no centred cosine", "regress", LOSS, _set(losses, "CENTRED", 0.0)),
    DocumentFault("squared error in full", "regress", LOSS, _set(losses, "SQUARED", 1.0)),
    DocumentFault(
        "gradient not clipped", "regress", GRADIENT, _set(steps, "clip_gradients", lambda g, norm, most: g)
    ),
    DocumentFault("the filter is trained", "regress", GRADIENT, _set(steps, "FILTERS", ())),
]
