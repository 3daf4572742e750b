"""Faults of the transformer: masks, the order of its parts, its attention and its positions."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from typing import Any

from mlx_lvm.core.mlx import mx, nn
from mlx_lvm.models import transformer as transformer_module
from mlx_lvm.parity.faults.planting import REVERSED, Fault, call, config_of, method, of, replacing

END = "head.3"


def faults() -> Iterator[Fault]:
    """Its own, and two changes that nothing can notice."""
    fault = of("transformer")
    layer0, last = "transformer_decoder.layers.0", "transformer_decoder.layers.1"

    def same(mask: Any) -> Any:
        return mask

    def none(mask: Any) -> None:
        return None

    def decoder_layer(
        own: Callable = same,
        cross: Callable = same,
        to_input: bool = False,
        activation: Callable = nn.relu,
        keep_first: int = 1,
        keep_last: int = 1,
    ) -> Callable:
        """A layer with one thing changed: its masks, what it attends to, an activation, a residual."""

        def run(self: Any, q: mx.array, x: mx.array, memory: mx.array, mask: Any) -> mx.array:
            q = self.norm1(keep_first * q + self.self_attn(q, x, own(mask)))
            q = self.norm2(q + self.multihead_attn(q, x if to_input else memory, cross(mask)))
            return self.norm3(keep_last * q + self.linear2(activation(self.linear1(q))))

        return run

    def layer(name: str, expect: str, function: Callable, module: str = layer0) -> Fault:
        return fault(name, f"{module}.{expect}", call(module, lambda self, original, *x: function(self, *x)))

    def late_mask(length: int, dtype: mx.Dtype = mx.float32) -> mx.array:
        return mx.triu(mx.full((length, length), -mx.inf, dtype), k=2)

    def cross_first(self: Any, q: mx.array, x: mx.array, memory: mx.array, mask: Any) -> mx.array:
        c = self.norm2(q + self.multihead_attn(q, memory, mask))
        p = self.norm1(c + self.self_attn(c, c, mask))
        return self.norm3(p + self.linear2(nn.relu(self.linear1(p))))

    def norm_first(self: Any, q: mx.array, x: mx.array, memory: mx.array, mask: Any) -> mx.array:
        n = self.norm1(q)
        c = q + self.self_attn(n, n, mask)
        p = c + self.multihead_attn(self.norm2(c), memory, mask)
        return p + self.linear2(nn.relu(self.linear1(self.norm3(p))))

    late = replacing(transformer_module, "causal_mask", late_mask)
    yield fault("mask off by one, seeing the next", f"{layer0}.self_attn", late)
    yield layer("no mask on self-attention", "self_attn", decoder_layer(own=none))
    yield layer("no mask on cross-attention", "multihead_attn", decoder_layer(cross=none))
    yield layer("mask reversed", "self_attn", decoder_layer(own=lambda mask: mask.T))
    to_input = decoder_layer(to_input=True)
    yield layer("cross-attention to the layer's input", "multihead_attn <-", to_input, last)
    yield layer("cross-attention before self-attention", "self_attn <-", cross_first)
    yield layer("norm before attention", "self_attn <-", norm_first)
    yield layer("gelu in the feed-forward network", "linear2 <-", decoder_layer(activation=nn.gelu))
    yield layer("no residual around the feed-forward network", "norm3 <-", decoder_layer(keep_last=0))
    yield layer("no residual around self-attention", "norm1 <-", decoder_layer(keep_first=0))

    attends = f"{layer0}.self_attn"

    def attention(name: str, change: Callable, why: str = "") -> Fault:
        """Other queries, keys and values; change(q, k, v, their biases). why: nothing can notice it."""

        def run(self: Any, original: Callable, query: mx.array, memory: mx.array) -> Any:
            return change(*original(self, query, memory), mx.split(self.in_proj_bias, 3))

        return fault(name, () if why else attends, method(attends, "project", run), why)

    small = config_of("transformer")
    unscaled = math.sqrt(small.hidden_dim // small.heads)
    yield attention("scores not scaled", lambda q, k, v, bias: (q * unscaled, k, v))
    yield attention("scores scaled by the whole width", lambda q, k, v, bias: (q * 0.5, k, v))
    yield attention("queries and keys swapped", lambda q, k, v, bias: (k, q, v))
    yield attention("keys and values swapped", lambda q, k, v, bias: (q, v, k))
    yield attention("values without bias", lambda q, k, v, bias: (q, k, v - bias[2]))
    yield attention("queries without bias", lambda q, k, v, bias: (q - bias[0], k, v))

    def interleaved(self: Any, original: Callable, x: mx.array) -> mx.array:
        return mx.unflatten(x, -1, (-1, self.heads)).transpose(0, 3, 1, 2)

    yield fault("heads interleaved", attends, method(attends, "split_heads", interleaved))

    def positions(name: str, function: Callable[[mx.array, mx.array, int], mx.array]) -> Fault:
        """function(x, the table of positions, length)."""
        plant = call("pos_encoder", lambda self, original, x: function(x, self._pe, x.shape[1]))
        return fault(name, "pos_encoder", plant)

    def halves(x: mx.array, pe: mx.array, n: int) -> mx.array:
        return x + mx.concatenate([pe[..., 0::2], pe[..., 1::2]], axis=-1)[:, :n]

    yield positions("positions from one", lambda x, pe, n: x + pe[:, 1 : n + 1])
    yield positions("positions reversed", lambda x, pe, n: x + pe[:, :n][:, ::-1])
    yield positions("no positions", lambda x, pe, n: x)
    root = math.sqrt(small.hidden_dim)
    yield positions("input scaled by the root of the width", lambda x, pe, n: x * root + pe[:, :n])
    yield positions("sines and cosines in halves", halves)

    def normalised(self: Any, original: Callable, memory: mx.array) -> mx.array:
        return mx.fast.layer_norm(original(self, memory), None, None, 1e-5)

    def all_positions(self: Any, original: Callable, memory: mx.array) -> mx.array:
        x, mask = memory, transformer_module.causal_mask(memory.shape[1])
        for layer in self.layers:
            x = layer(x, x, memory, mask)
        return x[:, -1:]

    yield fault("a norm after the last layer", "head.0 <-", call("transformer_decoder", normalised))
    skipped = call(last, lambda self, original, query, *given: query)
    yield fault("the last layer skipped", ("head.0 <-", last), skipped)
    yield fault("chunks in reverse", "input_proj <-", REVERSED)
    why = "q . b_k is the same for all keys of a query, and softmax ignores it"
    yield attention("keys without bias", lambda q, k, v, bias: (q, k - bias[1], v), why)
    why = "a position never reads what other positions became in the same layer"
    yield fault("the last layer on all positions", (), call("transformer_decoder", all_positions), why)
