"""Faults of AMN: its attention, its mixture, its baseline; and of the training step, which AMN shows."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from typing import Any

from mlx_lvm.core.mlx import mx
from mlx_lvm.models import Prediction
from mlx_lvm.models import amn as amn_module
from mlx_lvm.parity.faults.planting import Fault, Plant, anyhow, call, config_of, method
from mlx_lvm.parity.faults.training import TRAINING_FAULTS

END = "residual_net.6"


def faults() -> Iterator[Fault]:
    """Its own, one change that nothing can notice, and those of the training step."""

    def attend(scale: float, query: Callable[[Any, mx.array], mx.array] | None = None) -> Plant:
        def run(self: Any, original: Callable, context: mx.array, baseline: mx.array) -> mx.array:
            q = (
                query(self, baseline) if query else self.query_encoder(baseline)
            ) @ self.context_encoder.weight
            return mx.softmax((context @ q[:, :, None]).squeeze(-1) * scale, axis=-1)

        return method("", "attend", run)

    def forward(
        weigh: Callable,
        join: Callable,
        mean: Callable = lambda x: x.mean(axis=1),
        end: Callable = lambda b, r: b + r,
    ) -> Plant:
        def run(self: Any, original: Callable, context: mx.array) -> Prediction:
            baseline = mean(context)
            attention = self.attend(context, baseline)
            residual = join(baseline, weigh(attention, context))
            for layer in self.residual_net:
                residual = layer(residual)
            raw = end(baseline, residual)
            return Prediction(raw, amn_module.normalize(raw), attention, baseline, residual)

        return call("", run)

    def mix(attention: mx.array, context: mx.array) -> mx.array:
        return (attention[:, None, :] @ context).squeeze(1)

    def pair(a: mx.array, b: mx.array) -> mx.array:
        return mx.concatenate([a, b], axis=-1)

    width, glue = config_of("amn").attention_dim, ("residual_net.0 <-",)
    yield Fault("amn: scores divided by the width, not its root", "amn", ("attention",), attend(1 / width))
    yield Fault("amn: scores not scaled", "amn", ("attention",), attend(1.0))
    yield Fault(
        "amn: scores scaled by the embedding's width",
        "amn",
        ("attention",),
        attend(1 / math.sqrt(config_of("amn").dim)),
    )
    yield Fault(
        "amn: keys in place of queries",
        "amn",
        ("attention",),
        attend(1 / math.sqrt(width), lambda self, b: b @ self.context_encoder.weight.T),
    )
    yield Fault(
        "amn: query from the last chunk",
        "amn",
        ("query_encoder <-",),
        method(
            "", "attend", lambda self, original, context, baseline: original(self, context, context[:, -1])
        ),
    )
    yield Fault("amn: context read in reverse", "amn", glue, forward(lambda a, x: mix(a[:, ::-1], x), pair))
    yield Fault(
        "amn: the mean in place of the mixture", "amn", glue, forward(lambda a, x: x.mean(axis=1), pair)
    )
    yield Fault("amn: mixture and baseline swapped", "amn", glue, forward(mix, lambda b, w: pair(w, b)))
    yield Fault(
        "amn: sum in place of the mean",
        "amn",
        ("baseline",),
        forward(mix, pair, mean=lambda x: x.sum(axis=1)),
    )
    yield Fault(
        "amn: mean without the first chunk",
        "amn",
        ("baseline",),
        forward(mix, pair, mean=lambda x: x[:, 1:].mean(axis=1)),
    )
    yield Fault("amn: no baseline in the output", "amn", ("raw",), forward(mix, pair, end=lambda b, r: r))
    yield Fault("amn: residual subtracted", "amn", ("raw",), forward(mix, pair, end=lambda b, r: b - r))

    def shifted(self: Any, original: Callable, context: mx.array, baseline: mx.array) -> mx.array:
        query = self.query_encoder(baseline)
        scores = (self.context_encoder(context) @ query[:, :, None]).squeeze(-1)
        return mx.softmax(scores / math.sqrt(self.config.attention_dim), axis=-1)

    yield Fault(
        "amn: every chunk projected, key bias included",
        "amn",
        (),
        method("", "attend", shifted),
        equivalent="softmax ignores a number added to all scores, so the bias of the keys has no influence",
    )
    for name, expect, planted in TRAINING_FAULTS:
        yield Fault(f"training: {name}", "amn", expect, anyhow(planted), "training")
