"""The blend of RAMN's head retrieve: two weights fitted on the validation documents after every epoch.

It is no part of the loss: the network overrates itself where it was trained. The figure that selects stays
honest, for each half of these documents is ranked with a blend fitted on the other half.
"""

from __future__ import annotations

import numpy as np

from mlx_lvm.core.arrays import evenly_spaced
from mlx_lvm.core.mlx import mx
from mlx_lvm.metrics.retrieval import Pool, ranks
from mlx_lvm.models import normalize
from mlx_lvm.models.ramn import RAMN
from mlx_lvm.predictors.base import predict_all
from mlx_lvm.predictors.history import HistoryPredictor
from mlx_lvm.ranking.candidates import Candidates, offsets_of, products
from mlx_lvm.ranking.logit import fit_logit

BLEND_BLOCK = 256  # validation windows scored together
BLEND_PAIRS = 8_000_000  # (window, candidate) pairs that a blend is fitted on: 130 MB


def fit_blend(model: RAMN, pool: Pool) -> tuple[np.ndarray, np.ndarray]:
    """(d, e of `models.ramn` [2], rank of each window's truth [n]).

    d, e give the windows of the pool the likeliest true chunks, every chunk of the pool a candidate, or as
    many evenly spaced ones as BLEND_PAIRS allows. The ranks are by the blend that the windows of the other
    half of the documents give; one document has no other half, and is ranked by its own. The model's blend is
    left at (1, 0).
    """
    corpus, read = pool.windows.corpus, pool.windows
    model.blend = mx.array([1.0, 0.0])
    spaced = evenly_spaced(len(pool.rows), BLEND_PAIRS // len(read))
    rows = mx.array(pool.rows[spaced].astype(np.int32))
    candidates = Candidates(corpus, rows, normalize(corpus.take(rows)))
    last = corpus.take(mx.array(read.targets - 1))
    terms = mx.stack([predict_all(HistoryPredictor("ramn", model), read), last], axis=1)
    scores, offsets = [], []
    for index in read.blocks(BLEND_BLOCK):
        scores.append(products(terms[index], read, index, candidates))
        # At most 0, for the pool stands for no larger corpus.
        offsets.append(mx.minimum(offsets_of(read, index, candidates), 0))
        mx.eval(scores[-1], offsets[-1])
    features, added = mx.concatenate(scores), mx.concatenate(offsets)

    def fitted(where: np.ndarray) -> np.ndarray:
        chosen = mx.array(np.flatnonzero(where).astype(np.int32))
        return fit_logit(mx.take(features, chosen, axis=0), mx.take(added, chosen, axis=0))

    half = np.unique(read.documents, return_inverse=True)[1] % 2
    blend = fitted(half >= 0)
    used = np.tile(blend, (len(read), 1))
    if half.any():
        for side in (0, 1):
            used[half == side] = fitted(half != side)
    ranked = (mx.array(used.astype(np.float32))[:, :, None] * terms).sum(axis=1)
    return blend, ranks(pool, ranked)
