"""Several chunks ahead: each predicted directly, compared with the rollout and baselines fitted for each.

direct       what the model says of t+1 .. t+H at once
rolled out   its prediction of t+1 read as if it were text, and so on
each         a lag filter with centroid and a ridge, both fitted for that horizon on the training documents
held         the last chunk, and the mean of the context

Baselines are fitted on the training windows with H chunks after them; a ridge takes the penalty that
validation chose for the next chunk.
"""

from __future__ import annotations

from dataclasses import dataclass, field, replace

import numpy as np

from mlx_lvm.core.mlx import mx
from mlx_lvm.core.result import Result, key
from mlx_lvm.core.stats import DocumentBootstrap
from mlx_lvm.data.corpus import Corpus
from mlx_lvm.data.windows import Windows
from mlx_lvm.evaluation.setup import Bench
from mlx_lvm.evaluation.study.curves import Curve, curves
from mlx_lvm.evaluation.study.rollout import rolled_out
from mlx_lvm.metrics.figures import cosine_values
from mlx_lvm.predictors.base import Predictor, predict_all
from mlx_lvm.predictors.baselines import CENTROID_LAGS, ContextMean, Last
from mlx_lvm.predictors.history import HistoryPredictor
from mlx_lvm.predictors.lags import filter_sums
from mlx_lvm.predictors.ridge import Ridge, ridge_lags, ridge_system


@dataclass(frozen=True)
class HorizonTerms(Result):
    """curves: cosine at each of t+1 .. t+H, by predictor, over the windows with H chunks to predict; gains:
    the direct prediction less its rollout, and less the best baseline, `best`, of each horizon, paired.
    """

    horizons: int
    windows: int
    curves: dict[str, Curve] = field(default_factory=dict)
    gains: dict[str, Curve] = field(default_factory=dict)
    best: list[str] | None = field(default=None, metadata=key("best_closed_form"))


def horizons(
    predictor: HistoryPredictor, scored: Windows, bench: Bench, every: DocumentBootstrap
) -> HorizonTerms:
    """A predictor of several horizons, compared with its own rollout and baselines fitted for each."""
    count = predictor.horizons
    chosen = scored.with_chunks_after(count)
    if not len(chosen):
        return HorizonTerms(count, 0)
    truth = chosen.corpus.take(chosen.targets[:, None] + np.arange(count))
    penalty = next(one.penalty for one in bench.baselines if isinstance(one, Ridge))
    fitted = fit_each_horizon(bench.corpus, bench.parts.train, scored.context, count, penalty)

    rolled = f"{predictor.name}, rolled out"
    baselines = {
        f"{name}, each": cosine_values(mx.stack([predict_all(one, chosen) for one in each], axis=1), truth)
        for name, each in fitted.items()
    }
    for held in (Last(), ContextMean()):
        baselines[f"{held.name}, held"] = cosine_values(predict_all(held, chosen)[:, None], truth)
    figures = {
        predictor.name: cosine_values(predictor.ahead(chosen), truth),
        rolled: cosine_values(rolled_out(predictor, chosen, count), truth),
        **baselines,
    }
    bootstrap = replace(every, documents=chosen.documents)
    ours, names = figures[predictor.name], list(baselines)
    means = np.stack([values.mean(axis=0) for values in baselines.values()])
    best = [names[place] for place in means.argmax(axis=0)]
    gains = {
        "its rollout": ours - figures[rolled],
        "the best baseline": ours - np.stack([figures[name][:, k] for k, name in enumerate(best)], axis=1),
    }
    paired = curves(gains, bootstrap, "difference")
    return HorizonTerms(count, len(chosen), curves(figures, bootstrap), paired, best)


def fit_each_horizon(
    corpus: Corpus, documents: np.ndarray, context: int, count: int, penalty: float
) -> dict[str, list[Predictor]]:
    """{"lag-filter-centroid", "ridge"}: a baseline for each of `count` horizons, from one pass."""
    sums = filter_sums(corpus, documents, CENTROID_LAGS, context, count)
    system = ridge_system(corpus, documents, ridge_lags(context, corpus.dim), context, count)
    steps = range(count)
    return {
        "lag-filter-centroid": [sums.filter(CENTROID_LAGS, centroid=True, horizon=step) for step in steps],
        "ridge": [system.solve(penalty, step) for step in steps],
    }
