"""The compiled training step: gather, forward, loss, backward, clip, update, without a host round trip.

`mx.compile` captures one dict, `TrainStep.state` (moments and running sums), besides the model itself. What
is in the dict may be replaced at any time; the dict itself never is, because the compiled function would not
see another.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable
from functools import partial
from typing import Any

import numpy as np

from mlx_lvm.core.arrays import not_finite
from mlx_lvm.core.mlx import mx, nn, tree_flatten, tree_map
from mlx_lvm.data.corpus import Corpus, gather
from mlx_lvm.data.storage.stream import Rows
from mlx_lvm.data.windows import context_rows
from mlx_lvm.errors import InvalidFile
from mlx_lvm.models import Prediction, VectorModel, normalize
from mlx_lvm.training.config import TrainConfig
from mlx_lvm.training.distributed import SINGLE, Group
from mlx_lvm.training.losses import total_loss
from mlx_lvm.training.optimizer import (
    adamw,
    clip_gradients,
    coefficients,
    gradient_norm,
    skip_if_nonfinite,
    zero_moments,
)

NEVER = 2**31 - 1  # step at which nothing broke


class StepState(ABC):
    """What a task trains with: optimiser moments and running sums, in the one dict that the compiled step
    captures. Sums since the last `clear_sums` stay on the device.
    """

    def __init__(self, trained: nn.Module) -> None:
        self.count = 0  # optimiser steps done
        moments = zero_moments(trained.trainable_parameters())
        self.state: dict[str, Any] = {"moments": moments, "sums": zero_sums()}

    @abstractmethod
    def __call__(self, batch: np.ndarray, lr: float, key: int) -> None:
        """One step on a batch [n] of `Task.batches`; `key` seeds all that is random in it."""

    @abstractmethod
    def arrays(self) -> list[Any]:
        """Everything that a step leaves behind on the device, for `mx.eval` and `mx.async_eval`."""

    def broken(self) -> mx.array:
        """The first step whose loss or gradient was not finite, else NEVER. To be read when it is done."""
        return self.state["sums"]["broken"]

    def read_sums(self) -> dict[str, float]:
        """loss, cosine: means since the last `clear_sums`; windows: their number; broken: as above."""
        mx.eval(self.state["sums"])  # once for all of them
        sums = {name: value.item() for name, value in self.state["sums"].items()}
        windows = max(sums["windows"], 1)
        return {**sums, "loss": sums["loss"] / windows, "cosine": sums["cosine"] / windows}

    def clear_sums(self) -> None:
        self.state["sums"] = zero_sums()

    def state_dict(self) -> dict[str, mx.array]:
        """All that a checkpoint must hold besides the model's weights: moments and sums by name."""
        moments, sums = self.state["moments"], self.state["sums"]
        leaves: Any = {part: tree_flatten(moments[part]) for part in ("first", "second")}
        out = {f"{part}.{name}": value for part in leaves for name, value in leaves[part]}
        return {**out, **{f"sums.{name}": value for name, value in sums.items()}}

    def load_state_dict(self, saved: dict[str, mx.array], count: int) -> None:
        """Take back what `state_dict` gave, after `count` steps. Raises InvalidFile where it does not fit."""
        require_fit(saved, self.state_dict())
        moments = self.state["moments"]
        for part in ("first", "second"):
            # Into the tree that is there: one built from names alone would lack modules without parameters,
            # such as dropout.
            names: Any = tree_flatten(moments[part])
            values = iter([saved[f"{part}.{name}"] for name, _ in names])
            moments[part] = tree_map(lambda _, values=values: next(values), moments[part])
        self.state["sums"] = {name: saved[f"sums.{name}"] for name in self.state["sums"]}
        self.count = count


def require_fit(saved: dict[str, mx.array], expected: dict[str, mx.array]) -> None:
    """Raises InvalidFile where names, shapes or dtypes differ, or a value is NaN or Inf."""
    wanted = {name: (value.shape, value.dtype) for name, value in expected.items()}
    given = {name: (value.shape, value.dtype) for name, value in saved.items()}
    wrong = sorted(name for name in {*given, *wanted} if given.get(name) != wanted.get(name))
    if wrong:
        differs = "missing, unknown, or of another shape or dtype than this model's"
        raise InvalidFile(f"optimiser state: {', '.join(wrong[:5])}: {differs}")
    for name in not_finite(saved):
        raise InvalidFile(f"optimiser state: '{name}' holds NaN or Inf")


