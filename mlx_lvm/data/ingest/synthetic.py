"""A corpus with a known optimum: a linear-Gaussian topic process of which the best predictor is computed.

    x_t = m + U (d + z_t + n_t)     z_t = rho z_{t-1} + noise, stationary

Coordinate k has a document topic d ~ N(0, D_k), constant in a document; a drifting topic z with variance Q_k
and autocorrelation rho_k; and chunk noise n ~ N(0, S_k). U is an orthogonal matrix of `BASIS` reflections. In
every coordinate the covariance of two chunks at distance l is

    c_k(l) = D_k + Q_k rho_k^l + S_k [l = 0]

so the conditional mean of the next chunk given a window of C is linear, with weights C_k^-1 c_k, and no
predictor that sees the window has a smaller expected squared error. Coordinates differ, so filters with one
scalar a lag fall short.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from functools import cached_property, partial

import numpy as np

from mlx_lvm.config import Config, option
from mlx_lvm.errors import Problems

MARK = "synthetic topic process "
BASIS = 4  # reflections that U is made of: they mix every coordinate for a few products with vectors
TOGETHER = 1 << 24  # values drawn at a time, in whole documents, from one seed of their own
process = partial(option, group="Process")


@dataclass(frozen=True)
class Process(Config):
    """The process and how much of it: everything that decides the corpus, recorded in its provenance."""

    title = "synthetic corpus"

    documents: int = process(1000, "Documents to draw.", low=1, high=1 << 31)
    least: int = process(20, "Chunks of the shortest document.", low=1)
    most: int = process(60, "Chunks of the longest.", low=1)
    dim: int = process(64, "Width of the vectors.", low=1, high=65536)
    topic: float = process(0.25, "Variance share of the document's topic.", low=0, high=1)
    drift: float = process(0.45, "Variance share of the drifting topic; the rest is noise.", low=0, high=1)
    slowest: float = process(0.98, "Autocorrelation of the slowest coordinate.", low=0, below=1)
    fastest: float = process(0.5, "Autocorrelation of the fastest.", low=0, below=1)
    mean: float = process(0.5, "Norm of the mean vector, the vectors' own being about 1.", low=0)
    seed: int = process(0, "Seed of everything.", low=0, high=1 << 62)

    def check(self, problems: Problems) -> None:
        if self.least > self.most:
            problems.add(f"least = {self.least} is above most = {self.most}")
        if self.topic + self.drift > 1:
            problems.add(f"topic + drift = {self.topic + self.drift:g} is above 1")

    @property
    def source(self) -> str:
        """The provenance of its corpus: every option of the process."""
        return MARK + json.dumps(asdict(self), sort_keys=True)

    @cached_property
    def spectrum(self) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
        """(D, Q, S, rho), each [dim]: variances fall off as 1 / (k + 10), rho from slowest to fastest."""
        share = 1 / (np.arange(self.dim) + 10.0)
        share /= share.sum()
        rho = np.linspace(self.slowest, self.fastest, self.dim)
        return self.topic * share, self.drift * share, (1 - self.topic - self.drift) * share, rho

    @cached_property
    def _fixed(self) -> tuple[np.ndarray, np.ndarray]:
        """(m [dim], unit normals [BASIS, dim] of the reflections)."""
        rng = np.random.default_rng([self.seed, 0])
        mean, normals = rng.standard_normal(self.dim), rng.standard_normal((BASIS, self.dim))
        normals /= np.linalg.norm(normals, axis=1, keepdims=True)
        return self.mean * mean / np.linalg.norm(mean), normals

    @cached_property
    def lengths(self) -> np.ndarray:
        return np.random.default_rng([self.seed, 1]).integers(self.least, self.most + 1, self.documents)

    def names(self) -> list[str]:
        width = len(str(self.documents - 1))
        return [f"synthetic-{k:0{width}d}" for k in range(self.documents)]

    def rotate(self, values: np.ndarray) -> np.ndarray:
        """U v for rows v [..., dim]: its reflections one after the other."""
        return _reflected(values, self._fixed[1])

    def unrotate(self, values: np.ndarray) -> np.ndarray:
        """The inverse: the reflections in reverse."""
        return _reflected(values, self._fixed[1][::-1])

    def blocks(self) -> Iterator[np.ndarray]:
        """Float32 rows of some documents at a time, in order. Each block has its own seed."""
        *variances, rho = self.spectrum
        topic, drift, noise = (np.sqrt(variance).astype(np.float32) for variance in variances)
        rho = rho.astype(np.float32)
        step = np.sqrt(1 - rho**2)
        mean = self._fixed[0].astype(np.float32)
        together = max(1, TOGETHER // (self.most * self.dim))
        for number, start in enumerate(range(0, self.documents, together)):
            lengths = self.lengths[start : start + together]
            rng = np.random.default_rng([self.seed, 2, number])
            rows = rng.standard_normal((len(lengths), lengths.max(), self.dim), dtype=np.float32)
            rows *= noise
            constant = topic * rng.standard_normal((len(lengths), self.dim), dtype=np.float32)
            state = rng.standard_normal((len(lengths), self.dim), dtype=np.float32)
            for t in range(rows.shape[1]):
                if t:
                    state = rho * state + step * rng.standard_normal(state.shape, dtype=np.float32)
                rows[:, t] += constant + drift * state
            kept = rows[np.arange(rows.shape[1]) < lengths[:, None]]
            yield self.rotate(kept) + mean

    def covariance(self, lags: np.ndarray) -> np.ndarray:
        """c_k(l) for lags of any shape, [..., dim]."""
        topic, drift, noise, rho = self.spectrum
        lags = np.abs(np.asarray(lags))[..., None]
        return topic + drift * rho**lags + noise * (lags == 0)

    def weights(self, context: int) -> np.ndarray:
        """The best linear weights [context, dim] of each coordinate, oldest chunk first."""
        places = np.arange(context)
        inner = self.covariance(places[:, None] - places).transpose(2, 0, 1)
        ahead = self.covariance(context - places).T
        return np.linalg.solve(inner, ahead[..., None])[..., 0].T

    def predict(self, contexts: np.ndarray) -> np.ndarray:
        """E[x_t | the window before it], [n, dim] from contexts [n, C, dim]: of the least squared error."""
        mean = self._fixed[0]
        inside = self.unrotate(contexts.astype(np.float64) - mean)
        return self.rotate((inside * self.weights(contexts.shape[1])).sum(axis=1)) + mean

    def least_error(self, context: int) -> float:
        """The expected squared error of that prediction, per vector: no model has less."""
        ahead = self.covariance(context - np.arange(context))
        explained = (self.weights(context) * ahead).sum(axis=0)
        return float((self.covariance(np.zeros(1, int))[0] - explained).sum())


def _reflected(values: np.ndarray, normals: np.ndarray) -> np.ndarray:
    for normal in normals.astype(values.dtype):
        values = values - 2 * (values @ normal)[..., None] * normal
    return values
