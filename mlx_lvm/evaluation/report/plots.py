"""The figures of a report: what is drawn on the axes of each."""

from __future__ import annotations

from typing import Any

from mlx_lvm.evaluation.report.drawing import BASELINE, BEST, EDGE, FILTER, MEAN, ORACLE, OTHER, SUBJECT, Draw
from mlx_lvm.evaluation.report.scores import RANKS, score_of, words_of

WORDS = {"cosine": "cosine", "mrr": "MRR"}  # of what a query gains in


def entry(name: str) -> str:
    """A name as a legend shows it, which hides one that begins with an underscore."""
    return f"\u2009{name}" if name.startswith("_") else name


def colours(subject: str, best: str) -> dict[str, str]:
    return {"mean": MEAN, "lag-filter": FILTER, best: BEST, "oracle": ORACLE, subject: SUBJECT}


def table_plot(metrics: dict[str, Any], subject: str, best: str, objective: str = "cosine") -> Draw:
    """Every predictor with its interval in what the subject is made for, worst at the bottom."""
    left_out = ("control", "transferred", "hybrid")
    scores = {n: score_of(e, objective) for n, e in metrics.items() if e["kind"] not in left_out}
    chosen = sorted(scores.items(), key=lambda item: item[1].value)

    def draw(axes: Any) -> None:
        for place, (name, score) in enumerate(chosen):
            low, high = (score.value if end is None else end for end in score.ci)
            colour = colours(subject, best).get(name, BASELINE)
            axes.plot([low, high], [place, place], color=colour, linewidth=2.5, solid_capstyle="round")
            axes.plot([score.value], [place], "o", color=colour, markersize=5)
        axes.set_yticks(range(len(chosen)), [name for name, _ in chosen])
        axes.grid(axis="y", visible=False)
        axes.set_xlabel(f"{words_of(objective)} of the true next chunk, 95% interval")

    return draw


def direction_plot(found: dict[str, Any], subject: str, best: str) -> Draw:
    def draw(axes: Any) -> None:
        named = colours(subject, best)
        for name, curve in found["curves"].items():
            if name not in named:
                axes.plot(found["offsets"], curve["cosine"], color=OTHER, linewidth=1)
        for name, colour in named.items():
            if name in found["curves"]:
                axes.plot(
                    found["offsets"],
                    found["curves"][name]["cosine"],
                    "o--" if name == "oracle" else "o-",
                    color=colour,
                    markersize=3,
                    label=entry(name),
                )
        axes.axvline(0, color=EDGE, linewidth=1, linestyle=":")
        axes.set_xticks(found["offsets"], ["target" if o == 0 else f"{o:+d}" for o in found["offsets"]])
        axes.set_xlabel("chunk, counted from the target (-1 is the last one read)")
        axes.set_ylabel("cosine of the prediction")
        axes.legend(loc="best")

    return draw


def ahead_plot(curves: dict[str, Any], subject: str) -> Draw:
    """Cosines of t+1, t+2, ... by predictor; what else is the subject's own is dotted."""
    known = {"lag-filter": FILTER, "lag-filter-centroid": FILTER, "ridge": BEST, "last": OTHER}

    def draw(axes: Any) -> None:
        steps = range(1, len(curves[subject]["cosine"]) + 1)
        for name, curve in curves.items():
            own = name == subject or name.startswith(f"{subject}, ")
            colour, line = (
                SUBJECT if own else known.get(name.split(",")[0], MEAN),
                "o:" if own and name != subject else "o-",
            )
            axes.plot(steps, curve["cosine"], line, color=colour, markersize=3.5, label=entry(name))
        ends = curves[subject]["ci"]
        if ends[0][0] is not None:
            axes.fill_between(
                steps,
                [low for low, _ in ends],
                [high for _, high in ends],
                color=SUBJECT,
                alpha=0.12,
                linewidth=0,
            )
        axes.set_xticks(list(steps), [f"t+{step}" for step in steps])
        axes.set_ylabel("cosine with the true chunk")
        axes.legend(loc="best")

    return draw


def bars(
    groups: dict[str, list[tuple[float, list[float | None]]]],
    own: dict[str, str],
    other: str,
    places: list[str],
    words: str,
) -> Draw:
    """Differences (value, interval) of each group at each of the places, side by side. own: colours by group;
    other: of the rest.
    """

    def draw(axes: Any) -> None:
        for number, (name, values) in enumerate(groups.items()):
            x = [place + 0.36 * (number - (len(groups) - 1) / 2) for place in range(len(places))]
            axes.bar(x, [value for value, _ in values], 0.32, color=own.get(name, other), label=entry(name))
            for at, (_, ends) in zip(x, values, strict=True):
                if ends[0] is not None:
                    axes.plot([at, at], ends, color=ORACLE, linewidth=1.2)
        axes.axhline(0, color=EDGE, linewidth=1)
        axes.set_xticks(range(len(places)), places)
        axes.set_ylabel(words)
        axes.legend(loc="best")

    return draw


