"""What training is made of, each alone, over recorded numbers: AdamW, clipping, the schedule, the losses."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from functools import partial
from typing import Any

import numpy as np
import torch

from mlx_lvm.core.mlx import mx
from mlx_lvm.models import normalize
from mlx_lvm.models.base import Prediction as MlxPrediction
from mlx_lvm.parity.arbiter import UNIT, NeighbourErrors, judge, judge_each, rms, slack_of_sum
from mlx_lvm.parity.sides import bridge
from mlx_lvm.parity.sides.trace import Outputs
from mlx_lvm.parity.twins import losses as torch_losses
from mlx_lvm.parity.twins.base import Prediction
from mlx_lvm.parity.verdict import Check, Compared, exact
from mlx_lvm.training import losses as mlx_losses
from mlx_lvm.training import optimizer
from mlx_lvm.training.optimizer import Moments
from mlx_lvm.training.schedule import Plateau

STEPS = 10_000
SHAPES = {"matrix.weight": (6, 5), "vector.bias": (7,), "norm.weight": (4,)}
LR, DECAY, CLIP = 5e-4, 0.01, 1.0


def recorded_gradients(steps: int, seed: int = 0) -> Iterator[Outputs]:
    """Gradients over the whole range: ordinary, zero, far above the clip, and far below Adam's epsilon."""
    draw = np.random.default_rng([seed, steps])
    for step in range(steps):
        scale = np.float32(10.0 ** draw.uniform(-3, 1))
        if step % 97 == 13:
            scale = np.float32(draw.choice([0.0, 1e-30, 1e-12, 1e6, 1e15]))
        yield {name: (draw.standard_normal(s) * scale).astype(np.float32) for name, s in SHAPES.items()}


def replay_checks(steps: int = STEPS) -> Iterator[Check]:
    """All of them."""
    yield from optimizer_checks(steps)
    yield schedule_check(steps)
    yield from loss_checks()


def optimizer_checks(steps: int = STEPS) -> Iterator[Check]:
    """Clip and AdamW, the rate changing: weights and moments after `steps` steps, every norm on the way."""
    start = {
        name: np.random.default_rng(3).standard_normal(shape).astype(np.float32)
        for name, shape in SHAPES.items()
    }
    mine = _mlx_optimizer(start, steps)
    float32, float64 = (_torch_optimizer(start, steps, dtype) for dtype in (torch.float32, torch.float64))
    head = Compared("optimiser", "replay", "alone", f"{steps:,} steps")
    yield from judge_each(head, mine, float32, float64, "float32", must_observe=True)


