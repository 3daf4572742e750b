"""Outputs and gradients against the torch twins, float64 as the truth, with every parameter
randomised.
"""

import numpy as np
import pytest
import torch

from mlx_lvm.core.mlx import mx

# The share of torch float32's own rms error that ours may reach; an honest port stays below 4.
LIMIT = 8

SMALL = {
    "amn": {"dim": 24, "attention_dim": 16, "hidden_dim": 32},
    "lstm": {"dim": 24, "hidden_dim": 32},
    "gru": {"dim": 24, "hidden_dim": 32},
    "transformer": {"dim": 24, "hidden_dim": 32, "heads": 4, "ffn_dim": 64},
}


def check(ratios):
    wrong = {name: ratio for name, ratio in ratios.items() if not ratio <= LIMIT}
    assert not wrong, f"rms error over torch's own, limit {LIMIT}: {wrong}"


@pytest.mark.slow
@pytest.mark.parametrize("length", [1, 5, 32, 100])
@pytest.mark.parametrize("batch", [1, 9])
@pytest.mark.parametrize("name", SMALL)
def test_outputs_and_gradients(reference, name, batch, length):
    check(reference.ratios(reference.config(name, **SMALL[name]), batch, length))


@pytest.mark.slow
@pytest.mark.parametrize("name", SMALL)
def test_default_sizes(reference, name):
    check(reference.ratios(reference.config(name), batch=2, length=5))


@pytest.mark.parametrize(
    ("name", "sizes"),
    [
        ("amn", {"dim": 7, "attention_dim": 3, "hidden_dim": 10}),
        ("lstm", {"dim": 7, "hidden_dim": 10, "layers": 1}),
        ("lstm", {"dim": 40, "hidden_dim": 10, "layers": 3}),
        ("gru", {"dim": 7, "hidden_dim": 10, "layers": 1}),
        ("gru", {"dim": 40, "hidden_dim": 10, "layers": 5}),
        ("transformer", {"dim": 7, "hidden_dim": 10, "layers": 1, "heads": 1, "ffn_dim": 9}),
        ("transformer", {"dim": 40, "hidden_dim": 12, "layers": 3, "heads": 6, "ffn_dim": 20}),
    ],
)
def test_other_sizes(reference, name, sizes):
    check(reference.ratios(reference.config(name, **sizes), batch=3, length=4))


@pytest.mark.parametrize("name", SMALL)
def test_compiled(reference, name):
    check(reference.ratios(reference.config(name, **SMALL[name]), batch=4, length=6, compiled=True))


@pytest.mark.parametrize("dtype", ["bfloat16", "float16"])
@pytest.mark.parametrize("name", SMALL)
def test_half_precision(reference, name, dtype):
    """Nothing falls back to float32 on the way, and the error is that of torch in the same dtype."""
    model, twin = reference.pair(reference.config(name, **SMALL[name]))
    model.set_dtype(getattr(mx, dtype))
    twin.load_state_dict(
        {
            k: torch.from_numpy(np.array(v.astype(mx.float32)))
            for k, v in {**model.weights(), **model.buffers()}.items()
        }
    )
    x = mx.random.normal((64, 5, 24), key=mx.random.key(3)).astype(getattr(mx, dtype))
    ours, context = model(x).raw, torch.from_numpy(np.array(x.astype(mx.float32)))
    with torch.no_grad():
        truth = twin.double()(context.double()).raw.numpy()
        theirs = twin.to(getattr(torch, dtype))(context.to(getattr(torch, dtype))).raw.double().numpy()
    assert ours.dtype == getattr(mx, dtype)
    error = np.sqrt(np.mean((np.array(ours.astype(mx.float32)) - truth) ** 2))
    assert error <= 2 * np.sqrt(np.mean((theirs - truth) ** 2))
