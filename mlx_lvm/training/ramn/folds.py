"""Penalties of a closed form, chosen by folds of the training documents: no constant of one corpus, no unit of length.

Every sum that a fit needs is kept for each fold, so that leaving one out is a subtraction, and the error on it a product of what
is there: no second pass. A penalty is a share of the mean square of what it holds down, so that it scales with the vectors.
"""

from __future__ import annotations

from dataclasses import dataclass
from itertools import pairwise

import numpy as np

FOLDS = 4
RIDGE = 1e-3  # share of a filter's own mean square: its mixtures are nearly collinear
TOWARDS_ONE = (0.01, 0.1, 1.0, 10.0, 100.0)  # shares that hold a band's filter to the one of all directions
PENALTIES = (0.3, 1.0, 3.0, 10.0, 30.0, 100.0)  # of the map; where none of them beats no map, there is none


def folds_of(documents: np.ndarray) -> list[np.ndarray]:
    """The documents dealt into at most `FOLDS` parts, always the same way; a single document is its own only fold."""
    order = np.random.RandomState(0).permutation(len(documents))
    return [np.sort(documents[order[k::FOLDS]]) for k in range(min(FOLDS, len(documents)))]


def bands(dim: int) -> list[slice]:
    """0, 1, 2-3, 4-7, ... until every direction is in one; from 256 on they are 128 wide at least, else as wide as all before."""
    edges = [0, 1]
    while edges[-1] < dim:
        edges.append(min(edges[-1] + min(edges[-1], 128), dim))
    return [slice(a, b) for a, b in pairwise(edges)]


def solve_bands(gram: np.ndarray, towards_one: float, sums_to_one: bool = False) -> np.ndarray:
    """[mixtures, dim] float32: in every band of directions the scalars that fit them best together.

    gram [dim, 1 + mixtures, 1 + mixtures]: sums of products of the target and the mixtures. `towards_one` holds every band's
    filter to the filter of all directions. `sums_to_one`: of those whose scalars sum to 1.
    """
    one = _solve(gram.sum(axis=0), 0.0, np.zeros(gram.shape[1] - 1), sums_to_one)
    out = np.empty((gram.shape[1] - 1, len(gram)), np.float32)
    for band in bands(len(gram)):
        out[:, band] = _solve(gram[band].sum(axis=0), towards_one, one, sums_to_one)[:, None]
    return out


def _solve(total: np.ndarray, towards: float, prior: np.ndarray, sums_to_one: bool) -> np.ndarray:
    """Least squares from the Gram matrix of (target, mixtures), held to `prior` by `towards` of the mixtures' mean square."""
    count = len(total) - 1
    mean_square = max(np.trace(total[1:, 1:]) / count, 1e-300)
    features = total[1:, 1:] + (RIDGE + towards) * mean_square * np.eye(count)
    wanted = total[1:, 0] + towards * mean_square * prior
    found, ones = np.linalg.solve(features, np.stack([wanted, np.ones(count)], axis=1)).T
    return found + ones * (1 - found.sum()) / ones.sum() if sums_to_one else found


def filter_error(gram: np.ndarray, filters: np.ndarray) -> float:
    """Summed squared error of filters [mixtures, dim] on the windows of a Gram [dim, 1 + mixtures, 1 + mixtures]."""
    w = filters.T.astype(np.float64)
    explained = (w * gram[:, 1:, 0]).sum()
    return float(gram[:, 0, 0].sum() - 2 * explained + (w * (gram[:, 1:, 1:] @ w[:, :, None])[..., 0]).sum())


def choose_towards_one(by_fold: np.ndarray) -> float:
    """How far bands are held to one filter [folds, dim, ...]: the share with the least error on the folds left out."""
    total = by_fold.sum(axis=0)
    if len(by_fold) == 1:
        return TOWARDS_ONE[-1]

    def error(share: float) -> float:
        return sum(filter_error(held, solve_bands(total - held, share)) for held in by_fold)

    return min(TOWARDS_ONE, key=error)


@dataclass(frozen=True)
class MapSums:
    """Of each fold: gram [folds, n, n] of the inputs, cross [folds, n, dim] with what they are to explain, left [folds]: its
    squared length. scale [n] has been multiplied into the inputs.
    """

    gram: np.ndarray
    cross: np.ndarray
    left: np.ndarray
    scale: np.ndarray

    def solve(self, penalty: float, without: int | None = None) -> np.ndarray:
        """Ridge map [n, dim] of the scaled inputs, of all folds or of all but one; a penalty of infinity gives none."""
        if not np.isfinite(penalty):
            return np.zeros(self.cross.shape[1:])
        kept = [k for k in range(len(self.gram)) if k != without]
        gram, cross = self.gram[kept].sum(axis=0), self.cross[kept].sum(axis=0)
        whole = self.gram.sum(axis=0)
        return np.linalg.solve(
            gram + penalty * max(np.trace(whole), 1e-300) / len(whole) * np.eye(len(whole)), cross
        )

    def error(self, fold: int, mapping: np.ndarray) -> float:
        explained = 2 * (mapping * self.cross[fold]).sum() - (mapping * (self.gram[fold] @ mapping)).sum()
        return float(self.left[fold] - explained)

    def choose(self) -> tuple[float, list[np.ndarray]]:
        """(penalty with the least error on the folds left out, the maps [n, dim] fitted without each fold)."""
        if len(self.gram) == 1:
            return np.inf, [self.solve(np.inf)]
        tried: dict[float, list[np.ndarray]] = {
            penalty: [self.solve(penalty, fold) for fold in range(len(self.gram))]
            for penalty in (*PENALTIES, np.inf)
        }
        errors = {
            p: sum(self.error(k, mapping) for k, mapping in enumerate(maps)) for p, maps in tried.items()
        }
        best = min(errors, key=lambda penalty: errors[penalty])
        return best, tried[best]

    def layout(self, mapping: np.ndarray) -> np.ndarray:
        """A map of the scaled inputs as a layer of the inputs themselves, float32 [dim, n]."""
        return np.ascontiguousarray((mapping * self.scale[:, None]).T).astype(np.float32)
