"""From figures of windows to means with intervals, and paired differences to the best baseline.

summarise(measured, bootstrap, baselines) -> Summary
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from mlx_lvm.core.result import Interval, JsonObject, Result, as_json
from mlx_lvm.core.stats import Difference, DocumentBootstrap, intervals
from mlx_lvm.evaluation.setup import Measured
from mlx_lvm.metrics.figures import skill
from mlx_lvm.metrics.names import CENTRED_COSINE, COMPARED, COSINE, EVERY, MRR, Metric

SKILLS = (COSINE, CENTRED_COSINE, MRR)
MEAN = "mean"  # the baseline that everything is compared with, best or not


@dataclass(frozen=True)
class PredictorScores(Result):
    """One predictor: its kind (model, hybrid, baseline, control or transferred), its figures, and their
    differences to the best baseline in each metric, where that is another, and to the context's mean.
    """

    kind: str
    values: dict[Metric, Interval]
    context_ratio: Interval
    fraction: float
    skill: dict[Metric, float]
    versus_best: dict[Metric, Difference]
    versus_mean: Difference | None

    def __getitem__(self, metric: Metric) -> float:
        return self.values[metric].value

    def to_dict(self) -> JsonObject:
        """Retrieval in a document and with the mean taken off lie in objects of their own."""
        out: JsonObject = {}
        for metric, interval in self.values.items():
            place = out if metric.group in ("window", "split") else out.setdefault(metric.group, {})
            place |= {metric.name: interval.value, f"{metric.name}_ci": interval.ends()}
        out["context_ratio"], out["context_ratio_ci"] = self.context_ratio.value, self.context_ratio.ends()
        out["centred"]["fraction"] = self.fraction
        out["skill"], out["versus_best"] = as_json(self.skill), as_json(self.versus_best)
        if self.versus_mean is not None:
            out["versus_mean"] = self.versus_mean.without_baseline()
        return {**out, "kind": self.kind}


@dataclass(frozen=True)
class Summary:
    """Every predictor's scores, by name, and which baseline is best in each metric."""

    scores: dict[str, PredictorScores]
    best: dict[Metric, str]


@dataclass(frozen=True)
class _Draws:
    """Means, and resampled means [resamples], of every metric and of the likeness to the context."""

    value: dict[Metric, float]
    resampled: dict[Metric, np.ndarray]
    ratio: float
    resampled_ratio: np.ndarray


def summarise(
    measured: dict[str, Measured],
    bootstrap: DocumentBootstrap,
    baselines: Sequence[str],
    kinds: dict[str, str],
) -> Summary:
    """kinds: {predictor: kind}. All predictors see the same resamples."""
    drawn = {name: _draw(one, bootstrap) for name, one in measured.items()}
    best = {
        metric: max(baselines, key=lambda name, m=metric: drawn[name].value[m])  # type: ignore[misc]
        for metric in COMPARED
    }

    def interval(value: float, draws: np.ndarray) -> Interval:
        return intervals(np.array([value]), draws[:, None], bootstrap.count)[0]

    def difference(name: str, baseline: str, metric: Metric) -> Difference:
        a, b = drawn[name], drawn[baseline]
        less = interval(a.value[metric] - b.value[metric], a.resampled[metric] - b.resampled[metric])
        return Difference(less.value, less.low, less.high, less.p, baseline)

    scores = {}
    for name, one in drawn.items():
        scores[name] = PredictorScores(
            kind=kinds[name],
            values={metric: interval(one.value[metric], one.resampled[metric]) for metric in EVERY},
            context_ratio=interval(one.ratio, one.resampled_ratio),
            fraction=measured[name].fraction,
            skill={m: skill(one.value[m], drawn[best[m]].value[m]) for m in SKILLS},
            versus_best={m: difference(name, other, m) for m, other in best.items() if name != other},
            versus_mean=difference(name, MEAN, COSINE) if name != MEAN and MEAN in drawn else None,
        )
    return Summary(scores, best)


def _draw(measured: Measured, bootstrap: DocumentBootstrap) -> _Draws:
    window = measured.figures.window
    columns = [metric.of(measured.figures) for metric in EVERY]
    table = np.stack([*columns, window.to_context, window.truth_to_context], axis=1)
    values, resampled = table.mean(axis=0).tolist(), bootstrap.means(table).T
    named, drawn = dict(zip(EVERY, values, strict=False)), dict(zip(EVERY, resampled, strict=False))
    return _Draws(named, drawn, values[-2] / values[-1], resampled[-2] / resampled[-1])
