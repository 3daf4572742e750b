"""From figures of windows to a table with intervals, differences to the best closed form, and a verdict in a sentence."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from mlx_lvm.core.stats import DocumentBootstrap, Interval, intervals
from mlx_lvm.evaluation.setup import Measured
from mlx_lvm.metrics.figures import skill
from mlx_lvm.metrics.retrieval import CUTS

COMPARED = (
    *("cosine", "centred_cosine", *(f"recall_at_{cut}" for cut in CUTS), "mrr"),
    *("centred.recall_at_5", "centred.mrr", "in_document.mrr"),
)
# What a verdict speaks of, in words. Retrieval as each ranks best, with the share of the mean off that validation chose.
JUDGED = {
    "cosine": "cosine",
    "centred_cosine": "centred cosine",
    "centred.mrr": "MRR",
    "centred.recall_at_5": "R@5",
}


def summarise(
    measured: dict[str, Measured], bootstrap: DocumentBootstrap, closed: list[str]
) -> tuple[dict[str, dict[str, Any]], dict[str, str]]:
    """Means, intervals and paired differences to the best closed form of every predictor, and which form is best at what."""
    figures = {key: one.figures for key, one in measured.items()}
    names, columns = list(figures), list(next(iter(figures.values())))
    values, resampled = {}, {}
    for key in names:
        table = np.stack([figures[key][column] for column in columns], axis=1)
        values[key] = dict(zip(columns, table.mean(axis=0).tolist(), strict=True))
        resampled[key] = dict(zip(columns, bootstrap.means(table).T, strict=True))
    best = {metric: max(closed, key=lambda key: values[key][metric]) for metric in COMPARED}

    def interval(value: float, draws: np.ndarray) -> Interval:
        return intervals(np.array([value]), draws[:, None], bootstrap.count)[0]

    out: dict[str, dict[str, Any]] = {}
    for key in names:
        entry: dict[str, Any] = {}
        for column in columns:
            if column in ("rank", "to_context", "truth_to_context"):
                continue
            place, leaf = _place(entry, column)
            found = interval(values[key][column], resampled[key][column])
            place[leaf], place[f"{leaf}_ci"] = found.value, found.ends()
        ratio = values[key]["to_context"] / values[key]["truth_to_context"]
        draws = resampled[key]["to_context"] / resampled[key]["truth_to_context"]
        entry["context_ratio"], entry["context_ratio_ci"] = ratio, interval(ratio, draws).ends()
        entry["centred"]["fraction"] = measured[key].fraction
        entry["skill"] = {
            metric: skill(values[key][metric], values[best[metric]][metric])
            for metric in ("cosine", "centred_cosine", "mrr")
        }
        entry["versus_best"] = {}
        for metric, other in best.items():
            if key != other:
                difference = values[key][metric] - values[other][metric]
                found = interval(difference, resampled[key][metric] - resampled[other][metric])
                entry["versus_best"][metric] = {
                    "closed_form": other,
                    "difference": difference,
                    "ci": found.ends(),
                    "p": found.p,
                }
        if key != "mean" and "mean" in values:
            found = interval(
                values[key]["cosine"] - values["mean"]["cosine"],
                resampled[key]["cosine"] - resampled["mean"]["cosine"],
            )
            entry["versus_mean"] = {"difference": found.value, "ci": found.ends(), "p": found.p}
        out[key] = entry
    return out, best


def _place(entry: dict[str, Any], column: str) -> tuple[dict[str, Any], str]:
    head, _, tail = column.rpartition(".")
    return (entry.setdefault(head, {}), tail) if head else (entry, tail)


def verdict(name: str, entry: dict[str, Any], documents: int, purpose: str = "cosine") -> dict[str, Any]:
    """In a sentence: better than, not distinguishable from or worse than the best closed form, in what it is made for.

    `sentences` holds one for every figure of JUDGED, that of `purpose` first.
    """
    out: dict[str, Any] = {"documents": documents, "purpose": purpose}
    order = sorted(JUDGED, key=lambda metric: metric != purpose)
    for metric in order:
        out[metric] = claim(name, entry, metric, JUDGED[metric], documents)
    out["sentences"] = [out[metric]["sentence"] for metric in order]
    if "versus_mean" in entry:
        found = entry["versus_mean"]
        against = f"the mean of its context in cosine: {found['difference']:+.4f}"
        out["mean"] = {
            "outcome": _outcome(found),
            **found,
            "sentence": _sentence(name, _outcome(found), against, found, documents),
        }
        out["sentences"].append(out["mean"]["sentence"])
    out["outcome"], out["sentence"] = out[purpose]["outcome"], out[purpose]["sentence"]
    return out


def claim(name: str, entry: dict[str, Any], metric: str, words: str, documents: int) -> dict[str, Any]:
    """Outcome, difference with its interval, and sentence of one comparison with the best closed form."""
    found = entry["versus_best"][metric]
    outcome = _outcome(found)
    against = f"the best closed form in {words}: {found['difference']:+.4f} against {found['closed_form']}"
    return {"outcome": outcome, **found, "sentence": _sentence(name, outcome, against, found, documents)}


def _outcome(found: dict[str, Any]) -> str:
    low, high = found["ci"]
    return (
        "better"
        if low is not None and low > 0
        else "worse"
        if high is not None and high < 0
        else "not distinguishable"
    )


def _sentence(name: str, outcome: str, against: str, found: dict[str, Any], documents: int) -> str:
    relation = {
        "better": "better than",
        "worse": "worse than",
        "not distinguishable": "not distinguishable from",
    }[outcome]
    low, high = found["ci"]
    interval = (
        f"95% interval {low:+.4f} to {high:+.4f}" if low is not None else "no interval from a single document"
    )
    return f"{name} is {relation} {against} ({interval}, {documents} {'document' if documents == 1 else 'documents'})."


def span(ci: Sequence[float | None], form: str = ".4f") -> str:
    low, high = ci
    return "-" if low is None or high is None else f"{low:{form}} to {high:{form}}"
