"""The figure that a model is made for, read from an evaluation as JSON has it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

RANKS = "centred.mrr"  # the objective of a model that ranks; that of every other is "cosine"


@dataclass(frozen=True)
class Score:
    """A value with its interval, and the difference to the best baseline where that is another."""

    value: float
    ci: list[float | None]
    versus_best: dict[str, Any] | None


def score_of(entry: dict[str, Any], objective: str) -> Score:
    """Of one entry of `metrics`."""
    place = entry["centred"] if objective == RANKS else entry
    leaf = "mrr" if objective == RANKS else objective
    return Score(place[leaf], place[f"{leaf}_ci"], entry["versus_best"].get(objective))


def words_of(objective: str) -> str:
    """What the objective is called."""
    return "MRR" if objective == RANKS else objective.replace("_", " ")
