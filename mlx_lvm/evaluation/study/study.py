"""A closer look at one evaluation: direction, rollout, ablations, difficulty, ranking, attention, cases.

study(examine(model, corpus)) -> Study
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace

import numpy as np

from mlx_lvm.core.mlx import mx
from mlx_lvm.core.result import Result
from mlx_lvm.evaluation.evaluate import CONTROL_NAMES, Evaluation
from mlx_lvm.evaluation.study.ablations import Change, ablate
from mlx_lvm.evaluation.study.attention import Attention, attends, attention
from mlx_lvm.evaluation.study.difficulty import Difficulty, difficulty
from mlx_lvm.evaluation.study.direction import Direction, direction, explain
from mlx_lvm.evaluation.study.horizons import HorizonTerms, horizons
from mlx_lvm.evaluation.study.queries import QueryTerms, queries
from mlx_lvm.evaluation.study.rollout import Rollout, rollout
from mlx_lvm.metrics.figures import LAST, cosine_values
from mlx_lvm.metrics.names import COSINE
from mlx_lvm.metrics.retrieval import ranks
from mlx_lvm.predictors.base import sample
from mlx_lvm.predictors.history import several_horizons, takes_queries
from mlx_lvm.ranking.cases import Cases, cases
from mlx_lvm.ranking.confidence import Reliability
from mlx_lvm.ranking.judge import Judgement, judge

REFERENCE = "lag-filter"
SHOWN = ("mean", REFERENCE)  # baselines alongside the model in rollout and difficulty
ROLLED = 4_000  # windows rolled out, evenly spaced
RANKED = 4_000  # windows ranked among every chunk of the corpus


@dataclass(frozen=True)
class Study(Result):
    """What the table of an evaluation leaves open, on the same windows; None where the subject has nothing of
    the kind. Differences are to the best baseline in what the model is made for.
    """

    derived = ("reliability",)

    direction: Direction
    difficulty: Difficulty
    cases: Cases
    rollout: Rollout | None = None
    horizons: HorizonTerms | None = None
    queries: QueryTerms | None = None
    ablations: dict[str, dict[str, Change]] | None = None
    ranking: Judgement | None = None
    attention: Attention | None = None

    @property
    def reliability(self) -> Reliability | None:
        return self.ranking.reliability if self.ranking else None


def study(evaluation: Evaluation, progress: Callable[[str], None] = lambda line: None) -> Study:
    """A closer look at an evaluation."""
    name, windows, bootstrap = evaluation.name, evaluation.windows, evaluation.bootstrap
    objective, bench = evaluation.verdict.objective, evaluation.bench
    best = evaluation.summary.best[objective]
    scored = {key: objective.of(one.figures) for key, one in evaluation.measured.items()}

    def figure(key: str, predicted: mx.array) -> np.ndarray:
        if objective == COSINE:
            return cosine_values(predicted, windows.truth())
        return 1 / ranks(bench.pool, predicted, bench.mean, evaluation.measured[key].fraction)

    truth_last = evaluation.measured["oracle"].offsets[:, LAST]
    shown = list(dict.fromkeys([name, *SHOWN, best]))

    progress("direction")
    scores = evaluation.summary.scores
    left_out = {"best-in-span", "random", *(key for key, one in scores.items() if one.kind == "hybrid")}
    offsets = {key: one.offsets for key, one in evaluation.measured.items() if key not in left_out}
    directed = direction(offsets, truth_last, bootstrap)
    model = evaluation.predictors[name]
    rolled = ahead = queried = ablated = judged = seen = None
    if name not in CONTROL_NAMES:  # the oracle has no truth to read after a context that nobody wrote
        compared = {key: evaluation.predictors[key] for key in dict.fromkeys([name, REFERENCE])}
        progress("rollout")
        rolled = rollout(compared, name, sample(windows, ROLLED), bootstrap)
        if (several := several_horizons(model)) is not None:
            progress("horizons")
            ahead = horizons(several, sample(windows, ROLLED), bench, bootstrap)
        if (with_query := takes_queries(model)) is not None:
            progress("queries")
            queried = queries(with_query, windows, bench.pool, bootstrap)
        progress("ablations")
        ablated = ablate(compared, scored, REFERENCE, windows, bootstrap, figure)
    if evaluation.ranking is not None:
        progress("ranking")
        draws = (bootstrap.resamples, bootstrap.seed)
        judged = judge(evaluation.ranking, model, sample(windows, RANKED), bench.mean, *draws)
    if evaluation.model is not None and attends(evaluation.model.model):
        progress("attention")
        cosine = {key: evaluation.measured[key].figures.window.cosine for key in (name, "mean")}
        seen = attention(evaluation.model.model, windows, bootstrap, cosine[name] - cosine["mean"])
    progress("cases")
    by_name = {key: scored[key] for key in shown}
    return Study(
        direction=replace(directed, sentence=explain(directed, name)),
        difficulty=difficulty(by_name, name, best, truth_last, bootstrap, objective),
        cases=cases(scored[name], best, scored[best], windows, objective.name),
        rollout=rolled,
        horizons=ahead,
        queries=queried,
        ablations=ablated,
        ranking=judged,
        attention=seen,
    )
