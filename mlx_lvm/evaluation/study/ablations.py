"""Ablations: what a predictor loses when the context is shuffled, reversed, or its last chunk stands in every
place.

The loss is paired by window and compared with what the lag filter loses: a network that has learned order
must lose more than five scalars do. The mean of the context cannot notice the first two.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np

from mlx_lvm.core.mlx import mx
from mlx_lvm.core.stats import DocumentBootstrap
from mlx_lvm.data.windows import Windows
from mlx_lvm.predictors.base import Predictor
from mlx_lvm.predictors.histories import history_blocks, synthetic_histories

Figure = Callable[[str, mx.array], np.ndarray]  # (predictor, its predictions [n, dim]) -> [n]
ABLATIONS = ("shuffled", "reversed", "last only")


def orders(ablation: str, count: int, context: int, seed: int) -> np.ndarray:
    """[count, context] indices into the context, oldest place first."""
    places = np.arange(context)
    if ablation == "shuffled":
        return np.random.default_rng(seed).permuted(np.broadcast_to(places, (count, context)).copy(), axis=1)
    return np.broadcast_to(
        places[::-1] if ablation == "reversed" else np.full(context, context - 1), (count, context)
    )


def ablate(
    predictors: dict[str, Predictor],
    intact: dict[str, np.ndarray],
    reference: str,
    windows: Windows,
    bootstrap: DocumentBootstrap,
    figure: Figure,
) -> dict[str, Any]:
    """{ablation: {predictor: change of the figure with its interval, and its difference to that of
    `reference`}}.

    intact: the figure of each predictor in every window; figure: the same of other predictions of it.
    """
    out: dict[str, Any] = {}
    for ablation in ABLATIONS:
        order = orders(ablation, len(windows), windows.context, bootstrap.seed)
        change = {
            name: figure(name, predict_reordered(one, windows, order)) - intact[name]
            for name, one in predictors.items()
        }
        out[ablation] = {name: _entry(name, change, reference, bootstrap) for name in change}
    return out


def predict_reordered(predictor: Predictor, windows: Windows, order: np.ndarray) -> mx.array:
    """Predictions [n, dim] of every window, the context read in another order."""
    parts = []
    for block in history_blocks(windows, predictor):
        read = synthetic_histories(windows, block, predictor).reordered(order[block])
        parts.append(predictor.predict(read.windows(windows.context)))
        mx.eval(parts[-1])
    return mx.concatenate(parts)


def _entry(
    name: str, change: dict[str, np.ndarray], reference: str, bootstrap: DocumentBootstrap
) -> dict[str, Any]:
    own = bootstrap.interval(change[name])
    out: dict[str, Any] = {"change": own.value, "ci": own.ends()}
    if name != reference:
        against = bootstrap.difference(change[name], reference, change[reference])
        out[f"versus_{reference}"] = against.without_baseline()
    return out
