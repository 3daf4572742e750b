"""Rollout: predict t+1, take the prediction for the chunk, predict t+2 from it, and so on.

Beside it what needs no rollout: the first prediction repeated, and the mean of the context held.
"""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np

from mlx_lvm.core.mlx import mx
from mlx_lvm.core.stats import DocumentBootstrap
from mlx_lvm.data.windows import Windows
from mlx_lvm.metrics.figures import cosines
from mlx_lvm.models.base import normalize
from mlx_lvm.predictors.base import Predictor, predict_all
from mlx_lvm.predictors.stage import Stage, stage, stage_blocks

STEPS = 5


def roll(predictor: Predictor, histories: Stage, context: int, steps: int) -> mx.array:
    """Unit predictions [steps, n, dim] of the chunks after each history, every one read as if it were text."""
    out = []
    for step in range(steps):
        unit = normalize(predictor.predict(histories.windows(context)))
        mx.eval(unit)
        out.append(unit)
        if step + 1 < steps:
            histories = histories.extended(unit)
    return mx.stack(out)


def rollout(
    predictors: dict[str, Predictor],
    repeated: str,
    windows: Windows,
    resamples: int,
    seed: int,
    steps: int = STEPS,
) -> dict[str, Any]:
    """Mean cosine with the true chunk at t+1 .. t+steps of every predictor rolled out, of the first prediction of
    `repeated` held, and of the context's mean held; over the windows with so many chunks after them.
    """
    ends = windows.corpus.offsets[1:][windows.documents]
    keep = windows.targets + steps <= ends
    out: dict[str, Any] = {"steps": steps, "windows": int(keep.sum()), "curves": {}}
    if not keep.any():
        return out
    chosen = subset(windows, keep)
    bootstrap = DocumentBootstrap(chosen.documents, resamples, seed)
    truth = chosen.corpus.take(mx.array((chosen.targets[:, None] + np.arange(steps)).astype(np.int32)))
    figures: dict[str, np.ndarray] = {}
    for name, predictor in predictors.items():
        figures[name] = _against(rolled_out(predictor, chosen, steps), truth)
    held = {
        f"{repeated}, first prediction held": predict_all(predictors[repeated], chosen),
        "context mean held": _means(chosen),
    }
    for name, vectors in held.items():
        figures[name] = _against(mx.broadcast_to(vectors[:, None], truth.shape), truth)
    for name, values in figures.items():
        found = bootstrap.intervals({str(step): values[:, step] for step in range(steps)})
        out["curves"][name] = {
            "cosine": [one.value for one in found.values()],
            "ci": [one.ends() for one in found.values()],
        }
    return out


def rolled_out(predictor: Predictor, windows: Windows, steps: int) -> mx.array:
    """Unit predictions [n, steps, dim] of the target of every window and of what follows it."""
    parts = [
        roll(predictor, stage(windows, block, predictor), windows.context, steps)
        for block in stage_blocks(windows, predictor)
    ]
    return mx.concatenate(parts, axis=1).swapaxes(0, 1)


def subset(windows: Windows, keep: np.ndarray) -> Windows:
    return replace(
        windows, targets=windows.targets[keep], starts=windows.starts[keep], documents=windows.documents[keep]
    )


def _means(windows: Windows) -> mx.array:
    return mx.concatenate([windows.contexts(block).mean(axis=1) for block in windows.blocks()])


def _against(predicted: mx.array, truth: mx.array) -> np.ndarray:
    """[n, steps, dim] twice -> cosines [n, steps]."""
    return np.array(cosines(predicted, truth), dtype=np.float64)
