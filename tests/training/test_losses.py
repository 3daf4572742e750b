"""Losses and their gradients against torch formulas in float64."""

import numpy as np
import pytest

from mlx_lvm.core.mlx import mx
from mlx_lvm.models import Prediction, normalize
from mlx_lvm.training.losses import LOSS_FUNCTIONS, total_loss

torch = pytest.importorskip("torch", reason="torch is the reference: pip install 'mlx-lvm[parity]'")


def reference(name: str, raw: "torch.Tensor", target: "torch.Tensor", temperature: float) -> "torch.Tensor":
    unit, goal = torch.nn.functional.normalize(raw, dim=-1), torch.nn.functional.normalize(target, dim=-1)
    if name == "mse":
        return torch.nn.functional.mse_loss(raw, target)
    if name == "cosine":
        return (1 - torch.nn.functional.cosine_similarity(raw, target)).mean()
    if name == "infonce":
        logits, labels = unit @ goal.T / temperature, torch.arange(len(raw))
        return (
            torch.nn.functional.cross_entropy(logits, labels)
            + torch.nn.functional.cross_entropy(logits.T, labels)
        ) / 2
    if name == "moment":
        return ((unit.mean(0) - goal.mean(0)) ** 2).sum() + (
            (unit.var(0, unbiased=False) - goal.var(0, unbiased=False)) ** 2
        ).sum()
    return torch.relu(
        (goal.var(0, unbiased=False) + 1e-8).sqrt() - (unit.var(0, unbiased=False) + 1e-8).sqrt()
    ).mean()


@pytest.mark.parametrize("name", LOSS_FUNCTIONS)
@pytest.mark.parametrize("batch", [1, 7])
def test_value_and_gradient(name: str, batch: int) -> None:
    rng = np.random.default_rng(0)
    raw, target = (
        rng.normal(size=(batch, 12)).astype(np.float32) * 0.3,
        rng.normal(size=(batch, 12)).astype(np.float32),
    )
    function = LOSS_FUNCTIONS[name]
    value, gradient = mx.value_and_grad(
        lambda r: function(Prediction(r, normalize(r)), mx.array(target), 0.07)
    )(mx.array(raw))
    x = torch.tensor(raw, dtype=torch.float64, requires_grad=True)
    expected = reference(name, x, torch.tensor(target, dtype=torch.float64), 0.07)
    expected.backward()
    np.testing.assert_allclose(value.item(), expected.item(), rtol=2e-5, atol=1e-7)
    np.testing.assert_allclose(np.array(gradient), x.grad.numpy(), rtol=2e-4, atol=2e-6)


def test_the_total_is_the_weighted_sum_of_what_has_weight() -> None:
    raw, target = mx.random.normal((5, 8)), mx.random.normal((5, 8))
    prediction = Prediction(raw, normalize(raw))
    weights = {"mse": 2.0, "cosine": 0.0, "infonce": 0.25}
    expected = 2 * LOSS_FUNCTIONS["mse"](prediction, target, 0.1) + 0.25 * LOSS_FUNCTIONS["infonce"](
        prediction, target, 0.1
    )
    np.testing.assert_allclose(
        total_loss(weights, 0.1)(prediction, target).item(), expected.item(), rtol=1e-6
    )
