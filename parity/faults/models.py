"""Faults of the other architectures, and changes that leave a function as it is."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from typing import Any

from mlx_lvm.core.mlx import mx, nn
from mlx_lvm.models import Prediction
from mlx_lvm.models import amn as amn_module
from mlx_lvm.models import filter as filter_module
from mlx_lvm.models import ramn as ramn_module
from mlx_lvm.models import transformer as transformer_module
from mlx_lvm.parity.faults.planting import Fault, Plant, call, config_of, method, patch


def amn_faults() -> Iterator[Fault]:
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
    yield Fault("amn: query from the last chunk", "amn", ("query_encoder <-",), method(
        "", "attend", lambda self, original, context, baseline: original(self, context, context[:, -1])
    ))  # fmt: skip
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


def transformer_faults() -> Iterator[Fault]:
    layer0, last = "transformer_decoder.layers.0", "transformer_decoder.layers.1"

    def decoder_layer(function: Callable, module: str = layer0) -> Plant:
        return call(
            module, lambda self, original, query, x, memory, mask: function(self, query, x, memory, mask)
        )

    def parts(
        self: Any, q: mx.array, x: mx.array, memory: mx.array, mask: Any, cross: Any, order: str = "post"
    ) -> mx.array:
        q = self.norm1(q + self.self_attn(q, x, mask))
        q = self.norm2(q + self.multihead_attn(q, memory, cross))
        return self.norm3(q + self.linear2(nn.relu(self.linear1(q))))

    def masked(k: int) -> Plant:
        return lambda _: patch(
            transformer_module,
            "causal_mask",
            lambda length, dtype=mx.float32: mx.triu(mx.full((length, length), -mx.inf, dtype), k=k),
        )

    def layer(name: str, expect: str, function: Callable, module: str = layer0) -> Fault:
        return Fault(
            f"transformer: {name}", "transformer", (f"{module}.{expect}",), decoder_layer(function, module)
        )

    yield Fault(
        "transformer: mask off by one, seeing the next", "transformer", (f"{layer0}.self_attn",), masked(2)
    )
    yield layer(
        "no mask on self-attention", "self_attn", lambda s, q, x, m, mask: parts(s, q, x, m, None, mask)
    )
    yield layer(
        "no mask on cross-attention", "multihead_attn", lambda s, q, x, m, mask: parts(s, q, x, m, mask, None)
    )
    yield layer("mask reversed", "self_attn", lambda s, q, x, m, mask: parts(s, q, x, m, mask.T, mask))
    yield layer(
        "cross-attention to the layer's input",
        "multihead_attn <-",
        lambda s, q, x, m, mask: parts(s, q, x, x, mask, mask),
        last,
    )
    yield layer("cross-attention before self-attention", "self_attn <-", lambda s, q, x, m, mask: s.norm3(
        (p := s.norm1((c := s.norm2(q + s.multihead_attn(q, m, mask))) + s.self_attn(c, c, mask))) + s.linear2(nn.relu(s.linear1(p)))
    ))  # fmt: skip
    yield layer("norm before attention", "self_attn <-", lambda s, q, x, m, mask: (
        (p := (c := q + s.self_attn(n := s.norm1(q), n, mask)) + s.multihead_attn(s.norm2(c), m, mask))
        + s.linear2(nn.relu(s.linear1(s.norm3(p))))
    ))  # fmt: skip
    yield layer("gelu in the feed-forward network", "linear2 <-", lambda s, q, x, m, mask: s.norm3(
        (p := s.norm2((c := s.norm1(q + s.self_attn(q, x, mask))) + s.multihead_attn(c, m, mask))) + s.linear2(nn.gelu(s.linear1(p)))
    ))  # fmt: skip
    yield layer("no residual around the feed-forward network", "norm3 <-", lambda s, q, x, m, mask: s.norm3(
        s.linear2(nn.relu(s.linear1(s.norm2((c := s.norm1(q + s.self_attn(q, x, mask))) + s.multihead_attn(c, m, mask)))))
    ))  # fmt: skip
    yield layer("no residual around self-attention", "norm1 <-", lambda s, q, x, m, mask: s.norm3(
        (p := s.norm2((c := s.norm1(s.self_attn(q, x, mask))) + s.multihead_attn(c, m, mask))) + s.linear2(nn.relu(s.linear1(p)))
    ))  # fmt: skip

    def attention(name: str, change: Callable) -> Fault:
        def run(self: Any, original: Callable, query: mx.array, memory: mx.array) -> Any:
            return change(self, *original(self, query, memory))

        return Fault(
            f"transformer: {name}",
            "transformer",
            (f"{layer0}.self_attn",),
            method(f"{layer0}.self_attn", "project", run),
        )

    yield attention("scores not scaled", lambda self, q, k, v: (q / self.scale, k, v))
    yield attention("scores scaled by the whole width", lambda self, q, k, v: (q * 0.5, k, v))
    yield attention("queries and keys swapped", lambda self, q, k, v: (k, q, v))
    yield attention("keys and values swapped", lambda self, q, k, v: (q, v, k))
    yield attention(
        "values without bias", lambda self, q, k, v: (q, k, v - mx.split(self.in_proj_bias, 3)[2])
    )
    yield attention(
        "queries without bias", lambda self, q, k, v: (q - mx.split(self.in_proj_bias, 3)[0], k, v)
    )

    def interleaved(self: Any, original: Callable, x: mx.array) -> mx.array:
        return mx.unflatten(x, -1, (-1, self.heads)).transpose(0, 3, 1, 2)

    yield Fault(
        "transformer: heads interleaved",
        "transformer",
        (f"{layer0}.self_attn",),
        method(f"{layer0}.self_attn", "split_heads", interleaved),
    )

    def positions(function: Callable) -> Plant:
        return call("pos_encoder", lambda self, original, x: function(x, self._pe))

    yield Fault(
        "transformer: positions from one",
        "transformer",
        ("pos_encoder",),
        positions(lambda x, pe: x + pe[:, 1 : x.shape[1] + 1]),
    )
    yield Fault(
        "transformer: positions reversed",
        "transformer",
        ("pos_encoder",),
        positions(lambda x, pe: x + pe[:, : x.shape[1]][:, ::-1]),
    )
    yield Fault("transformer: no positions", "transformer", ("pos_encoder",), positions(lambda x, pe: x))
    yield Fault("transformer: input scaled by the root of the width", "transformer", ("pos_encoder",), positions(
        lambda x, pe: x * math.sqrt(x.shape[-1]) + pe[:, : x.shape[1]]
    ))  # fmt: skip
    yield Fault("transformer: sines and cosines in halves", "transformer", ("pos_encoder",), positions(
        lambda x, pe: x + mx.concatenate([pe[..., 0::2], pe[..., 1::2]], axis=-1)[:, : x.shape[1]]
    ))  # fmt: skip
    yield Fault("transformer: a norm after the last layer", "transformer", ("head.0 <-",), call(
        "transformer_decoder", lambda self, original, memory: mx.fast.layer_norm(original(self, memory), None, None, 1e-5)
    ))  # fmt: skip
    yield Fault("transformer: the last layer skipped", "transformer", ("head.0 <-", f"{last}"), call(
        last, lambda self, original, query, x, memory, mask: query
    ))  # fmt: skip
    yield Fault(
        "transformer: chunks in reverse",
        "transformer",
        ("input_proj <-",),
        call("", lambda self, original, x: original(self, x[:, ::-1])),
    )


def ramn_faults() -> Iterator[Fault]:
    """Of head retrieve, which holds all that head regress does but its map."""

    def fault(name: str, place: str, plant: Plant) -> Fault:
        return Fault(f"ramn: {name}", "ramn", (place,), plant)

    def attribute(name: str, change: Callable[[mx.array], mx.array]) -> Plant:
        return lambda model: patch(model, name, change(model[name]))

    def reordered(self: Any, original: Callable, mixtures: mx.array, *others: Any) -> mx.array:
        return original(self, mixtures[:, ::-1], *others)

    def first_alone(
        self: Any, original: Callable, own: Any, mixtures: mx.array, asked: Any
    ) -> tuple[mx.array, mx.array]:
        return (own.filter[0] * mixtures).sum(axis=-2), original(self, own, mixtures, asked)[1]

    yield fault("ages counted from the first chunk", "basis <-", attribute("_kernels", lambda k: k[:, ::-1]))
    yield fault(
        "ages one too high",
        "basis <-",
        attribute("_kernels", lambda k: mx.concatenate([k[:, 1:], k[:, :1]], axis=1)),
    )
    yield fault(
        "slowest average missing",
        "basis <-",
        attribute("_kernels", lambda k: k * (mx.arange(12)[:, None] != 10)),
    )
    yield fault("mixtures in another order", "net.0 <-", method("", "hidden", reordered))
    yield fault(
        "number of chunks left out",
        "net.0 <-",
        method("", "hidden", lambda self, original, m, n, asked: original(self, m, 0 * n, asked)),
    )
    yield fault("filter of the first mixture everywhere", "baseline", method("", "filtered", first_alone))

    def blended(run: Callable[..., mx.array]) -> Plant:
        return method("", "blended", lambda self, original, *args: run(self, original, *args))

    def plain(self: Any, here: mx.array, elsewhere: mx.array, trust: mx.array, last: mx.array) -> mx.array:
        return (
            self.blend[0] * ((elsewhere + trust * (here - elsewhere)) @ self.basis.weight)
            + self.blend[1] * last
        )

    yield fault(
        "trusted in every domain",
        "baseline",
        method("", "trust", lambda self, original, m: mx.ones_like(original(self, m))),
    )
    yield fault(
        "trust without its slope",
        "baseline",
        method("", "trust", lambda self, original, m: original(self, m) ** 0.5),
    )
    for name, run in {
        "nothing made a unit vector before it is blended": lambda self, original, h, e, t, last: plain(self, h, e, t, last),
        "only what is for here made a unit vector": lambda self, original, h, e, t, last: plain(
            self, ramn_module.normalize(h), e, t, last
        ),
        "made a unit vector after it is mixed": lambda self, original, h, e, t, last: plain(
            self, ramn_module.normalize(e + t * (h - e)), 0 * e, mx.ones_like(t), last
        ),
        "the last chunk left out of the blend": lambda self, original, h, e, t, last: original(self, h, e, t, 0 * last),
        "the last chunk blended where trusted alone": lambda self, original, h, e, t, last: original(self, h, e, t, t * last),
        "the last chunk less the mean": lambda self, original, h, e, t, last: original(self, h, e, t, last - self.mean),
        "the blend's weights swapped": lambda self, original, h, e, t, last: self.blend[1] / self.blend[0]
        * (original(self, h, e, t, 0 * last)) + self.blend[0] * last,
        "here and elsewhere swapped": lambda self, original, h, e, t, last: original(self, e, h, t, last),
    }.items():  # fmt: skip
        yield fault(name, "baseline", blended(run))
    for name, run in {
        "nothing pushed out": lambda self, original, z, q, old: 0 * old,
        "the last five pushed out as well": lambda self, original, z, q, old: original(self, z, q, mx.ones_like(old)),
        "pushed without a threshold": lambda self, original, z, q, old: mx.exp(self.push_strength)
        * nn.softplus((z @ q[:, :, None]).squeeze(-1)) * old,
        "pushed by relu": lambda self, original, z, q, old: mx.exp(self.push_strength)
        * nn.relu((z @ q[:, :, None]).squeeze(-1) - self.push_threshold) * old,
    }.items():  # fmt: skip
        yield fault(name, "residual", method("", "push_weights", run))


def filter_faults() -> Iterator[Fault]:
    """Told by the output alone: a filter has no layers."""

    def forward(change: Callable[[Any, mx.array], mx.array]) -> Plant:
        def run(self: Any, original: Callable, context: mx.array) -> Prediction:
            raw = original(self, context).raw + change(self, context)
            return Prediction(raw, filter_module.normalize(raw))

        return call("", run)

    def rest(self: Any, context: mx.array, lagged: mx.array) -> mx.array:
        """What is missing from the lags' part when the chunks `lagged`, last first, stand in their place."""
        length, lags = context.shape[1], self.config.lags
        right = context[:, [max(length - 1 - lag, 0) for lag in range(lags)]]
        return self.lag_weights @ lagged - self.lag_weights @ right

    def lagged(self: Any, context: mx.array, shift: int) -> mx.array:
        return context[:, [max(context.shape[1] - 1 - lag - shift, 0) for lag in range(self.config.lags)]]

    for name, change in {
        "lags from the first chunk on": lambda self, x: rest(
            self, x, x[:, [min(k, x.shape[1] - 1) for k in range(self.config.lags)]]
        ),
        "lags one too many": lambda self, x: rest(self, x, lagged(self, x, 1)),
        "nothing where the first chunk is passed": lambda self, x: rest(
            self, x, lagged(self, x, 0) * (mx.arange(self.config.lags) < x.shape[1])[:, None]
        ),
        "mean taken with weight 1": lambda self, x: (1 - self.mean_weight) * self.mean,
        "no centroid": lambda self, x: -self.centroid_weight * x.mean(axis=1),
        "centroid of the chunks before the last": lambda self, x: (
            self.centroid_weight * (x[:, :-1].mean(axis=1) - x.mean(axis=1))
        ),
    }.items():
        yield Fault(f"filter: {name}", "filter", ("raw",), forward(change))


