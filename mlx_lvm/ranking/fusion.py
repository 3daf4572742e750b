"""A fitted ranking, as an exported model carries it: weights of what is fused, thresholds, confidence."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

from mlx_lvm.core.result import JsonObject, Result
from mlx_lvm.errors import InvalidFile
from mlx_lvm.ranking.confidence import FEATURES, Confidence
from mlx_lvm.ranking.terms import READ, TERMS, RankingTerms

COVERAGES = tuple(percent / 100 for percent in range(50, 100))


@dataclass(frozen=True)
class Fusion:
    """surprises: for each of COVERAGES, the largest -log P of the set; infinite where nothing promises it."""

    weights: RankingTerms
    surprises: tuple[float, ...]

    def surprise(self, coverage: float) -> float:
        """Of the set that holds the truth so often, or more: that of the next of COVERAGES."""
        levels = zip(COVERAGES, self.surprises, strict=True)
        return next((value for level, value in levels if level >= coverage - 1e-9), math.inf)

    def to_dict(self, terms: tuple[str, ...]) -> JsonObject:
        """For JSON: an infinite threshold is null."""
        return {
            "weights": {name: getattr(self.weights, name) for name in terms},
            "surprises": [value if math.isfinite(value) else None for value in self.surprises],
        }

    @staticmethod
    def from_dict(values: JsonObject, terms: tuple[str, ...]) -> Fusion:
        """Raises KeyError, TypeError or ValueError where `values` is not what `to_dict` writes."""
        surprises = tuple(math.inf if value is None else _finite(value) for value in values["surprises"])
        if len(surprises) != len(COVERAGES) or list(surprises) != sorted(surprises):
            raise ValueError(f"{len(surprises)} thresholds; expected {len(COVERAGES)}, never falling")
        return Fusion(RankingTerms(**{name: _finite(values["weights"][name]) for name in terms}), surprises)


@dataclass(frozen=True)
class Ranking(Result):
    """Fitted on `windows` validation windows in `documents` documents of the corpus of that sha256."""

    corpus_sha256: str
    documents: int
    windows: int
    plain: Fusion
    query: Fusion
    confidence: Confidence

    def fusion(self, with_query: bool) -> Fusion:
        return self.query if with_query else self.plain

    def to_dict(self) -> JsonObject:
        """As files keep it; the confidence goes by its older name there, `certainty`."""
        coefficients = dict(zip(FEATURES, self.confidence.coefficients, strict=True))
        return {
            "corpus_sha256": self.corpus_sha256,
            "documents": self.documents,
            "windows": self.windows,
            "plain": self.plain.to_dict(READ),
            "query": self.query.to_dict(TERMS),
            "certainty": {"intercept": self.confidence.intercept, **coefficients},
        }

    @staticmethod
    def from_dict(values: JsonObject) -> Ranking:
        """Raises InvalidFile where `values` is not what `to_dict` writes."""
        try:
            stored = values["certainty"]
            coefficients = tuple(_finite(stored[name]) for name in FEATURES)
            return Ranking(
                str(values["corpus_sha256"]),
                int(values["documents"]),
                int(values["windows"]),
                Fusion.from_dict(values["plain"], READ),
                Fusion.from_dict(values["query"], TERMS),
                Confidence(_finite(stored["intercept"]), coefficients),
            )
        except (KeyError, TypeError, ValueError, OverflowError) as error:
            raise InvalidFile(
                f"the ranking stored with the model does not parse ({type(error).__name__}: {error})"
            ) from None


def _finite(value: Any) -> float:
    if isinstance(value, bool) or not isinstance(value, (int, float)) or not math.isfinite(value):
        raise ValueError(f"{value!r} is not a finite number")
    return float(value)
