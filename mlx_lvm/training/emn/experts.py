"""EMN's expert: what RAMN begins as, fitted for training targets without their own document.

By folds, because a linear prediction is less wrong about what it was fitted on, and the network would trust
it more than it may. Bands and map have penalties chosen by the same folds (`training.ramn.folds`), down to
one filter for all directions and no map.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np

from mlx_lvm.core.mlx import mx
from mlx_lvm.models.emn import MAPPED, Expert
from mlx_lvm.models.emn_config import EMNConfig
from mlx_lvm.training.emn.reading import BLOCK, Reading, take_batch
from mlx_lvm.training.ramn.documents import centred_rows
from mlx_lvm.training.ramn.linear import fit_linear, folds_apart, principal_directions


@dataclass(frozen=True)
class LinearExpert:
    """basis [dim, dim], filter [12, dim], map [dim, 3 * width]."""

    basis: np.ndarray
    filter: np.ndarray
    map: np.ndarray


@dataclass(frozen=True)
class FittedExpert:
    """whole: of all documents; by_fold: (documents, expert of all others) of each fold. penalty, towards_one:
    what the folds chose.
    """

    whole: LinearExpert
    by_fold: list[tuple[np.ndarray, LinearExpert]]
    penalty: float
    towards_one: float


def fit_expert(read: Reading, documents: np.ndarray, config: EMNConfig) -> FittedExpert:
    """Least squares on every target of the documents, which are those that were read."""
    corpus, context, mean = read.parts.corpus, read.parts.context, np.array(read.mean)
    basis = principal_directions(read.parts, mean)[1]
    folds = folds_apart(corpus, documents[corpus.lengths[documents] > context], context)
    rotated = centred_rows(read.parts, mean, mx.array(basis))
    own = fit_linear((read.parts, rotated), folds, config.width)
    by_fold = [(fold.documents, LinearExpert(*one)) for fold, one in zip(folds, own.by_fold, strict=True)]
    return FittedExpert(LinearExpert(basis, own.filter, own.map), by_fold, own.penalty, own.towards_one)


def expert_module(fitted: LinearExpert, config: EMNConfig) -> Expert:
    """The expert as a layer."""
    out = Expert(config)
    out.basis.weight, out.filter = mx.array(fitted.basis), mx.array(fitted.filter)
    out.map.weight = mx.array(fitted.map)
    assert out.map.weight.shape == (config.dim, len(MAPPED) * config.width)
    return out


def with_expert(read: Reading, fitted: FittedExpert, config: EMNConfig) -> Reading:
    """The same documents, each target with the prediction of the expert that was fitted without its fold."""
    out = np.zeros(read.centred.shape, np.float32)
    document = read.parts.corpus.document_of(read.parts.rows[read.parts.starts])
    for held_out, found_without in fitted.by_fold:
        index = np.flatnonzero(np.isin(document, held_out))
        _write(out, read, expert_module(found_without, config), index)
    return replace(read, expert=mx.array(out))


def applied(read: Reading, expert: Expert) -> Reading:
    """Documents that the expert was not fitted on, with its prediction for every target."""
    out = np.zeros(read.centred.shape, np.float32)
    _write(out, read, expert, np.arange(len(read.parts)))
    return replace(read, expert=mx.array(out))


def _write(out: np.ndarray, read: Reading, expert: Expert, segments: np.ndarray) -> None:
    """What the expert says of every target of these segments, into out [rows, dim]."""
    for begin in range(0, len(segments), BLOCK):
        table = read.parts.table(read.parts.targets[segments[begin : begin + BLOCK]])
        batch = take_batch(read.arrays, mx.array(table))
        found, valid = np.array(expert(batch.read)), np.array(batch.valid)
        for segment, first in enumerate(table[:, 0]):
            count = int(valid[segment].sum())
            out[first : first + count] = found[segment, :count]
