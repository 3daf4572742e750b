"""Penalties of a ridge fit, chosen by folds of the training documents: no constant, no unit of length.

A fold is judged by what the other documents alone say, their mean and principal directions among it:
directions that had seen the fold too would hold its targets in the first of them, and of few documents a mean
that holds them all tells of the others where the fold lies. Every fit would look better than it is.
A penalty is a share of the mean square of what it holds down, so that it scales with the vectors.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise

import numpy as np

FOLDS = 4
RIDGE = 1e-3  # share of a filter's own mean square: its mixtures are nearly collinear
TOWARDS_ONE = (0.01, 0.1, 1.0, 3.0, 10.0, 30.0, 100.0)  # shares that hold a band's filter to that of all
PENALTIES = (0.3, 1.0, 3.0, 10.0, 30.0, 100.0)  # of the map; where none of them beats no map, there is none


def folds_of(documents: np.ndarray) -> list[np.ndarray]:
    """The documents dealt into at most `FOLDS` parts, always the same way."""
    order = np.random.RandomState(0).permutation(len(documents))
    return [np.sort(documents[order[k::FOLDS]]) for k in range(min(FOLDS, len(documents)))]


def bands(dim: int) -> list[slice]:
    """0, 1, 2-3, 4-7, ..., each as wide as all before it but 128 at most, until every direction is in one."""
    edges = [0, 1]
    while edges[-1] < dim:
        edges.append(min(edges[-1] + min(edges[-1], 128), dim))
    return [slice(a, b) for a, b in pairwise(edges)]


def solve_bands(gram: np.ndarray, dim: int, towards_one: float, sums_to_one: bool = False) -> np.ndarray:
    """[mixtures, dim] float32: in every band of directions the scalars that fit them best together.

    gram [bands, 1 + mixtures, 1 + mixtures]: sums of products of the target and the mixtures. `towards_one`
    holds every band's filter to the filter of all directions. `sums_to_one`: of those whose scalars sum to 1.
    """
    one = _solve(gram.sum(axis=0), 0.0, np.zeros(gram.shape[1] - 1), sums_to_one)
    found = np.stack([_solve(own, towards_one, one, sums_to_one) for own in gram], axis=1)
    return np.repeat(found, [band.stop - band.start for band in bands(dim)], axis=1).astype(np.float32)


def _solve(total: np.ndarray, towards: float, prior: np.ndarray, sums_to_one: bool) -> np.ndarray:
    """Least squares from the Gram matrix of (target, mixtures), held to `prior` by `towards`."""
    count = len(total) - 1
    mean_square = max(np.trace(total[1:, 1:]) / count, 1e-300)
    features = total[1:, 1:] + (RIDGE + towards) * mean_square * np.eye(count)
    wanted = total[1:, 0] + towards * mean_square * prior
    found, ones = np.linalg.solve(features, np.stack([wanted, np.ones(count)], axis=1)).T
    return found + ones * (1 - found.sum()) / ones.sum() if sums_to_one else found


def filter_error(gram: np.ndarray, filters: np.ndarray) -> float:
    """Summed squared error of filters [mixtures, dim], alike in each band, on a Gram's windows."""
    w = filters[:, [band.start for band in bands(filters.shape[1])]].T.astype(np.float64)
    explained = (w * gram[:, 1:, 0]).sum()
    return float(gram[:, 0, 0].sum() - 2 * explained + (w * (gram[:, 1:, 1:] @ w[:, :, None])[..., 0]).sum())


def choose_towards_one(pairs: Sequence[tuple[np.ndarray, np.ndarray]], dim: int) -> float:
    """How far bands are held to one filter: the share with the least error on what was left out.

    pairs: Gram matrices as of `solve_bands`, of the other documents and of each fold; none for a single one.
    """

    def error(share: float) -> float:
        return sum(filter_error(own, solve_bands(gram, dim, share)) for gram, own in pairs)

    return min(TOWARDS_ONE, key=error) if pairs else TOWARDS_ONE[-1]


@dataclass(frozen=True)
class MapSums:
    """gram [n, n] of inputs times `scale` [n], cross [n, dim] with what they explain, left: its length^2."""

    gram: np.ndarray
    cross: np.ndarray
    left: float
    scale: np.ndarray

    def solve(self, penalty: float) -> np.ndarray:
        """Ridge map [n, dim] of the scaled inputs; a penalty of infinity gives none."""
        if not np.isfinite(penalty):
            return np.zeros(self.cross.shape)
        share = penalty * max(np.trace(self.gram), 1e-300) / len(self.gram)
        return np.linalg.solve(self.gram + share * np.eye(len(self.gram)), self.cross)

    def error(self, mapping: np.ndarray) -> float:
        """Squared error of a map of the scaled inputs."""
        explained = 2 * (mapping * self.cross).sum() - (mapping * (self.gram @ mapping)).sum()
        return float(self.left - explained)

    def layout(self, mapping: np.ndarray) -> np.ndarray:
        """A map of the scaled inputs as a layer of the inputs themselves, float32 [dim, n]."""
        return np.ascontiguousarray((mapping * self.scale[:, None]).T).astype(np.float32)


def choose_penalty(pairs: Sequence[tuple[MapSums, MapSums]]) -> tuple[float, list[np.ndarray]]:
    """(penalty with the least error on what was left out, infinity where none beats no map; the maps of it).

    pairs: sums of the other documents, and of each fold; none for a single document.
    """
    tried = {penalty: [other.solve(penalty) for other, _ in pairs] for penalty in (*PENALTIES, np.inf)}
    errors = {
        penalty: sum(own.error(found) for (_, own), found in zip(pairs, maps, strict=True))
        for penalty, maps in tried.items()
    }
    best = min(reversed(list(errors)), key=lambda penalty: errors[penalty])
    return best, tried[best]