def equivalents() -> Iterator[Fault]:
    """Changes that leave the function as it is: the checks must stay silent."""

    def shifted(self: Any, original: Callable, context: mx.array, baseline: mx.array) -> mx.array:
        query = self.query_encoder(baseline)
        scores = (self.context_encoder(context) @ query[:, :, None]).squeeze(-1)
        return mx.softmax(scores / math.sqrt(self.config.attention_dim), axis=-1)

    yield Fault("amn: every chunk projected, key bias included", "amn", (), method("", "attend", shifted),
                equivalent="softmax ignores a number added to all scores, so the bias of the keys has no influence")  # fmt: skip
    keyless = method(
        "transformer_decoder.layers.0.self_attn", "project",
        lambda self, original, q, m: (lambda a, k, v: (a, k - mx.split(self.in_proj_bias, 3)[1], v))(*original(self, q, m)),
    )  # fmt: skip
    yield Fault("transformer: keys without bias", "transformer", (), keyless,
                equivalent="q . b_k is the same for all keys of a query, and softmax ignores it")  # fmt: skip
    yield Fault("lstm: another dropout rate", "lstm", (), lambda model: patch(model.lstm.dropout, "_p_1", 0.5),
                equivalent="dropout does nothing in evaluation")  # fmt: skip
    yield Fault("transformer: the last layer on all positions", "transformer", (), call(
        "transformer_decoder", _all_positions
    ), equivalent="a position never reads what other positions became in the same layer")  # fmt: skip


def _all_positions(self: Any, original: Callable, memory: mx.array) -> mx.array:
    x, mask = memory, transformer_module.causal_mask(memory.shape[1])
    for layer in self.layers:
        x = layer(x, x, memory, mask)
    return x[:, -1:]
