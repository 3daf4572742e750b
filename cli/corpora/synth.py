"""`lvm data synth`: a corpus whose best possible predictor is known."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import numpy as np

from mlx_lvm.cli.corpora.embed import Overwrite, ShardSize, stored_dtype
from mlx_lvm.cli.corpora.writing import CONTEXT, Dtype, Out, written
from mlx_lvm.cli.shared.common import Json, Output, process_option
from mlx_lvm.core.arrays import ranges
from mlx_lvm.core.result import JsonObject
from mlx_lvm.data.ingest.synthetic import Process
from mlx_lvm.data.ingest.transform import synthesise
from mlx_lvm.data.storage.reader import VECTOR_DTYPES, open_corpus
from mlx_lvm.errors import UsageError


def synth(
    out: Out,
    documents: Annotated[int, process_option(help="Documents to draw.")] = 1000,
    least: Annotated[int, process_option("--min-chunks", help="Chunks of the shortest document.")] = 20,
    most: Annotated[int, process_option("--max-chunks", help="Chunks of the longest.")] = 60,
    dim: Annotated[int, process_option(help="Width of the vectors.")] = 64,
    topic: Annotated[float, process_option(help="Variance share of the document's topic.")] = 0.25,
    drift: Annotated[
        float, process_option(help="Variance share of the drifting topic; the rest is noise.")
    ] = 0.45,
    seed: Annotated[int, process_option(help="Seed of everything.")] = 0,
    context: Annotated[
        int, process_option(min=1, help="Chunks of the window the optimum is told for.")
    ] = CONTEXT,
    dtype: Dtype = "f32",
    shard_size: ShardSize = None,
    overwrite: Overwrite = False,
    json: Json = False,
) -> None:
    """Draw a corpus whose best possible predictor is known: a linear-Gaussian topic process.

    No model that sees the window can have a smaller expected squared error than the one printed.

    Example:  lvm data synth --out synthetic.safetensors --documents 200 --dim 32
    """
    display = Output(json)
    process = Process(documents, least, most, dim, topic, drift, seed=seed)
    kind = stored_dtype(dtype, VECTOR_DTYPES)
    synthesise(process, out, kind, shard_bytes=shard_size, overwrite=overwrite)
    made = written(display, out)
    best = process.least_error(context)
    result = {**made, "context": context, "bayes_squared_error": best, **_optimum(out, process, context)}
    measured = f"{result['bayes_measured']:.6f} on {result['windows_measured']:,} windows of it"
    display.say(f"best possible with {context} chunks: squared error {best:.6f} expected, {measured}")
    plain = f"of the mean of the window {result['mean_cosine']:.4f}"
    display.say(f"cosine of that predictor {result['bayes_cosine']:.4f}, {plain}")
    display.result(result)


def _optimum(path: Path, process: Process, context: int, most: int = 20_000) -> JsonObject:
    """The Bayes predictor and the mean of the window, measured on windows of the first documents."""
    corpus = open_corpus(path)
    kept = max(1, int(np.searchsorted(corpus.offsets, most, side="right")) - 1)
    rows = corpus.read(0, int(corpus.offsets[kept]))
    counts = np.maximum(corpus.lengths[:kept] - context, 0)
    targets = ranges(corpus.offsets[:kept] + context, counts)
    if not len(targets):
        lengths = f"documents of {process.least} to {process.most}"
        raise UsageError(f"no window of {context} + 1 chunks in {lengths}")
    contexts, truth = rows[targets[:, None] + np.arange(-context, 0)], rows[targets]
    best, mean = process.predict(contexts), contexts.mean(axis=1)

    def cosine(a: np.ndarray) -> float:
        products = np.einsum("ij,ij->i", a, truth)
        return float((products / np.linalg.norm(a, axis=1) / np.linalg.norm(truth, axis=1)).mean())

    return {
        "bayes_measured": float(((best - truth) ** 2).sum(axis=1).mean()),
        "bayes_cosine": cosine(best),
        "mean_cosine": cosine(mean),
        "windows_measured": len(targets),
    }
