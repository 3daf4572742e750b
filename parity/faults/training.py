"""Faults of training to plant: in the loss, the clipping, the optimiser and the schedule."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from typing import Any

from mlx_lvm.core.mlx import mx, tree_map
from mlx_lvm.models import normalize
from mlx_lvm.parity.sides import training as training_sides
from mlx_lvm.training import losses, optimizer
from mlx_lvm.training import step as step_module
from mlx_lvm.training.optimizer import BETA1, BETA2, EPS
from mlx_lvm.training.schedule import Plateau

LOSS, CLIP, OPTIMISER, SCHEDULE = ("loss",), ("gradient or clipping",), ("optimiser",), ("schedule",)


@contextmanager
def _set(target: Any, name: str, value: Any) -> Iterator[None]:
    before = target[name] if isinstance(target, dict) else getattr(target, name)
    put = target.__setitem__ if isinstance(target, dict) else lambda key, new: setattr(target, key, new)
    put(name, value)
    try:
        yield
    finally:
        put(name, before)


def _loss(name: str, function: Callable) -> Callable[[], AbstractContextManager[None]]:
    return lambda: _set(losses.LOSS_FUNCTIONS, name, function)


def _step(name: str, function: Any) -> Callable[[], AbstractContextManager[None]]:
    return lambda: _set(step_module, name, function)


def _adamw(
    update: Callable = lambda m, v, root: m / (mx.sqrt(v) / root + EPS),
    beta1: float = BETA1,
    beta2: float = BETA2,
    decay: str = "decoupled",
) -> Callable:
    """AdamW with one thing changed. decay: decoupled, l2, none, or after the step."""

    def adamw(
        parameters: Any, gradients: Any, moments: dict[str, Any], coefs: mx.array
    ) -> tuple[Any, dict[str, Any]]:
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


def _no_correction(lr: float, weight_decay: float, step: int) -> mx.array:
    return _corrected(lr, weight_decay, step, lr, 1.0)


def _float32_correction(lr: float, weight_decay: float, step: int) -> mx.array:
    powers = mx.array([BETA1, BETA2]) ** step
    return _corrected(lr, weight_decay, step, lr / (1 - powers[0]), mx.sqrt(1 - powers[1]))


def _corrected(lr: float, weight_decay: float, step: int, size: Any, root: Any) -> mx.array:
    """The coefficients with another step size and root."""
    decay, _, _, *moments = mx.split(optimizer.coefficients(lr, weight_decay, step), len(optimizer.NO_OP))
    return mx.concatenate([decay, mx.array([size]), mx.array([root]), *moments])


def _late_correction(lr: float, weight_decay: float, step: int) -> mx.array:
    return optimizer.coefficients(lr, weight_decay, step + 1)


def _by_value(gradients: Any, norm: mx.array, largest: float) -> Any:
    return tree_map(lambda g: mx.clip(g, -largest, largest), gradients)


def _each_alone(gradients: Any, norm: mx.array, largest: float) -> Any:
    return tree_map(lambda g: g * mx.minimum(largest / (mx.sqrt(mx.square(g).sum()) + 1e-6), 1.0), gradients)


def _clip_after(
    parameters: Any, gradients: Any, moments: dict[str, Any], coefs: mx.array
) -> tuple[Any, dict[str, Any]]:
    """Clipping the step in place of the gradient."""
    updated, new = optimizer.adamw(parameters, gradients, moments, coefs)
    return tree_map(lambda old, p: old + mx.clip(p - old, -1e-4, 1e-4), parameters, updated), new


class _Constant(Plateau):
    def observe(self, loss: float) -> None:
        """Never cuts."""


class _Patient(Plateau):
    def observe(self, loss: float) -> None:
        """Cuts one epoch late."""
        self.patience = 1
        super().observe(loss)


class _Tenfold(Plateau):
    def observe(self, loss: float) -> None:
        """Cuts to a tenth."""
        self.factor = 0.1
        super().observe(loss)


def _unscaled_infonce(prediction: Any, target: mx.array, temperature: float) -> mx.array:
    return losses.infonce(prediction, target, 1.0)


def _one_sided(prediction: Any, target: mx.array, temperature: float) -> mx.array:
    logits = (prediction.unit @ normalize(target).T) / temperature
    return (mx.logsumexp(logits, axis=-1) - mx.diagonal(logits)).mean()


def _forgetful(
    parameters: Any, gradients: Any, moments: dict[str, Any], coefs: mx.array
) -> tuple[Any, dict[str, Any]]:
    """The second moment of the last step alone."""
    updated, new = optimizer.adamw(
        parameters, gradients, {**moments, "second": tree_map(mx.zeros_like, moments["second"])}, coefs
    )
    return updated, new


TRAINING_FAULTS: list[tuple[str, tuple[str, ...], Callable[[], AbstractContextManager[None]]]] = [
    (
        "squared error summed over dimensions",
        LOSS,
        _loss("mse", lambda p, t, _: mx.square(p.raw - t).sum(axis=-1).mean()),
    ),
    ("squared error halved", LOSS, _loss("mse", lambda p, t, _: mx.square(p.raw - t).mean() / 2)),
    ("squared error of the unit vector", LOSS, _loss("mse", lambda p, t, _: mx.square(p.unit - t).mean())),
    ("root of the squared error", LOSS, _loss("mse", lambda p, t, _: mx.sqrt(mx.square(p.raw - t).mean()))),
    ("absolute error", LOSS, _loss("mse", lambda p, t, _: mx.abs(p.raw - t).mean())),
    (
        "cosine summed over the batch",
        LOSS,
        _loss("cosine", lambda p, t, _: (1 - (p.unit * normalize(t)).sum(axis=-1)).sum()),
    ),
    (
        "cosine with the raw target",
        LOSS,
        _loss("cosine", lambda p, t, _: (1 - (p.raw * t).sum(axis=-1)).mean()),
    ),
    ("InfoNCE without temperature", LOSS, _loss("infonce", _unscaled_infonce)),
    ("InfoNCE one way only", LOSS, _loss("infonce", _one_sided)),
    (
        "sample variance in the variance loss",
        LOSS,
        _loss(
            "variance",
            lambda p, t, _: mx.maximum(
                mx.sqrt(normalize(t).var(axis=0, ddof=1) + 1e-8) - mx.sqrt(p.unit.var(axis=0, ddof=1) + 1e-8),
                0,
            ).mean(),
        ),
    ),
    (
        "moment loss without the variance",
        LOSS,
        _loss("moment", lambda p, t, _: mx.square(p.unit.mean(axis=0) - normalize(t).mean(axis=0)).sum()),
    ),
    ("gradient not clipped", CLIP, _step("clip_gradients", lambda g, norm, largest: g)),
    ("gradient clipped by value", CLIP, _step("clip_gradients", _by_value)),
    ("each tensor clipped alone", CLIP, _step("clip_gradients", _each_alone)),
    (
        "clipped by the squared norm",
        CLIP,
        _step("gradient_norm", lambda g: mx.square(optimizer.gradient_norm(g))),
    ),
    (
        "clipped by twice the limit",
        CLIP,
        _step("clip_gradients", lambda g, norm, largest: optimizer.clip_gradients(g, norm, 2 * largest)),
    ),
    ("step clipped in place of the gradient", OPTIMISER, _step("adamw", _clip_after)),
    ("no bias correction", OPTIMISER, _step("coefficients", _no_correction)),
    ("bias correction in float32", OPTIMISER, _step("coefficients", _float32_correction)),
    ("bias correction one step late", OPTIMISER, _step("coefficients", _late_correction)),
    ("L2 in place of decoupled decay", CLIP, _step("adamw", _adamw(decay="l2"))),
    ("no weight decay", OPTIMISER, _step("adamw", _adamw(decay="none"))),
    (
        "weight decay of 0.1",
        OPTIMISER,
        _step("coefficients", lambda lr, decay, step: optimizer.coefficients(lr, 0.1, step)),
    ),
    ("epsilon of 1e-6", OPTIMISER, _step("adamw", _adamw(lambda m, v, root: m / (mx.sqrt(v) / root + 1e-6)))),
    (
        "epsilon inside the root",
        OPTIMISER,
        _step("adamw", _adamw(lambda m, v, root: m / (mx.sqrt(v + EPS) / root))),
    ),
    ("beta1 of 0.95", CLIP, _step("adamw", _adamw(beta1=0.95))),
    ("beta2 of 0.99", OPTIMISER, _step("adamw", _adamw(beta2=0.99))),
    (
        "first moment in place of its root-scaled step",
        OPTIMISER,
        _step("adamw", _adamw(lambda m, v, root: m)),
    ),
    (
        "learning rate doubled",
        OPTIMISER,
        _step("coefficients", lambda lr, decay, step: optimizer.coefficients(2 * lr, decay, step)),
    ),
    ("second moment not kept", SCHEDULE, _step("adamw", _forgetful)),
    ("learning rate never cut", SCHEDULE, lambda: _set(training_sides, "Plateau", _Constant)),
    ("learning rate cut late", SCHEDULE, lambda: _set(training_sides, "Plateau", _Patient)),
    ("learning rate cut tenfold", SCHEDULE, lambda: _set(training_sides, "Plateau", _Tenfold)),
]
