"""What an evaluation costs at scale: every baseline on a million vectors, and exact retrieval in a large
pool.

    python benchmarks/evaluation.py baselines --vectors 1000000
    python benchmarks/evaluation.py retrieval --candidates 200000 --queries 10000

Vectors are drawn (768 dimensions, stored as I8, documents of 20 to 180 chunks around a topic that drifts).
Prints seconds for each baseline and the most memory that the process had resident; the vectors themselves
are counted in.
"""

from __future__ import annotations

import argparse
import resource
import sys
import time
from itertools import pairwise

import numpy as np

from mlx_lvm.core.linux_cpu import tune

tune()

from mlx_lvm.core.mlx import mx
from mlx_lvm.data.card import EncoderCard
from mlx_lvm.data.corpus import Corpus
from mlx_lvm.data.splits import split_corpus
from mlx_lvm.data.storage.rows import quantise
from mlx_lvm.data.windows import windows
from mlx_lvm.metrics.retrieval import build_pool, ranks
from mlx_lvm.predictors.base import document_rows, sample
from mlx_lvm.predictors.baselines import NAMES, fit_baselines

DIM = 768
UNIT = (
    2**30 if sys.platform == "darwin" else 2**20
)  # of `ru_maxrss` in a GiB: bytes on macOS, kilobytes on Linux


def drawn_corpus(count: int, seed: int = 0) -> Corpus:
    """`count` I8 vectors in documents of 20 to 180 chunks, each a topic plus noise, made in blocks."""
    rng = np.random.default_rng(seed)
    lengths: list[int] = []
    while sum(lengths) < count:
        lengths.append(min(int(rng.integers(20, 181)), count - sum(lengths)))
    offsets = np.cumsum([0, *lengths])
    mean = rng.standard_normal(DIM).astype(np.float32)
    vectors, scales = np.empty((count, DIM), np.int8), np.empty(count, np.float32)
    for start, stop in pairwise(offsets):
        topic = mean + rng.standard_normal(DIM, np.float32)
        x = topic + 1.2 * rng.standard_normal((stop - start, DIM), np.float32)
        vectors[start:stop], scales[start:stop] = quantise(x / np.linalg.norm(x, axis=1, keepdims=True))
    names = tuple(f"document-{d}" for d in range(len(lengths)))
    return Corpus(
        "drawn", mx.array(vectors), mx.array(scales), offsets, names, EncoderCard(model="drawn", dim=DIM)
    )


def peak() -> str:
    return f"{resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / UNIT:.2f} GiB"


def baselines(count: int) -> None:
    corpus = drawn_corpus(count)
    parts = split_corpus(corpus, 0)
    print(
        f"{count:,} x {DIM} I8, {len(parts.train):,} training documents; {peak()} resident with the corpus "
        "made"
    )
    fit_baselines(corpus, parts.train[:20], parts.val[:20], 5)  # kernels are compiled
    began = time.perf_counter()
    for name in NAMES:
        at = time.perf_counter()
        fit_baselines(corpus, parts.train, parts.val, 5, only=(name,))
        print(f"{name:22} {time.perf_counter() - at:7.1f} s alone", flush=True)
    at = time.perf_counter()
    fit_baselines(corpus, parts.train, parts.val, 5)
    print(
        f"{'all together':22} {time.perf_counter() - at:7.1f} s, {peak()} at most; "
        f"{time.perf_counter() - began:.0f} s in all"
    )


def retrieval(candidates: int, queries: int) -> None:
    corpus = drawn_corpus(candidates)
    documents = np.arange(len(corpus.names))
    scored = sample(windows(corpus, documents, 5, ""), queries)
    pool = build_pool(scored, document_rows(corpus.offsets, documents))
    before = peak()
    at = time.perf_counter()
    found = ranks(pool, scored.truth())
    assert (found == 1).all()  # the truth itself as the query
    print(
        f"{queries:,} queries in {candidates:,} candidates: {time.perf_counter() - at:.1f} s, {before} "
        f"before, {peak()} at most"
    )


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("what", choices=("baselines", "retrieval"))
    parser.add_argument("--vectors", type=int, default=1_000_000)
    parser.add_argument("--candidates", type=int, default=200_000)
    parser.add_argument("--queries", type=int, default=10_000)
    given = parser.parse_args()
    baselines(given.vectors) if given.what == "baselines" else retrieval(given.candidates, given.queries)


if __name__ == "__main__":
    main()
