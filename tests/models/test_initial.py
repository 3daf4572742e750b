"""Initial laws: torch's distributions, tested as distributions, and on torch's own draws with the same
yardstick.
"""

import math

import numpy as np
import pytest
import torch

from mlx_lvm.core.mlx import mx
from mlx_lvm.models import build

SIZES = {
    "amn": {"dim": 12, "attention_dim": 10, "hidden_dim": 16},
    "lstm": {"dim": 12, "hidden_dim": 16},
    "gru": {"dim": 12, "hidden_dim": 16, "layers": 2},
    "transformer": {"dim": 12, "hidden_dim": 16, "layers": 2, "heads": 2, "ffn_dim": 24},
}
DRAWS = 60


def law(name: str, shapes: dict[str, tuple[int, ...]], hidden: int) -> tuple[float, float]:
    """(low, high) of the uniform law of one parameter; equal where it is a constant."""
    module, _, kind = name.rpartition(".")
    if kind.endswith(("_l0", "_l1")):
        bound = hidden**-0.5
    elif name.endswith(("in_proj_bias", "out_proj.bias")):
        bound = 0.0
    elif kind == "in_proj_weight":
        bound = math.sqrt(6 / sum(shapes[name]))
    elif len(shapes.get(f"{module}.weight", ())) == 1:  # a norm
        return (1.0, 1.0) if kind == "weight" else (0.0, 0.0)
    else:
        bound = shapes[f"{module}.weight"][1] ** -0.5
    return -bound, bound


def check_laws(draws: dict[str, np.ndarray], hidden: int) -> None:
    """draws [n, *shape] of every parameter: within bounds, up to the bounds, and even: ten bins within 5
    sigma.
    """
    shapes = {name: values.shape[1:] for name, values in draws.items()}
    for name, values in draws.items():
        low, high = law(name, shapes, hidden)
        if low == high:
            assert (values == low).all(), name
            continue
        assert values.min() >= np.float32(low) and values.max() <= np.float32(high), name
        counts, _ = np.histogram(values, bins=10, range=(np.float32(low), np.float32(high)))
        assert np.abs(counts - values.size / 10).max() <= 5 * math.sqrt(values.size * 0.09), (
            f"{name}: {counts}"
        )


def our_draws(config, seeds) -> dict[str, np.ndarray]:
    drawn = []
    for seed in seeds:
        mx.random.seed(seed)
        drawn.append({name: np.array(weight) for name, weight in build(config).weights().items()})
    return {name: np.stack([d[name] for d in drawn]) for name in drawn[0]}


@pytest.mark.parametrize("name", SIZES)
def test_laws_are_torchs(reference, name):
    check_laws(our_draws(reference.config(name, **SIZES[name]), range(DRAWS)), hidden=16)


@pytest.mark.parametrize("name", SIZES)
def test_yardstick_fits_torch(reference, name):
    torch.manual_seed(0)
    drawn = [
        {key: p.detach().numpy() for key, p in reference.twin(name, **SIZES[name]).named_parameters()}
        for _ in range(DRAWS)
    ]
    check_laws({key: np.stack([d[key] for d in drawn]) for key in drawn[0]}, hidden=16)


@pytest.mark.parametrize("name", SIZES)
def test_seeded_and_every_draw_its_own(reference, name):
    first, again, other = our_draws(reference.config(name, **SIZES[name]), [5, 5, 6]), None, None
    seen: dict[bytes, str] = {}
    for key, values in first.items():
        first_draw, again, other = values
        np.testing.assert_array_equal(first_draw, again)
        if first_draw.min() == first_draw.max():  # a constant
            continue
        assert (first_draw != other).mean() > 0.99, key
        assert seen.setdefault(first_draw.tobytes(), key) == key, f"{key} equals {seen[first_draw.tobytes()]}"
