"""What a corpus holds: documents, windows, splits, lag profile, anisotropy, encoder card."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from mlx_lvm.core.result import JsonObject, Result
from mlx_lvm.data.quality.duplicates import lagged_blocks, sample_rows
from mlx_lvm.data.splits import SPLITS, split_corpus
from mlx_lvm.data.storage.mapped import MappedCorpus

LAGS = 10
DIRECTIONS = (1, 10, 50)  # principal directions whose share of the variance is told


@dataclass(frozen=True)
class Lengths(Result):
    """Chunks of a document."""

    min: int
    median: float
    max: int
    mean: float


@dataclass(frozen=True)
class Part(Result):
    """A part of the split."""

    documents: int
    vectors: int
    windows: int

    @staticmethod
    def of(lengths: np.ndarray, context: int) -> Part:
        return Part(len(lengths), int(lengths.sum()), int(np.maximum(lengths - context, 0).sum()))


@dataclass(frozen=True)
class Description(Result):
    """windows: of `context` chunks and the next; too_short: documents without; split: where it comes from."""

    corpus: str
    path: str
    documents: int
    vectors: int
    dim: int
    dtype: str
    bytes: int
    shards: int
    sha256: str
    texts: bool
    context: int
    windows: int
    too_short: int
    lengths: Lengths
    split: str
    splits: dict[str, Part]
    lag_profile: list[float | None]
    anisotropy: dict[str, float]
    encoder: JsonObject
    provenance: dict[str, str]


def describe(corpus: MappedCorpus, context: int, seed: int) -> Description:
    """What a corpus is, without its duplicates: one pass over the vectors."""
    lengths, split = corpus.lengths, split_corpus(corpus, seed)
    return Description(
        corpus=corpus.name,
        path=str(corpus.path),
        documents=len(corpus.names),
        vectors=len(corpus),
        dim=corpus.dim,
        dtype=corpus.dtype,
        bytes=corpus.nbytes,
        shards=len(corpus.shards),
        sha256=corpus.sha256,
        texts=corpus.texts() is not None,
        context=context,
        windows=Part.of(lengths, context).windows,
        too_short=int((lengths <= context).sum()),
        lengths=Lengths(
            int(lengths.min()), float(np.median(lengths)), int(lengths.max()), float(lengths.mean())
        ),
        split="recorded in the corpus" if corpus.assigned is not None else f"by name, seed {seed}",
        splits={name: Part.of(lengths[split.part(name)], context) for name in SPLITS},
        lag_profile=lag_profile(corpus),
        anisotropy=anisotropy(corpus),
        encoder={**corpus.card.to_dict(), "probes": corpus.card.probes is not None},
        provenance=corpus.provenance,
    )


def lag_profile(corpus: MappedCorpus) -> list[float | None]:
    """r_l: mean cosine of two chunks l = 1..10 apart in one document; None where no document is that long."""
    sums, counts = np.zeros(LAGS), np.zeros(LAGS, np.int64)
    for _, rows, later in lagged_blocks(corpus, LAGS):
        for lag, places in enumerate(later, 1):
            sums[lag - 1] += np.einsum("ij,ij->", rows[places], rows[places - lag], dtype=np.float64)
            counts[lag - 1] += len(places)
    return [float(total / count) if count else None for total, count in zip(sums, counts, strict=True)]


def anisotropy(corpus: MappedCorpus) -> dict[str, float]:
    """|mean| of the unit vectors, and the share of their variance that the first principal directions hold.

    From at most some thousand rows spread evenly through the corpus; `rows` says how many.
    """
    rows = sample_rows(corpus).astype(np.float64)
    mean = rows.mean(axis=0)
    centred = rows - mean
    if len(rows) < corpus.dim:
        spectrum = np.linalg.svd(centred, compute_uv=False) ** 2
    else:
        spectrum = np.maximum(np.linalg.eigvalsh(centred.T @ centred)[::-1], 0)
    total = spectrum.sum()
    shares = {f"first_{k}": float(spectrum[:k].sum() / total) if total > 0 else 0.0 for k in DIRECTIONS}
    return {"mean_norm": float(np.linalg.norm(mean)), **shares, "rows": len(rows)}