class TrainStep(StepState):
    """Calls of this object train `model` on the windows of the given target rows.

    A step whose loss or gradient is not finite, and every one after it, leaves weights and moments as they
    were, to the bit. With a group of processes every rank gets the whole batch, computes its share and
    applies the same step.
    """

    def __init__(
        self, model: VectorModel, corpus: Corpus | Rows, config: TrainConfig, group: Group = SINGLE
    ) -> None:
        super().__init__(model)
        self.model, self.config, self.group = model, config, group
        self.use(corpus)
        self._step = self._compile()

    def use(self, rows: Corpus | Rows) -> None:
        """Gather from these rows from now on: of one dtype and, lest it compile anew, of one shape."""
        self._vectors = [rows.vectors] if rows.scales is None else [rows.vectors, rows.scales]

    def __call__(self, batch: np.ndarray, lr: float, key: int) -> None:
        """`batch`: target rows. `key` seeds the step's dropout, so nothing random has to be saved."""
        self.count += 1
        mx.random.seed(key)
        rates = coefficients(lr, self.config.weight_decay, self.count)
        self._step(mx.array(batch), rates, mx.array(self.count), *self._vectors)

    def arrays(self) -> list[Any]:
        return [self.model.parameters(), self.state["moments"], self.state["sums"]]

    def _compile(self) -> Callable[..., None]:
        config, model, group, state = self.config, self.model, self.group, self.state
        loss_of = total_loss(config.loss_weights(), config.temperature)

        def forward(context: mx.array, target: mx.array) -> tuple[mx.array, mx.array]:
            prediction = in_bfloat16(model, context) if config.precision == "bfloat16" else model(context)
            if not group.single:
                raw = group.all_gather(prediction.raw, target.shape[0])
                prediction = Prediction(raw, normalize(raw))
            return loss_of(prediction, target), (prediction.unit * normalize(target)).sum()

        value_and_grad: Callable[..., Any] = nn.value_and_grad(model, forward)
        captured: list[Any] = [model.state, state, mx.random.state]

        @partial(mx.compile, inputs=captured, outputs=captured)
        def step(
            targets: mx.array,
            rates: mx.array,
            number: mx.array,
            vectors: mx.array,
            scales: mx.array | None = None,
        ) -> None:
            context = gather(vectors, scales, context_rows(share(targets, group), config.context))
            (loss, cosine), gradients = value_and_grad(context, gather(vectors, scales, targets))
            if not group.single:
                gradients = group.all_reduce(gradients)
            norm = gradient_norm(gradients)
            if config.clip:
                gradients = clip_gradients(gradients, norm, config.clip)
            state["sums"] = added(state["sums"], number, loss, cosine, norm, targets.size)
            finite = state["sums"]["broken"] == NEVER
            gradients, rates = skip_if_nonfinite(finite, gradients, rates)
            weights, moments = adamw(model.trainable_parameters(), gradients, state["moments"], rates)
            state["moments"] = moments
            model.update(weights)

        return step


def in_bfloat16(model: VectorModel, context: mx.array) -> Prediction:
    """The prediction of weights and context [batch, length, dim] rounded to bfloat16, in float32.

    Gradients come back through the rounding to the float32 weights, which stay in the model: an update
    smaller than a bfloat16's last digit adds up in them.
    """
    held = model.parameters()
    model.update(tree_map(lambda weight: weight.astype(mx.bfloat16), held))
    raw = model(context.astype(mx.bfloat16)).raw.astype(mx.float32)
    model.update(held)
    return Prediction(raw, normalize(raw))


def added(
    sums: dict[str, mx.array],
    number: mx.array,
    loss: mx.array,
    cosine: mx.array,
    norm: mx.array,
    size: int | mx.array,
) -> dict[str, mx.array]:
    """The sums after step `number` over `size` windows. loss: a mean, cosine: a sum, norm: the gradient's.

    `broken` is the first step whose loss or gradient was not finite: the one there was, this one, or NEVER.
    """
    now = mx.where(mx.isfinite(loss) & mx.isfinite(norm), NEVER, number)
    return {
        "loss": sums["loss"] + loss * size,
        "cosine": sums["cosine"] + cosine,
        "windows": sums["windows"] + size,
        "broken": mx.minimum(sums["broken"], now),
    }


def share(targets: mx.array, group: Group) -> mx.array:
    """The target rows that this rank computes; one with fewer than others fills up with the batch's first."""
    if group.single:
        return targets
    start, stop, rows = group.shard(targets.shape[0])
    return mx.concatenate([targets[start:stop], mx.broadcast_to(targets[:1], (rows - (stop - start),))])


def zero_sums() -> dict[str, mx.array]:
    return {"loss": mx.array(0.0), "cosine": mx.array(0.0), "windows": mx.array(0), "broken": mx.array(NEVER)}
