"""A fitted ranking, as an exported model carries it: weights of what is fused, thresholds of the sets, and how sure predictions are."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

from mlx_lvm.errors import InvalidFile
from mlx_lvm.ranking.certainty import CUES, Certainty
from mlx_lvm.ranking.hybrid import QUERY, TERMS

COVERAGES = tuple(percent / 100 for percent in range(50, 100))


@dataclass(frozen=True)
class Fusion:
    """weights: of TERMS, and of the query where it is one; zero for what is not fused. surprises: for each of COVERAGES, the
    largest -log P that a chunk of the set may have; infinite where the validation documents are too few to promise it.
    """

    weights: tuple[float, ...]
    surprises: tuple[float, ...]

    def surprise(self, coverage: float) -> float:
        """Of the set that holds the truth with probability `coverage` at least: that of the next of COVERAGES."""
        found = [
            value for level, value in zip(COVERAGES, self.surprises, strict=True) if level >= coverage - 1e-9
        ]
        return found[0] if found else math.inf


@dataclass(frozen=True)
class Ranking:
    """Fitted on `windows` validation windows in `documents` documents of the corpus of that sha256."""

    corpus_sha256: str
    documents: int
    windows: int
    plain: Fusion
    query: Fusion
    certainty: Certainty

    def fusion(self, with_query: bool) -> Fusion:
        return self.query if with_query else self.plain

    def to_dict(self) -> dict[str, Any]:
        """For JSON: an infinite threshold is null."""
        fusions = {
            name: {
                "weights": dict(zip([*TERMS, QUERY], one.weights, strict=False)),
                "surprises": [value if math.isfinite(value) else None for value in one.surprises],
            }
            for name, one in (("plain", self.plain), ("query", self.query))
        }
        certainty = {
            "intercept": self.certainty.intercept,
            **dict(zip(CUES, self.certainty.coefficients, strict=True)),
        }
        return {
            "corpus_sha256": self.corpus_sha256,
            "documents": self.documents,
            "windows": self.windows,
            **fusions,
            "certainty": certainty,
        }

    @staticmethod
    def from_dict(values: dict[str, Any]) -> Ranking:
        """Raises InvalidFile where `values` is not what `to_dict` writes."""

        def fusion(entry: dict[str, Any], terms: list[str]) -> Fusion:
            surprises = tuple(math.inf if value is None else _finite(value) for value in entry["surprises"])
            if len(surprises) != len(COVERAGES) or list(surprises) != sorted(surprises):
                raise ValueError(f"{len(surprises)} thresholds; expected {len(COVERAGES)}, never falling")
            return Fusion(tuple(_finite(entry["weights"][term]) for term in terms), surprises)

        try:
            certainty = Certainty(
                _finite(values["certainty"]["intercept"]),
                tuple(_finite(values["certainty"][cue]) for cue in CUES),
            )
            return Ranking(
                str(values["corpus_sha256"]),
                int(values["documents"]),
                int(values["windows"]),
                fusion(values["plain"], [*TERMS]),
                fusion(values["query"], [*TERMS, QUERY]),
                certainty,
            )
        except (KeyError, TypeError, ValueError, OverflowError) as error:
            raise InvalidFile(
                f"the ranking stored with the model does not parse ({type(error).__name__}: {error})"
            ) from None


def _finite(value: Any) -> float:
    if isinstance(value, bool) or not isinstance(value, (int, float)) or not math.isfinite(value):
        raise ValueError(f"{value!r} is no finite number")
    return float(value)
