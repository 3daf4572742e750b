"""Faults of RAMN: ages, filters, trust, what is blended and what is pushed out; and of its own training."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from functools import partial
from typing import Any

from mlx_lvm.core.mlx import mx, nn
from mlx_lvm.models import ramn as ramn_module
from mlx_lvm.parity.faults.documents import RETRIEVE
from mlx_lvm.parity.faults.planting import Fault, Plant, method, of, patch

END, UNIT = "net.7", ("unit", "baseline")  # it blends unit vectors before


def faults() -> Iterator[Fault]:
    """Of head retrieve, which holds all that head regress does but its map; and of its own training."""

    fault = of("ramn")

    def attribute(name: str, change: Callable[[mx.array], mx.array]) -> Plant:
        return lambda model: patch(model, name, change(model[name]))

    def reordered(self: Any, original: Callable, mixtures: mx.array, *others: Any) -> mx.array:
        return original(self, mixtures[:, ::-1], *others)

    def uncounted(self: Any, original: Callable, m: mx.array, n: mx.array, queried: Any) -> mx.array:
        return original(self, m, 0 * n, queried)

    def first_alone(self: Any, original: Callable, own: Any, mixtures: mx.array, queried: Any) -> tuple:
        return (own.filter[0] * mixtures).sum(axis=-2), original(self, own, mixtures, queried)[1]

    def later(k: mx.array) -> mx.array:
        return mx.concatenate([k[:, 1:], k[:, :1]], axis=1)

    faster = attribute("_kernels", lambda k: k * (mx.arange(12)[:, None] != 10))
    yield fault("ages counted from the first chunk", "basis <-", attribute("_kernels", lambda k: k[:, ::-1]))
    yield fault("ages one too high", "basis <-", attribute("_kernels", later))
    yield fault("slowest average missing", "basis <-", faster)
    yield fault("mixtures in another order", "net.0 <-", method("", "hidden", reordered))
    yield fault("number of chunks left out", "net.0 <-", method("", "hidden", uncounted))
    yield fault("filter of the first mixture everywhere", "baseline", method("", "filtered", first_alone))

    def trust(name: str, change: Callable[[mx.array], mx.array]) -> Fault:
        plant = method("", "trust", lambda self, original, m: change(original(self, m)))
        return fault(name, "baseline", plant)

    yield trust("trusted in every domain", mx.ones_like)
    yield trust("trust without its slope", lambda found: found**0.5)

    def plain(self: Any, here: mx.array, elsewhere: mx.array, trust: mx.array, beside: mx.array) -> mx.array:
        found = (elsewhere + trust * (here - elsewhere)) @ self.basis.weight
        return self.blend[0] * found + self.blend[1] * beside

    def swapped(s: Any, b: Callable, h: mx.array, e: mx.array, t: mx.array, last: mx.array) -> mx.array:
        return s.blend[1] / s.blend[0] * b(h, e, t, 0 * last) + s.blend[0] * last

    unit = ramn_module.normalize
    # self, its own blend, and what that is given: here, elsewhere, trust, what is beside them
    blends: dict[str, Callable[..., mx.array]] = {
        "nothing made a unit vector before it is blended": lambda s, b, *given: plain(s, *given),
        "only what is for here made a unit vector": lambda s, b, h, *given: plain(s, unit(h), *given),
        "made a unit vector after it is mixed": lambda s, b, h, e, t, last: plain(
            s, unit(e + t * (h - e)), 0 * e, mx.ones_like(t), last
        ),
        "nothing beside the direction": lambda s, b, h, e, t, beside: b(h, e, t, 0 * beside),
        "blended where trusted alone": lambda s, b, h, e, t, beside: b(h, e, t, t * beside),
        "the mean taken off what is beside": lambda s, b, h, e, t, beside: b(h, e, t, beside - s.mean),
        "the blend's weights swapped": swapped,
        "here and elsewhere swapped": lambda s, b, h, e, t, last: b(e, h, t, last),
    }
    for name, run in blends.items():
        yield fault(name, "baseline", method("", "blended", _given_own(run)))
    besides: dict[str, Callable[..., mx.array]] = {
        "falls back on the last chunk": lambda s, own, context: context[:, -1],
        "falls back on a unit vector": lambda s, own, context: unit(own(context)),
        "emn reads the window alone": lambda s, own, context: own(context[:, -2:]),
    }
    for name, run in besides.items():
        yield fault(name, "baseline", method("", "beside", _given_own(run)))

    def pushed(self: Any, activation: Callable, products: mx.array, old: mx.array) -> mx.array:
        return mx.exp(self.push_strength) * activation(products) * old

    # self, its own weights, and what those are given: chunks, query, which lie far back
    pushes: dict[str, Callable[..., mx.array]] = {
        "nothing pushed out": lambda s, w, z, q, old: 0 * old,
        "the last five pushed out as well": lambda s, w, z, q, old: w(z, q, mx.ones_like(old)),
        "pushed without a threshold": lambda s, w, z, q, old: pushed(
            s, nn.softplus, (z @ q[:, :, None]).squeeze(-1), old
        ),
        "pushed by relu": lambda s, w, z, q, old: pushed(
            s, nn.relu, (z @ q[:, :, None]).squeeze(-1) - s.push_threshold, old
        ),
    }
    for name, run in pushes.items():
        yield fault(name, "residual", method("", "push_weights", _given_own(run)))
    yield from RETRIEVE


def _given_own(run: Callable[..., mx.array]) -> Callable[..., mx.array]:
    """run(self, the method as it is, *args)."""
    return lambda self, original, *args: run(self, partial(original, self), *args)
