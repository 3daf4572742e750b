"""How an evaluation reads on a terminal: the verdict, what it rests on in a table, what was scored, what to
know of it.
"""

from __future__ import annotations

from typing import Any

from mlx_lvm.cli.shared.common import Output
from mlx_lvm.evaluation.report.scores import RANKS, score_of

BASELINES = 3  # best ones that a short table shows
MEAN = "mean"  # and the one that everybody can picture
STYLES = {"better": "bold green", "worse": "bold red"}
WIDE = (
    *("cosine", "95% interval", "Δ best baseline", "centred", "R@1", "R@5", "R@10", "MRR", "MRR centred"),
    *("MRR (same document)", "margin"),
)


def show(display: Output, result: dict[str, Any], every: bool = False) -> None:
    """`result` as `lvm eval --json` prints it. `every`: all predictors and figures, however wide."""
    verdict, metrics = result["verdict"], result["metrics"]
    columns: tuple[str, ...]
    display.say(verdict["sentence"], style=STYLES.get(verdict["outcome"], "bold yellow"))
    for sentence in verdict["sentences"][1:]:
        display.say(sentence)
    display.say()
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
    rows = {name: cells(metrics[name]) for name in names}
    bold = list(rows).index(result["model"])
    display.table(title, [result["split"], *columns], [[name, *row] for name, row in rows.items()], bold=bold)
    _say_retrieval(display, result)
    if every:
        display.say(
            "margin = cos(prediction, truth) - cos(prediction, last chunk): below zero for every good "
            "prediction, by arithmetic"
        )
    elif len(rows) < len(metrics):
        display.say(f"{len(metrics) - len(rows)} more baselines and controls, and more figures: --all")
    for note in result["notes"]:
        display.say(f"note: {note}", style="yellow")


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


def _say_retrieval(display: Output, result: dict[str, Any]) -> None:
    pool, own = result["retrieval"]["split"], result["retrieval"]["document"]
    display.say(
        f"retrieval among {pool['pool']:,.0f} chunks (context excluded): chance MRR "
        f"{pool['chance']['mrr']:.4f}, R@5 {pool['chance']['recall_at_5']:.4f}; in the same document, among "
        f"{own['pool']:.0f}: MRR {own['chance']['mrr']:.4f}"
    )
