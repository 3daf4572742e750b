"""The blend of RAMN's head retrieve: two weights fitted on the validation documents after every epoch.

It is no part of the loss: the network overrates itself where it was trained. The figure that selects stays
honest, for each half of these documents is ranked with a blend fitted on the other half. Where it does not
rank them better than what it is blended with does alone, by more than its standard error over documents, the
model falls back on that.
"""

from __future__ import annotations

import numpy as np

from mlx_lvm import weights
from mlx_lvm.core.arrays import evenly_spaced
from mlx_lvm.core.files.safetensors import open_safetensors
from mlx_lvm.core.mlx import mx
from mlx_lvm.data.corpus import Corpus
from mlx_lvm.metrics.retrieval import Pool, ranks
from mlx_lvm.models import normalize
from mlx_lvm.models.emn import EMN
from mlx_lvm.models.emn_config import EMNConfig
from mlx_lvm.models.ramn import RAMN
from mlx_lvm.models.weights import set_weights
from mlx_lvm.predictors.base import predict_all
from mlx_lvm.predictors.history import HistoryPredictor
from mlx_lvm.ranking.candidates import Candidates, offsets_of, products
from mlx_lvm.ranking.logit import fit_logit
from mlx_lvm.training.emn.bind import bind
from mlx_lvm.training.emn.scores import by_document, lead

BLEND_BLOCK = 256  # validation windows scored together
BLEND_PAIRS = 8_000_000  # (window, candidate) pairs that a blend is fitted on: 130 MB


def released_ranker() -> EMN:
    """`emn-rank` as it is released, which no corpus's statistics are in."""
    path = weights.released()[EMN.released["emn-rank"]] / "model.safetensors"
    model = EMN(EMNConfig(dim=0, head="rank"))
    set_weights(model, open_safetensors(path).arrays(), str(path))
    return model


def give_fallback(model: RAMN, corpus: Corpus, documents: np.ndarray, context: int) -> None:
    """Put `emn-rank` into a model that falls back on it, with the statistics of these documents."""
    bound = bind(released_ranker(), corpus, documents, context)
    model.emn.load_weights(list(bound.weights().items()), strict=True)


def besides(model: RAMN, pool: Pool) -> mx.array:
    """What the model's direction is blended with [n, dim], for the windows of the pool."""
    if model.config.fallback == "emn":
        return predict_all(HistoryPredictor("emn", model.emn), pool.windows)
    return pool.windows.corpus.take(mx.array(pool.windows.targets - 1))


def fit_blend(model: RAMN, pool: Pool, beside: mx.array) -> tuple[np.ndarray, np.ndarray]:
    """(d, e of `models.ramn` [2], rank of each window's truth [n]).

    d, e give the windows of the pool the likeliest true chunks, every chunk of the pool a candidate, or as
    many evenly spaced ones as BLEND_PAIRS allows; d is 0 where the direction is not trusted. The ranks are by
    the blend that the windows of the other half of the documents give; one document has no other half, and
    trusts nothing. `beside` [n, dim]: see `besides`. The model's blend is left at (1, 0).
    """
    corpus, read = pool.windows.corpus, pool.windows
    model.blend = mx.array([1.0, 0.0])
    spaced = evenly_spaced(len(pool.rows), BLEND_PAIRS // len(read))
    rows = mx.array(pool.rows[spaced].astype(np.int32))
    candidates = Candidates(corpus, rows, normalize(corpus.take(rows)))
    terms = mx.stack([predict_all(HistoryPredictor("ramn", model), read), beside], axis=1)
    scores, offsets = [], []
    for index in read.blocks(BLEND_BLOCK):
        scores.append(products(terms[index], read, index, candidates))
        # At most 0, for the pool stands for no larger corpus.
        offsets.append(mx.minimum(offsets_of(read, index, candidates), 0))
        mx.eval(scores[-1], offsets[-1])
    features, added = mx.concatenate(scores), mx.concatenate(offsets)

    def fitted(where: np.ndarray, first: int = 0) -> np.ndarray:
        chosen = mx.array(np.flatnonzero(where).astype(np.int32))
        return fit_logit(mx.take(features[:, first:], chosen, axis=0), mx.take(added, chosen, axis=0))

    half = np.unique(read.documents, return_inverse=True)[1] % 2
    alone = ranks(pool, beside)
    if half.any():
        used = np.stack([fitted(half != side) for side in (0, 1)])[half]
        placed = ranks(pool, (mx.array(used.astype(np.float32))[:, :, None] * terms).sum(axis=1))
        before, counts = by_document(1 / alone, read.documents)
        if lead(by_document(1 / placed, read.documents)[0], before, counts) > 0:
            return fitted(half >= 0), placed
    return np.concatenate([[0.0], fitted(half >= 0, first=1)]), alone
