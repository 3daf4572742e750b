"""Faults of training to plant: in the loss, the clipping, the optimiser and the schedule."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

from mlx_lvm.core.mlx import mx, tree_map
from mlx_lvm.models import normalize
from mlx_lvm.parity.faults.planting import Fault, replacing
from mlx_lvm.parity.sides import training as training_sides
from mlx_lvm.training import losses, optimizer
from mlx_lvm.training import step as step_module
from mlx_lvm.training.optimizer import BETA1, BETA2, EPS, Moments, coefficients
from mlx_lvm.training.schedule import Plateau

LOSS, CLIP, OPTIMISER, SCHEDULE = ("loss",), ("gradient or clipping",), ("optimiser",), ("schedule",)


def _adamw(
    update: Callable = lambda m, v, root: m / (mx.sqrt(v) / root + EPS),
    beta1: float = BETA1,
    beta2: float = BETA2,
    decay: str = "decoupled",
) -> Callable:
    """AdamW with one thing changed. decay: decoupled, l2, none, or after the step."""

    def adamw(parameters: Any, gradients: Any, moments: Moments, coefs: mx.array) -> tuple[Any, Moments]:
        keep, size, root = coefs[0], coefs[1], coefs[2]
        if decay == "l2":
            gradients = tree_map(lambda g, p: g + 0.01 * p, gradients, parameters)
        first = tree_map(lambda m, g: beta1 * m + (1 - beta1) * g, moments["first"], gradients)
        second = tree_map(lambda v, g: beta2 * v + (1 - beta2) * (g * g), moments["second"], gradients)
        if decay == "after":
            out = tree_map(lambda p, m, v: (p - size * update(m, v, root)) * keep, parameters, first, second)
        else:
            held = keep if decay == "decoupled" else 1.0
            out = tree_map(lambda p, m, v: p * held - size * update(m, v, root), parameters, first, second)
        return out, {"first": first, "second": second}

    return adamw


def _float32_correction(lr: float, weight_decay: float, step: int) -> mx.array:
    powers = mx.array([BETA1, BETA2]) ** step
    return _corrected(lr, weight_decay, step, lr / (1 - powers[0]), mx.sqrt(1 - powers[1]))


def _corrected(lr: float, weight_decay: float, step: int, size: Any, root: Any) -> mx.array:
    """The coefficients with another step size and root."""
    decay, _, _, *moments = mx.split(coefficients(lr, weight_decay, step), len(optimizer.NO_OP))
    return mx.concatenate([decay, mx.array([size]), mx.array([root]), *moments])


def _late_correction(lr: float, weight_decay: float, step: int) -> mx.array:
    return coefficients(lr, weight_decay, step + 1)


def _by_value(gradients: Any, norm: mx.array, largest: float) -> Any:
    return tree_map(lambda g: mx.clip(g, -largest, largest), gradients)


def _each_alone(gradients: Any, norm: mx.array, largest: float) -> Any:
    return tree_map(lambda g: g * mx.minimum(largest / (mx.sqrt(mx.square(g).sum()) + 1e-6), 1.0), gradients)


def _clip_at_twice(gradients: Any, norm: mx.array, largest: float) -> Any:
    return optimizer.clip_gradients(gradients, norm, 2 * largest)


def _clip_after(parameters: Any, gradients: Any, moments: Moments, coefs: mx.array) -> tuple[Any, Moments]:
    """Clipping the step in place of the gradient."""
    updated, new = optimizer.adamw(parameters, gradients, moments, coefs)
    return tree_map(lambda old, p: old + mx.clip(p - old, -1e-4, 1e-4), parameters, updated), new


def _dot(a: mx.array, b: mx.array) -> mx.array:
    return (a * b).sum(axis=-1)


def _means_alone(prediction: Any, target: mx.array, temperature: float) -> mx.array:
    return mx.square(prediction.unit.mean(axis=0) - normalize(target).mean(axis=0)).sum()


def _sample_variance(prediction: Any, target: mx.array, temperature: float) -> mx.array:
    true, predicted = (
        mx.sqrt(unit.var(axis=0, ddof=1) + 1e-8) for unit in (normalize(target), prediction.unit)
    )
    return mx.maximum(true - predicted, 0).mean()


def _one_sided(prediction: Any, target: mx.array, temperature: float) -> mx.array:
    logits = (prediction.unit @ normalize(target).T) / temperature
    return (mx.logsumexp(logits, axis=-1) - mx.diagonal(logits)).mean()


def _forgetful(parameters: Any, gradients: Any, moments: Moments, coefs: mx.array) -> tuple[Any, Moments]:
    """The second moment of the last step alone."""
    forgotten = {**moments, "second": tree_map(mx.zeros_like, moments["second"])}
    return optimizer.adamw(parameters, gradients, forgotten, coefs)


def training_faults() -> Iterator[Fault]:
    """All of them, in the name of AMN, whose training shows them."""
    for name, (loss, function) in LOSSES.items():
        yield _fault(name, LOSS, losses.LOSS_FUNCTIONS, loss, function)
    for name, (expect, of, function) in STEPS.items():
        yield _fault(name, expect, step_module, of, function)
    for name, schedule in SCHEDULES.items():
        yield _fault(name, SCHEDULE, training_sides, "Plateau", schedule)


def _fault(name: str, expect: tuple[str, ...], target: Any, attribute: str, value: Any) -> Fault:
    return Fault(f"training: {name}", "amn", expect, replacing(target, attribute, value), "training")


LOSSES: dict[str, tuple[str, Callable]] = {
    "squared error summed over dimensions": ("mse", lambda p, t, _: mx.square(p.raw - t).sum(axis=-1).mean()),
    "squared error halved": ("mse", lambda p, t, _: mx.square(p.raw - t).mean() / 2),
    "squared error of the unit vector": ("mse", lambda p, t, _: mx.square(p.unit - t).mean()),
    "root of the squared error": ("mse", lambda p, t, _: mx.sqrt(mx.square(p.raw - t).mean())),
    "absolute error": ("mse", lambda p, t, _: mx.abs(p.raw - t).mean()),
    "cosine summed over the batch": ("cosine", lambda p, t, _: (1 - _dot(p.unit, normalize(t))).sum()),
    "cosine with the raw target": ("cosine", lambda p, t, _: (1 - _dot(p.raw, t)).mean()),
    "InfoNCE without temperature": ("infonce", lambda p, t, _: losses.infonce(p, t, 1.0)),
    "InfoNCE one way only": ("infonce", _one_sided),
    "sample variance in the variance loss": ("variance", _sample_variance),
    "moment loss without the variance": ("moment", _means_alone),
}

# expect, what of the training step is replaced, by what
STEPS: dict[str, tuple[tuple[str, ...], str, Callable]] = {
    "gradient not clipped": (CLIP, "clip_gradients", lambda g, norm, largest: g),
    "gradient clipped by value": (CLIP, "clip_gradients", _by_value),
    "each tensor clipped alone": (CLIP, "clip_gradients", _each_alone),
    "clipped by the squared norm": (CLIP, "gradient_norm", lambda g: mx.square(optimizer.gradient_norm(g))),
    "clipped by twice the limit": (CLIP, "clip_gradients", _clip_at_twice),
    "step clipped in place of the gradient": (OPTIMISER, "adamw", _clip_after),
    "no bias correction": (OPTIMISER, "coefficients", lambda lr, *rest: _corrected(lr, *rest, lr, 1.0)),
    "bias correction in float32": (OPTIMISER, "coefficients", _float32_correction),
    "bias correction one step late": (OPTIMISER, "coefficients", _late_correction),
    "L2 in place of decoupled decay": (CLIP, "adamw", _adamw(decay="l2")),
    "no weight decay": (OPTIMISER, "adamw", _adamw(decay="none")),
    "weight decay of 0.1": (OPTIMISER, "coefficients", lambda lr, _, step: coefficients(lr, 0.1, step)),
    "epsilon of 1e-6": (OPTIMISER, "adamw", _adamw(lambda m, v, root: m / (mx.sqrt(v) / root + 1e-6))),
    "epsilon inside the root": (OPTIMISER, "adamw", _adamw(lambda m, v, root: m / (mx.sqrt(v + EPS) / root))),
    "beta1 of 0.95": (CLIP, "adamw", _adamw(beta1=0.95)),
    "beta2 of 0.99": (OPTIMISER, "adamw", _adamw(beta2=0.99)),
    "first moment in place of its root-scaled step": (OPTIMISER, "adamw", _adamw(lambda m, v, root: m)),
    "learning rate doubled": (OPTIMISER, "coefficients", lambda lr, *rest: coefficients(2 * lr, *rest)),
    "second moment not kept": (SCHEDULE, "adamw", _forgetful),
}

SCHEDULES: dict[str, Callable[[float, float, int], Plateau]] = {
    "learning rate never cut": lambda lr, factor, patience: Plateau(lr, 1.0, patience),
    "learning rate cut late": lambda lr, factor, patience: Plateau(lr, factor, patience + 1),
    "learning rate cut tenfold": lambda lr, factor, patience: Plateau(lr, 0.1, patience),
}
