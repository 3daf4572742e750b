"""Cost of an AMN training step against the corpus' size, the context's length and the vectors' width; memory
alongside.

    python benchmarks/scale.py --out benchmarks/scale.json --plot benchmarks/scale.svg

Vectors are drawn at random and stored as the corpora are, I8 with a scale a row: what they say does not
matter here, where they lie does. Contexts are gathered from anywhere in the corpus, so that a step whose cost
grew with it would show. Settings take turns with the usual one, a few steps each; a ratio is the median of
those of the rounds, so that a machine that is busy for a while spoils a round and not the figure. 10^7
vectors are 7.7 GB, and need twice that while they are drawn.
"""

from __future__ import annotations

import argparse
import json
import time
from pathlib import Path
from typing import Any

import numpy as np

from mlx_lvm.core.linux_cpu import tune, tuning

tune()

from mlx_lvm.bench.roofline import Cost
from mlx_lvm.core.mlx import mx
from mlx_lvm.data.card import EncoderCard
from mlx_lvm.data.corpus import Corpus
from mlx_lvm.models import build
from mlx_lvm.models.amn import AMNConfig
from mlx_lvm.training.config import TrainConfig
from mlx_lvm.training.step import TrainStep

BATCH, ROUNDS, CALLS = 32, 30, 5
DOCUMENT = 200  # chunks of each
USUAL = {"vectors": 10_000, "context": 5, "dim": 768}
SERIES = {
    "vectors": (10_000, 100_000, 1_000_000, 10_000_000),
    "context": (5, 10, 20, 40, 64, 100),
    "dim": (384, 768, 1024, 1536, 2048, 3072, 4096),
}
LABELS = {
    "vectors": "vectors in the corpus",
    "context": "chunks in the context",
    "dim": "width of the vectors",
}


def drawn_corpus(vectors: int, dim: int) -> Corpus:
    """Random I8 rows made in pieces, in documents of equal length."""
    draw = np.random.default_rng(0)
    stored = np.empty((vectors, dim), np.int8)
    for start in range(0, vectors, 50_000):
        part = stored[start : start + 50_000]
        part[:] = draw.integers(-127, 128, part.shape, np.int8)
    scales = np.full(vectors, 1 / (73 * dim**0.5), np.float32)  # rows of about unit length
    offsets = np.arange(0, vectors + 1, DOCUMENT)
    names = tuple(f"document {number}" for number in range(len(offsets) - 1))
    return Corpus("drawn", mx.array(stored), mx.array(scales), offsets, names, EncoderCard(dim=dim))


class Setting:
    """One point of a series, ready to run."""

    def __init__(self, vectors: int, context: int, dim: int) -> None:
        corpus, config = drawn_corpus(vectors, dim), AMNConfig(dim=dim)
        mx.random.seed(0)
        self.model = build(config)
        self.model.train()
        self.step = TrainStep(
            self.model, corpus, TrainConfig(context=context, loss_cosine=1.0, batch_size=BATCH)
        )
        self.draw, self.vectors, self.context = np.random.default_rng(1), vectors, context
        self.corpus_bytes = corpus.vectors.nbytes + (0 if corpus.scales is None else corpus.scales.nbytes)
        self.work = Cost.of(self.model, context).step(BATCH)
        self.rounds: list[float] = []  # median seconds of a step in each
        self.run()
        self.rounds.clear()

    def run(self) -> None:
        """One round."""
        times = []
        for _ in range(CALLS):
            documents = self.draw.integers(0, self.vectors // DOCUMENT, BATCH)
            targets = documents * DOCUMENT + self.draw.integers(self.context, DOCUMENT, BATCH)
            began = time.perf_counter()
            self.step(targets.astype(np.int32), 1e-4, 0)
            mx.eval(self.step.arrays())
            times.append(time.perf_counter() - began)
        self.rounds.append(float(np.median(times)))


def measure(name: str, rounds: int) -> list[dict[str, Any]]:
    """The points of one series, in turn. Corpora of any size do not fit side by side: each of those has the
    usual one alone.
    """
    groups = [[value] for value in SERIES[name]] if name == "vectors" else [list(SERIES[name])]
    return [row for group in groups for row in measure_group(name, group, rounds)]


def measure_group(name: str, values: list[int], rounds: int) -> list[dict[str, Any]]:
    settings, usual = [Setting(**{**USUAL, name: value}) for value in values], Setting(**USUAL)
    mx.reset_peak_memory()
    for _ in range(rounds):
        usual.run()
        for setting in settings:
            setting.run()
    rows = []
    for value, setting in zip(values, settings, strict=True):
        row = {
            "series": name,
            "value": value,
            "step_ms": float(np.median(setting.rounds)) * 1e3,
            "to_usual": float(np.median(np.array(setting.rounds) / np.array(usual.rounds))),
            "gflop": setting.work.flops / 1e9,
            "corpus_mb": setting.corpus_bytes / 1e6,
        }
        if len(values) == 1:  # with the usual setting alongside
            row["peak_mb"] = mx.get_peak_memory() / 1e6
        print(json.dumps(row), flush=True)
        rows.append(row)
    return rows


def plot(rows: list[dict[str, Any]], path: Path) -> None:
    from matplotlib import pyplot

    figure, axes = pyplot.subplots(1, len(SERIES), figsize=(11, 3.2), constrained_layout=True)
    for axis, name in zip(axes, SERIES, strict=True):
        found = [row for row in rows if row["series"] == name]
        axis.plot([row["value"] for row in found], [row["to_usual"] for row in found], "o-", color="#2060a0")
        axis.set(xlabel=LABELS[name], ylim=(0, 1.15 * max(row["to_usual"] for row in found)))
        if name == "vectors":
            axis.set_xscale("log")
        axis.grid(alpha=0.3)
    axes[0].set_ylabel(f"time of a step of {BATCH},\nrelative to {USUAL['context']} chunks of {USUAL['dim']}")
    figure.savefig(path)


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--series", nargs="+", choices=SERIES, default=list(SERIES))
    parser.add_argument("--rounds", type=int, default=ROUNDS)
    parser.add_argument("--out", type=Path)
    parser.add_argument("--plot", type=Path)
    arguments = parser.parse_args()
    rows = [row for name in arguments.series for row in measure(name, arguments.rounds)]
    if arguments.out:
        result = {
            "device": str(mx.default_device()),
            "blas": tuning().blas.name,
            "batch": BATCH,
            "usual": USUAL,
            "rows": rows,
        }
        arguments.out.write_text(json.dumps(result, indent=1) + "\n")
    if arguments.plot:
        plot(rows, arguments.plot)


if __name__ == "__main__":
    main()
