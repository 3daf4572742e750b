"""EMN's expert: the closed form that RAMN begins as, for training targets fitted without their own document.

By folds, because a closed form is less wrong about what it was fitted on, and the network would trust it more than it may. Bands
and map have penalties chosen by the same folds (`training.ramn.folds`), down to one filter for all directions and no map.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np

from mlx_lvm.core.mlx import mx
from mlx_lvm.models.emn import MAPPED, EMNConfig, Expert
from mlx_lvm.training.emn.reading import BLOCK, Reading, take_batch
from mlx_lvm.training.ramn.anchor import band_gram, folded, map_sums, principal_directions
from mlx_lvm.training.ramn.folds import choose_towards_one, folds_of, solve_bands


@dataclass(frozen=True)
class FittedExpert:
    """basis [dim, dim], filter [12, dim] and map [dim, 3 * width] of all documents; fold_maps: of all but one fold each; folds: the
    documents of each. penalty and towards_one: what the folds chose.
    """

    basis: np.ndarray
    filter: np.ndarray
    map: np.ndarray
    fold_maps: list[np.ndarray]
    folds: list[np.ndarray]
    penalty: float
    towards_one: float


def fit_expert(read: Reading, documents: np.ndarray, config: EMNConfig) -> FittedExpert:
    """Least squares on every target of the documents, which are those that were read."""
    corpus, context, mean = read.parts.corpus, read.parts.context, np.array(read.mean)
    _, basis = principal_directions(read.parts, mean)
    folds = folded(corpus, documents, context, mean, basis)
    by_fold = np.stack([band_gram(*fold) for fold in folds])
    sizes = np.array([by_fold[:, :, k, k].sum() for k in range(1, by_fold.shape[2])])
    towards_one = choose_towards_one(by_fold)
    filters = solve_bands(by_fold.sum(axis=0), towards_one)
    sums = map_sums(folds, filters, config.width, sizes)
    penalty, maps = sums.choose()
    long_enough = documents[corpus.lengths[documents] > context]
    return FittedExpert(
        basis, filters, sums.layout(sums.solve(penalty)), [sums.layout(one) for one in maps], folds_of(long_enough), penalty,
        towards_one,
    )  # fmt: skip


def expert_module(fitted: FittedExpert, config: EMNConfig, mapping: np.ndarray | None = None) -> Expert:
    """The expert as a layer, with another map where one is given."""
    out = Expert(config)
    out.basis.weight, out.filter = mx.array(fitted.basis), mx.array(fitted.filter)
    out.map.weight = mx.array(fitted.map if mapping is None else mapping)
    assert out.map.weight.shape == (config.dim, len(MAPPED) * config.width)
    return out


def with_expert(read: Reading, fitted: FittedExpert, config: EMNConfig) -> Reading:
    """The same documents, each target with the prediction of the expert that was fitted without its fold."""
    parts = read.parts
    out = np.zeros(read.centred.shape, np.float32)
    document = parts.corpus.document_of(parts.rows[parts.starts])
    for held_out, mapping in zip(fitted.folds, fitted.fold_maps, strict=True):
        expert = expert_module(fitted, config, mapping)
        index = np.flatnonzero(np.isin(document, held_out))
        for begin in range(0, len(index), BLOCK):
            table = parts.table(parts.targets[index[begin : begin + BLOCK]])
            batch = take_batch(read.arrays, mx.array(table))
            found, valid = np.array(expert(batch.read)), np.array(batch.valid)
            for segment, first in enumerate(table[:, 0]):
                count = int(valid[segment].sum())
                out[first : first + count] = found[segment, :count]
    return replace(read, expert=mx.array(out))
