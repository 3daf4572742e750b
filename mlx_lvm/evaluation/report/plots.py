"""The figures of a report, each a piece of inline SVG. matplotlib is imported when the first one is drawn."""

from __future__ import annotations

import io
import re
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

from mlx_lvm.errors import SetupInvalid
from mlx_lvm.evaluation.report.scores import score_of, words_of

SIZE = (4.8, 3.1)  # inches: on a phone's width the text keeps about its size
SUBJECT, BEST, FILTER, MEAN, ORACLE, OTHER = "#c2410c", "#1d4ed8", "#0f766e", "#6b7280", "#111827", "#cbd5e1"
STYLE: dict[Any, Any] = {
    "svg.fonttype": "none",
    "font.family": "sans-serif",
    "font.size": 9,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.edgecolor": "#9ca3af",
    "axes.labelcolor": "#374151",
    "xtick.color": "#374151",
    "ytick.color": "#374151",
    "axes.grid": True,
    "grid.color": "#e5e7eb",
    "grid.linewidth": 0.8,
    "axes.axisbelow": True,
    "legend.frameon": False,
    "legend.fontsize": 8,
    "lines.linewidth": 1.8,
}
WORDS = {"cosine": "cosine", "mrr": "MRR"}  # of what a query gains in
Draw = Callable[[Any], None]


def available() -> bool:
    from importlib.util import find_spec

    return find_spec("matplotlib") is not None


@contextmanager
def figure(salt: str, size: tuple[float, float] = SIZE) -> Iterator[Any]:
    """A figure of our style. Raises SetupInvalid where matplotlib is missing."""
    try:
        import matplotlib
        from matplotlib.figure import Figure
    except ImportError:
        raise SetupInvalid("pictures need matplotlib: pip install 'mlx-lvm[report]'") from None
    with matplotlib.rc_context({**STYLE, "svg.hashsalt": salt}):
        yield Figure(figsize=size, layout="constrained")


def svg(name: str, title: str, draw: Draw, size: tuple[float, float] = SIZE) -> str:
    """What `draw` puts on the axes, as an <svg> whose ids are its own, so that several live in one page."""
    with figure(name, size) as made:
        draw(made.subplots())
        buffer = io.StringIO()
        made.savefig(buffer, format="svg", transparent=True, metadata={"Date": None, "Creator": None})
    text = buffer.getvalue()
    text = text[text.index("<svg") :]
    text = re.sub(r"<metadata>.*?</metadata>", "", text, flags=re.S)
    text = re.sub(r'\bid="([^"]+)"', rf'id="{name}-\1"', text)
    text = re.sub(r"url\(#([^)]+)\)", rf"url(#{name}-\1)", text)
    text = re.sub(r'href="#([^"]+)"', rf'href="#{name}-\1"', text)
    text = re.sub(r'<svg [^>]*?viewBox="([^"]+)"[^>]*>', rf'<svg class="figure" role="img" aria-label="{title}" viewBox="\1" '
                  'xmlns="http://www.w3.org/2000/svg" xmlns:xlink="http://www.w3.org/1999/xlink">', text, count=1)  # fmt: skip
    return text


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
            colour = colours(subject, best).get(name, "#94a3b8")
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
                    label=name,
                )
        axes.axvline(0, color="#9ca3af", linewidth=1, linestyle=":")
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
            own = name.startswith(subject)
            colour, line = (
                SUBJECT if own else known.get(name.split(",")[0], MEAN),
                "o:" if own and name != subject else "o-",
            )
            axes.plot(steps, curve["cosine"], line, color=colour, markersize=3.5, label=name)
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
            axes.bar(x, [value for value, _ in values], 0.32, color=own.get(name, other), label=name)
            for at, (_, ends) in zip(x, values, strict=True):
                if ends[0] is not None:
                    axes.plot([at, at], ends, color="#111827", linewidth=1.2)
        axes.axhline(0, color="#9ca3af", linewidth=1)
        axes.set_xticks(range(len(places)), places)
        axes.set_ylabel(words)
        axes.legend(loc="best")

    return draw


