"""What every predictor of an evaluation is measured on, set up once: windows, pools, baselines and the mean.

set_up(corpus, "test") -> Bench
bench.measure(predictor) -> Measured: its figures in every window
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from mlx_lvm.core.mlx import mx
from mlx_lvm.data.corpus import Corpus
from mlx_lvm.data.splits import Split, split_corpus
from mlx_lvm.data.windows import Windows, windows
from mlx_lvm.metrics.figures import offset_cosines, window_figures
from mlx_lvm.metrics.names import Figures
from mlx_lvm.metrics.retrieval import Pool, build_pool, rank_figures, ranks
from mlx_lvm.predictors.base import Predictor, document_rows, predict_all, sample
from mlx_lvm.predictors.baselines import fit_baselines, target_mean

FRACTIONS = (0.0, 0.6, 1.0)  # of the mean taken off queries and candidates
TUNING_WINDOWS = 2_000  # validation windows that the fraction is chosen on
MAX_WINDOWS = 20_000  # windows scored, evenly spaced where a split has more


@dataclass(frozen=True)
class Measured:
    """offsets [windows, 10]: see `direction`; fraction of the mean that retrieval takes off."""

    figures: Figures
    offsets: np.ndarray
    fraction: float


@dataclass(frozen=True, eq=False)
class Bench:
    """windows: those scored, of `available`. tuning: validation windows. mean: of the training targets."""

    corpus: Corpus
    split: str
    parts: Split
    windows: Windows
    available: int
    pool: Pool
    tuning: Windows
    tuning_pool: Pool
    baselines: list[Predictor]
    mean: np.ndarray

    def measure(self, predictor: Predictor) -> Measured:
        """Every figure in every window, with the share of the mean off that validation windows choose."""
        fraction = best_fraction(predict_all(predictor, self.tuning), self.tuning_pool, self.mean)
        predicted = predict_all(predictor, self.windows)
        figures = score(predicted, self.pool, self.mean, fraction)
        return Measured(figures, offset_cosines(predicted, self.windows), fraction)


def set_up(
    corpus: Corpus,
    split: str = "test",
    split_seed: int = 0,
    context: int = 5,
    max_windows: int = MAX_WINDOWS,
    progress: Callable[[str], None] = lambda line: None,
) -> Bench:
    """Raises UsageError for an unknown split, InvalidFile where a part has no window."""
    parts = split_corpus(corpus, split_seed)
    chosen = parts.part(split)
    available = windows(corpus, chosen, context, f"{split} documents")
    scored = sample(available, max_windows)
    tuning = sample(windows(corpus, parts.val, context, "validation documents"), TUNING_WINDOWS)
    progress("fitting baselines")
    baselines = fit_baselines(corpus, parts.train, parts.val, context)
    return Bench(
        corpus=corpus,
        split=split,
        parts=parts,
        windows=scored,
        available=len(available),
        pool=build_pool(scored, document_rows(corpus.offsets, chosen)),
        tuning=tuning,
        tuning_pool=build_pool(tuning, document_rows(corpus.offsets, parts.val)),
        baselines=baselines,
        mean=target_mean(corpus, parts.train, context),
    )


def best_fraction(predicted: mx.array, pool: Pool, mean: np.ndarray) -> float:
    """The share of the mean whose removal gives the best MRR on validation documents; 0 wins ties."""
    return max(FRACTIONS, key=lambda fraction: float((1 / ranks(pool, predicted, mean, fraction)).mean()))


def score(predicted: mx.array, pool: Pool, mean: np.ndarray, fraction: float) -> Figures:
    """Every figure of every window; `centred` with `fraction` of the mean taken off."""
    raw, own = ranks(pool, predicted), pool.in_document()
    centred = ranks(pool, predicted, mean, fraction) if fraction else raw
    return Figures(
        window=window_figures(predicted, pool.windows, mean),
        rank=raw,
        split=rank_figures(raw, pool),
        centred=rank_figures(centred, pool),
        in_document=rank_figures(ranks(own, predicted), own),
    )
