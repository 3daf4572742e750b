"""What models are compared on: real windows, random ones, and inputs made to break an implementation."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from mlx_lvm.data.corpus import Corpus

REAL_SHAPES = ((33, 5), (1, 5), (2, 1), (3, 32))  # batch, context
# Norm up to which no product of two vectors overflows on purpose.
LARGEST = {"float32": 1e30, "bfloat16": 1e30, "float16": 100.0}


@dataclass(frozen=True)
class Case:
    """One input: context [batch, length, dim] float32."""

    name: str
    context: np.ndarray
    finite: bool = True  # every number that comes out must be


def real_cases(
    corpora: list[Corpus], dim: int, shapes: tuple[tuple[int, int], ...] = REAL_SHAPES
) -> Iterator[Case]:
    """Windows of corpora whose vectors have `dim` dimensions, evenly spaced over all their documents."""
    from mlx_lvm.data.windows import windows

    for corpus in corpora:
        if corpus.dim != dim:
            continue
        for batch, length in shapes:
            found = windows(corpus, np.arange(len(corpus.names)), length)
            at = np.linspace(0, len(found) - 1, batch + 2).astype(int)[1:-1]
            yield Case(f"real-{corpus.name}-{batch}x{length}", np.array(found.contexts(at)))


def random_case(dim: int, batch: int, length: int, seed: int) -> Case:
    """Unit vectors around a common direction, as embeddings lie."""
    draw = np.random.default_rng([seed, batch, length, dim])
    x = draw.standard_normal((batch, length, dim)) + draw.standard_normal(dim)
    x /= np.linalg.norm(x, axis=-1, keepdims=True)
    return Case(f"random-{batch}x{length}-{seed}", x.astype(np.float32))


def random_cases(dim: int, seeds: int = 3, lengths: tuple[int, ...] = (1, 5, 32)) -> Iterator[Case]:
    for seed in range(seeds):
        for number, length in enumerate(lengths):
            yield random_case(dim, (2, 33, 1)[(seed + number) % 3], length, seed)


def adversarial_cases(dim: int, dtype: str = "float32") -> Iterator[Case]:
    """Inputs on which implementations part: empty, equal, cancelling, tiny, huge, not finite, odd shapes."""
    base = random_case(dim, 3, 5, 99).context
    signs = np.array([1, -1] * 3, dtype=np.float32)

    def case(name: str, context: np.ndarray, finite: bool = True) -> Case:
        return Case(f"adversarial-{name}", np.ascontiguousarray(context, dtype=np.float32), finite)

    def changed(at: tuple, value: float | np.ndarray) -> np.ndarray:
        out = base.copy()
        out[at] = value
        return out

    yield case("zeros", np.zeros_like(base))
    yield case("first-chunk-zero", changed((slice(None), 0), 0))
    yield case("last-chunk-zero", changed((slice(None), -1), 0))
    yield case("constant", np.full_like(base, 1 / np.sqrt(dim)))
    yield case("identical-chunks", np.repeat(base[:, :1], 5, axis=1))
    yield case("one-chunk-repeated", base[:, [0, 1, 1, 1, 1]])
    yield case("identical-rows", np.repeat(base[:1], 3, axis=0))
    cancelling = base[:, :1] * signs[None, :, None]
    yield case("cancelling", cancelling)
    yield case("nearly-cancelling", cancelling + 1e-4 * random_case(dim, 3, 6, 98).context)
    yield case("one-hot", np.eye(dim, dtype=np.float32)[np.arange(15) * 7 % dim].reshape(3, 5, dim))
    yield case("one-large-element", changed((slice(None), slice(None), 3 % dim), 30))
    yield case("one-large-chunk", changed((slice(None), 2), base[:, 2] * 50))
    yield case("alternating-signs", np.abs(base) * np.where(np.arange(dim) % 2, -1, 1))
    yield case("reversed", base[:, ::-1])
    for norm in (1e-20, 1e-10, 1e-4, 1e2, 1e4, 1e10, 1e30):
        if norm <= LARGEST[dtype]:
            yield case(f"norm-{norm:.0e}", base * np.float32(norm), finite=norm <= 1e10)
    yield case("denormal", base * np.float32(1e-40))
    if dtype != "float16":
        yield case("offset-1e4", base + 1e4)
    yield case("nan", changed((1, 2, 0), np.nan), finite=False)
    yield case("infinity", changed((1, 2, 0), np.inf), finite=False)
    yield case("minus-infinity", changed((1, 4, 0), -np.inf), finite=False)
    yield case("length-1", base[:, :1])
    yield case("length-100", random_case(dim, 2, 100, 97).context)
    yield case("batch-1", base[:1])
    yield case("batch-2", base[:2])
    yield case("batch-33", random_case(dim, 33, 5, 96).context)
