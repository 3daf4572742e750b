"""A closer look at one evaluation: direction, rollout, ablations, difficulty, ranking, attention and the cases that decide.

study(examine(model, corpus)) -> dict, ready for JSON
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from mlx_lvm.evaluation.evaluate import CONTROL_NAMES, Evaluation
from mlx_lvm.evaluation.study.ablations import ablate
from mlx_lvm.evaluation.study.attention import attends, attention
from mlx_lvm.evaluation.study.difficulty import difficulty
from mlx_lvm.evaluation.study.direction import LAST, direction, explain
from mlx_lvm.evaluation.study.horizons import direct, horizons
from mlx_lvm.evaluation.study.queries import queries
from mlx_lvm.evaluation.study.rollout import rollout
from mlx_lvm.predictors.base import sample
from mlx_lvm.predictors.history import takes_queries
from mlx_lvm.ranking.cases import cases
from mlx_lvm.ranking.ranking import judge

REFERENCE = "lag-filter"
SHOWN = ("mean", REFERENCE)  # closed forms beside the model in rollout and difficulty
ROLLED = 4_000  # windows rolled out, evenly spaced
RANKED = 4_000  # windows ranked among every chunk of the corpus


def study(evaluation: Evaluation, progress: Callable[[str], None] = lambda line: None) -> dict[str, Any]:
    """Everything that the table leaves open, on the same windows. Its differences are to the best closed form by cosine."""
    name, windows, bootstrap = evaluation.name, evaluation.windows, evaluation.bootstrap
    best = evaluation.result["best_closed_form"]["cosine"]
    cosine = {key: one.figures["cosine"] for key, one in evaluation.measured.items()}
    truth_last = evaluation.measured["oracle"].offsets[:, LAST]
    beside = list(dict.fromkeys([name, *SHOWN, best]))

    progress("direction")
    offsets = {
        key: one.offsets for key, one in evaluation.measured.items() if key not in ("best-in-span", "random")
    }
    offsets = {
        key: curve for key, curve in offsets.items() if evaluation.result["metrics"][key]["kind"] != "hybrid"
    }
    out: dict[str, Any] = {
        "direction": direction(offsets, truth_last, windows.documents, bootstrap.resamples, bootstrap.seed)
    }
    out["direction"]["sentence"] = explain(out["direction"], name)
    out["difficulty"] = difficulty({key: cosine[key] for key in beside}, name, best, truth_last, bootstrap)
    if name not in CONTROL_NAMES:  # the oracle has no truth to read behind a context that nobody wrote
        compared = {key: evaluation.predictors[key] for key in dict.fromkeys([name, REFERENCE])}
        progress("rollout")
        out["rollout"] = rollout(compared, name, sample(windows, ROLLED), bootstrap.resamples, bootstrap.seed)
        several = direct(evaluation.predictors[name])
        if several is not None:
            progress("horizons")
            out["horizons"] = horizons(
                several, sample(windows, ROLLED), evaluation.bench, bootstrap.resamples, bootstrap.seed
            )
        asked = takes_queries(evaluation.predictors[name])
        if asked is not None:
            progress("queries")
            out["queries"] = queries(
                asked, windows, evaluation.bench.pool, bootstrap.resamples, bootstrap.seed
            )
        progress("ablations")
        out["ablations"] = ablate(compared, cosine, REFERENCE, windows, bootstrap)
    if evaluation.ranking is not None:
        progress("ranking")
        model, chosen = evaluation.predictors[name], sample(windows, RANKED)
        out["ranking"] = judge(
            evaluation.ranking, model, chosen, evaluation.mean, bootstrap.resamples, bootstrap.seed
        )
        out["reliability"] = out["ranking"].pop("reliability")
    progress("cases")
    out["cases"] = cases(cosine, name, best, windows)
    if evaluation.model is not None and attends(evaluation.model.model):
        progress("attention")
        out["attention"] = attention(
            evaluation.model.model, windows, bootstrap, cosine[name] - cosine["mean"]
        )
    return out
