"""Rollout: predict t+1, take the prediction for the chunk, predict t+2 from it, and so on.

Compared with what needs no rollout: the first prediction repeated, and the mean of the context held.
"""

from __future__ import annotations

from dataclasses import dataclass, field, replace

import numpy as np

from mlx_lvm.core.mlx import mx
from mlx_lvm.core.result import Result
from mlx_lvm.core.stats import DocumentBootstrap
from mlx_lvm.data.windows import Windows
from mlx_lvm.evaluation.study.curves import Curve, curves
from mlx_lvm.metrics.figures import cosine_values
from mlx_lvm.models.base import normalize
from mlx_lvm.predictors.base import Predictor, predict_all
from mlx_lvm.predictors.baselines import ContextMean
from mlx_lvm.predictors.histories import SyntheticHistories, history_blocks, synthetic_histories

STEPS = 5


@dataclass(frozen=True)
class Rollout(Result):
    """Mean cosine with the true chunk at t+1 .. t+steps, by predictor, over `windows` windows."""

    steps: int
    windows: int
    curves: dict[str, Curve] = field(default_factory=dict)


def roll(predictor: Predictor, histories: SyntheticHistories, context: int, steps: int) -> mx.array:
    """Unit predictions [steps, n, dim] of the chunks after each history, each read as if it were text."""
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
    every: DocumentBootstrap,
    steps: int = STEPS,
) -> Rollout:
    """Every predictor rolled out, the first prediction of `repeated` held, and the context's mean held."""
    chosen = windows.with_chunks_after(steps)
    if not len(chosen):
        return Rollout(steps, 0)
    truth = chosen.corpus.take(chosen.targets[:, None] + np.arange(steps))
    figures = {
        name: cosine_values(rolled_out(predictor, chosen, steps), truth)
        for name, predictor in predictors.items()
    }
    held = {f"{repeated}, first prediction held": predictors[repeated], "context mean held": ContextMean()}
    for name, predictor in held.items():
        figures[name] = cosine_values(predict_all(predictor, chosen)[:, None], truth)
    bootstrap = replace(every, documents=chosen.documents)
    return Rollout(steps, len(chosen), curves(figures, bootstrap))


def rolled_out(predictor: Predictor, windows: Windows, steps: int) -> mx.array:
    """Unit predictions [n, steps, dim] of the target of every window and of what follows it."""
    parts = [
        roll(predictor, synthetic_histories(windows, block, predictor), windows.context, steps)
        for block in history_blocks(windows, predictor)
    ]
    return mx.concatenate(parts, axis=1).swapaxes(0, 1)
