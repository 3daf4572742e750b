"""Faults of RAMN: ages, filters, trust, what is blended and what is pushed out; and of its own training."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

from mlx_lvm.core.mlx import mx, nn
from mlx_lvm.models import ramn as ramn_module
from mlx_lvm.parity.faults.documents import DOCUMENT_FAULTS
from mlx_lvm.parity.faults.planting import Fault, Plant, anyhow, method, patch

END, UNIT = "net.7", ("unit", "baseline")  # it blends unit vectors before


def faults() -> Iterator[Fault]:
    """Of head retrieve, which holds all that head regress does but its map; and of its own training."""

    def fault(name: str, place: str, plant: Plant) -> Fault:
        return Fault(f"ramn: {name}", "ramn", (place,), plant)

    def attribute(name: str, change: Callable[[mx.array], mx.array]) -> Plant:
        return lambda model: patch(model, name, change(model[name]))

    def reordered(self: Any, original: Callable, mixtures: mx.array, *others: Any) -> mx.array:
        return original(self, mixtures[:, ::-1], *others)

    def first_alone(
        self: Any, original: Callable, own: Any, mixtures: mx.array, queried: Any
    ) -> tuple[mx.array, mx.array]:
        return (own.filter[0] * mixtures).sum(axis=-2), original(self, own, mixtures, queried)[1]

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
        method("", "hidden", lambda self, original, m, n, queried: original(self, m, 0 * n, queried)),
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
        "nothing made a unit vector before it is blended": lambda self, original, h, e, t, last: plain(
            self, h, e, t, last
        ),
        "only what is for here made a unit vector": lambda self, original, h, e, t, last: plain(
            self, ramn_module.normalize(h), e, t, last
        ),
        "made a unit vector after it is mixed": lambda self, original, h, e, t, last: plain(
            self, ramn_module.normalize(e + t * (h - e)), 0 * e, mx.ones_like(t), last
        ),
        "the last chunk left out of the blend": lambda self, original, h, e, t, last: original(
            self, h, e, t, 0 * last
        ),
        "the last chunk blended where trusted alone": lambda self, original, h, e, t, last: original(
            self, h, e, t, t * last
        ),
        "the last chunk less the mean": lambda self, original, h, e, t, last: original(
            self, h, e, t, last - self.mean
        ),
        "the blend's weights swapped": lambda self, original, h, e, t, last: (
            self.blend[1] / self.blend[0] * (original(self, h, e, t, 0 * last)) + self.blend[0] * last
        ),
        "here and elsewhere swapped": lambda self, original, h, e, t, last: original(self, e, h, t, last),
    }.items():
        yield fault(name, "baseline", blended(run))
    for name, run in {
        "nothing pushed out": lambda self, original, z, q, old: 0 * old,
        "the last five pushed out as well": lambda self, original, z, q, old: original(
            self, z, q, mx.ones_like(old)
        ),
        "pushed without a threshold": lambda self, original, z, q, old: (
            mx.exp(self.push_strength) * nn.softplus((z @ q[:, :, None]).squeeze(-1)) * old
        ),
        "pushed by relu": lambda self, original, z, q, old: (
            mx.exp(self.push_strength) * nn.relu((z @ q[:, :, None]).squeeze(-1) - self.push_threshold) * old
        ),
    }.items():
        yield fault(name, "residual", method("", "push_weights", run))
    for one in DOCUMENT_FAULTS:
        if one.head == "retrieve":
            yield Fault(
                f"training on documents: {one.name}", "ramn", one.expect, anyhow(one.patch), "training"
            )
