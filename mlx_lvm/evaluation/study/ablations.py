"""Ablations: what a predictor loses when its context is shuffled, reversed, or its last chunk all of it.

The loss is paired by window and compared with what the lag filter loses: a network that has learned order
must lose more than five scalars do. The mean of the context cannot notice the first two.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from mlx_lvm.core.mlx import mx
from mlx_lvm.core.result import Interval, JsonObject, Result
from mlx_lvm.core.stats import Difference, DocumentBootstrap
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
    order = places[::-1] if ablation == "reversed" else np.full(context, context - 1)
    return np.broadcast_to(order, (count, context))


@dataclass(frozen=True)
class Change(Result):
    """Of a predictor's figure; versus: less the change of the reference predictor, None for that itself."""

    change: Interval
    versus: Difference | None = None

    def to_dict(self) -> JsonObject:
        out: JsonObject = {"change": self.change.value, "ci": self.change.ends()}
        if self.versus is not None:
            out[f"versus_{self.versus.baseline}"] = self.versus.without_baseline()
        return out


def ablate(
    predictors: dict[str, Predictor],
    intact: dict[str, np.ndarray],
    reference: str,
    windows: Windows,
    bootstrap: DocumentBootstrap,
    figure: Figure,
) -> dict[str, dict[str, Change]]:
    """{ablation: {predictor: its change}}.

    intact: the figure of each predictor in every window; figure: the same of other predictions of it.
    """
    out: dict[str, dict[str, Change]] = {}
    for ablation in ABLATIONS:
        order = orders(ablation, len(windows), windows.context, bootstrap.seed)
        changed = {
            name: figure(name, predict_reordered(predictor, windows, order)) - intact[name]
            for name, predictor in predictors.items()
        }
        base, others = changed[reference], [name for name in changed if name != reference]
        versus = {name: bootstrap.difference(changed[name], reference, base) for name in others}
        out[ablation] = {n: Change(bootstrap.interval(one), versus.get(n)) for n, one in changed.items()}
    return out


def predict_reordered(predictor: Predictor, windows: Windows, order: np.ndarray) -> mx.array:
    """Predictions [n, dim] of every window, the context read in another order."""
    parts = []
    for block in history_blocks(windows, predictor):
        read = synthetic_histories(windows, block, predictor).reordered(order[block])
        parts.append(predictor.predict(read.windows(windows.context)))
        mx.eval(parts[-1])
    return mx.concatenate(parts)
