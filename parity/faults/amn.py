"""Faults of AMN: its attention, its mixture, its baseline; and of the training step, which AMN shows."""

from __future__ import annotations

import math
import operator
from collections.abc import Callable, Iterator
from typing import Any

from mlx_lvm.core.mlx import mx
from mlx_lvm.models import Prediction
from mlx_lvm.models import amn as amn_module
from mlx_lvm.parity.faults.planting import Fault, Plant, call, config_of, method, of
from mlx_lvm.parity.faults.training import training_faults

END = "residual_net.6"


def faults() -> Iterator[Fault]:
    """Its own, one change that nothing can notice, and those of the training step."""

    fault, small = of("amn"), config_of("amn")

    def projected(self: Any, baseline: mx.array) -> mx.array:
        return self.query_encoder(baseline)

    def attend(scale: float, query: Callable[[Any, mx.array], mx.array] = projected) -> Plant:
        def run(self: Any, original: Callable, context: mx.array, baseline: mx.array) -> mx.array:
            q = query(self, baseline) @ self.context_encoder.weight
            return mx.softmax((context @ q[:, :, None]).squeeze(-1) * scale, axis=-1)

        return method("", "attend", run)

    def mix(attention: mx.array, context: mx.array) -> mx.array:
        return (attention[:, None, :] @ context).squeeze(1)

    def pair(a: mx.array, b: mx.array) -> mx.array:
        return mx.concatenate([a, b], axis=-1)

    def first(context: mx.array) -> mx.array:
        return context.mean(axis=1)

    def forward(
        weigh: Callable = mix, join: Callable = pair, mean: Callable = first, end: Callable = operator.add
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

    def last_asks(self: Any, original: Callable, context: mx.array, baseline: mx.array) -> mx.array:
        return original(self, context, context[:, -1])

    def all_projected(self: Any, original: Callable, context: mx.array, baseline: mx.array) -> mx.array:
        scores = (self.context_encoder(context) @ self.query_encoder(baseline)[:, :, None]).squeeze(-1)
        return mx.softmax(scores / math.sqrt(self.config.attention_dim), axis=-1)

    width, glue = small.attention_dim, "residual_net.0 <-"
    keys = attend(1 / math.sqrt(width), lambda self, b: b @ self.context_encoder.weight.T)
    yield fault("scores divided by the width, not its root", "attention", attend(1 / width))
    yield fault("scores not scaled", "attention", attend(1.0))
    yield fault("scores scaled by the embedding's width", "attention", attend(1 / math.sqrt(small.dim)))
    yield fault("keys in place of queries", "attention", keys)
    yield fault("query from the last chunk", "query_encoder <-", method("", "attend", last_asks))
    yield fault("context read in reverse", glue, forward(weigh=lambda a, x: mix(a[:, ::-1], x)))
    yield fault("the mean in place of the mixture", glue, forward(weigh=lambda a, x: first(x)))
    yield fault("mixture and baseline swapped", glue, forward(join=lambda b, w: pair(w, b)))
    yield fault("sum in place of the mean", "baseline", forward(mean=lambda x: x.sum(axis=1)))
    yield fault("mean without the first chunk", "baseline", forward(mean=lambda x: first(x[:, 1:])))
    yield fault("no baseline in the output", "raw", forward(end=lambda b, r: r))
    yield fault("residual subtracted", "raw", forward(end=operator.sub))
    why = "softmax ignores a number added to all scores, so the bias of the keys has no influence"
    yield fault("every chunk projected, key bias included", (), method("", "attend", all_projected), why)
    yield from training_faults()
