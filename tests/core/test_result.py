"""The JSON form of results: by hand, each rule once."""

from __future__ import annotations

import math
from dataclasses import dataclass, field

from mlx_lvm.core.result import INLINED, Interval, Result, as_json, key
from mlx_lvm.metrics.names import CENTRED_MRR, COSINE


@dataclass(frozen=True)
class Place(Result):
    document: str
    text: str | None = None


@dataclass(frozen=True)
class Found(Result):
    derived = ("twice",)

    place: Place = field(metadata=INLINED)
    low: float = field(metadata=key("from"))
    gain: Interval
    ranked: dict[object, list[Place]]

    @property
    def twice(self) -> float:
        return 2 * self.low


def test_every_rule_by_hand() -> None:
    """Inlined fields, other names, None left out, an interval by its two keys, a property, and depth."""
    found = Found(Place("a"), 0.25, Interval(0.5, 0.4, 0.6, 0.01), {COSINE: [Place("b", "words")]})
    assert found.to_dict() == {
        "document": "a",
        "from": 0.25,
        "gain": 0.5,
        "gain_ci": [0.4, 0.6],
        "ranked": {"cosine": [{"document": "b", "text": "words"}]},
        "twice": 0.5,
    }
    assert as_json({CENTRED_MRR: (1, None)}) == {"centred.mrr": [1, None]}


def test_an_interval_in_words() -> None:
    known, unknown = Interval(0.5, 0.4, 0.6, 0.01), Interval(0.5, -math.inf, math.inf, 1.0)
    assert known.text("+.2f") == "+0.50 [+0.40 +0.60]" and known.span(".1f") == "0.4 to 0.6"
    assert unknown.text(".2f") == "0.50" and unknown.span() == "-" and unknown.ends() == [None, None]
    outcomes = [Interval(0, *ends, 0).outcome for ends in ((0.1, 0.2), (-0.2, -0.1), (-0.1, 0.1))]
    assert outcomes == ["better", "worse", "not distinguishable"] and unknown.outcome == outcomes[2]
