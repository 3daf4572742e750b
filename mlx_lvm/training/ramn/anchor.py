"""The anchor: the linear predictor that a RAMN begins as, fitted on the training documents in a few passes.

1. mean of the targets and their principal directions
2. for every band of directions (1, 1, 2, 4, 8, ... of falling variance) the least-squares filter over the 12
   mixtures, once free, and once with scalars that sum to 1, for documents whose mean is another
3. a ridge map from the last chunk, the slow average and the mean of everything read to what they leave over
4. how far from the training mean a document of these may lie

2 and 3 for every horizon; 2 once more with a query where the model takes queries.

A band filter is a lag filter that may keep slow directions (what a text is about, its author) for long and
fast ones hardly.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np

from mlx_lvm.core.mlx import mx
from mlx_lvm.data.corpus import Corpus
from mlx_lvm.models.ramn import RAMN
from mlx_lvm.models.ramn_config import RAMNConfig
from mlx_lvm.models.ramn_filters import ALL, MIXTURES, SEEN, steep_mixture
from mlx_lvm.predictors.baselines import target_mean
from mlx_lvm.training.ramn.documents import (
    TARGETS,
    Segments,
    causal_kernels,
    centred_rows,
    mixtures_of,
    segments,
    take_segments,
)
from mlx_lvm.training.ramn.folds import solve_bands
from mlx_lvm.training.ramn.linear import band_gram, fit_linear, folds_apart, principal_directions

SMALLEST_VARIANCE = 1e-3  # of a direction, as a share of the mean one
# trust is 1/2 at 1.3 times the novelty that 999 in 1000 training targets stay below
FAMILIAR, MARGIN, SLOPE = 0.999, 1.3, 8.0
# share of the document's mean that a query leaves out in another domain: what all its chunks have in common
SET_APART = 0.3
INPUT_SIZE = 0.25  # root mean square of the network's inputs
# powers of the variance that directions are divided by
WHITENING = {"input": 0.2, "output": 0.4, "push": 0.8}


@dataclass(frozen=True)
class Horizon:
    """What is fitted for one horizon: filter and shift_filter [mixtures, directions], the same with a query
    [mixtures + 1, directions] where the model takes queries, map [directions, 3 * width]; towards_one and
    penalty, which the folds chose.
    """

    filter: np.ndarray
    shift_filter: np.ndarray
    map: np.ndarray
    towards_one: float
    penalty: float
    query_filter: np.ndarray | None = None
    query_shift_filter: np.ndarray | None = None


@dataclass(frozen=True)
class Anchor:
    """mean [dim], basis [directions, dim], variance [directions] of the targets; sizes [mixtures]: mean
    variance of a direction; limit: the novelty that hardly any training document has.
    """

    mean: np.ndarray
    basis: np.ndarray
    variance: np.ndarray
    sizes: np.ndarray
    limit: float
    horizons: list[Horizon]


def fit_anchor(corpus: Corpus, documents: np.ndarray, context: int, config: RAMNConfig) -> Anchor:
    """The least-squares anchor on every target of the documents with `context` chunks before it."""
    parts = segments(corpus, documents, context)
    mean = target_mean(corpus, documents, context)
    variance, basis = principal_directions(parts, mean)
    long_enough = documents[corpus.lengths[documents] > context]
    rotated = centred_rows(parts, mean, mx.array(basis))
    folds = folds_apart(corpus, long_enough, context)
    horizons: list[Horizon] = []
    for ahead in range(config.horizons):
        own = fit_linear((parts, rotated), folds, config.width, ahead)
        if not ahead:
            sizes = own.sizes / (parts.windows * len(mean))
        shift = solve_bands(own.gram, len(mean), own.towards_one, sums_to_one=True)
        fitted = Horizon(own.filter, shift, own.map, own.towards_one, own.penalty)
        if config.queries:
            asked = band_gram(parts, rotated, ahead, asked=True)
            free, shift = (solve_bands(asked, len(mean), own.towards_one, one) for one in (False, True))
            fitted = replace(fitted, query_filter=free, query_shift_filter=shift)
        horizons.append(fitted)
    limit = MARGIN * float(np.quantile(novelties(parts, rotated, novelty_weights(variance)), FAMILIAR))
    return Anchor(mean, basis, variance, sizes, limit, horizons)


def novelty_weights(variance: np.ndarray) -> np.ndarray:
    """v: a document's novelty is the mean over directions of its squared mean by their variance."""
    smallest = SMALLEST_VARIANCE * variance.mean()
    return (1 / (len(variance) * np.maximum(variance, smallest))).astype(np.float32)


def novelties(parts: Segments, rotated: mx.array, weights: np.ndarray) -> np.ndarray:
    """How far the document before every target lies from the training mean, [windows]."""
    everything, found = causal_kernels()[ALL * TARGETS :], []
    for index in parts.blocks(32):
        batch = take_segments(rotated, mx.array(parts.table(parts.targets[index])))
        before = mixtures_of(batch, everything).squeeze(2)
        found.append(np.array((mx.square(before) * mx.array(weights)).sum(axis=-1))[np.array(batch.valid)])
    return np.concatenate(found)


def start_at_anchor(model: RAMN, anchor: Anchor) -> None:
    """Store the anchor as the model's parameters and silence its network: the model is the anchor alone."""
    width = model.config.width
    variance = np.maximum(anchor.variance / anchor.variance.mean(), SMALLEST_VARIANCE)
    model.mean, model.basis.weight = mx.array(anchor.mean), mx.array(anchor.basis)
    model.log_novelty = mx.log(mx.array(novelty_weights(anchor.variance)))
    model.trust_limit, model.trust_slope = mx.full((1,), float(np.log(anchor.limit))), mx.full((1,), SLOPE)
    share = anchor.variance[:width].mean() / anchor.variance.mean()
    gains = [INPUT_SIZE / np.sqrt(anchor.sizes[k] * share) for k in SEEN]
    if model.config.queries:  # a query is a chunk, of the size of the last one
        gains.append(gains[0])
    whitened = variance[:width] ** -WHITENING["input"]
    model.input_gain = _device(np.concatenate([gain * whitened for gain in gains]))
    if model.config.head == "regress":
        for own, fitted in zip(model.horizon_heads, anchor.horizons, strict=True):
            own.filter, own.shift_filter = mx.array(fitted.filter), mx.array(fitted.shift_filter)
            own.map.weight = mx.array(fitted.map)
            if fitted.query_filter is not None and fitted.query_shift_filter is not None:
                own.query_filter = mx.array(fitted.query_filter)
                own.query_shift_filter = mx.array(fitted.query_shift_filter)
        model.output_gain = mx.ones((width,))
    else:
        steep = steep_mixture(len(variance))
        apart = np.where(np.arange(MIXTURES)[:, None] == ALL, -SET_APART * steep.sum(axis=0), steep)
        model.shift_filter = _device(apart)
        model.filter = _device(steep * variance ** -WHITENING["output"])
        model.output_gain = _device(variance[:width] ** -WHITENING["output"])
        model.push_metric = _device(-WHITENING["push"] * np.log(variance))
        model.log_scale = mx.full((1,), float(np.log(10)))
    model.start_at_baseline()


def _device(values: np.ndarray) -> mx.array:
    return mx.array(np.asarray(values, dtype=np.float32))
