"""RAMN's two losses, on segments of documents and in the model's basis, where cosines are the same.

regress    1 - cosine, plus 0.3 of the same on centred vectors, plus half the squared error; the mean over the
           horizons
retrieve   generalised cross entropy (Zhang & Sabuncu 2018) of the true chunk among the batch's targets,
           random chunks and what its document read before the 5 chunks that no ranking holds
"""

from __future__ import annotations

from mlx_lvm.core.mlx import mx, nn
from mlx_lvm.models import normalize
from mlx_lvm.models.base import MAX_CONTEXT, SUM_WIDTH, row_sum
from mlx_lvm.models.ramn import RAMN, RECENT_KEPT
from mlx_lvm.models.ramn_filters import mixed
from mlx_lvm.training.ramn.documents import Batch, counts_of, mixtures_of, take_queries, take_targets

CENTRED, SQUARED = 0.3, 0.5  # weights of the regress loss, compared with the cosine's
GCE_Q = 0.3  # between cross entropy (0) and 1 - p (1)
MASKED_LOGIT = -1e4  # of a candidate that is none
RANDOM_NEGATIVES = 1024  # chunks of all training documents, drawn for each step


def regress_loss(
    model: RAMN, batch: Batch, kernels: mx.array, old: mx.array, centred: mx.array
) -> tuple[mx.array, mx.array]:
    """(loss per target, sum of cosines with the next chunk)."""
    query, place = None, mx.zeros(batch.valid.shape, dtype=mx.int32)
    if model.config.queries:
        kept = mx.random.uniform(shape=batch.valid.shape) < model.config.queries
        drawn, place = take_queries(centred, batch.table, mx.random.uniform(shape=batch.valid.shape))
        place = mx.where(kept, place, 0)
        query = ((place > 0)[..., None], drawn * kept[..., None])
    parts, trust = model.parts(mixtures_of(batch, kernels), counts_of(batch), query)
    mean, losses, cosines = model.basis(model.mean), [], []
    for ahead, (here, elsewhere, correction) in enumerate(parts):
        target, there = take_targets(centred, batch.table, ahead)
        unseen = (place != ahead) if ahead else True  # a query tells nobody what it is itself
        moved = mixed(here, elsewhere, trust) + trust * correction
        valid = (there & unseen).astype(mx.float32)
        unit, truth = normalize(mean + moved), normalize(mean + target)
        cosine = (unit * truth).sum(axis=-1)
        centred_cosine = (normalize(unit - mean) * normalize(truth - mean)).sum(axis=-1)
        error = SQUARED * mx.square(moved - target).sum(axis=-1)
        loss = 1 - cosine + CENTRED * (1 - centred_cosine) + error
        losses.append((loss * valid).sum() / mx.maximum(valid.sum(), 1))
        cosines.append((cosine * valid).sum())
    return mx.stack(losses).mean(), cosines[0]


def retrieve_loss(
    model: RAMN, batch: Batch, kernels: mx.array, old: mx.array, centred: mx.array
) -> tuple[mx.array, mx.array]:
    """(loss per target, sum of cosines of the ranking direction with its target).

    Of what a trusted document is ranked by before the blend.
    """
    query, own = ranking_queries(model, batch, kernels, old)
    direction, truth = query.flatten(0, 1), batch.truth.flatten(0, 1)
    rows, valid = batch.rows[:, MAX_CONTEXT:].flatten(), batch.valid.flatten()
    among_targets = direction @ truth.T + target_mask(rows, valid)
    drawn = mx.random.randint(0, centred.shape[0], (RANDOM_NEGATIVES,))
    among_random = direction @ mx.take(centred, drawn, axis=0).T + negative_mask(rows, drawn)
    logits = mx.concatenate([among_targets, own.flatten(0, 1), among_random], axis=-1)
    correct = (direction * truth).sum(axis=-1)
    loss = generalised_cross_entropy(log_probability(correct, logits), GCE_Q)
    kept = valid.astype(mx.float32)
    cosine = (normalize(direction) * normalize(truth)).sum(axis=-1)
    return (loss * kept).sum() / kept.sum(), (cosine * kept).sum()


def ranking_queries(model: RAMN, batch: Batch, kernels: mx.array, old: mx.array) -> tuple[mx.array, mx.array]:
    """(directions [batch, 32, dim], their scores of the chunks before each segment [batch, 32, 100]).

    A direction is pushed away from what its document read before the last 5 chunks.
    """
    ((here, _, correction),), _ = model.parts(mixtures_of(batch, kernels), counts_of(batch))
    query = mx.exp(model.log_scale) * (here + correction)
    read = batch.present[:, None, :] * old
    scores = query @ batch.z.swapaxes(1, 2)
    weights = mx.exp(model.push_strength) * nn.softplus(scores - model.push_threshold) * read
    query = query - (weights @ batch.z) * mx.exp(model.push_metric)
    before = batch.z[:, :MAX_CONTEXT]
    own = query @ before.swapaxes(1, 2) + mx.where(read[..., :MAX_CONTEXT] > 0, 0.0, MASKED_LOGIT)
    return query, own


def target_mask(rows: mx.array, valid: mx.array) -> mx.array:
    """[n, n]: 0 where target k is a candidate for target i, MASKED_LOGIT where it is in i's context."""
    back = rows[:, None] - rows[None, :]
    context = (back > 0) & (back <= RECENT_KEPT)
    return mx.where(valid[None, :] & ~context, 0.0, MASKED_LOGIT)


def negative_mask(rows: mx.array, drawn: mx.array) -> mx.array:
    """[n, drawn]: MASKED_LOGIT where a drawn row is the target itself or in its context."""
    back = rows[:, None] - drawn[None, :]
    return mx.where((back >= 0) & (back <= RECENT_KEPT), MASKED_LOGIT, 0.0)


def log_probability(correct: mx.array, logits: mx.array) -> mx.array:
    """correct - log sum exp(logits): [n] and [n, candidates] -> [n].

    Not `mx.logsumexp`, whose gradient is exp(logits - the rounded result): its rows sum to one but for a
    rounding of |logits|, which the gradients of scale and filter, where much cancels, are made of.
    """
    largest = mx.stop_gradient(logits.max(axis=-1, keepdims=True))
    likely = mx.pad(mx.exp(logits - largest), [(0, 0), (0, -logits.shape[-1] % SUM_WIDTH)])
    return correct - largest[:, 0] - mx.log(row_sum(likely)[:, 0])


def generalised_cross_entropy(log_probability: mx.array, q: float) -> mx.array:
    """(1 - p^q) / q (Zhang & Sabuncu 2018, equation 6), from log p.

    Cross entropy as q falls to 0, 1 - p at q = 1: the smaller p, the less a window weighs compared with cross
    entropy, so that windows which no query could solve weigh little, as they do in a mean reciprocal rank.
    """
    return (1 - mx.exp(q * log_probability)) / q