def _rate(step: int) -> float:
    return LR * 0.5 ** (step // 2500)


def _mlx_optimizer(start: Outputs, steps: int) -> Outputs:
    weights = {name: mx.array(value) for name, value in start.items()}
    moments = optimizer.zero_moments(weights)

    @mx.compile
    def step(weights: dict, moments: Moments, gradients: dict, coefs: mx.array) -> tuple:
        norm = optimizer.gradient_norm(gradients)
        clipped = optimizer.clip_gradients(gradients, norm, CLIP)
        return *optimizer.adamw(weights, clipped, moments, coefs), norm

    norms = []
    for number, gradients in enumerate(recorded_gradients(steps)):
        given = {name: mx.array(value) for name, value in gradients.items()}
        coefs = optimizer.coefficients(_rate(number), DECAY, number + 1)
        weights, moments, norm = step(weights, moments, given, coefs)
        mx.eval(weights, moments, norm)
        norms.append(norm)
    return _left({"weights": weights, **moments}, mx.stack(norms))


def _torch_optimizer(start: Outputs, steps: int, dtype: torch.dtype) -> Outputs:
    weights = {
        name: torch.nn.Parameter(torch.from_numpy(value).to(dtype, copy=True))
        for name, value in start.items()
    }
    adamw = torch.optim.AdamW(weights.values(), lr=LR, weight_decay=DECAY)
    norms = []
    for number, gradients in enumerate(recorded_gradients(steps)):
        for name, value in gradients.items():
            weights[name].grad = torch.from_numpy(value).to(dtype)
        norms.append(torch.nn.utils.clip_grad_norm_(weights.values(), CLIP))
        adamw.param_groups[0]["lr"] = _rate(number)
        adamw.step()
    first, second = (
        {name: adamw.state[value][key] for name, value in weights.items()}
        for key in ("exp_avg", "exp_avg_sq")
    )
    return _left({"weights": weights, "first": first, "second": second}, torch.stack(norms))


def _left(parts: Mapping[str, Any], norms: Any) -> Outputs:
    """What the steps of either side left, as <part>/<name>, and the norms that they met."""
    out = {f"{part}/{name}": bridge.to_float64(v) for part, tree in parts.items() for name, v in tree.items()}
    return {**out, "log norms": np.log(np.maximum(bridge.to_float64(norms), 1e-37))}


def schedule_check(steps: int = STEPS) -> Check:
    """Reduce-on-plateau over recorded losses: to the bit the same rate after each; cuts stop at the least."""
    draw = np.random.default_rng(11)
    rounds, differ, cuts = 10, 0, 0
    for seed in range(rounds):
        schedule = Plateau(LR, 0.5, seed % 4)
        adamw = torch.optim.AdamW([torch.nn.Parameter(torch.zeros(1))], lr=LR)
        theirs = torch.optim.lr_scheduler.ReduceLROnPlateau(adamw, factor=0.5, patience=seed % 4)
        loss = 1.0
        for _ in range(steps // rounds):
            loss *= float(draw.choice([1.0, 1 - 0.9e-4, 1 - 1.1e-4, 0.98, 1.01, 1.02]))
            before = schedule.lr
            schedule.observe(loss)
            theirs.step(loss)
            cuts += schedule.lr != before
            differ += schedule.lr != adamw.param_groups[0]["lr"]
    what = Compared("schedule", "replay", "alone", f"{steps:,} epochs", value="lr")
    note = f"{differ} rates differ" if differ else f"{cuts} cuts"
    return exact(what, not differ and cuts > 0, note, compared=steps)


def loss_checks(seeds: int = 3) -> Iterator[Check]:
    """Every loss and its gradient by the raw prediction."""
    for seed in range(seeds):
        draw = np.random.default_rng([seed, 21])
        base = draw.standard_normal((12, 40))
        near = base + 0.3 * draw.standard_normal(base.shape)
        pairs = {
            "ordinary": (near, base),
            "large": (near * 1e4, base * 3),
            "small": (near * 1e-4, base),
            "collapsed": (np.repeat(near[:1], 12, axis=0) + 1e-3 * draw.standard_normal(base.shape), base),
            "opposite": (-base + 1e-2 * draw.standard_normal(base.shape), base),
            "one window": (near[:1], base[:1]),
        }
        for case, (raw, target) in pairs.items():
            for name in mlx_losses.LOSS_FUNCTIONS:
                head = Compared("losses", "replay", "alone", "each", f"{case}-{seed}")
                yield from _loss_case(head, name, raw.astype(np.float32), target.astype(np.float32))


def _loss_case(head: Compared, name: str, raw: np.ndarray, target: np.ndarray) -> Iterator[Check]:
    def mine(raw: mx.array) -> mx.array:
        return mlx_losses.total_loss({name: 0.5}, 0.07)(MlxPrediction(raw, normalize(raw)), mx.array(target))

    found = [bridge.to_float64(part).reshape(-1) for part in mx.value_and_grad(mine)(mx.array(raw))]
    truth, other = (_torch_loss(name, raw, target, dtype) for dtype in (torch.float64, torch.float32))
    for k, part in enumerate(("value", "gradient")):
        flat = float(np.abs(truth[k]).max()) < 1e-13  # one window has no spread, and no other to tell it from
        scale = float(1 / np.abs(raw).max()) if flat else 0.0
        slack = slack_of_sum(raw.size) if part == "value" else 1.0
        near = partial(_neighbours, name, raw, target, truth[k], k)
        what, sides = head._replace(value=f"{name} {part}"), (found[k], other[k], truth[k])
        yield judge(what, *sides, "float32", neighbours=near, must_observe=True, scale=scale, slack=slack)


def _torch_loss(
    name: str, raw: np.ndarray, target: np.ndarray, dtype: torch.dtype
) -> tuple[np.ndarray, np.ndarray]:
    """Value and gradient."""
    x = torch.from_numpy(raw).to(dtype).requires_grad_()
    prediction = Prediction(x, torch.nn.functional.normalize(x, dim=-1))
    loss = torch_losses.total({name: 0.5}, prediction, torch.from_numpy(target).to(dtype), 0.07)
    loss.backward()
    assert x.grad is not None
    return bridge.to_float64(loss).reshape(-1), bridge.to_float64(x.grad).reshape(-1)


def _neighbours(name: str, raw: np.ndarray, target: np.ndarray, truth: np.ndarray, k: int) -> NeighbourErrors:
    draw = np.random.default_rng(1)

    def shaken(value: np.ndarray, units: float) -> np.ndarray:
        return value.astype(np.float64) * (1 + units * UNIT["float32"] * draw.uniform(-1, 1, value.shape))

    moved = error = 0.0
    reach = float(np.sqrt(raw.shape[1]))
    for _ in range(4):
        far = _torch_loss(name, shaken(raw, reach), shaken(target, reach), torch.float64)[k]
        near = shaken(raw, 4).astype(np.float32)
        single, double = (_torch_loss(name, near, target, kind)[k] for kind in (torch.float32, torch.float64))
        moved, error = max(moved, rms(far - truth)), max(error, rms(single - double))
    return NeighbourErrors(moved, error)
