"""The training losses in torch's own functions, for the twins."""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional

from mlx_lvm.parity.twins.base import Prediction

STD_EPS = 1e-8


def mse(prediction: Prediction, target: Tensor, temperature: float) -> Tensor:
    return functional.mse_loss(prediction.raw, target)


def cosine(prediction: Prediction, target: Tensor, temperature: float) -> Tensor:
    return 1 - functional.cosine_similarity(prediction.raw, target, dim=-1, eps=1e-24).mean()


def infonce(prediction: Prediction, target: Tensor, temperature: float) -> Tensor:
    """Symmetric: every prediction against all targets of the batch, every target against all predictions."""
    logits = prediction.unit @ functional.normalize(target, dim=-1).T / temperature
    labels = torch.arange(len(logits), device=logits.device)
    return (functional.cross_entropy(logits, labels) + functional.cross_entropy(logits.T, labels)) / 2


def moment(prediction: Prediction, target: Tensor, temperature: float) -> Tensor:
    """Squared distances of the batch's mean and of its population variance, summed over dimensions."""
    goal, unit = functional.normalize(target, dim=-1), prediction.unit
    means = (unit.mean(dim=0) - goal.mean(dim=0)).pow(2).sum()
    return means + (unit.var(dim=0, correction=0) - goal.var(dim=0, correction=0)).pow(2).sum()


def variance(prediction: Prediction, target: Tensor, temperature: float) -> Tensor:
    """Hinge on the standard deviation of every dimension."""
    goal, unit = functional.normalize(target, dim=-1), prediction.unit
    gap = (goal.var(dim=0, correction=0) + STD_EPS).sqrt() - (unit.var(dim=0, correction=0) + STD_EPS).sqrt()
    return functional.relu(gap).mean()


LOSSES = {"mse": mse, "cosine": cosine, "infonce": infonce, "moment": moment, "variance": variance}


def total(weights: dict[str, float], prediction: Prediction, target: Tensor, temperature: float) -> Tensor:
    """The weighted sum."""
    given = (prediction, target, temperature)
    return torch.stack([weight * LOSSES[name](*given) for name, weight in weights.items() if weight]).sum()
