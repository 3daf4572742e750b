"""What an evaluation scored on: the corpus, its split, the windows, and what the truth is ranked among."""

from __future__ import annotations

from dataclasses import dataclass

from mlx_lvm.core.result import Result
from mlx_lvm.core.stats import DocumentBootstrap
from mlx_lvm.evaluation.setup import Bench
from mlx_lvm.metrics.chance import Chance, chance
from mlx_lvm.metrics.retrieval import Pool


@dataclass(frozen=True)
class PoolSizes(Result):
    """Candidates of a window, on average and at least; windows with several true ones; ranks by chance."""

    pool: float
    smallest_pool: int
    windows_with_near_duplicates: int
    chance: Chance

    @staticmethod
    def of(pool: Pool) -> PoolSizes:
        several = int((pool.hit_counts() > 1).sum())
        return PoolSizes(float(pool.sizes.mean()), int(pool.sizes.min()), several, chance(pool))


@dataclass(frozen=True)
class Retrieval(Result):
    """Among the chunks of the split, and among those of the same document."""

    split: PoolSizes
    document: PoolSizes


@dataclass(frozen=True)
class Scored(Result):
    """documents, windows: how many were scored; skipped_documents: too short for a window."""

    corpus: str
    corpus_sha256: str
    split: str
    split_seed: int
    context: int
    documents: int
    windows: int
    skipped_documents: int
    resamples: int
    retrieval: Retrieval

    @staticmethod
    def of(bench: Bench, bootstrap: DocumentBootstrap) -> Scored:
        return Scored(
            corpus=bench.corpus.name,
            corpus_sha256=bench.corpus.sha256,
            split=bench.split,
            split_seed=bench.parts.seed,
            context=bench.windows.context,
            documents=bootstrap.count,
            windows=len(bench.windows),
            skipped_documents=bench.windows.skipped,
            resamples=bootstrap.resamples,
            retrieval=Retrieval(PoolSizes.of(bench.pool), PoolSizes.of(bench.pool.in_document())),
        )
