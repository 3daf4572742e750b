"""Ablations: what a predictor loses when the context is shuffled, reversed, or its last chunk stands in every place.

The loss is paired by window and set beside what the lag filter loses: a network that has learned order must lose more
than five scalars do. The mean of the context cannot notice the first two.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from mlx_lvm.core.mlx import mx
from mlx_lvm.core.stats import DocumentBootstrap, Interval
from mlx_lvm.data.windows import Windows
from mlx_lvm.metrics.figures import cosines
from mlx_lvm.predictors.base import Predictor
from mlx_lvm.predictors.stage import stage, stage_blocks

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
) -> dict[str, Any]:
    """{ablation: {predictor: change of the cosine with its interval, and its difference to that of `reference`}}.

    intact: the cosine of each predictor in every window.
    """
    out: dict[str, Any] = {}
    for ablation in ABLATIONS:
        order = orders(ablation, len(windows), windows.context, bootstrap.seed)
        change = {name: cosine_of(one, windows, order) - intact[name] for name, one in predictors.items()}
        against = {
            f"{name} - {reference}": values - change[reference]
            for name, values in change.items()
            if name != reference
        }
        found = bootstrap.intervals({**change, **against})
        out[ablation] = {
            name: _entry(found[name], found.get(f"{name} - {reference}"), reference) for name in change
        }
    return out


def cosine_of(predictor: Predictor, windows: Windows, order: np.ndarray) -> np.ndarray:
    """Cosine with the truth in every window, the context read in another order."""
    parts = []
    for block in stage_blocks(windows, predictor):
        made = stage(windows, block, predictor).reordered(order[block]).windows(windows.context)
        values = cosines(predictor.predict(made), windows.truth(block))
        mx.eval(values)
        parts.append(np.array(values, dtype=np.float64))
    return np.concatenate(parts)


def _entry(change: Interval, against: Interval | None, reference: str) -> dict[str, Any]:
    out: dict[str, Any] = {"change": change.value, "ci": change.ends()}
    if against is not None:
        out[f"versus_{reference}"] = {"difference": against.value, "ci": against.ends(), "p": against.p}
    return out
