"""The figures of an evaluation, named: where each comes from, and what it is called in JSON and in words."""

from __future__ import annotations

from dataclasses import dataclass, fields

import numpy as np

from mlx_lvm.metrics.figures import WindowFigures
from mlx_lvm.metrics.retrieval import CUTS, RankFigures


@dataclass(frozen=True)
class Figures:
    """Every figure of every window, float64 [n].

    rank, split: retrieval among the chunks of the split; centred: the same with a share of the mean taken
    off; in_document: among the chunks of the window's own document.
    """

    window: WindowFigures
    rank: np.ndarray
    split: RankFigures
    centred: RankFigures
    in_document: RankFigures


@dataclass(frozen=True)
class Metric:
    """One figure. group: a field of `Figures`, name: one of that field's."""

    group: str
    name: str

    def of(self, figures: Figures) -> np.ndarray:
        """Its values [n]."""
        values: np.ndarray = getattr(getattr(figures, self.group), self.name)
        return values

    def __str__(self) -> str:
        return self.key

    @property
    def key(self) -> str:
        """What JSON calls it."""
        return self.name if self.group in ("window", "split") else f"{self.group}.{self.name}"

    @property
    def words(self) -> str:
        """What a sentence calls it."""
        return {"mrr": "MRR", "recall_at_5": "R@5"}.get(self.name, self.name.replace("_", " "))


COSINE = Metric("window", "cosine")
CENTRED_COSINE = Metric("window", "centred_cosine")
MARGIN = Metric("window", "margin")
MRR = Metric("split", "mrr")
RECALLS = tuple(Metric("split", f"recall_at_{cut}") for cut in CUTS)
# `centred`: as each ranks best, with the share of the mean off that validation chose
CENTRED_MRR = Metric("centred", "mrr")
CENTRED_RECALL = Metric("centred", "recall_at_5")
IN_DOCUMENT_MRR = Metric("in_document", "mrr")
# Those whose differences to the best baseline are shown.
COMPARED = (COSINE, CENTRED_COSINE, *RECALLS, MRR, CENTRED_RECALL, CENTRED_MRR, IN_DOCUMENT_MRR)
JUDGED = (COSINE, CENTRED_COSINE, CENTRED_MRR, CENTRED_RECALL)  # what a verdict speaks of
EVERY = (
    COSINE,
    CENTRED_COSINE,
    MARGIN,
    *(Metric(group, f.name) for group in ("split", "centred", "in_document") for f in fields(RankFigures)),
)
