"""Figures that show whether a promise is kept: expected cosines, and sets that hold the next chunk."""

from __future__ import annotations

from typing import Any

from mlx_lvm.evaluation.report.drawing import EDGE, SUBJECT, Draw


def reliability_plot(found: dict[str, Any]) -> Draw:
    """Expected against achieved cosine in bins; on the diagonal, the one is the other."""

    def draw(axes: Any) -> None:
        bins = found["bins"]
        expected, achieved = [one["expected"] for one in bins], [one["achieved"] for one in bins]
        ends = [end for one in bins for end in one["ci"] if end is not None]
        low, high = min(expected + achieved + ends), max(expected + achieved + ends)
        axes.plot([low, high], [low, high], "--", color=EDGE, linewidth=1, label="as expected")
        for one in bins:
            if one["ci"][0] is not None:
                axes.plot([one["expected"]] * 2, one["ci"], color=SUBJECT, linewidth=1.2, alpha=0.6)
        axes.plot(expected, achieved, "o-", color=SUBJECT, markersize=4, label="achieved, 95% interval")
        axes.set_xlabel("expected cosine with the true next chunk")
        axes.set_ylabel("achieved")
        axes.legend(loc="best")

    return draw


def sets_plot(found: list[dict[str, Any]]) -> Draw:
    """Coverage asked for against coverage found, with the mean size of the sets at each point."""

    def draw(axes: Any) -> None:
        shown = [one for one in found if one["promised"]]
        axes.plot([0.45, 1], [0.45, 1], "--", color=EDGE, linewidth=1, label="as asked")
        for one in shown:
            if one["coverage_ci"][0] is not None:
                axes.plot([one["asked"]] * 2, one["coverage_ci"], color=SUBJECT, linewidth=1.2, alpha=0.6)
            axes.annotate(
                f"{one['size']:,.0f} chunks",
                (one["asked"], one["coverage"]),
                (6, -10),
                textcoords="offset points",
                fontsize=8,
            )
        axes.plot(
            [one["asked"] for one in shown],
            [one["coverage"] for one in shown],
            "o-",
            color=SUBJECT,
            markersize=4,
            label="found",
        )
        axes.set_xlim(0.45, 1.12)
        axes.set_xlabel("coverage asked for")
        axes.set_ylabel("sets that hold the next chunk")
        axes.legend(loc="best")

    return draw
