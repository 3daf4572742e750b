"""How an evaluation reads in text: the verdict, its table, what was scored, what to know of it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from mlx_lvm.evaluation.report.scores import RANKS, score_of

BASELINES = 3  # best ones that a short table shows
MEAN = "mean"  # and the one that everybody can picture
WIDE = (
    *("cosine", "95% interval", "Δ best baseline", "centred", "R@1", "R@5", "R@10", "MRR", "MRR centred"),
    *("MRR (same document)", "margin"),
)


@dataclass(frozen=True)
class ScoreTable:
    """title, the heads of the columns, and rows of text; bold: the model's row."""

    title: str
    columns: list[str]
    rows: list[list[str]]
    bold: int


def score_table(result: dict[str, Any], every: bool = False) -> ScoreTable:
    """`result` as `lvm eval --json` prints it. `every`: all predictors and figures, however wide."""
    verdict, metrics = result["verdict"], result["metrics"]
    columns: tuple[str, ...]
    title = (
        f"{result['model']} on {result['corpus']}, {result['split']}: {result['windows']:,} windows of "
        f"{result['context']} in {result['documents']} documents"
    )
    if every:
        columns, names, cells = WIDE, list(metrics), _wide
    elif verdict["purpose"] == RANKS:
        columns, names, cells = RANKING, shown(result), _ranking
    else:
        columns, names, cells = PREDICTING, shown(result), _predicting
    rows = [[name, *cells(metrics[name])] for name in names]
    return ScoreTable(title, [result["split"], *columns], rows, names.index(result["model"]))


def remarks(result: dict[str, Any], every: bool = False) -> list[str]:
    """What is said under the table."""
    pool, own = result["retrieval"]["split"], result["retrieval"]["document"]
    lines = [
        f"retrieval among {pool['pool']:,.0f} chunks (context excluded): chance MRR "
        f"{pool['chance']['mrr']:.4f}, R@5 {pool['chance']['recall_at_5']:.4f}; in the same document, among "
        f"{own['pool']:.0f}: MRR {own['chance']['mrr']:.4f}"
    ]
    left_out = len(result["metrics"]) - len(shown(result))
    if every:
        lines.append(
            "margin = cos(prediction, truth) - cos(prediction, last chunk): below zero for every good "
            "prediction, by arithmetic"
        )
    elif left_out:
        lines.append(f"{left_out} more baselines and controls, and more figures: --all")
    return lines


def score_lines(result: dict[str, Any]) -> list[str]:
    """All of it in plain text."""
    table = score_table(result)
    warnings = [f"warning: {line}" for line in result["warnings"]]
    told = [
        *warnings,
        result["verdict"]["headline"],
        *result["verdict"]["sentences"],
        "",
        *plain_table(table.title, table.columns, table.rows),
    ]
    return [*told, *remarks(result)[:1], *(f"note: {note}" for note in result["notes"])]


def plain_table(
    title: str, columns: Sequence[str], rows: Sequence[Sequence[str]], left: int = 1
) -> list[str]:
    """Lines of a table whose first `left` columns are set left, the others right."""
    cells = [list(columns), *[list(row) for row in rows]]
    widths = [max(len(row[k]) for row in cells) for k in range(len(columns))]

    def line(row: list[str]) -> str:
        pairs = enumerate(zip(row, widths, strict=True))
        return "  ".join(c.ljust(w) if k < left else c.rjust(w) for k, (c, w) in pairs).rstrip()

    return [*([title] if title else []), *map(line, cells)]


def shown(result: dict[str, Any]) -> list[str]:
    """Whom a short table names: the model, as it ranks too, the best baselines in what it is made for, and
    the mean.
    """
    metrics, objective = result["metrics"], result["verdict"]["purpose"]
    own = [name for name, entry in metrics.items() if name == result["model"] or entry["kind"] == "hybrid"]
    others = [name for name, entry in metrics.items() if entry["kind"] == "baseline" and name not in own]
    others.sort(key=lambda name: -score_of(metrics[name], objective).value)
    return list(dict.fromkeys([*own, *others[:BASELINES], *([MEAN] if MEAN in metrics else [])]))


PREDICTING = ("cosine", "95% interval", "Δ best baseline", "centred", "MRR", "R@5")


def _predicting(entry: dict[str, Any]) -> list[str]:
    return [
        f"{entry['cosine']:.4f}",
        _interval(entry["cosine_ci"]),
        _difference(entry, "cosine"),
        f"{entry['centred_cosine']:.4f}",
        f"{entry['centred']['mrr']:.4f}",
        f"{entry['centred']['recall_at_5']:.3f}",
    ]


RANKING = ("MRR", "95% interval", "Δ best baseline", "R@5", "R@10", "cosine")


def _ranking(entry: dict[str, Any]) -> list[str]:
    return [
        f"{entry['centred']['mrr']:.4f}",
        _interval(entry["centred"]["mrr_ci"]),
        _difference(entry, "centred.mrr"),
        f"{entry['centred']['recall_at_5']:.3f}",
        f"{entry['centred']['recall_at_10']:.3f}",
        f"{entry['cosine']:.4f}",
    ]


def _wide(entry: dict[str, Any]) -> list[str]:
    return [
        f"{entry['cosine']:.4f}",
        _interval(entry["cosine_ci"]),
        _difference(entry, "cosine"),
        f"{entry['centred_cosine']:.4f}",
        *(f"{entry[f'recall_at_{cut}']:.3f}" for cut in (1, 5, 10)),
        f"{entry['mrr']:.4f}",
        f"{entry['centred']['mrr']:.4f}",
        f"{entry['in_document']['mrr']:.4f}",
        f"{entry['margin']:+.3f}",
    ]


def _interval(ci: list[float | None]) -> str:
    return "-" if ci[0] is None else f"{ci[0]:.4f} {ci[1]:.4f}"


def _difference(entry: dict[str, Any], metric: str) -> str:
    against = entry["versus_best"].get(metric)
    if against is None:
        return "best"
    if entry["kind"] == "control":
        return ""
    low, high = against["ci"]
    return f"{against['difference']:+.4f}" + ("" if low is None else f" [{low:+.4f} {high:+.4f}]")
