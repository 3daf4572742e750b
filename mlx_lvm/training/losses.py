"""Losses of predictions, each a mean over the batch; a training loss is their weighted sum."""

from __future__ import annotations

from collections.abc import Callable

from mlx_lvm.core.mlx import mx
from mlx_lvm.models import Prediction, normalize

STD_EPS = 1e-8  # keeps the gradient of a square root finite where a batch has no spread

Loss = Callable[[Prediction, mx.array, float], mx.array]


def mse(prediction: Prediction, target: mx.array, temperature: float) -> mx.array:
    """mean((raw - target)^2) over batch and dimensions, as `torch.nn.functional.mse_loss`."""
    return mx.square(prediction.raw - target).mean(axis=-1).mean()


def cosine(prediction: Prediction, target: mx.array, temperature: float) -> mx.array:
    """mean(1 - unit . target / |target|)."""
    return (1 - (prediction.unit * normalize(target)).sum(axis=-1)).mean()


def infonce(prediction: Prediction, target: mx.array, temperature: float) -> mx.array:
    """Half the cross entropies of finding targets and predictions among the batch's (van den Oord 2018)."""
    logits = (prediction.unit @ normalize(target).T) / temperature
    return (own_entropy(logits) + own_entropy(logits.T)).mean() / 2


def own_entropy(logits: mx.array) -> mx.array:
    """Cross entropy of every row's own column: logits [n, n] -> [n].

    Not `nn.losses.cross_entropy`, which takes another kernel on a GPU: one that does not subtract a row's
    largest number first, and loses digits of a small loss.
    """
    shifted = logits - mx.stop_gradient(logits.max(axis=-1, keepdims=True))
    own = mx.take_along_axis(shifted, mx.arange(logits.shape[0])[:, None], axis=-1).squeeze(-1)
    return mx.logsumexp(shifted, axis=-1) - own


def moment(prediction: Prediction, target: mx.array, temperature: float) -> mx.array:
    """|mean(unit) - mean(target)|^2 + |var(unit) - var(target)|^2 over the batch, targets at unit length."""
    goal = normalize(target)
    means = mx.square(prediction.unit.mean(axis=0) - goal.mean(axis=0)).sum()
    return means + mx.square(prediction.unit.var(axis=0) - goal.var(axis=0)).sum()


def variance(prediction: Prediction, target: mx.array, temperature: float) -> mx.array:
    """mean(max(0, std(target) - std(unit))) over dimensions, after VICReg: they spread as targets do."""
    goal = mx.sqrt(normalize(target).var(axis=0) + STD_EPS)
    return mx.maximum(goal - mx.sqrt(prediction.unit.var(axis=0) + STD_EPS), 0).mean()


LOSS_FUNCTIONS: dict[str, Loss] = {loss.__name__: loss for loss in (mse, cosine, infonce, moment, variance)}


def total_loss(weights: dict[str, float], temperature: float) -> Callable[[Prediction, mx.array], mx.array]:
    """The weighted sum of the losses whose weight is not zero."""
    used = [(weight, LOSS_FUNCTIONS[name]) for name, weight in weights.items() if weight]

    def loss(prediction: Prediction, target: mx.array) -> mx.array:
        parts = [(weight, of(prediction, target, temperature)) for weight, of in used]
        weighed = [part if weight == 1 else weight * part for weight, part in parts]
        return sum(weighed[1:], weighed[0])

    return loss
