"""Faults to plant in the MLX side: what a port gets wrong, each with the place that the checks must blame.

A fault changes a built model, or functions that the models or the training step call, for as long as it is planted.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass
from typing import Any

import numpy as np

from mlx_lvm.backend import mx, nn
from mlx_lvm.models import MODELS, Prediction, VectorModel, build, layers
from mlx_lvm.models import amn as amn_module
from mlx_lvm.models import filter as filter_module
from mlx_lvm.models import gru as gru_module
from mlx_lvm.models import lstm as lstm_module
from mlx_lvm.models import ramn as ramn_module
from mlx_lvm.models import transformer as transformer_module
from mlx_lvm.parity.faults_training import TRAINING_FAULTS

Plant = Callable[[VectorModel], AbstractContextManager[None]]
MODULES = {
    "amn": amn_module,
    "lstm": lstm_module,
    "gru": gru_module,
    "transformer": transformer_module,
    "ramn": ramn_module,
    "filter": filter_module,
}
SIZES = {
    "amn": {"dim": 48, "attention_dim": 24, "hidden_dim": 32},
    "lstm": {"dim": 48, "hidden_dim": 32, "layers": 2},
    "gru": {"dim": 48, "hidden_dim": 32, "layers": 2},
    "transformer": {"dim": 48, "hidden_dim": 32, "layers": 2, "heads": 4, "ffn_dim": 64},
    "ramn": {"dim": 48, "head": "retrieve", "rank": 20, "hidden_dim": 32},
    "filter": {"dim": 48, "lags": 4, "centroid": True},
}


@dataclass(frozen=True)
class Fault:
    """expect: beginnings of the places that may rightly be blamed. stage: `model` or `training`."""

    name: str
    model: str
    expect: tuple[str, ...]
    plant: Plant
    stage: str = "model"
    equivalent: str = ""  # why nothing can notice it; such a fault must go unnoticed


def config_of(model: str) -> Any:
    return MODELS[model][1](**SIZES[model])


def all_faults() -> list[Fault]:
    """Every fault, equivalent ones included."""
    found: list[Fault] = []
    for model in MODELS:
        found += [*nudges(model), *roundings(model), *linear_faults(model), *norm_faults(model), *output_faults(model)]
    found += [
        *gelu_faults(),
        *amn_faults(),
        *lstm_faults(),
        *gru_faults(),
        *transformer_faults(),
        *ramn_faults(),
        *filter_faults(),
        *equivalents(),
    ]
    found += [Fault(f"training: {name}", "amn", expect, _patched(patch), "training") for name, expect, patch in TRAINING_FAULTS]
    return found


# How a fault is planted


@contextmanager
def patch(target: Any, name: str, value: Any) -> Iterator[None]:
    before = getattr(target, name)
    setattr(target, name, value)
    try:
        yield
    finally:
        setattr(target, name, before)


def _patched(patches: Callable[[], AbstractContextManager[None]]) -> Plant:
    return lambda model: patches()


def method(module: str, name: str, function: Callable) -> Plant:
    """`function(self, original, *args)` in place of a submodule's method; `module` empty is the model itself."""

    @contextmanager
    def plant(model: VectorModel) -> Iterator[None]:
        target: Any = dict(model.named_modules())[module]
        kind = type(target)
        original = getattr(kind, name)
        target.__class__ = type(kind.__name__, (kind,), {name: lambda self, *args: function(self, original, *args)})
        try:
            yield
        finally:
            target.__class__ = kind

    return plant


def call(module: str, function: Callable) -> Plant:
    return method(module, "__call__", function)


def cell(name: str, function: Callable) -> Plant:
    return lambda model: patch(layers, name, function)


def value(change: Callable[[dict[str, mx.array]], dict[str, mx.array]]) -> Plant:
    """Other weights in the MLX model than in the file."""

    @contextmanager
    def plant(model: VectorModel) -> Iterator[None]:
        before = model.weights()
        model.load_weights(list({**before, **change(before)}.items()))
        try:
            yield
        finally:
            model.load_weights(list(before.items()))

    return plant


# Weights


