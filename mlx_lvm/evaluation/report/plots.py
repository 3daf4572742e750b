"""The figures of a report: what is drawn on the axes of each."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

from mlx_lvm.core.result import Interval, JsonObject
from mlx_lvm.evaluation.evaluate import Evaluation
from mlx_lvm.evaluation.report.drawing import BASELINE, BEST, EDGE, FILTER, MEAN, ORACLE, OTHER, SUBJECT
from mlx_lvm.evaluation.study.ablations import Change
from mlx_lvm.evaluation.study.curves import Curve
from mlx_lvm.evaluation.study.difficulty import Difficulty
from mlx_lvm.evaluation.study.direction import Direction
from mlx_lvm.evaluation.study.queries import QueryTerms
from mlx_lvm.evaluation.transfer import Transfer
from mlx_lvm.metrics.names import CENTRED_MRR, Metric


def entry(name: str) -> str:
    """A name as a legend shows it, which hides one that begins with an underscore."""
    return f"\u2009{name}" if name.startswith("_") else name


def colours(subject: str, best: str) -> dict[str, str]:
    return {"mean": MEAN, "lag-filter": FILTER, best: BEST, "oracle": ORACLE, subject: SUBJECT}


def table_plot(found: Evaluation, axes: Any) -> None:
    """Every predictor with its interval in what the subject is made for, worst at the bottom."""
    objective, left_out = found.objective, ("control", "transferred", "hybrid")
    scores = {name: one.values[objective] for name, one in found.scores.items() if one.kind not in left_out}
    chosen = sorted(scores.items(), key=lambda item: item[1].value)
    named = colours(found.name, found.summary.best[objective])
    for place, (name, score) in enumerate(chosen):
        ends = [score.value if end is None else end for end in score.ends()]
        colour = named.get(name, BASELINE)
        axes.plot(ends, [place, place], color=colour, linewidth=2.5, solid_capstyle="round")
        axes.plot([score.value], [place], "o", color=colour, markersize=5)
    axes.set_yticks(range(len(chosen)), [name for name, _ in chosen])
    axes.grid(axis="y", visible=False)
    axes.set_xlabel(f"{objective.words} of the true next chunk, 95% interval")


def direction_plot(found: Direction, subject: str, best: str, axes: Any) -> None:
    named, offsets = colours(subject, best), found.offsets
    for name, curve in found.curves.items():
        if name not in named:
            axes.plot(offsets, curve.values, color=OTHER, linewidth=1)
    for name, colour in named.items():
        if name in found.curves:
            line = "o--" if name == "oracle" else "o-"
            values = found.curves[name].values
            axes.plot(offsets, values, line, color=colour, markersize=3, label=entry(name))
    axes.axvline(0, color=EDGE, linewidth=1, linestyle=":")
    axes.set_xticks(offsets, ["target" if o == 0 else f"{o:+d}" for o in offsets])
    axes.set_xlabel("chunk, counted from the target (-1 is the last one read)")
    axes.set_ylabel("cosine of the prediction")
    axes.legend(loc="best")


def ahead_plot(curves: dict[str, Curve], subject: str, axes: Any) -> None:
    """Cosines of t+1, t+2, ... by predictor; what else is the subject's own is dotted."""
    known = {"lag-filter": FILTER, "lag-filter-centroid": FILTER, "ridge": BEST, "last": OTHER}
    own = curves[subject].points
    steps = range(1, len(own) + 1)
    for name, curve in curves.items():
        ours = name == subject or name.startswith(f"{subject}, ")
        colour = SUBJECT if ours else known.get(name.split(",")[0], MEAN)
        line = "o:" if ours and name != subject else "o-"
        axes.plot(steps, curve.values, line, color=colour, markersize=3.5, label=entry(name))
    if math.isfinite(own[0].low):
        ends = ([one.low for one in own], [one.high for one in own])
        axes.fill_between(steps, *ends, color=SUBJECT, alpha=0.12, linewidth=0)
    axes.set_xticks(list(steps), [f"t+{step}" for step in steps])
    axes.set_ylabel("cosine with the true chunk")
    axes.legend(loc="best")


