"""RAMN's training step: segments of documents, AdamW in three groups, a running average of the weights.

The average follows the steps with decay 0.98, and it is the average that is validated and saved.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from functools import partial
from typing import Any

import numpy as np

from mlx_lvm.core.mlx import mx, nn, tree_flatten, tree_map, tree_unflatten
from mlx_lvm.models.ramn import RAMN
from mlx_lvm.training.config import TrainConfig
from mlx_lvm.training.optimizer import (
    Moments,
    adamw,
    clip_gradients,
    coefficients,
    gradient_norm,
    skip_if_nonfinite,
)
from mlx_lvm.training.ramn.documents import Segments, causal_kernels, centred_rows, old_mask, take_segments
from mlx_lvm.training.ramn.losses import regress_loss, retrieve_loss
from mlx_lvm.training.step import NEVER, StepState, added

WARMUP = 30  # steps
AVERAGE = 0.98  # of the running average of the weights
# Learning rate compared with the network's, and whether weights decay.
GROUPS = {"net": (1.0, True), "filter": (2.0, False), "scalars": (40.0, False)}
FROZEN = [  # besides basis and map
    "mean", "shift_filter", "log_novelty", "trust_limit", "trust_slope", "input_gain", "output_gain", "blend",
]  # fmt: skip
# of every horizon, with head regress
FILTERS = ("filter", "shift_filter", "query_filter", "query_shift_filter")


class DocumentStep(StepState):
    """Calls train `live` on segments, given the first target of each; `model` itself is the running average.

    The statistics of the anchor are frozen: mean, basis and map, and with head regress its filter.
    """

    def __init__(self, model: RAMN, segments: Segments, config: TrainConfig) -> None:
        self.model, self.segments, self.config = model, segments, config
        self.live = trainable_copy(model)
        super().__init__(self.live)
        self._centred = centred_rows(segments, np.array(model.mean), model.basis.weight)
        self._step = self._compile()

    def __call__(self, batch: np.ndarray, lr: float, key: int) -> None:
        self.count = number = self.count + 1
        mx.random.seed(key)
        decay = self.config.weight_decay
        rates = {
            name: coefficients(lr * times, decay if decays else 0.0, number)
            for name, (times, decays) in GROUPS.items()
        }
        keep = mx.array(kept_share(number), dtype=mx.float32)
        self._step(mx.array(self.segments.table(batch)), rates, keep, mx.array(number), self._centred)

    def arrays(self) -> list[Any]:
        return [self.live.parameters(), self.model.parameters(), self.state["moments"], self.state["sums"]]

    def state_dict(self) -> dict[str, mx.array]:
        live: Any = tree_flatten(self.live.trainable_parameters())
        return {**super().state_dict(), **{f"live.{name}": value for name, value in live}}

    def load_state_dict(self, saved: dict[str, mx.array], count: int) -> None:
        """The frozen weights are those of `model`, which is loaded before."""
        super().load_state_dict(saved, count)
        self.live.update(tree_map(lambda x: x + 0, self.model.parameters()))
        named = [(name, value) for name, value in saved.items() if name.startswith("live.")]
        self.live.update(tree_unflatten([(name.removeprefix("live."), value) for name, value in named]))

    def _compile(self) -> Callable[..., None]:
        live, average, config, state = self.live, self.model, self.config, self.state
        loss_of = retrieve_loss if live.config.head == "retrieve" else regress_loss
        kernels, old = causal_kernels(), old_mask()
        live.train()
        value_and_grad: Callable[..., Any] = nn.value_and_grad(
            live, lambda batch, centred: loss_of(live, batch, kernels, old, centred)
        )
        captured: list[Any] = [live.state, average.state, state, mx.random.state]

        @partial(mx.compile, inputs=captured, outputs=captured)
        def step(
            table: mx.array, rates: dict[str, mx.array], keep: mx.array, number: mx.array, centred: mx.array
        ) -> None:
            batch = take_segments(centred, table)
            (loss, cosine), gradients = value_and_grad(batch, centred)
            norm = gradient_norm(gradients)
            if config.clip:
                gradients = clip_gradients(gradients, norm, config.clip)
            state["sums"] = added(state["sums"], number, loss, cosine, norm, batch.valid.sum())
            finite = state["sums"]["broken"] == NEVER
            gradients, rates = skip_if_nonfinite(finite, gradients, rates)
            weights, moments = grouped_adamw(live.trainable_parameters(), gradients, state["moments"], rates)
            state["moments"] = moments
            live.update(weights)

            def moved(a: mx.array, b: mx.array) -> mx.array:
                return mx.where(finite, a + (1 - keep) * (b - a), a)

            average.update(tree_map(moved, average.parameters(), live.parameters()))

        return step


def trainable_copy(model: RAMN) -> RAMN:
    """The model with arrays of its own, its statistics frozen."""
    live = RAMN(model.config)
    live.update(tree_map(lambda x: x + 0, model.parameters()))
    live.freeze(keys=FROZEN, recurse=False)
    live.basis.freeze()
    if model.config.fallback == "emn":
        live.emn.freeze()
    if model.config.head == "regress":
        for horizon in live.horizon_heads:
            horizon.freeze(keys=[name for name in FILTERS if name in horizon], recurse=False)
            horizon.map.freeze()
    return live


def kept_share(number: int) -> float:
    """Of the running average at step 1, 2, ...: less at first, so that it forgets where it began."""
    return min(AVERAGE, number / (number + 10))


def learning_rate(config: TrainConfig, number: int, total: int) -> float:
    """The network's at step 1, 2, ... of `total`: up over 30 steps, and down to zero as half a cosine."""
    fall = 0.5 * (1 + math.cos(math.pi * min((number - 1) / total, 1.0)))
    return config.lr * min(1.0, number / WARMUP) * fall


def grouped_adamw(
    parameters: Any, gradients: Any, moments: Moments, rates: dict[str, mx.array]
) -> tuple[Any, Moments]:
    """AdamW with a learning rate and a decay for each group of parameters: network, filter, and the rest."""
    flat: dict[str, dict[str, mx.array]] = {
        name: dict(tree_flatten(tree))
        for name, tree in (("weight", parameters), ("gradient", gradients), *moments.items())
    }
    names = list(flat["weight"])
    out: dict[str, dict[str, mx.array]] = {"weight": {}, "first": {}, "second": {}}
    for group, coefs in rates.items():
        part = {
            key: {name: values[name] for name in names if group_of(name) == group}
            for key, values in flat.items()
        }
        before: Moments = {"first": part["first"], "second": part["second"]}
        weights, after = adamw(part["weight"], part["gradient"], before, coefs)
        for key, values in (("weight", weights), *after.items()):
            out[key].update(values)
    trees = {key: tree_unflatten([(name, out[key][name]) for name in names]) for key in out}
    return trees["weight"], {"first": trees["first"], "second": trees["second"]}


def group_of(name: str) -> str:
    """The group of GROUPS that a parameter is in."""
    if name.startswith(("net.", "ahead.")):
        return "net"
    return "filter" if name == "filter" else "scalars"
