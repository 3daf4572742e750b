"""The next chunk of a document: the predicted vector, the chunks nearest to it, and further steps of a rollout."""

from __future__ import annotations

from typing import Any

import numpy as np

from mlx_lvm.backend import mx
from mlx_lvm.data.corpus import Corpus
from mlx_lvm.data.windows import Windows
from mlx_lvm.errors import UsageError
from mlx_lvm.evaluation.cases import label
from mlx_lvm.evaluation.predictor import Predictor
from mlx_lvm.evaluation.rollout import roll
from mlx_lvm.evaluation.stage import stage
from mlx_lvm.models.base import normalize

BLOCK = 32_768  # chunks scored together


def window_at(corpus: Corpus, document: int, at: int | None, context: int) -> Windows:
    """The window whose target is chunk `at` of the document, counted from 0; default: the chunk after its last.

    Raises UsageError where the document has no such chunk or less than `context` before it.
    """
    name, length, start = corpus.names[document], int(corpus.lengths[document]), int(corpus.offsets[document])
    at = length if at is None else at
    if length < context:
        raise UsageError(f"document '{name}' has {length} chunks; a context of {context} is asked. Choose a longer document.")
    if not context <= at <= length:
        raise UsageError(f"--at {at}: document '{name}' has {length} chunks; chunks {context} to {length} have {context} before them")
    return Windows(corpus, context, np.array([start + at], np.int32), np.array([start], np.int32), np.array([document]), 0)


def predict(
    predictor: Predictor, corpus: Corpus, document: int, at: int | None, context: int, steps: int = 1, top: int = 5
) -> dict[str, Any]:
    """`steps`: for each, the unit vector and the chunks of the corpus nearest to it (the context's own left out), best
    first, with their cosines; and where the document goes on, the true chunk with its cosine and rank.
    """
    window = window_at(corpus, document, at, context)
    target, end = int(window.targets[0]), int(corpus.offsets[document + 1])
    units = np.array(roll(predictor, stage(window, slice(None), predictor), context, steps)[:, 0])
    scores = cosines_with(corpus, units)
    read = np.arange(target - context, target)
    scores[:, read] = -np.inf
    out = []
    for step, (unit, values) in enumerate(zip(units, scores, strict=True)):
        order = np.argsort(-values, kind="stable")[: min(top, len(values) - context)]
        entry: dict[str, Any] = {"step": step + 1, "nearest": [{**label(corpus, int(r)), "score": float(values[r])} for r in order]}
        if target + step < end:
            true = float(values[target + step])
            entry["truth"] = {**label(corpus, target + step), "score": true, "rank": int((values > true).sum()) + 1}
        out.append({**entry, "vector": [float(x) for x in unit]})
    return {
        "model": predictor.name,
        "corpus": corpus.name,
        "document": corpus.names[document],
        "at": target - int(corpus.offsets[document]),
        "context": [label(corpus, int(row)) for row in read],
        "candidates": len(corpus) - context,
        "steps": out,
    }


def cosines_with(corpus: Corpus, units: np.ndarray) -> np.ndarray:
    """Cosine of unit vectors [n, dim] with every chunk, [n, N]."""
    queries, parts = mx.array(units), []
    for low in range(0, len(corpus), BLOCK):
        rows = mx.arange(low, min(low + BLOCK, len(corpus)))
        parts.append(np.array(queries @ normalize(corpus.take(rows)).T))
    return np.concatenate(parts, axis=1)
