"""Text encoders timed: ours and sentence-transformers in turn, in one process, on the same texts."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from statistics import median
from typing import Any

import numpy as np

from mlx_lvm.bench.kernels import as_on_a_gpu, count
from mlx_lvm.core.mlx import mx
from mlx_lvm.core.result import JsonObject
from mlx_lvm.encoders.encoder import TextEncoder
from mlx_lvm.errors import UsageError

WORDS = "harbour boats nobody sleep night house river letter answer glacier money"

Encode = Callable[[Sequence[str]], Any]


@dataclass(frozen=True)
class EncoderTime:
    """Median milliseconds of a call with `batch` texts of `tokens` tokens, and the texts a second of that."""

    batch: int
    tokens: int
    mlx_ms: float
    mlx_rate: float
    torch_ms: float | None = None
    torch_rate: float | None = None

    @property
    def ratio(self) -> float | None:
        """How many times as many texts a second MLX encodes."""
        return None if self.torch_rate is None else self.mlx_rate / self.torch_rate

    def to_dict(self) -> JsonObject:
        return {**asdict(self), "ratio": self.ratio}


def texts_of(encoder: TextEncoder, tokens: int, count: int) -> list[str]:
    """Different texts of so many tokens, special ones counted. Raises UsageError for more than it reads."""
    if not encoder.tokens.special < tokens <= encoder.tokens.longest:
        raise UsageError(f"--tokens {tokens}: the encoder reads up to {encoder.tokens.longest}")
    draw, known = np.random.default_rng(0), WORDS.split()
    out: list[str] = []
    while len(out) < count:
        words = [known[number] for number in draw.integers(0, len(known), tokens)]
        while encoder.tokens.lengths([" ".join(words)])[0] > tokens:
            words.pop()
        out.append(" ".join(words))
    return out


def measure(
    encoder: TextEncoder, other: Encode | None, batch: int, tokens: int, seconds: float
) -> EncoderTime:
    """Calls in turn, ours and theirs, for about so many seconds of each."""
    texts = texts_of(encoder, tokens, batch)
    sides = [encoder.encode, *([other] if other is not None else [])]
    for side in sides:
        side(texts)
    taken: list[list[float]] = [[] for _ in sides]
    while min(map(sum, taken)) < seconds or min(map(len, taken)) < 3:
        for side, times in zip(sides, taken, strict=True):
            begun = time.perf_counter()
            side(texts)
            times.append(time.perf_counter() - begun)
    figures = [(1e3 * took, batch / took) for took in map(median, taken)]
    return EncoderTime(batch, tokens, *(figure for side in figures for figure in side))


def kernels_per_layer(encoder: TextEncoder, tokens: int = 130, batch: int = 64) -> int:
    """Kernels that one layer starts on a GPU, read off its compiled graph as in `bench.kernels`."""
    model = encoder.model
    with as_on_a_gpu():
        x = mx.zeros((batch, tokens, model.config.width), model.dtype)
        bias = model.bias(mx.ones((batch, tokens), mx.int32))
        mx.eval(x, bias)
        block = model.blocks[-1]
        return count([mx.compile(lambda x, bias: block(x, bias))(x, bias)]).total
