"""Figures at each of several steps, as rollout, horizons and direction have them."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np

from mlx_lvm.core.result import Interval, JsonObject, Result
from mlx_lvm.core.stats import DocumentBootstrap


@dataclass(frozen=True)
class Curve(Result):
    """A mean with its interval at each step. key: what it is a mean of, `cosine` or `difference`."""

    points: list[Interval]
    key: str = "cosine"

    @property
    def values(self) -> list[float]:
        return [one.value for one in self.points]

    def to_dict(self) -> JsonObject:
        return {self.key: self.values, "ci": [one.ends() for one in self.points]}


def curves(
    figures: Mapping[str, np.ndarray], bootstrap: DocumentBootstrap, key: str = "cosine"
) -> dict[str, Curve]:
    """figures: [windows, steps] by name."""
    return {name: Curve(bootstrap.intervals(*values.T), key) for name, values in figures.items()}
