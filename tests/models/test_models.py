"""Names, counts, tables, context limits and config limits of every model."""

import numpy as np
import pytest
import torch

from mlx_lvm.core.mlx import mx, nn
from mlx_lvm.errors import UsageError
from mlx_lvm.models import architecture, as_dict, build, config_from_dict, layers

COUNTS = {"amn": 1_510_912, "lstm": 5_120_768, "gru": 7_095_552, "transformer": 17_867_520}


@pytest.mark.slow
@pytest.mark.parametrize("name", COUNTS)
def test_names_shapes_and_counts_are_torchs(reference, name):
    model = build(reference.config(name))
    with torch.device("meta"):
        twin = reference.twin(name)
    ours = {key: tuple(value.shape) for key, value in {**model.weights(), **model.buffers()}.items()}
    assert ours == {key: tuple(value.shape) for key, value in twin.state_dict().items()}
    assert set(model.weights()) == {key for key, _ in twin.named_parameters()}
    assert model.parameter_count() == sum(p.numel() for p in twin.parameters()) == COUNTS[name]
    assert set(dict(nn.utils.tree_flatten(model.trainable_parameters()))) == set(model.weights())


def test_position_table(reference):
    table = np.array(build(reference.config("transformer", dim=4, hidden_dim=32)).buffers()["pos_encoder.pe"])
    for t, i in [(0, 0), (1, 0), (1, 1), (57, 3), (99, 15)]:
        angle = t / 10000 ** (2 * i / 32)
        assert table[0, t, 2 * i] == pytest.approx(np.sin(angle), abs=6e-8)
        assert table[0, t, 2 * i + 1] == pytest.approx(np.cos(angle), abs=6e-8)
    usual = reference.twin("transformer", dim=4, hidden_dim=32).pos_encoder.pe.numpy()
    assert np.abs(table - usual).max() < 1e-5  # float32 angles up to 99 are off by up to 4e-6


@pytest.mark.parametrize("name", COUNTS)
def test_context_limits(reference, name):
    model = build(reference.config(name, dim=8, **({"hidden_dim": 16})))
    for shape in [(2, 0, 8), (2, 101, 8), (2, 5, 7), (5, 8), (1, 2, 5, 8)]:
        with pytest.raises(UsageError, match=rf"{name}: context of shape .*expected \[batch, 1 to 100, 8\]"):
            model(mx.zeros(shape))


@pytest.mark.parametrize("name", COUNTS)
def test_unit_is_raw_over_its_norm(reference, name):
    model = build(reference.config(name, dim=8, **({"hidden_dim": 16})))
    model.eval()
    out = model(mx.random.normal((6, 5, 8), key=mx.random.key(1)))
    raw = np.array(out.raw).astype(np.float64)
    np.testing.assert_allclose(
        np.array(out.unit), raw / np.linalg.norm(raw, axis=-1, keepdims=True), rtol=2e-6
    )


def test_amn_shows_its_parts(reference):
    model = build(reference.config("amn", dim=8, attention_dim=4, hidden_dim=16))
    x = np.random.default_rng(0).standard_normal((3, 5, 8)).astype(np.float32)
    out = model(mx.array(x))
    w = {key: np.array(value).astype(np.float64) for key, value in model.weights().items()}
    query = x.mean(1) @ w["query_encoder.weight"].T + w["query_encoder.bias"]
    scores = np.einsum("bld,bd->bl", x @ w["context_encoder.weight"].T + w["context_encoder.bias"], query) / 2
    attention = np.exp(scores) / np.exp(scores).sum(1, keepdims=True)
    np.testing.assert_allclose(np.array(out.attention), attention, rtol=1e-5)
    np.testing.assert_allclose(np.array(out.baseline), x.mean(1), atol=1e-6)
    np.testing.assert_allclose(np.array(out.baseline + out.residual), np.array(out.raw), atol=1e-6)


@pytest.mark.parametrize("name", COUNTS)
def test_config_round_trip(reference, name):
    config = reference.config(name, dim=48)
    assert config_from_dict(as_dict(config)) == config
    assert type(build(config)) is architecture(name)


@pytest.mark.parametrize(
    ("name", "sizes", "message"),
    [
        ("transformer", {"hidden_dim": 20, "heads": 8}, "hidden_dim = 20 does not divide into heads = 8"),
        ("transformer", {"hidden_dim": 15, "heads": 3}, "hidden_dim = 15 is odd"),
        ("transformer", {"dropout": 1.0}, "dropout = 1.0: must be below 1"),
        ("lstm", {"dropout": -0.1}, "dropout = -0.1: must be at least 0"),
        ("lstm", {"layers": 0}, "layers = 0: must be at least 1"),
        ("gru", {"hidden_dim": 2.5}, "hidden_dim = 2.5: must be a whole number"),
    ],
)
def test_config_limits(reference, name, sizes, message):
    with pytest.raises(UsageError, match=message):
        reference.config(name, **sizes)


@pytest.mark.parametrize("shape", [(6,), (2, 5, 6)])
def test_affine_is_a_linear_layer_whose_weight_gradient_lies_row_by_row(shape):
    """Its layout, because the optimiser's kernels are four times as slow on a transposed one."""
    rng = np.random.default_rng(0)
    x, weight, offset = (
        mx.array(rng.standard_normal(s).astype(np.float32)) for s in ((2, 5, 4), (6, 4), shape)
    )
    pull = mx.array(rng.standard_normal((2, 5, 6)).astype(np.float32))
    ours = mx.grad(lambda *a: (layers.affine(*a) * pull).sum(), argnums=(0, 1, 2))(x, weight, offset)
    theirs = mx.grad(lambda x, w, b: ((x @ w.T + b) * pull).sum(), argnums=(0, 1, 2))(x, weight, offset)
    for mine, right in zip(ours, theirs, strict=True):
        assert mine.shape == right.shape
        np.testing.assert_allclose(np.array(mine), np.array(right), rtol=1e-5, atol=1e-5)
    mx.eval(ours)
    assert memoryview(ours[1]).strides == (16, 4)


def test_a_linear_layer_without_bias():
    layer, x = layers.Linear(3, 2, bias=False), mx.ones((1, 3))
    assert np.allclose(np.array(layer(x)), np.array(layer.weight).sum(axis=1))