def nudges(model: str) -> Iterator[Fault]:
    """One element of one parameter, up by one unit in its last place."""
    for name in build(config_of(model)).weights():

        def change(weights: dict[str, mx.array], name: str = name) -> dict[str, mx.array]:
            flat = np.array(weights[name]).reshape(-1)
            flat[flat.size // 2] = np.nextafter(flat[flat.size // 2], np.float32(np.inf))
            return {name: mx.array(flat.reshape(weights[name].shape))}

        yield Fault(f"{model}: one bit of {name}", model, (name,), value(change))


def roundings(model: str) -> Iterator[Fault]:
    """All weights through a shorter format on the way in."""

    def tf32(x: mx.array) -> mx.array:
        return ((x.view(mx.uint32) + 0x1000) & 0xFFFFE000).view(mx.float32)

    formats: dict[str, Callable[[mx.array], mx.array]] = {
        "float16": lambda x: x.astype(mx.float16).astype(mx.float32),
        "bfloat16": lambda x: x.astype(mx.bfloat16).astype(mx.float32),
        "TF32": tf32,
    }
    first = sorted(build(config_of(model)).weights())[0]
    for name, rounded in formats.items():
        yield Fault(
            f"{model}: weights rounded to {name}", model, (first,),
            value(lambda weights, rounded=rounded: {key: rounded(v) for key, v in weights.items()}),
        )  # fmt: skip


def linear_faults(model: str) -> Iterator[Fault]:
    """Every linear layer without its bias, with it twice, and (where square) transposed."""

    def unbiased(self: Any, original: Callable, x: mx.array) -> mx.array:
        return x @ self.weight.T

    def twice(self: Any, original: Callable, x: mx.array) -> mx.array:
        return original(self, x) + self.bias

    def turned(self: Any, original: Callable, x: mx.array) -> mx.array:
        return x @ self.weight + (self.bias if "bias" in self else 0)

    for name, module in build(config_of(model)).named_modules():
        if isinstance(module, nn.Linear):
            place = (name.removesuffix(".out_proj"),)  # inside torch's attention, out_proj is no call of its own
            if "bias" in module:
                yield Fault(f"{model}: {name} without bias", model, place, call(name, unbiased))
                yield Fault(f"{model}: {name} with its bias twice", model, place, call(name, twice))
            if module.weight.shape[0] == module.weight.shape[1]:
                yield Fault(f"{model}: {name} transposed", model, place, call(name, turned))


def norm_faults(model: str) -> Iterator[Fault]:
    """Every LayerNorm with another epsilon, without its bias, and with the sample variance."""

    def sample(self: Any, original: Callable, x: mx.array) -> mx.array:
        centred = x - x.mean(axis=-1, keepdims=True)
        variance = mx.square(centred).sum(axis=-1, keepdims=True) / (x.shape[-1] - 1)
        return centred * mx.rsqrt(variance + self.eps) * self.weight + self.bias

    for name, module in build(config_of(model)).named_modules():
        if isinstance(module, nn.LayerNorm):
            for eps in (1e-6, 1e-12):
                yield Fault(f"{model}: {name} with epsilon {eps:g}", model, (name,), epsilon(name, eps))
            yield Fault(
                f"{model}: {name} without bias", model, (name,), call(name, lambda self, original, x: original(self, x) - self.bias)
            )
            yield Fault(f"{model}: {name} with the sample variance", model, (name,), call(name, sample))


def epsilon(name: str, eps: float) -> Plant:
    return lambda model: patch(dict(model.named_modules())[name], "eps", eps)


def output_faults(model: str) -> Iterator[Fault]:
    """The end that all models share."""

    def normalised(function: Callable[[mx.array], mx.array]) -> Plant:
        return lambda _: patch(MODULES[model], "normalize", function)

    yield Fault(f"{model}: not normalised", model, ("unit",), normalised(lambda x: x))
    yield Fault(
        f"{model}: normalised by the sum of magnitudes", model, ("unit",), normalised(lambda x: x / mx.abs(x).sum(-1, keepdims=True))
    )
    yield Fault(
        f"{model}: normalised with 1e-5 added to the norm", model, ("unit",),
        normalised(lambda x: x / (mx.linalg.norm(x, axis=-1, keepdims=True) + 1e-5)),
    )  # fmt: skip
    if model == "filter":  # ends without a layer
        return
    end = {"amn": "residual_net.6", "transformer": "head.3", "ramn": "net.7"}.get(model, "output_proj")
    yield Fault(
        f"{model}: {end} multiplied in bfloat16", model, (end,),
        call(end, lambda self, original, x: original(self, x.astype(mx.bfloat16).astype(mx.float32))),
    )  # fmt: skip


def gelu_faults() -> Iterator[Fault]:
    for model, names in {"amn": ("residual_net.1", "residual_net.4"), "transformer": ("head.1",), "ramn": ("net.2", "net.5")}.items():
        for name in names:
            yield Fault(f"{model}: {name} by tanh", model, (name,), call(name, lambda self, original, x: nn.gelu_approx(x)))
            yield Fault(f"{model}: {name} by sigmoid", model, (name,), call(name, lambda self, original, x: nn.gelu_fast_approx(x)))
            yield Fault(f"{model}: {name} as relu", model, (name,), call(name, lambda self, original, x: nn.relu(x)))


# Architectures


def amn_faults() -> Iterator[Fault]:
    def attend(scale: float, query: Callable[[Any, mx.array], mx.array] | None = None) -> Plant:
        def run(self: Any, original: Callable, context: mx.array, baseline: mx.array) -> mx.array:
            q = (query(self, baseline) if query else self.query_encoder(baseline)) @ self.context_encoder.weight
            return mx.softmax((context @ q[:, :, None]).squeeze(-1) * scale, axis=-1)

        return method("", "attend", run)

    def forward(weigh: Callable, join: Callable, mean: Callable = lambda x: x.mean(axis=1), end: Callable = lambda b, r: b + r) -> Plant:
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

    width, glue = SIZES["amn"]["attention_dim"], ("residual_net.0 <-",)
    yield Fault("amn: scores divided by the width, not its root", "amn", ("attention",), attend(1 / width))
    yield Fault("amn: scores not scaled", "amn", ("attention",), attend(1.0))
    yield Fault("amn: scores scaled by the embedding's width", "amn", ("attention",), attend(1 / math.sqrt(SIZES["amn"]["dim"])))
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
    yield Fault("amn: the mean in place of the mixture", "amn", glue, forward(lambda a, x: x.mean(axis=1), pair))
    yield Fault("amn: mixture and baseline swapped", "amn", glue, forward(mix, lambda b, w: pair(w, b)))
    yield Fault("amn: sum in place of the mean", "amn", ("baseline",), forward(mix, pair, mean=lambda x: x.sum(axis=1)))
    yield Fault("amn: mean without the first chunk", "amn", ("baseline",), forward(mix, pair, mean=lambda x: x[:, 1:].mean(axis=1)))
    yield Fault("amn: no baseline in the output", "amn", ("raw",), forward(mix, pair, end=lambda b, r: r))
    yield Fault("amn: residual subtracted", "amn", ("raw",), forward(mix, pair, end=lambda b, r: b - r))


def recurrent(module: str, change: Callable) -> Plant:
    """`change(w_ih, w_hh, b_ih, b_hh)` before each layer runs."""
    return method(module, "run", lambda self, original, x, *weights: original(self, x, *change(*weights)))


def permuted(order: tuple[int, ...]) -> Callable:
    def change(*weights: mx.array) -> list[mx.array]:
        return [mx.concatenate([mx.split(w, len(order))[k] for k in order]) for w in weights]

    return change


def transposed(which: int, gate: int, gates: int) -> Callable:
    def change(*weights: mx.array) -> list[mx.array]:
        blocks = mx.split(weights[which], gates)
        blocks[gate] = blocks[gate].T
        return [mx.concatenate(blocks) if k == which else w for k, w in enumerate(weights)]

    return change


def lstm_faults() -> Iterator[Fault]:
    def fault(name: str, gates: str, plant: Plant) -> Fault:
        return Fault(f"lstm: {name}", "lstm", tuple(f"lstm.l0.t0.{gate}" for gate in gates), plant)

    yield fault("gates i and f swapped", "i", recurrent("lstm", permuted((1, 0, 2, 3))))
    yield fault("gates g and o swapped", "g", recurrent("lstm", permuted((0, 1, 3, 2))))
    yield fault("gates in the order i, f, o, g", "g", recurrent("lstm", permuted((0, 1, 3, 2))))
    yield fault("gates in the order f, i, o, g", "i", recurrent("lstm", permuted((1, 0, 3, 2))))
    yield fault("input bias dropped", "i", recurrent("lstm", lambda a, b, c, d: (a, b, 0 * c, d)))
    yield fault("hidden bias dropped", "i", recurrent("lstm", lambda a, b, c, d: (a, b, c, 0 * d)))
    yield fault("input bias twice", "i", recurrent("lstm", lambda a, b, c, d: (a, b, 2 * c, d)))
    yield fault(
        "one added to the forget bias", "f", recurrent("lstm", lambda a, b, c, d: (a, b, c + mx.repeat(mx.array([0.0, 1, 0, 0]), 32), d))
    )
    for gate, name in enumerate("ifgo"):
        yield Fault(
            f"lstm: hidden weights of gate {name} transposed", "lstm", (f"lstm.l0.t1.{name}",), recurrent("lstm", transposed(1, gate, 4))
        )

    def with_cell(function: Callable) -> Plant:
        def lstm_cell(cell: mx.array, i: mx.array, f: mx.array, g: mx.array, o: mx.array) -> tuple[mx.array, mx.array]:
            return function(cell, i, f, g, o)

        return globals()["cell"]("lstm_cell", lstm_cell)

    sigmoid, tanh = mx.sigmoid, mx.tanh

    def standard(cell: mx.array, i: mx.array, f: mx.array, g: mx.array) -> mx.array:
        return sigmoid(f) * cell + sigmoid(i) * tanh(g)

    yield fault("no tanh on the cell", "h", with_cell(lambda c, i, f, g, o: (sigmoid(o) * (n := standard(c, i, f, g)), n)))
    yield fault("candidate by sigmoid", "c", with_cell(lambda c, i, f, g, o: (sigmoid(o) * tanh(n := standard(c, i, f, 2 * g)), n)))
    yield fault("output gate by tanh", "h", with_cell(lambda c, i, f, g, o: (tanh(o) * tanh(n := standard(c, i, f, g)), n)))
    yield Fault(
        "lstm: coupled gates, f = 1 - i", "lstm", ("lstm.l0.t1.c",),
        with_cell(lambda c, i, f, g, o: (sigmoid(o) * tanh(n := standard(c, i, -i, g)), n)),
    )  # fmt: skip
    yield Fault("lstm: the first step in place of the last", "lstm", ("lstm",), _last_step("lstm", 0))
    yield Fault("lstm: the step before the last", "lstm", ("lstm",), _last_step("lstm", -2))
    yield Fault("lstm: chunks in reverse", "lstm", ("lstm <-",), call("", lambda self, original, x: original(self, x[:, ::-1])))
    yield Fault(
        "lstm: one layer skipped",
        "lstm",
        ("lstm.l0", "lstm"),
        method("lstm", "run", lambda self, original, x, *w: original(self, x, *w)[::-1]),
    )


def _last_step(module: str, step: int) -> Plant:
    """The layer's output turned so that the model reads another step as the last."""
    return call(module, lambda self, original, x: mx.roll(original(self, x), -1 - step, axis=0) if step else original(self, x)[::-1])


def gru_faults() -> Iterator[Fault]:
    first = "blocks.0.gru"

    def fault(name: str, tap: str, plant: Plant) -> Fault:
        return Fault(f"gru: {name}", "gru", (f"{first}.l0.{tap}",), plant)

    yield fault("gates r and z swapped", "t0.r", recurrent(first, permuted((1, 0, 2))))
    yield fault("gates z and n swapped", "t0.z", recurrent(first, permuted((0, 2, 1))))
    yield fault("input bias dropped", "t0.r", recurrent(first, lambda a, b, c, d: (a, b, 0 * c, d)))
    yield fault("hidden bias dropped", "t0.r", recurrent(first, lambda a, b, c, d: (a, b, c, 0 * d)))
    yield fault("hidden bias twice", "t0.r", recurrent(first, lambda a, b, c, d: (a, b, c, 2 * d)))
    for gate, (name, hidden) in enumerate((("r", "r"), ("z", "z"), ("n", "n_hidden"))):
        yield fault(f"hidden weights of gate {name} transposed", f"t1.{hidden}", recurrent(first, transposed(1, gate, 3)))
        yield fault(f"input weights of gate {name} transposed", f"t0.{name}", recurrent(first, transposed(0, gate, 3)))

    def with_cell(function: Callable) -> Plant:
        def gru_cell(
            hidden: mx.array, r: mx.array, z: mx.array, n: mx.array, r_hidden: mx.array, z_hidden: mx.array, n_hidden: mx.array
        ) -> mx.array:
            return function(hidden, mx.sigmoid(r + r_hidden), mx.sigmoid(z + z_hidden), n, n_hidden)

        return globals()["cell"]("gru_cell", gru_cell)

    yield fault("candidate without the reset gate", "t0.h", with_cell(lambda h, r, z, n, m: (1 - z) * mx.tanh(n + m) + z * h))
    yield fault("reset gate on the whole candidate", "t0.h", with_cell(lambda h, r, z, n, m: (1 - z) * mx.tanh(r * (n + m)) + z * h))
    yield fault("update gate inverted", "t0.h", with_cell(lambda h, r, z, n, m: z * mx.tanh(n + r * m) + (1 - z) * h))
    yield fault("candidate by sigmoid", "t0.h", with_cell(lambda h, r, z, n, m: (1 - z) * mx.sigmoid(n + r * m) + z * h))

    def reset_first(self: Any, original: Callable, x: mx.array, w_ih: mx.array, w_hh: mx.array, b_ih: mx.array, b_hh: mx.array) -> mx.array:
        """The other GRU of the literature: W_hn (r h) in place of r (W_hn h + b_hn)."""
        hidden, steps = mx.zeros((x.shape[1], w_hh.shape[1])), []
        for t in range(x.shape[0]):
            given = mx.split(x[t] @ w_ih.T + b_ih, 3, axis=-1)
            w, b = mx.split(w_hh, 3), mx.split(b_hh, 3)
            r_h, z_h = hidden @ w[0].T + b[0], hidden @ w[1].T + b[1]
            n_h = (mx.sigmoid(given[0] + r_h) * hidden) @ w[2].T + b[2]
            hidden = layers.gru_cell(hidden, *given, r_h, z_h, n_h)
            steps.append(hidden)
        return mx.stack(steps)

    yield fault("reset gate before the product", "t1.n_hidden", method(first, "run", reset_first))
    yield Fault("gru: no residual", "gru", ("blocks.0.norm <-",), call("blocks.0", lambda self, original, x: self.norm(self.gru(x))))
    yield Fault("gru: norm before the residual", "gru", ("blocks.0.norm <-", "blocks.1.gru <-"), call(
        "blocks.0", lambda self, original, x: x + self.norm(self.gru(x))
    ))  # fmt: skip
    yield Fault(
        "gru: norm of the input", "gru", ("blocks.0.gru <-",), call("blocks.0", lambda self, original, x: x + self.gru(self.norm(x)))
    )
    yield Fault("gru: the first step in place of the last", "gru", ("blocks.1", "output_proj <-"), _last_step("blocks.1", 0))
    yield Fault("gru: chunks in reverse", "gru", ("input_proj <-",), call("", lambda self, original, x: original(self, x[:, ::-1])))


def transformer_faults() -> Iterator[Fault]:
    layer0, last = "transformer_decoder.layers.0", "transformer_decoder.layers.1"

    def decoder_layer(function: Callable, module: str = layer0) -> Plant:
        return call(module, lambda self, original, query, x, memory, mask: function(self, query, x, memory, mask))

    def parts(self: Any, q: mx.array, x: mx.array, memory: mx.array, mask: Any, cross: Any, order: str = "post") -> mx.array:
        q = self.norm1(q + self.self_attn(q, x, mask))
        q = self.norm2(q + self.multihead_attn(q, memory, cross))
        return self.norm3(q + self.linear2(nn.relu(self.linear1(q))))

    def masked(k: int) -> Plant:
        return lambda _: patch(
            transformer_module, "causal_mask", lambda length, dtype=mx.float32: mx.triu(mx.full((length, length), -mx.inf, dtype), k=k)
        )

    def layer(name: str, expect: str, function: Callable, module: str = layer0) -> Fault:
        return Fault(f"transformer: {name}", "transformer", (f"{module}.{expect}",), decoder_layer(function, module))

    yield Fault("transformer: mask off by one, seeing the next", "transformer", (f"{layer0}.self_attn",), masked(2))
    yield layer("no mask on self-attention", "self_attn", lambda s, q, x, m, mask: parts(s, q, x, m, None, mask))
    yield layer("no mask on cross-attention", "multihead_attn", lambda s, q, x, m, mask: parts(s, q, x, m, mask, None))
    yield layer("mask reversed", "self_attn", lambda s, q, x, m, mask: parts(s, q, x, m, mask.T, mask))
    yield layer("cross-attention to the layer's input", "multihead_attn <-", lambda s, q, x, m, mask: parts(s, q, x, x, mask, mask), last)
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

        return Fault(f"transformer: {name}", "transformer", (f"{layer0}.self_attn",), method(f"{layer0}.self_attn", "project", run))

    yield attention("scores not scaled", lambda self, q, k, v: (q / self.scale, k, v))
    yield attention("scores scaled by the whole width", lambda self, q, k, v: (q * 0.5, k, v))
    yield attention("queries and keys swapped", lambda self, q, k, v: (k, q, v))
    yield attention("keys and values swapped", lambda self, q, k, v: (q, v, k))
    yield attention("values without bias", lambda self, q, k, v: (q, k, v - mx.split(self.in_proj_bias, 3)[2]))
    yield attention("queries without bias", lambda self, q, k, v: (q - mx.split(self.in_proj_bias, 3)[0], k, v))

    def interleaved(self: Any, original: Callable, x: mx.array) -> mx.array:
        return mx.unflatten(x, -1, (-1, self.heads)).transpose(0, 3, 1, 2)

    yield Fault(
        "transformer: heads interleaved", "transformer", (f"{layer0}.self_attn",), method(f"{layer0}.self_attn", "split_heads", interleaved)
    )

    def positions(function: Callable) -> Plant:
        return call("pos_encoder", lambda self, original, x: function(x, self._pe))

    yield Fault("transformer: positions from one", "transformer", ("pos_encoder",), positions(lambda x, pe: x + pe[:, 1 : x.shape[1] + 1]))
    yield Fault(
        "transformer: positions reversed", "transformer", ("pos_encoder",), positions(lambda x, pe: x + pe[:, : x.shape[1]][:, ::-1])
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
        "transformer: chunks in reverse", "transformer", ("input_proj <-",), call("", lambda self, original, x: original(self, x[:, ::-1]))
    )


def ramn_faults() -> Iterator[Fault]:
    """Of head retrieve, which holds all that head regress does but its map."""

    def fault(name: str, place: str, plant: Plant) -> Fault:
        return Fault(f"ramn: {name}", "ramn", (place,), plant)

    def attribute(name: str, change: Callable[[mx.array], mx.array]) -> Plant:
        return lambda model: patch(model, name, change(model[name]))

    def reordered(self: Any, original: Callable, mixtures: mx.array, count: mx.array) -> mx.array:
        return original(self, mixtures[:, ::-1], count)

    yield fault("ages counted from the first chunk", "basis <-", attribute("_kernels", lambda k: k[:, ::-1]))
    yield fault("ages one too high", "basis <-", attribute("_kernels", lambda k: mx.concatenate([k[:, 1:], k[:, :1]], axis=1)))
    yield fault("slowest average missing", "basis <-", attribute("_kernels", lambda k: k * (mx.arange(12)[:, None] != 10)))
    yield fault("mixtures in another order", "net.0 <-", method("", "correction", reordered))
    yield fault("number of chunks left out", "net.0 <-", method("", "correction", lambda self, original, m, n: original(self, m, 0 * n)))
    yield fault("filter of the first mixture everywhere", "baseline", method(
        "", "anchor", lambda self, original, m: (self.filter[0] * m).sum(axis=-2)
    ))  # fmt: skip
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
        "lags from the first chunk on": lambda self, x: rest(self, x, x[:, [min(k, x.shape[1] - 1) for k in range(self.config.lags)]]),
        "lags one too many": lambda self, x: rest(self, x, lagged(self, x, 1)),
        "nothing where the first chunk is passed": lambda self, x: rest(
            self, x, lagged(self, x, 0) * (mx.arange(self.config.lags) < x.shape[1])[:, None]
        ),
        "mean taken with weight 1": lambda self, x: (1 - self.mean_weight) * self.mean,
        "no centroid": lambda self, x: -self.centroid_weight * x.mean(axis=1),
        "centroid of the chunks before the last": lambda self, x: self.centroid_weight * (x[:, :-1].mean(axis=1) - x.mean(axis=1)),
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
