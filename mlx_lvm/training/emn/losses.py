"""What EMN learns from: windows as the inner products of their rows (predict), segments of documents (rank).

predict    1 - cosine, plus a share of the same on centred vectors
rank       generalised cross entropy (1 - p^0.3) / 0.3 (Zhang & Sabuncu 2018), p the softmax probability of
           the true chunk among the batch's targets, what its document read before the 5 chunks that no
           ranking holds, and chunks of all documents.
           Between cross entropy (power 0) and 1 - p (power 1): windows that no query could solve weigh less
"""

from __future__ import annotations

from mlx_lvm.core.mlx import mx
from mlx_lvm.models.base import normalize
from mlx_lvm.models.emn import EMN
from mlx_lvm.models.emn_geometry import MEAN
from mlx_lvm.training.emn.reading import take_batch
from mlx_lvm.training.ramn.documents import MAX_CONTEXT, TARGETS, old_mask

CENTRED = 0.5  # weight of the centred cosine in a network for one corpus; see `scores.centred_weight`
GCE_POWER = 0.3
MASKED = -1e4  # logit of what does not compete
RANDOM_NEGATIVES = 512  # chunks of all training documents, drawn for each step
SMALLEST = 1e-24
NEVER_RANKED = 5  # chunks before the target that no ranking holds


def predict_loss(model: EMN, index: mx.array, arrays: dict[str, mx.array]) -> tuple[mx.array, mx.array]:
    """(sum of the loss over the windows of `index` [n], sum of cosines); arrays as
    `geometry.Geometry.arrays`, and `weight` [sources]: of the centred cosine in the windows of each.
    """
    cosine, centred = cosines(model, index, arrays)
    weight = mx.take(arrays["weight"], mx.take(arrays["source"], index))
    return (1 - cosine + weight * (1 - centred)).sum(), cosine.sum()


def cosines(model: EMN | None, index: mx.array, arrays: dict[str, mx.array]) -> tuple[mx.array, mx.array]:
    """Cosine and centred cosine [n] of each window's prediction with its target; without a model, of the lag
    filter's.
    """
    windows = (name for name in arrays if name not in ("filter", "weight"))
    chosen = {name: mx.take(arrays[name], index, axis=0) for name in windows}
    weights = mx.take(arrays["filter"], chosen["source"], axis=0)
    if model is not None:
        corrections, _ = model.corrections(chosen["gram"], chosen["tokens"], chosen["count"])
        weights = weights + model.base[0] + corrections[:, 0]
    return cosines_of(weights, chosen)


def cosines_of(weights: mx.array, windows: dict[str, mx.array]) -> tuple[mx.array, mx.array]:
    """The same of predictions that weigh the rows so [n, 22].

    The prediction itself is never made: with p = sum_a w_a r_a, every product of p that a cosine needs is one
    of the rows'.
    """
    gram, cross, square = windows["gram"], windows["cross"], windows["square"]
    with_rows = (gram @ weights[..., None]).squeeze(-1)
    length = mx.sqrt(mx.maximum((weights * with_rows).sum(axis=-1), SMALLEST))
    with_mean, mean_square = with_rows[:, MEAN], gram[:, MEAN, MEAN]
    # Of the target less the mean.
    with_truth, truth_with_mean = (weights * cross).sum(axis=-1), cross[:, MEAN]
    size = mx.sqrt(mx.maximum(square + 2 * truth_with_mean + mean_square, SMALLEST))
    # The prediction as long as its target, less the mean, against the target less the mean.
    stretch = size / length
    apart = mx.square(size) - 2 * stretch * with_mean + mean_square
    both = mx.sqrt(mx.maximum(apart, SMALLEST) * mx.maximum(square, SMALLEST))
    return (with_truth + with_mean) / (length * size), (stretch * with_truth - truth_with_mean) / both


def rank_loss(model: EMN, table: mx.array, corpus: dict[str, mx.array]) -> tuple[mx.array, mx.array]:
    """(sum of the loss over the targets of the segments `table` [batch, 3], sum of cosines of the direction
    with its target).

    corpus: arrays as `step.Source.arrays`: `whiten` [dim, dim], `centred` [rows, dim], `mean` [dim],
    `expert`.
    """
    batch = take_batch(corpus, table)
    rows = batch.rows
    corrections, scale = model.corrections(rows @ rows.swapaxes(-1, -2), batch.tokens, batch.count)
    query = model.direction(rows, corrections, scale, corpus["whiten"])
    mean, valid = corpus["mean"], batch.valid
    chunks = normalize(batch.z + mean)
    old = mx.broadcast_to(
        batch.present[:, None, :MAX_CONTEXT] * old_mask()[:, :MAX_CONTEXT],
        (len(chunks), TARGETS, MAX_CONTEXT),
    )
    own = query @ chunks[:, :MAX_CONTEXT].swapaxes(1, 2) + mx.where(old > 0, 0.0, MASKED)
    flat, truth = query.flatten(0, 1), chunks[:, MAX_CONTEXT:].flatten(0, 1)
    number, there = batch.number[:, MAX_CONTEXT:].flatten(), valid.flatten()
    back = number[:, None] - number[None, :]
    near = (back > 0) & (back <= NEVER_RANKED)
    among = flat @ truth.T + mx.where(there[None, :] & ~near, 0.0, MASKED)
    drawn = mx.random.randint(0, corpus["centred"].shape[0], (RANDOM_NEGATIVES,))
    back = number[:, None] - drawn[None, :]
    others = normalize(mx.take(corpus["centred"], drawn, axis=0) + mean)
    beyond = flat @ others.T + mx.where((back >= 0) & (back <= NEVER_RANKED), MASKED, 0.0)
    logits = mx.concatenate([among, own.flatten(0, 1), beyond], axis=-1)
    correct = (flat * truth).sum(axis=-1)
    # A target that is not there is no candidate either: nothing bounds its probability.
    log_probability = mx.where(there, correct - mx.logsumexp(logits, axis=-1), 0.0)
    loss = (1 - mx.exp(GCE_POWER * log_probability)) / GCE_POWER
    kept = there.astype(mx.float32)
    return (loss * kept).sum(), ((normalize(flat) * truth).sum(axis=-1) * kept).sum()
