"""Faults of the transformer: masks, the order of its parts, its attention and its positions."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from typing import Any

from mlx_lvm.core.mlx import mx, nn
from mlx_lvm.models import transformer as transformer_module
from mlx_lvm.parity.faults.planting import Fault, Plant, call, method, patch

END = "head.3"


def faults() -> Iterator[Fault]:
    """Its own, and two changes that nothing can notice."""
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
    yield layer(
        "cross-attention before self-attention",
        "self_attn <-",
        lambda s, q, x, m, mask: s.norm3(
            (p := s.norm1((c := s.norm2(q + s.multihead_attn(q, m, mask))) + s.self_attn(c, c, mask)))
            + s.linear2(nn.relu(s.linear1(p)))
        ),
    )
    yield layer(
        "norm before attention",
        "self_attn <-",
        lambda s, q, x, m, mask: (
            (p := (c := q + s.self_attn(n := s.norm1(q), n, mask)) + s.multihead_attn(s.norm2(c), m, mask))
            + s.linear2(nn.relu(s.linear1(s.norm3(p))))
        ),
    )
    yield layer(
        "gelu in the feed-forward network",
        "linear2 <-",
        lambda s, q, x, m, mask: s.norm3(
            (p := s.norm2((c := s.norm1(q + s.self_attn(q, x, mask))) + s.multihead_attn(c, m, mask)))
            + s.linear2(nn.gelu(s.linear1(p)))
        ),
    )
    yield layer(
        "no residual around the feed-forward network",
        "norm3 <-",
        lambda s, q, x, m, mask: s.norm3(
            s.linear2(
                nn.relu(
                    s.linear1(
                        s.norm2((c := s.norm1(q + s.self_attn(q, x, mask))) + s.multihead_attn(c, m, mask))
                    )
                )
            )
        ),
    )
    yield layer(
        "no residual around self-attention",
        "norm1 <-",
        lambda s, q, x, m, mask: s.norm3(
            (p := s.norm2((c := s.norm1(s.self_attn(q, x, mask))) + s.multihead_attn(c, m, mask)))
            + s.linear2(nn.relu(s.linear1(p)))
        ),
    )

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
    yield Fault(
        "transformer: input scaled by the root of the width",
        "transformer",
        ("pos_encoder",),
        positions(lambda x, pe: x * math.sqrt(x.shape[-1]) + pe[:, : x.shape[1]]),
    )
    yield Fault(
        "transformer: sines and cosines in halves",
        "transformer",
        ("pos_encoder",),
        positions(lambda x, pe: x + mx.concatenate([pe[..., 0::2], pe[..., 1::2]], axis=-1)[:, : x.shape[1]]),
    )
    yield Fault(
        "transformer: a norm after the last layer",
        "transformer",
        ("head.0 <-",),
        call(
            "transformer_decoder",
            lambda self, original, memory: mx.fast.layer_norm(original(self, memory), None, None, 1e-5),
        ),
    )
    yield Fault(
        "transformer: the last layer skipped",
        "transformer",
        ("head.0 <-", f"{last}"),
        call(last, lambda self, original, query, x, memory, mask: query),
    )
    yield Fault(
        "transformer: chunks in reverse",
        "transformer",
        ("input_proj <-",),
        call("", lambda self, original, x: original(self, x[:, ::-1])),
    )
    keyless = method(
        "transformer_decoder.layers.0.self_attn",
        "project",
        lambda self, original, q, m: (lambda a, k, v: (a, k - mx.split(self.in_proj_bias, 3)[1], v))(
            *original(self, q, m)
        ),
    )
    yield Fault(
        "transformer: keys without bias",
        "transformer",
        (),
        keyless,
        equivalent="q . b_k is the same for all keys of a query, and softmax ignores it",
    )
    yield Fault(
        "transformer: the last layer on all positions",
        "transformer",
        (),
        call("transformer_decoder", _all_positions),
        equivalent="a position never reads what other positions became in the same layer",
    )


def _all_positions(self: Any, original: Callable, memory: mx.array) -> mx.array:
    x, mask = memory, transformer_module.causal_mask(memory.shape[1])
    for layer in self.layers:
        x = layer(x, x, memory, mask)
    return x[:, -1:]
