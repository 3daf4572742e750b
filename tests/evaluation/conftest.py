"""A corpus of real directions whose documents differ in length, some too short for a window."""

import numpy as np
import pytest

from mlx_lvm.backend import mx
from mlx_lvm.data.card import EncoderCard
from mlx_lvm.data.corpus import Corpus

LENGTHS = (30, 4, 17, 6, 9, 40, 5, 23, 7, 12, 33, 2, 8, 19, 6, 14)


def make_corpus(vectors: np.ndarray, lengths: tuple[int, ...] | list[int]) -> Corpus:
    offsets = np.cumsum([0, *lengths])
    names = tuple(f"document {d}" for d in range(len(lengths)))
    return Corpus("made", mx.array(vectors.astype(np.float32)), None, offsets, names, EncoderCard(dim=vectors.shape[1]))


@pytest.fixture(scope="session")
def uneven(sotu: Corpus) -> Corpus:
    rows = np.concatenate([np.arange(sotu.offsets[d], sotu.offsets[d] + n) for d, n in zip(range(0, 160, 10), LENGTHS, strict=True)])
    return make_corpus(sotu.numpy(rows)[:, :12], LENGTHS)


def positions(corpus: Corpus, documents: np.ndarray, context: int) -> list[tuple[int, int]]:
    """(target row, first row of its document) of every window, by a plain loop."""
    out = []
    for d in documents:
        start, end = int(corpus.offsets[d]), int(corpus.offsets[d + 1])
        out += [(t, start) for t in range(start + context, end)]
    return out