def queries_plot(found: dict[str, Any]) -> Draw:
    """What each kind of query gains over none, with its interval. The query ranked by alone loses so much
    that nothing else would show.
    """
    gains = {name: gain for name, gain in found["gains"].items() if name != "query alone"}
    groups = {
        words: [(one[key]["difference"], one[key]["ci"]) for one in gains.values()]
        for key, words in WORDS.items()
    }
    return bars(groups, {WORDS["cosine"]: SUBJECT}, BEST, list(gains), "gain over no query")


def difficulty_plot(found: dict[str, Any], subject: str) -> Draw:
    def draw(axes: Any) -> None:
        bins, named = found["bins"], colours(subject, found["against"])
        middles = [(one["from"] + one["to"]) / 2 for one in bins]
        for name in bins[0]["cosine"]:
            axes.plot(
                middles,
                [one["cosine"][name] for one in bins],
                "o-",
                color=named.get(name, MEAN),
                markersize=3.5,
                label=name,
            )
        axes.set_xlabel("cos(next, last): hard on the left, easy on the right")
        axes.set_ylabel("cosine")
        axes.legend(loc="best")

    return draw


def ablation_plot(found: dict[str, Any], subject: str) -> Draw:
    names = dict.fromkeys([subject, "lag-filter"])
    groups = {name: [(one[name]["change"], one[name]["ci"]) for one in found.values()] for name in names}
    return bars(groups, {subject: SUBJECT}, FILTER, list(found), "change of the cosine")


def training_plot(history: list[dict[str, Any]], purpose: str = "cosine") -> Draw:
    """`purpose`: the figure that the model is made for, by which its best epoch was chosen."""
    judged = (
        "val_mrr" if purpose == "centred.mrr" else "val_score" if "val_score" in history[0] else "val_cosine"
    )

    def draw(axes: Any) -> None:
        epochs = [one["epoch"] for one in history]
        axes.plot(
            epochs,
            [one["train_cosine"] for one in history],
            "o-",
            color=MEAN,
            markersize=3,
            label="train (dropout on)",
        )
        axes.plot(
            epochs,
            [one["val_cosine"] for one in history],
            "o-",
            color=SUBJECT,
            markersize=3,
            label="validation",
        )
        best = max(history, key=lambda one: one[judged])
        axes.axvline(best["epoch"], color="#9ca3af", linestyle=":", linewidth=1)
        axes.set_xlabel("epoch (dotted: the checkpoint that was kept)")
        axes.set_ylabel("cosine")
        axes.xaxis.get_major_locator().set_params(integer=True)
        axes.legend(loc="best")

    return draw


def ood_plot(found: dict[str, Any], subject: str) -> Draw:
    """Cosine of every predictor at home and away; a baseline away twice, fitted there and carried over."""
    rows = sorted(
        (row for row in found["rows"] if row["kind"] not in ("control", "hybrid") and row["there"]),
        key=lambda row: row["there"]["cosine"],
    )

    def draw(axes: Any) -> None:
        series = (
            ("home", f"{found['home']}", "o", MEAN),
            ("there", f"{found['corpus']}", "s", BEST),
            ("transferred", f"{found['corpus']}, carried over", "D", FILTER),
        )
        for key, label, marker, colour in series:
            shown = [(row[key]["cosine"], place) for place, row in enumerate(rows) if row[key]]
            axes.plot(
                [x for x, _ in shown], [y for _, y in shown], marker, color=colour, markersize=5, label=label
            )
        axes.set_yticks(range(len(rows)), [row["predictor"] for row in rows])
        for tick, row in zip(axes.get_yticklabels(), rows, strict=True):
            tick.set_fontweight("bold" if row["predictor"] == subject else "normal")
        axes.set_xlabel("cosine")
        axes.legend(loc="best")

    return draw
