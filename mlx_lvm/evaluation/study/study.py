"""A closer look at one evaluation: direction, rollout, ablations, difficulty, ranking, attention and the
cases that decide.

study(examine(model, corpus)) -> dict, ready for JSON
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np

from mlx_lvm.core.mlx import mx
from mlx_lvm.evaluation.evaluate import CONTROL_NAMES, Evaluation
from mlx_lvm.evaluation.study.ablations import ablate
from mlx_lvm.evaluation.study.attention import attends, attention
from mlx_lvm.evaluation.study.difficulty import difficulty
from mlx_lvm.evaluation.study.direction import LAST, direction, explain
from mlx_lvm.evaluation.study.horizons import horizons
from mlx_lvm.evaluation.study.queries import queries
from mlx_lvm.evaluation.study.rollout import rollout
from mlx_lvm.metrics.figures import cosines
from mlx_lvm.metrics.names import COSINE
from mlx_lvm.metrics.retrieval import ranks
from mlx_lvm.predictors.base import sample
from mlx_lvm.predictors.history import several_horizons, takes_queries
from mlx_lvm.ranking.cases import cases
from mlx_lvm.ranking.judge import judge

REFERENCE = "lag-filter"
SHOWN = ("mean", REFERENCE)  # baselines alongside the model in rollout and difficulty
ROLLED = 4_000  # windows rolled out, evenly spaced
RANKED = 4_000  # windows ranked among every chunk of the corpus


def study(evaluation: Evaluation, progress: Callable[[str], None] = lambda line: None) -> dict[str, Any]:
    """Everything that the table leaves open, on the same windows. Its differences are to the best baseline in
    what the model is made for, and so are difficulty, ablations and cases.
    """
    name, windows, bootstrap = evaluation.name, evaluation.windows, evaluation.bootstrap
    objective, bench = evaluation.verdict.objective, evaluation.bench
    best = evaluation.summary.best[objective]
    scored = {key: objective.of(one.figures) for key, one in evaluation.measured.items()}

    def figure(key: str, predicted: mx.array) -> np.ndarray:
        if objective == COSINE:
            return np.array(cosines(predicted, windows.truth()), dtype=np.float64)
        return 1 / ranks(bench.pool, predicted, bench.mean, evaluation.measured[key].fraction)

    truth_last = evaluation.measured["oracle"].offsets[:, LAST]
    shown = list(dict.fromkeys([name, *SHOWN, best]))

    progress("direction")
    scores = evaluation.summary.scores
    left_out = {"best-in-span", "random", *(key for key, one in scores.items() if one.kind == "hybrid")}
    offsets = {key: one.offsets for key, one in evaluation.measured.items() if key not in left_out}
    draws = (bootstrap.resamples, bootstrap.seed)
    directed = direction(offsets, truth_last, windows.documents, *draws)
    out: dict[str, Any] = {"direction": {**directed.to_dict(), "sentence": explain(directed, name)}}
    out["difficulty"] = difficulty(
        {key: scored[key] for key in shown}, name, best, truth_last, bootstrap, objective.name
    )
    if name not in CONTROL_NAMES:  # the oracle has no truth to read after a context that nobody wrote
        compared = {key: evaluation.predictors[key] for key in dict.fromkeys([name, REFERENCE])}
        progress("rollout")
        out["rollout"] = rollout(compared, name, sample(windows, ROLLED), *draws).to_dict()
        several = several_horizons(evaluation.predictors[name])
        if several is not None:
            progress("horizons")
            out["horizons"] = horizons(several, sample(windows, ROLLED), bench, *draws).to_dict()
        with_query = takes_queries(evaluation.predictors[name])
        if with_query is not None:
            progress("queries")
            out["queries"] = queries(with_query, windows, bench.pool, *draws).to_dict()
        progress("ablations")
        out["ablations"] = ablate(compared, scored, REFERENCE, windows, bootstrap, figure)
    if evaluation.ranking is not None:
        progress("ranking")
        model, chosen = evaluation.predictors[name], sample(windows, RANKED)
        judged = judge(evaluation.ranking, model, chosen, evaluation.mean, *draws)
        out["ranking"], out["reliability"] = judged.to_dict(), judged.reliability.to_dict()
    progress("cases")
    out["cases"] = cases(scored[name], best, scored[best], windows, objective.name).to_dict()
    if evaluation.model is not None and attends(evaluation.model.model):
        progress("attention")
        cosine = {key: evaluation.measured[key].figures.window.cosine for key in (name, "mean")}
        seen = attention(evaluation.model.model, windows, bootstrap, cosine[name] - cosine["mean"])
        out["attention"] = seen.to_dict()
    return out