def bars(
    groups: dict[str, list[Interval]],
    own: dict[str, str],
    other: str,
    places: list[str],
    words: str,
    axes: Any,
) -> None:
    """Differences of each group at each place, side by side. own: colours by group; other: of the rest."""
    for number, (name, found) in enumerate(groups.items()):
        x = [place + 0.36 * (number - (len(groups) - 1) / 2) for place in range(len(places))]
        axes.bar(x, [one.value for one in found], 0.32, color=own.get(name, other), label=entry(name))
        for at, one in zip(x, found, strict=True):
            if math.isfinite(one.low):
                axes.plot([at, at], [one.low, one.high], color=ORACLE, linewidth=1.2)
    axes.axhline(0, color=EDGE, linewidth=1)
    axes.set_xticks(range(len(places)), places)
    axes.set_ylabel(words)
    axes.legend(loc="best")


def queries_plot(found: QueryTerms, objective: Metric, axes: Any) -> None:
    """What each kind of query gains over none, with its interval, in the objective first. The query ranked by
    alone loses so much that nothing else would show.
    """
    gains = {name: gain for name, gain in found.gains.items() if name != "query alone"}
    groups = {"cosine": [one.cosine for one in gains.values()], "MRR": [one.mrr for one in gains.values()]}
    if objective == CENTRED_MRR:
        groups = dict(reversed(groups.items()))
    bars(groups, {objective.words: SUBJECT}, BEST, list(gains), "gain over no query", axes)


def difficulty_plot(found: Difficulty, subject: str, axes: Any) -> None:
    named = colours(subject, found.against)
    middles = [(one.low + one.high) / 2 for one in found.bins]
    for name in found.bins[0].means:
        values = [one.means[name] for one in found.bins]
        axes.plot(middles, values, "o-", color=named.get(name, MEAN), markersize=3.5, label=entry(name))
    axes.set_xlabel("cos(next, last): hard on the left, easy on the right")
    axes.set_ylabel(found.metric.words)
    axes.legend(loc="best")


def ablation_plot(found: dict[str, dict[str, Change]], subject: str, objective: Metric, axes: Any) -> None:
    names = dict.fromkeys([subject, "lag-filter"])
    groups = {name: [changes[name].change for changes in found.values()] for name in names}
    bars(groups, {subject: SUBJECT}, FILTER, list(found), f"change of the {objective.words}", axes)


def training_plot(history: Sequence[JsonObject], objective: Metric, axes: Any) -> None:
    """By epoch, what the best one was chosen by: a cosine of training too, where that is it."""
    ranks = objective == CENTRED_MRR and "val_mrr" in history[0]
    chosen_by = next(key for key in ("val_lead", "val_mrr", "val_score", "val_cosine") if key in history[0])
    curves = {"validation": ("val_mrr" if ranks else "val_cosine", SUBJECT)}
    if not ranks:
        curves = {"train (dropout on)": ("train_cosine", MEAN), **curves}
    learned = [one for one in history if one["train_cosine"] is not None]  # not so epoch 0
    for label, (key, colour) in curves.items():
        shown = learned if key == "train_cosine" else history
        epochs, values = [one["epoch"] for one in shown], [one[key] for one in shown]
        axes.plot(epochs, values, "o-", color=colour, markersize=3, label=label)
    best = max(history, key=lambda one: one[chosen_by])
    axes.axvline(best["epoch"], color=EDGE, linestyle=":", linewidth=1)
    axes.set_xlabel("epoch (dotted: the checkpoint that was kept)")
    axes.set_ylabel("MRR" if ranks else "cosine")
    axes.xaxis.get_major_locator().set_params(integer=True)
    axes.legend(loc="best")


def ood_plot(found: Transfer, subject: str, objective: Metric, axes: Any) -> None:
    """Every predictor at home and away, in the objective; baselines away as fitted there and carried over."""
    rows = [row for row in found.rows if row.kind not in ("control", "hybrid") and row.there]
    rows.sort(key=lambda row: row.there[objective] if row.there else 0.0)
    labels = (found.home, found.corpus, f"{found.corpus}, carried over")
    looks = (("o", MEAN), ("s", BEST), ("D", FILTER))
    for side, (label, (marker, colour)) in enumerate(zip(labels, looks, strict=True)):
        x = [one[objective] if (one := row.sides[side]) else math.nan for row in rows]
        axes.plot(x, range(len(rows)), marker, color=colour, markersize=5, label=entry(label))
    axes.set_yticks(range(len(rows)), [row.predictor for row in rows])
    for tick, row in zip(axes.get_yticklabels(), rows, strict=True):
        tick.set_fontweight("bold" if row.predictor == subject else "normal")
    axes.set_xlabel(objective.words)
    axes.legend(loc="best")
