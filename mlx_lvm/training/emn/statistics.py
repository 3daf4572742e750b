"""What EMN needs of a corpus: its mean, the lag filter that fits it, the power of its covariance. No label,
no gradient.

Passes over the training documents in blocks. Of a corpus that does not fit in memory, over the documents that
do.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from mlx_lvm.core.mlx import mx
from mlx_lvm.data.corpus import Corpus
from mlx_lvm.models.emn import EMN
from mlx_lvm.models.emn_config import EMNConfig
from mlx_lvm.models.emn_geometry import MEAN, ROWS, TOKENS
from mlx_lvm.predictors.baselines import target_mean
from mlx_lvm.training.emn.experts import FittedExpert, fit_expert, with_expert
from mlx_lvm.training.emn.reading import BLOCK, Reading, apart, reading, take_batch
from mlx_lvm.training.ramn.documents import Segments

WHITENING_POWER = 0.5  # of the covariance that a ranking direction is divided by
# By how many windows' worth it is held to one variance in every direction: few windows say nothing of most.
EQUAL_WINDOWS = 20
FLOOR = 1e-3  # smallest variance of a direction, as a share of the mean one
# share of the rows' mean square that holds the filter to the mean alone: the rows are nearly collinear
RIDGE = 1e-3
# What the filter is held to where documents are few, a recency-weighted mean at half its length, and by how
# many windows' worth: of these what predicts documents best that were left out.
PRIOR = np.eye(1, ROWS, MEAN)[0] + 0.5 * np.eye(1, ROWS, TOKENS + 1)[0]
PRIOR_WINDOWS = (0, 10, 30, 100, 300)
FOLDS = 10  # of documents


@dataclass(frozen=True)
class Statistics:
    """mean [dim]; filter [22]: weights of the rows that fit the targets best; left_out [folds, 22]: those
    without each fold of the documents, None where there is one document; whiten [dim, dim], None for head
    predict.
    """

    mean: np.ndarray
    filter: np.ndarray
    left_out: np.ndarray | None = None
    whiten: np.ndarray | None = None


def fold_of(parts: Segments) -> np.ndarray:
    """The fold of every segment: its document's, which take turns."""
    every = np.unique(parts.corpus.document_of(parts.rows))
    return np.searchsorted(every, parts.corpus.document_of(parts.rows[parts.starts])) % FOLDS


def statistics_of(read: Reading, whiten: bool) -> Statistics:
    """Of the documents that were read, an expert's row among them where there is one."""
    gram, cross, windows = np.zeros((FOLDS, ROWS, ROWS)), np.zeros((FOLDS, ROWS)), np.zeros(FOLDS)
    dim, parts = read.centred.shape[1], read.parts
    fold = fold_of(parts)
    covariance = np.zeros((dim, dim)) if whiten else None
    for index in parts.blocks(BLOCK):
        batch = take_batch(read.arrays, mx.array(parts.table(parts.targets[index])))
        kept = batch.valid.astype(mx.float32)[..., None]
        truth = batch.truth * kept
        if covariance is None:
            rows = batch.rows * kept[..., None]
            np.add.at(gram, fold[index], np.array((rows @ rows.swapaxes(-1, -2)).sum(axis=1), np.float64))
            products = (rows @ truth[..., None]).squeeze(-1).sum(axis=1)
            np.add.at(cross, fold[index], np.array(products, np.float64))
            np.add.at(windows, fold[index], np.array(kept.sum(axis=(1, 2)), np.float64))
        else:
            flat = truth.reshape(-1, dim)
            covariance += np.array(flat.T @ flat, np.float64)
    mean = np.array(read.mean)
    if covariance is not None:
        equal = EQUAL_WINDOWS * np.trace(covariance) / parts.windows / dim * np.eye(dim)
        whitened = covariance_power((covariance + equal) / parts.windows)
        return Statistics(mean, np.eye(1, ROWS, MEAN)[0], whiten=whitened)
    held = prior_windows(gram, cross, windows)
    fitted = fitted_filter(gram.sum(axis=0), cross.sum(axis=0), parts.windows, held)
    if np.count_nonzero(windows) < 2:
        return Statistics(mean, fitted)
    rest = [[other for other in range(FOLDS) if other != one] for one in range(FOLDS)]
    sums = [(gram[some].sum(axis=0), cross[some].sum(axis=0), float(windows[some].sum())) for some in rest]
    return Statistics(mean, fitted, np.stack([fitted_filter(*each, held) for each in sums]))


def fitted_filter(gram: np.ndarray, cross: np.ndarray, windows: float, held: float) -> np.ndarray:
    """Weights of the rows by least squares, held to PRIOR by so many windows' worth. gram [22, 22]: sum of
    the rows' products over the windows, cross [22]: of those with the target less the mean.
    """
    ridge = max(float(np.trace(gram)) / ROWS, 1e-300) * np.eye(ROWS)
    alone, prior = np.eye(1, ROWS, MEAN)[0], held / max(windows, 1)
    return alone + np.linalg.solve(gram + (RIDGE + prior) * ridge, cross + prior * ridge @ (PRIOR - alone))


def prior_windows(gram: np.ndarray, cross: np.ndarray, windows: np.ndarray) -> float:
    """By how much the filter is held to PRIOR: what says the targets of each fold best by the others' sums.
    Of a single document, by as much as a hundred windows would.
    """
    used = np.flatnonzero(windows)
    if len(used) < 2:
        return 100
    alone, errors = np.eye(1, ROWS, MEAN)[0], []
    for held in PRIOR_WINDOWS:
        error = 0.0
        for one in used:
            rest = used[used != one]
            own = fitted_filter(gram[rest].sum(axis=0), cross[rest].sum(axis=0), windows[rest].sum(), held)
            weights = own - alone
            error += weights @ gram[one] @ weights - 2 * weights @ cross[one]
        errors.append(error)
    return PRIOR_WINDOWS[int(np.argmin(errors))]


def covariance_power(covariance: np.ndarray, power: float = WHITENING_POWER) -> np.ndarray:
    """C^-power [dim, dim], symmetric, of a covariance of any scale; it keeps the mean square length of what
    it whitens.
    """
    variance, directions = np.linalg.eigh(covariance)
    mean = max(float(variance.mean()), 1e-300)
    relative = np.maximum(variance / mean, FLOOR)
    shrunk = relative**-power
    shrunk *= np.sqrt(relative.sum() / (shrunk**2 * relative).sum())
    return (directions * shrunk) @ directions.T


def read_with_expert(
    corpus: Corpus, documents: np.ndarray, context: int, config: EMNConfig
) -> tuple[Reading, FittedExpert | None]:
    """The documents as they are read and, for head predict, with what an expert fitted without each document
    says of it, and that of all. Only head predict weighs one that serves any corpus, and only two documents
    or more can be left out in turn.

    Raises InvalidFile where none has `context` + 1 chunks.
    """
    read = reading(corpus, documents, context, target_mean(corpus, documents, context))
    if config.head == "predict":
        read = apart(read)
    if config.head == "rank" or config.expert == "no" or (corpus.lengths[documents] > context).sum() < 2:
        return read, None
    sizes = config.replace(dim=corpus.dim)
    fitted = fit_expert(read, documents, sizes)
    return with_expert(read, fitted, sizes), fitted


def hold(model: EMN, found: Statistics) -> None:
    """Store the statistics in a model of the corpus's width."""
    model.mean = mx.array(found.mean.astype(np.float32))
    if model.config.head == "predict":
        model.filter = mx.array(found.filter.astype(np.float32))
    elif found.whiten is not None:
        model.whiten = mx.array(found.whiten.astype(np.float32))