def queries_plot(found: dict[str, Any], objective: str) -> Draw:
    """What each kind of query gains over none, with its interval, in the objective first. The query ranked by
    alone loses so much that nothing else would show.
    """
    gains = {name: gain for name, gain in found["gains"].items() if name != "query alone"}
    groups = {
        words: [(one[key]["difference"], one[key]["ci"]) for one in gains.values()]
        for key, words in sorted(WORDS.items(), reverse=objective == RANKS)
    }
    return bars(groups, {words_of(objective): SUBJECT}, BEST, list(gains), "gain over no query")


def difficulty_plot(found: dict[str, Any], subject: str) -> Draw:
    def draw(axes: Any) -> None:
        bins, named = found["bins"], colours(subject, found["against"])
        middles = [(one["from"] + one["to"]) / 2 for one in bins]
        for name in bins[0][found["metric"]]:
            axes.plot(
                middles,
                [one[found["metric"]][name] for one in bins],
                "o-",
                color=named.get(name, MEAN),
                markersize=3.5,
                label=entry(name),
            )
        axes.set_xlabel("cos(next, last): hard on the left, easy on the right")
        axes.set_ylabel(words_of(RANKS if found["metric"] == "mrr" else found["metric"]))
        axes.legend(loc="best")

    return draw


def ablation_plot(found: dict[str, Any], subject: str, objective: str) -> Draw:
    names = dict.fromkeys([subject, "lag-filter"])
    groups = {name: [(one[name]["change"], one[name]["ci"]) for one in found.values()] for name in names}
    return bars(groups, {subject: SUBJECT}, FILTER, list(found), f"change of the {words_of(objective)}")


def training_plot(history: list[dict[str, Any]], objective: str) -> Draw:
    """By epoch, what the best one was chosen by: a cosine of training too, where that is it."""
    ranks = objective == RANKS and "val_mrr" in history[0]
    judged = next(key for key in ("val_lead", "val_mrr", "val_score", "val_cosine") if key in history[0])
    curves = {"validation": ("val_mrr" if ranks else "val_cosine", SUBJECT)}
    if not ranks:
        curves = {"train (dropout on)": ("train_cosine", MEAN), **curves}
    learned = [one for one in history if one["train_cosine"] is not None]  # not so epoch 0

    def draw(axes: Any) -> None:
        for label, (key, colour) in curves.items():
            shown = learned if key == "train_cosine" else history
            epochs, values = [one["epoch"] for one in shown], [one[key] for one in shown]
            axes.plot(epochs, values, "o-", color=colour, markersize=3, label=label)
        best = max(history, key=lambda one: one[judged])
        axes.axvline(best["epoch"], color=EDGE, linestyle=":", linewidth=1)
        axes.set_xlabel("epoch (dotted: the checkpoint that was kept)")
        axes.set_ylabel("MRR" if ranks else "cosine")
        axes.xaxis.get_major_locator().set_params(integer=True)
        axes.legend(loc="best")

    return draw


def ood_plot(found: dict[str, Any], home: dict[str, Any], subject: str, objective: str) -> Draw:
    """Every predictor at home and away, in the objective; a baseline away twice, fitted there and carried
    over. home: the metrics at home.
    """
    carried = f" from {found['home']}"

    def scored(metrics: dict[str, Any], name: str) -> float | None:
        return score_of(metrics[name], objective).value if name in metrics else None

    places = {
        row["predictor"]: {
            "home": scored(home, row["predictor"]),
            "there": scored(found["metrics"], row["predictor"]),
            "transferred": scored(found["metrics"], row["predictor"] + carried),
        }
        for row in found["rows"]
        if row["kind"] not in ("control", "hybrid") and row["there"]
    }
    rows = sorted(places.items(), key=lambda item: item[1]["there"] or 0.0)

    def draw(axes: Any) -> None:
        series = (
            ("home", f"{found['home']}", "o", MEAN),
            ("there", f"{found['corpus']}", "s", BEST),
            ("transferred", f"{found['corpus']}, carried over", "D", FILTER),
        )
        for key, label, marker, colour in series:
            shown = [(row[key], place) for place, (_, row) in enumerate(rows) if row[key] is not None]
            x, y = [x for x, _ in shown], [y for _, y in shown]
            axes.plot(x, y, marker, color=colour, markersize=5, label=entry(label))
        axes.set_yticks(range(len(rows)), [name for name, _ in rows])
        for tick, (name, _) in zip(axes.get_yticklabels(), rows, strict=True):
            tick.set_fontweight("bold" if name == subject else "normal")
        axes.set_xlabel(words_of(objective))
        axes.legend(loc="best")

    return draw
