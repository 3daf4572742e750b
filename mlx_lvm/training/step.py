"""The compiled training step: gather, forward, loss, backward, clip, update, in one function without a host round trip.

The step's state (weights, moments, running sums) is captured by `mx.compile`; `load` must come before the first call,
because an array bound to the state later would not be the one that the compiled function updates.
"""

from __future__ import annotations

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
from mlx_lvm.training.distributed import ALONE, Group
from mlx_lvm.training.losses import total_loss
from mlx_lvm.training.optimizer import (
    adamw,
    clip_gradients,
    coefficients,
    gradient_norm,
    only_if,
    zero_moments,
)

NEVER = 2**31 - 1  # step at which nothing broke


class TrainStep:
    """Calls of this object train `model` on the windows of the given target rows.

    Sums since the last `clear_sums` stay on the device: loss, cosine, windows, and the first step whose loss or gradient
    was not finite. That step, and every one after it, leaves weights and moments as they were, to the bit.

    With a group of processes every rank gets the whole batch, computes its own share and applies the same step.
    """

    def __init__(self, model: VectorModel, corpus: Corpus, config: TrainConfig, group: Group = ALONE) -> None:
        self.model, self.config, self.group = model, config, group
        self.count = 0  # optimiser steps done
        self.moments = zero_moments(model.trainable_parameters())
        self.sums = _zero_sums()
        self.use(corpus)
        self._compiled: Callable[..., None] | None = None

    def use(self, rows: Corpus | Rows) -> None:
        """Gather from these rows from now on; target rows count in them. Of one dtype and, lest it compile anew, one shape."""
        self._vectors = [rows.vectors] if rows.scales is None else [rows.vectors, rows.scales]

    def __call__(self, targets: np.ndarray, lr: float, key: int) -> None:
        """One step on target rows [batch]. `key` seeds this step's dropout alone, so nothing random has to be saved."""
        if self._compiled is None:
            self._compiled = self._compile()
        self.count += 1
        mx.random.seed(key)
        self._compiled(
            mx.array(targets),
            coefficients(lr, self.config.weight_decay, self.count),
            mx.array(self.count),
            *self._vectors,
        )

    def _compile(self) -> Callable[..., None]:
        config, model, group = self.config, self.model, self.group
        loss_of = total_loss(config.loss_weights(), config.temperature)
        captured = {"moments": self.moments, "sums": self.sums}
        state = [model.state, captured, mx.random.state]

        def forward(context: mx.array, target: mx.array) -> tuple[mx.array, mx.array]:
            prediction = in_bfloat16(model, context) if config.precision == "bfloat16" else model(context)
            if not group.alone:
                raw = group.all_rows(prediction.raw, target.shape[0])
                prediction = Prediction(raw, normalize(raw))
            return loss_of(prediction, target), (prediction.unit * normalize(target)).sum()

        value_and_grad: Callable[..., Any] = nn.value_and_grad(model, forward)

        @partial(mx.compile, inputs=state, outputs=state)
        def step(
            targets: mx.array,
            coefs: mx.array,
            number: mx.array,
            vectors: mx.array,
            scales: mx.array | None = None,
        ) -> None:
            context = gather(vectors, scales, context_rows(share(targets, group), config.context))
            values, gradients = value_and_grad(context, gather(vectors, scales, targets))
            loss, cosine = values
            if not group.alone:
                gradients = group.sum(gradients)
            norm = gradient_norm(gradients)
            if config.clip:
                gradients = clip_gradients(gradients, norm, config.clip)
            captured["sums"] = added(captured["sums"], number, loss, cosine, norm, targets.size)
            gradients, coefs = only_if(captured["sums"]["broken"] == NEVER, gradients, coefs)
            weights, captured["moments"] = adamw(
                model.trainable_parameters(), gradients, captured["moments"], coefs
            )
            model.update(weights)

        self._captured = captured
        return step

    def state(self) -> list[Any]:
        """Everything that a step leaves behind on the device, for `mx.eval` and `mx.async_eval`."""
        return [self.model.parameters(), self._live("moments"), self._live("sums")]

    def _live(self, name: str) -> dict[str, Any]:
        return getattr(self, name) if self._compiled is None else self._captured[name]

    def broken(self) -> mx.array:
        """The first step whose loss or gradient was not finite, else NEVER; to be read when the device is done with it."""
        return self._live("sums")["broken"]

    def read_sums(self) -> dict[str, float]:
        """Loss and cosine per window since the sums were last cleared, their number, and the first broken step (else NEVER)."""
        mx.eval(self._live("sums"))  # once for all of them
        sums = {name: value.item() for name, value in self._live("sums").items()}
        windows = max(sums["windows"], 1)
        return {**sums, "loss": sums["loss"] / windows, "cosine": sums["cosine"] / windows}

    def clear_sums(self) -> None:
        for name, value in _zero_sums().items():
            self._live("sums")[name] = value

    def saved(self) -> dict[str, mx.array]:
        """Moments and sums by name, as a checkpoint holds them."""
        leaves: Any = {part: tree_flatten(self._live("moments")[part]) for part in ("first", "second")}
        out = {f"{part}.{name}": value for part in leaves for name, value in leaves[part]}
        return {**out, **{f"sums.{name}": value for name, value in self._live("sums").items()}}

    def load(self, saved: dict[str, mx.array], count: int) -> None:
        """Take back what `saved` gave, after `count` steps. Only before the first call. Raises InvalidFile where it does not fit."""
        assert self._compiled is None, (
            "load before the first step: a compiled step does not see arrays bound later"
        )
        expected = {name: (value.shape, value.dtype) for name, value in self.saved().items()}
        found = {name: (value.shape, value.dtype) for name, value in saved.items()}
        if found != expected:
            wrong = sorted(name for name in {*found, *expected} if found.get(name) != expected.get(name))
            raise InvalidFile(
                f"optimiser state: {', '.join(wrong[:5])}: missing, unknown, or of another shape or dtype than this model's"
            )
        for name in not_finite(saved):
            raise InvalidFile(f"optimiser state: '{name}' holds NaN or Inf")
        for part in ("first", "second"):
            # Into the tree that is there: one built from names alone would lack modules without parameters, such as dropout.
            leaves: Any = tree_flatten(self.moments[part])
            values = iter([saved[f"{part}.{name}"] for name, _ in leaves])
            self.moments[part] = tree_map(lambda _, values=values: next(values), self.moments[part])
        self.sums = {name: saved[f"sums.{name}"] for name in self.sums}
        self.count = count


