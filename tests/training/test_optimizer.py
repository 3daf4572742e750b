"""AdamW, clipping and the plateau schedule against torch's own."""

import numpy as np
import pytest

from mlx_lvm.core.mlx import mx
from mlx_lvm.training.optimizer import adamw, clip_gradients, coefficients, gradient_norm, zero_moments
from mlx_lvm.training.schedule import Plateau

torch = pytest.importorskip("torch", reason="torch is the reference: pip install 'mlx-lvm[parity]'")


def torch_adamw(
    start: np.ndarray, gradients: np.ndarray, rates: list[float], dtype: "torch.dtype"
) -> np.ndarray:
    weight = torch.nn.Parameter(torch.tensor(start, dtype=dtype))
    optimizer = torch.optim.AdamW([weight], lr=rates[0], weight_decay=0.1)
    for gradient, rate in zip(gradients, rates, strict=True):
        optimizer.param_groups[0]["lr"] = rate
        weight.grad = torch.tensor(gradient, dtype=dtype)
        optimizer.step()
    return weight.detach().double().numpy()


def test_adamw_follows_torch_as_closely_as_float32_can() -> None:
    rng = np.random.default_rng(1)
    start = rng.normal(size=200).astype(np.float32) * 0.05
    gradients = (rng.normal(size=(300, 200)) * 10.0 ** rng.uniform(-6, 2, size=(300, 1))).astype(np.float32)
    rates = [5e-4 if step < 150 else 1e-4 for step in range(300)]
    weights, moments = {"w": mx.array(start)}, zero_moments({"w": mx.array(start)})
    for step, (gradient, rate) in enumerate(zip(gradients, rates, strict=True), 1):
        weights, moments = adamw(weights, {"w": mx.array(gradient)}, moments, coefficients(rate, 0.1, step))
    truth = torch_adamw(start, gradients, rates, torch.float64)
    theirs = np.abs(torch_adamw(start, gradients, rates, torch.float32) - truth).max()
    ours = np.abs(np.array(weights["w"]).astype(np.float64) - truth).max()
    assert ours <= 4 * theirs, f"{ours:.3g} from the float64 trajectory, torch's float32 is {theirs:.3g}"


def test_the_first_step_has_an_exact_bias_correction() -> None:
    """At t = 1 the update is lr * sign(g); mlx.optimizers' float32 correction misses it by 2e-5 of its
    size.
    """
    weights, moments = {"w": mx.zeros((4,))}, zero_moments({"w": mx.zeros((4,))})
    updated, _ = adamw(weights, {"w": mx.array([3.0, -0.5, 1e-2, -7.0])}, moments, coefficients(1.0, 0.0, 1))
    np.testing.assert_allclose(np.array(updated["w"]), [-1, 1, -1, 1], rtol=2e-6)


@pytest.mark.parametrize("scale", [1e-3, 1.0, 50.0])
def test_clipping(scale: float) -> None:
    rng = np.random.default_rng(2)
    parts = {
        "a": (rng.normal(size=(5, 3)) * scale).astype(np.float32),
        "b": (rng.normal(size=7) * scale).astype(np.float32),
    }
    tensors = [torch.nn.Parameter(torch.zeros(v.shape)) for v in parts.values()]
    for tensor, value in zip(tensors, parts.values(), strict=True):
        tensor.grad = torch.tensor(value)
    norm = torch.nn.utils.clip_grad_norm_(tensors, 1.0)
    arrays = {name: mx.array(value) for name, value in parts.items()}
    ours = gradient_norm(arrays)
    np.testing.assert_allclose(ours.item(), norm.item(), rtol=1e-6)
    for tensor, clipped in zip(tensors, clip_gradients(arrays, ours, 1.0).values(), strict=True):
        np.testing.assert_allclose(np.array(clipped), tensor.grad.numpy(), rtol=2e-6)


@pytest.mark.parametrize("patience", [0, 2, 3])
def test_plateau_follows_torch(patience: int) -> None:
    rng = np.random.default_rng(patience)
    losses = np.concatenate(
        [np.linspace(1, 0.5, 20), 0.5 + rng.uniform(-2e-4, 2e-4, 60), np.linspace(0.5, 0.4999, 40)]
    )
    optimizer = torch.optim.SGD([torch.nn.Parameter(torch.zeros(1))], lr=1e-3)
    schedule = torch.optim.lr_scheduler.ReduceLROnPlateau(optimizer, factor=0.5, patience=patience)
    plateau = Plateau(1e-3, 0.5, patience)
    cuts = 0
    for loss in losses:
        before = plateau.lr
        schedule.step(float(loss))
        plateau.observe(float(loss))
        cuts += plateau.lr < before
        assert plateau.lr == optimizer.param_groups[0]["lr"]
    assert cuts > 3
