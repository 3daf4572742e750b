"""How an evaluation reads in text: the verdict, its table, what was scored, what to know of it."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from mlx_lvm.core.result import plain_table
from mlx_lvm.core.stats import Difference
from mlx_lvm.evaluation.evaluate import Evaluation
from mlx_lvm.evaluation.summary import PredictorScores
from mlx_lvm.metrics.names import (
    CENTRED_COSINE,
    CENTRED_MRR,
    CENTRED_RECALL,
    COSINE,
    IN_DOCUMENT_MRR,
    MARGIN,
    MRR,
    RECALLS,
    Metric,
)

BASELINES = 3  # best ones that a short table shows
MEAN = "mean"  # and the one that everybody can picture


@dataclass(frozen=True)
class Column:
    """A column of a table of predictors: its head, and its cell for one of them."""

    head: str
    cell: Callable[[PredictorScores], str]


def figure(head: str, metric: Metric, form: str = ".4f") -> Column:
    """A column that holds the mean of a metric."""
    return Column(head, lambda scores: f"{scores[metric]:{form}}")


def gain(
    scores: PredictorScores, metric: Metric, told: Callable[[Difference], str], best: str = "best"
) -> str:
    """What `told` says of the difference to the best baseline; `best` for that one itself."""
    against = scores.versus_best.get(metric)
    return best if against is None else "" if scores.kind == "control" else told(against)


def compared(metric: Metric, between: str = " ") -> list[Column]:
    """A predictor's mean, its interval (`between`: the ends), the difference to the best baseline."""
    return [
        figure(metric.words, metric),
        Column("95% interval", lambda scores: scores.values[metric].span(between=between)),
        Column("Δ best baseline", lambda scores: gain(scores, metric, lambda less: less.text("+.4f"))),
    ]


R_AT_5 = figure("R@5", CENTRED_RECALL, ".3f")
R_AT_10 = figure("R@10", Metric("centred", "recall_at_10"), ".3f")
CENTRED = figure("centred", CENTRED_COSINE)
SHORT = {  # columns after those compared, by what the model is made for
    COSINE: [CENTRED, figure("MRR", CENTRED_MRR), R_AT_5],
    CENTRED_MRR: [R_AT_5, R_AT_10, figure("cosine", COSINE)],
}
RETRIEVAL = [
    *(figure(f"R@{metric.name.rpartition('_')[2]}", metric, ".3f") for metric in RECALLS),
    figure("MRR", MRR),
    figure("MRR centred", CENTRED_MRR),
    figure("MRR (same document)", IN_DOCUMENT_MRR),
]
WIDE = [*compared(COSINE), CENTRED, *RETRIEVAL, figure("margin", MARGIN, "+.3f")]


@dataclass(frozen=True)
class ScoreTable:
    """title, the heads of the columns, and rows of text; bold: the model's row."""

    title: str
    columns: list[str]
    rows: list[list[str]]
    bold: int


def score_table(found: Evaluation, every: bool = False) -> ScoreTable:
    """`every`: all predictors and figures, however wide."""
    what, objective = found.scored, found.objective
    columns = WIDE if every else [*compared(objective), *SHORT[objective]]
    names = list(found.scores) if every else shown(found)
    rows = [[name, *(column.cell(found.scores[name]) for column in columns)] for name in names]
    title = (
        f"{found.name} on {what.corpus}, {what.split}: {what.windows:,} windows of {what.context} in "
        f"{what.documents} documents"
    )
    heads = [what.split, *(column.head for column in columns)]
    return ScoreTable(title, heads, rows, names.index(found.name))


def remarks(found: Evaluation, every: bool = False) -> list[str]:
    """What is said under the table."""
    pool, own = found.scored.retrieval.split, found.scored.retrieval.document
    lines = [
        f"retrieval among {pool.pool:,.0f} chunks (context excluded): chance MRR "
        f"{pool.chance.mrr:.4f}, R@5 {pool.chance.recall_at_5:.4f}; in the same document, among "
        f"{own.pool:.0f}: MRR {own.chance.mrr:.4f}"
    ]
    left_out = len(found.scores) - len(shown(found))
    if every:
        lines.append(
            "margin = cos(prediction, truth) - cos(prediction, last chunk): below zero for every good "
            "prediction, by arithmetic"
        )
    elif left_out:
        lines.append(f"{left_out} more baselines and controls, and more figures: --all")
    return lines


def score_lines(found: Evaluation) -> list[str]:
    """All of it in plain text."""
    table = score_table(found)
    told = [
        *(f"warning: {line}" for line in found.warnings),
        found.verdict.headline,
        *found.verdict.sentences,
        "",
        *plain_table(table.title, table.columns, table.rows),
    ]
    return [*told, *remarks(found)[:1], *(f"note: {note}" for note in found.notes)]


def shown(found: Evaluation) -> list[str]:
    """Whom a short table names: the model, as it ranks too, the best baselines in its objective, the mean."""
    scores, objective = found.scores, found.objective
    own = [name for name, one in scores.items() if name == found.name or one.kind == "hybrid"]
    others = [name for name, one in scores.items() if one.kind == "baseline" and name not in own]
    others.sort(key=lambda name: -scores[name][objective])
    return list(dict.fromkeys([*own, *others[:BASELINES], *([MEAN] if MEAN in scores else [])]))
