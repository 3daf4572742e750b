"""Figures that show whether a promise is kept: expected cosines, and sets that hold the next chunk."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

from mlx_lvm.core.result import Interval
from mlx_lvm.evaluation.report.drawing import EDGE, SUBJECT
from mlx_lvm.ranking.confidence import Reliability
from mlx_lvm.ranking.judge import SetCoverage


def measured_line(axes: Any, places: Sequence[float], found: Sequence[Interval], label: str) -> None:
    """What was found at each place, with its interval."""
    for place, one in zip(places, found, strict=True):
        if math.isfinite(one.low):
            axes.plot([place] * 2, [one.low, one.high], color=SUBJECT, linewidth=1.2, alpha=0.6)
    axes.plot(places, [one.value for one in found], "o-", color=SUBJECT, markersize=4, label=label)


def reliability_plot(found: Reliability, axes: Any) -> None:
    """Expected against achieved cosine in bins; on the diagonal, the one is the other."""
    expected, achieved = [one.expected for one in found.bins], [one.achieved for one in found.bins]
    seen = [*expected, *(end for one in achieved for end in (one.value, one.low, one.high))]
    seen = [value for value in seen if math.isfinite(value)]
    ends = [min(seen), max(seen)]
    axes.plot(ends, ends, "--", color=EDGE, linewidth=1, label="as expected")
    measured_line(axes, expected, achieved, "achieved, 95% interval")
    axes.set_xlabel("expected cosine with the true next chunk")
    axes.set_ylabel("achieved")
    axes.legend(loc="best")


def sets_plot(sets: list[SetCoverage], axes: Any) -> None:
    """Coverage asked for against coverage found, with the mean size of the sets at each point."""
    shown = [one for one in sets if one.promised]
    axes.plot([0.45, 1], [0.45, 1], "--", color=EDGE, linewidth=1, label="as asked")
    for one in shown:
        point = (one.asked, one.coverage.value)
        axes.annotate(f"{one.size:,.0f} chunks", point, (6, -10), textcoords="offset points", fontsize=8)
    measured_line(axes, [one.asked for one in shown], [one.coverage for one in shown], "found")
    axes.set_xlim(0.45, 1.12)
    axes.set_xlabel("coverage asked for")
    axes.set_ylabel("sets that hold the next chunk")
    axes.legend(loc="best")
