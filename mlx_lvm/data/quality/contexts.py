"""Rows that are not of unit length, and windows whose target stands in their own context."""

from __future__ import annotations

import numpy as np

from mlx_lvm.data.quality.duplicates import lagged_blocks
from mlx_lvm.data.storage.mapped import MappedCorpus
from mlx_lvm.data.storage.rows import RowCheck

SAME = 0.9999  # cosine above which two chunks are one and the same


def lengths_told(corpus: MappedCorpus, rows: RowCheck) -> list[str]:
    """What is to be said of rows that are, or were, not of unit length."""
    if rows.off_unit and not corpus.as_drawn:
        return [
            f"{rows.off_unit:,} of {len(corpus):,} rows are not of unit length ({rows.shortest:.3g} to "
            f"{rows.longest:.3g}); they are made so as they are read, and `lvm data subset` writes them so"
        ]
    if corpus.made_unit:
        what = "rows were made of unit length when the corpus was written"
        return [f"{corpus.made_unit:,} of {len(corpus):,} {what}"]
    return []


def targets_in_context(corpus: MappedCorpus, context: int) -> np.ndarray:
    """Rows that are targets of windows of `context` chunks and stand in them: a copy is no prediction."""
    found = []
    for low, rows, later in lagged_blocks(corpus, context):
        targets = later[-1]
        copied = np.zeros(len(targets), dtype=bool)
        for lag in range(1, context + 1):
            copied |= np.einsum("ij,ij->i", rows[targets], rows[targets - lag]) > SAME
        found.append(low + targets[copied])
    return np.concatenate(found)


def contexts_told(corpus: MappedCorpus, context: int, allowed: float) -> tuple[str, float]:
    """(what is to be said of targets in their own context, empty without any; their share of the windows)."""
    windows = int(np.maximum(corpus.lengths - context, 0).sum())
    copied = targets_in_context(corpus, context)
    if not len(copied):
        return "", 0.0
    share = len(copied) / windows
    return (
        f"{len(copied):,} of {windows:,} windows ({share:.2%}) have their target in their own context, "
        f"{allowed:.2%} allowed; the first is {corpus.where(int(copied[0]))}. Drop repeated chunks before "
        "they are embedded"
    ), share
