"""Band filters and a ridge map of what they leave over: fitted in a few passes, penalties by the folds."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from mlx_lvm.core.mlx import mx
from mlx_lvm.data.corpus import Corpus
from mlx_lvm.models.ramn_filters import MAPPED, MIXTURES
from mlx_lvm.predictors.baselines import target_mean
from mlx_lvm.training.ramn.documents import (
    Segments,
    causal_kernels,
    centred_rows,
    mixtures_of,
    segments,
    take_queries,
    take_segments,
    take_targets,
)
from mlx_lvm.training.ramn.folds import (
    MapSums,
    bands,
    choose_penalty,
    choose_towards_one,
    folds_of,
    solve_bands,
)

Rotated = tuple[Segments, mx.array]  # documents, and their chunks less the mean in a basis


@dataclass(frozen=True)
class Fold:
    """held and others: some documents and the rest; mean [dim] of the rest's targets, basis [dim, dim]: its
    principal directions.
    """

    held: Segments
    others: Segments
    documents: np.ndarray
    mean: np.ndarray
    basis: np.ndarray

    def rotated(self) -> tuple[Rotated, Rotated]:
        """(the others, what is held out), both less the others' mean in the others' directions.

        Less a mean that holds both, one of two parts would point where the other does not: a map learns that.
        """
        basis = mx.array(self.basis)
        others, held = ((one, centred_rows(one, self.mean, basis)) for one in (self.others, self.held))
        return others, held


@dataclass(frozen=True)
class LinearFit:
    """filter [mixtures, dim] and map [dim, 3 * width] of all documents, the Gram matrices of each band that
    the filter is of, sizes [mixtures]: squared lengths of the mixtures; towards_one, penalty: what the folds
    chose; by_fold: (basis, filter, map) that the documents outside each fold give.
    """

    filter: np.ndarray
    map: np.ndarray
    gram: np.ndarray
    sizes: np.ndarray
    towards_one: float
    penalty: float
    by_fold: list[tuple[np.ndarray, np.ndarray, np.ndarray]]


def folds_apart(corpus: Corpus, documents: np.ndarray, context: int) -> list[Fold]:
    """Of documents that are all long enough for a window; a single one has no fold."""
    if len(documents) < 2:
        return []
    out = []
    for held in folds_of(documents):
        rest = np.setdiff1d(documents, held)
        others, mean = segments(corpus, rest, context), target_mean(corpus, rest, context)
        basis = principal_directions(others, mean)[1]
        out.append(Fold(segments(corpus, held, context), others, held, mean, basis))
    return out


def fit_linear(whole: Rotated, folds: list[Fold], width: int, ahead: int = 0) -> LinearFit:
    """Band filters and a map of what they leave over of targets `ahead` chunks on, penalties by the folds."""
    dim = whole[1].shape[1]
    grams = [tuple(band_gram(*one, ahead) for one in fold.rotated()) for fold in folds]
    towards_one = choose_towards_one([(others, held) for others, held in grams], dim)
    pairs, filters = [], []
    for fold, (others, _) in zip(folds, grams, strict=True):
        filters.append(solve_bands(others, dim, towards_one))
        sizes = _sizes(others)
        a, b = (map_sums(*one, filters[-1], width, sizes, ahead) for one in fold.rotated())
        pairs.append((a, b))
    penalty, maps = choose_penalty(pairs)
    gram = band_gram(*whole, ahead)
    filter_, sizes = solve_bands(gram, dim, towards_one), _sizes(gram)
    sums = map_sums(*whole, filter_, width, sizes, ahead)
    by_fold = [
        (fold.basis, own, pair[0].layout(mapping))
        for fold, own, pair, mapping in zip(folds, filters, pairs, maps, strict=True)
    ]
    return LinearFit(filter_, sums.layout(sums.solve(penalty)), gram, sizes, towards_one, penalty, by_fold)


def _sizes(gram: np.ndarray) -> np.ndarray:
    return np.array([gram[:, k, k].sum() for k in range(1, MIXTURES + 1)])


def principal_directions(parts: Segments, mean: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """(variances [dim] falling, directions [dim, dim] by row) of the centred targets."""
    centred = centred_rows(parts, mean)
    total = np.zeros((centred.shape[1], centred.shape[1]))
    for index in parts.blocks():
        batch = take_segments(centred, mx.array(parts.table(parts.targets[index])))
        y = np.array(batch.truth)[np.array(batch.valid)]
        total += y.T.astype(np.float64) @ y
    variance, vectors = np.linalg.eigh(total / parts.windows)
    return np.maximum(variance[::-1], 0), np.ascontiguousarray(vectors[:, ::-1].T).astype(np.float32)


def band_gram(parts: Segments, rotated: mx.array, ahead: int = 0, asked: bool = False) -> np.ndarray:
    """Sums over targets `ahead` chunks on of <f_a, f_b> in every band, [bands, 13, 13]; f_0 is the target.

    asked: f_13 is a query, and only targets count that have one which they are not themselves.
    """
    kernels, draws, own = causal_kernels(), np.random.default_rng(0), bands(rotated.shape[1])
    size = MIXTURES + 1 + asked
    out = np.zeros((len(own), size, size))
    for index in parts.blocks(8):
        table = mx.array(parts.table(parts.targets[index]))
        truth, valid = take_targets(rotated, table, ahead)
        features = [truth[:, :, None], mixtures_of(take_segments(rotated, table), kernels)]
        if asked:
            drawn = mx.array(draws.random(valid.shape, dtype=np.float32))
            query, place = take_queries(rotated, table, drawn)
            valid, features = valid & (place > 0) & (place != ahead), [*features, query[:, :, None]]
        kept = (mx.concatenate(features, axis=2) * valid[..., None, None]).flatten(0, 1).swapaxes(0, 1)
        rows = [kept[:, :, band].reshape(size, -1) for band in own]
        out += np.array(mx.stack([row @ row.T for row in rows]))
    return out


def map_sums(
    parts: Segments, rotated: mx.array, filters: np.ndarray, width: int, sizes: np.ndarray, ahead: int = 0
) -> MapSums:
    """What a ridge map of what the filters leave over of the targets `ahead` chunks on is fitted from.

    sizes [mixtures]: squared lengths of the mixtures, in any unit.
    """
    kernels, device_filter = causal_kernels(), mx.array(filters)
    scale = np.repeat(np.sqrt(sizes[MAPPED[0]] / np.maximum(sizes[list(MAPPED)], 1e-300)), width)
    dim, on_device = filters.shape[1], mx.array(scale.astype(np.float32))
    gram, cross, squares = np.zeros((len(scale), len(scale))), np.zeros((len(scale), dim)), 0.0
    for index in parts.blocks(8):
        table = mx.array(parts.table(parts.targets[index]))
        truth, valid = take_targets(rotated, table, ahead)
        mixtures = mixtures_of(take_segments(rotated, table), kernels)
        features = mx.concatenate([mixtures[:, :, k, :width] for k in MAPPED], axis=-1) * valid[..., None]
        left = (truth - (device_filter * mixtures).sum(axis=2)) * valid[..., None]
        x, y = features.reshape(-1, len(scale)) * on_device, left.reshape(-1, dim)
        gram += np.array(x.T @ x)
        cross += np.array(x.T @ y)
        squares += float(mx.square(y).sum())
    return MapSums(gram, cross, squares, scale)