def in_bfloat16(model: VectorModel, context: mx.array) -> Prediction:
    """The prediction of the model's weights and context [batch, length, dim] rounded to bfloat16, given on in float32.

    Gradients come back through the rounding to the float32 weights, which stay in the model: an update smaller than a
    bfloat16's last digit adds up in them.
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
    """The sums after step `number`, whose mean loss, sum of cosines and gradient's norm over `size` windows these are.

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
    """The target rows that this rank computes; a rank with fewer than the others fills up with the batch's first."""
    if group.alone:
        return targets
    start, stop, rows = group.shard(targets.shape[0])
    return mx.concatenate([targets[start:stop], mx.broadcast_to(targets[:1], (rows - (stop - start),))])


def _zero_sums() -> dict[str, mx.array]:
    return {"loss": mx.array(0.0), "cosine": mx.array(0.0), "windows": mx.array(0), "broken": mx.array(NEVER)}


def compile_validation(
    model: VectorModel, corpus: Corpus, config: TrainConfig, mean: mx.array
) -> Callable[[mx.array], mx.array]:
    """A compiled function from target rows [n] to sums [loss, cosine, centred cosine] over them.

    A function of its own, because a compiled training step keeps dropout whatever `model.eval()` says later.
    """
    loss_of = total_loss(config.loss_weights(), config.temperature)
    vectors = [corpus.vectors] if corpus.scales is None else [corpus.vectors, corpus.scales]

    @partial(mx.compile, inputs=[model.state])
    def sums(targets: mx.array, vectors: mx.array, scales: mx.array | None = None) -> mx.array:
        prediction = model(gather(vectors, scales, context_rows(targets, config.context)))
        target = gather(vectors, scales, targets)
        cosine = (prediction.unit * normalize(target)).sum()
        centred = (normalize(prediction.unit - mean) * normalize(normalize(target) - mean)).sum()
        return mx.stack([loss_of(prediction, target) * targets.size, cosine, centred])

    return lambda targets: sums(targets, *vectors)
