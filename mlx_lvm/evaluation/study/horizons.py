"""Several chunks ahead: a model that predicts each directly, beside its own rollout and closed forms fitted for each.

direct       what the model says of t+1 .. t+H at once
rolled out   its prediction of t+1 read as if it were text, and so on
each         a lag filter with centroid and a ridge, both fitted for that horizon on the training documents
held         the last chunk, and the mean of the context

Closed forms are fitted on the training windows with H chunks after them; a ridge takes the penalty that validation chose
for the next chunk.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from mlx_lvm.core.mlx import mx
from mlx_lvm.core.stats import DocumentBootstrap
from mlx_lvm.data.corpus import Corpus
from mlx_lvm.data.windows import Windows, windows
from mlx_lvm.evaluation.setup import Bench
from mlx_lvm.evaluation.study.rollout import rolled_out, subset
from mlx_lvm.metrics.figures import cosines
from mlx_lvm.predictors.base import Predictor, predict_all
from mlx_lvm.predictors.baselines import CENTROID_LAGS, target_mean
from mlx_lvm.predictors.history import HistoryPredictor
from mlx_lvm.predictors.lags import LagFilter, centroids
from mlx_lvm.predictors.ridge import Ridge, RidgeSystem, ridge_lags

BLOCK = 512


def horizons(
    predictor: HistoryPredictor, scored: Windows, bench: Bench, resamples: int, seed: int
) -> dict[str, Any]:
    """`curves`: {predictor: {cosine, ci}} with a figure for each of t+1 .. t+H, over the windows with H chunks to predict;
    `gains`: the direct prediction less its rollout, and less the best closed form of each horizon, paired.
    """
    count = predictor.model.config.horizons
    chosen = with_chunks_after(scored, count)
    out: dict[str, Any] = {"horizons": count, "windows": len(chosen), "curves": {}, "gains": {}}
    if not len(chosen):
        return out
    truth = chosen.corpus.take(mx.array((chosen.targets[:, None] + np.arange(count)).astype(np.int32)))
    penalty = next(one.penalty for one in bench.closed if isinstance(one, Ridge))
    fitted = fit_ahead(bench.corpus, bench.parts.train, scored.context, count, penalty)
    held = {
        "last, held": chosen.corpus.take(mx.array(chosen.targets - 1)),
        "mean, held": mx.concatenate(_means(chosen)),
    }
    predicted = {
        predictor.name: predictor.ahead(chosen),
        f"{predictor.name}, rolled out": rolled_out(predictor, chosen, count),
        **{
            f"{name}, each": mx.stack([predict_all(one, chosen) for one in forms], axis=1)
            for name, forms in fitted.items()
        },
        **{name: mx.broadcast_to(vectors[:, None], truth.shape) for name, vectors in held.items()},
    }
    figures = {
        name: np.array(cosines(vectors, truth), dtype=np.float64) for name, vectors in predicted.items()
    }
    bootstrap = DocumentBootstrap(chosen.documents, resamples, seed)
    for name, values in figures.items():
        found = bootstrap.intervals({str(step): values[:, step] for step in range(count)}).values()
        out["curves"][name] = {"cosine": [one.value for one in found], "ci": [one.ends() for one in found]}
    closed = [name for name in figures if name.endswith((", each", ", held"))]
    means = {name: figures[name].mean(axis=0) for name in closed}
    best = [max(closed, key=lambda name, k=k: float(means[name][k])) for k in range(count)]  # type: ignore[misc]
    ours = figures[predictor.name]
    gains = {
        "its rollout": ours - figures[f"{predictor.name}, rolled out"],
        "the best closed form": ours - np.stack([figures[name][:, k] for k, name in enumerate(best)], axis=1),
    }
    for name, values in gains.items():
        found = bootstrap.intervals({str(step): values[:, step] for step in range(count)}).values()
        out["gains"][name] = {"difference": [one.value for one in found], "ci": [one.ends() for one in found]}
    out["best_closed_form"] = best
    return out


def with_chunks_after(found: Windows, count: int) -> Windows:
    """The windows whose document has `count` chunks from the target on."""
    return subset(found, found.targets + count <= found.corpus.offsets[1:][found.documents])


def fit_ahead(
    corpus: Corpus, documents: np.ndarray, context: int, count: int, penalty: float
) -> dict[str, list[Any]]:
    """{"lag-filter-centroid", "ridge"}: a closed form for each of `count` horizons, from one pass over the windows."""
    chosen = with_chunks_after(windows(corpus, documents, context, "training documents"), count)
    mean, lags, dim = target_mean(corpus, documents, context), ridge_lags(context, corpus.dim), corpus.dim
    features, wanted = CENTROID_LAGS + 2, np.zeros((CENTROID_LAGS + 2, count))
    inner, width = np.zeros((features, features)), lags * dim
    gram, cross, sums = (
        np.zeros((width, width)),
        np.zeros((width, count * dim)),
        np.zeros((lags + count) * dim),
    )
    for block in chosen.blocks(BLOCK):
        targets, starts = chosen.targets[block], chosen.starts[block]
        rows = np.maximum(targets[:, None] - np.arange(1, CENTROID_LAGS + 1), starts[:, None]).astype(
            np.int32
        )
        last = corpus.take(mx.array(rows))
        y = corpus.take(mx.array((targets[:, None] + np.arange(count)).astype(np.int32)))
        whole = mx.broadcast_to(mx.array(mean), (len(targets), 1, dim))
        f = (
            mx.concatenate([last, whole, centroids(corpus, targets, starts)[:, None]], axis=1)
            .swapaxes(0, 1)
            .reshape(features, -1)
        )
        x, flat = (
            (last[:, :lags] - mx.array(mean)).reshape(len(targets), -1),
            (y - mx.array(mean)).reshape(len(targets), -1),
        )
        parts = (
            f @ f.T,
            f @ y.swapaxes(0, 1).reshape(count, -1).T,
            x.T @ x,
            x.T @ flat,
            mx.concatenate([x, flat], axis=1).sum(axis=0),
        )
        for total, part in zip((inner, wanted, gram, cross, sums), parts, strict=True):
            total += np.array(part)
    centre = sums / len(chosen)
    gram -= len(chosen) * np.outer(centre[:width], centre[:width])
    cross -= len(chosen) * np.outer(centre[:width], centre[width:])
    scalars = np.linalg.lstsq(inner, wanted, rcond=None)[0].T
    filters = [
        LagFilter("lag-filter-centroid", one[:CENTROID_LAGS], float(one[-2]), mean, float(one[-1]))
        for one in scalars
    ]
    ridges = []
    for step in range(count):
        own = slice(step * dim, (step + 1) * dim)
        means = mean + np.concatenate([centre[width:][own], centre[:width]]).reshape(-1, dim)
        ridges.append(RidgeSystem(gram, cross[:, own], means).solve(penalty))
    return {"lag-filter-centroid": filters, "ridge": ridges}


def _means(chosen: Windows) -> list[mx.array]:
    return [chosen.contexts(block).mean(axis=1) for block in chosen.blocks()]


def direct(predictor: Predictor) -> HistoryPredictor | None:
    """The predictor as one that knows several horizons; None where its model predicts the next chunk alone."""
    return (
        predictor if isinstance(predictor, HistoryPredictor) and predictor.model.config.horizons > 1 else None
    )
