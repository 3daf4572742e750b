"""RAMN: the torch twin in float64, zero rows as no chunks, and what the retrieve head pushes out."""

import numpy as np
import pytest
import torch

from mlx_lvm.core.mlx import mx
from mlx_lvm.errors import UsageError
from mlx_lvm.models import as_dict, build, config_from_dict
from mlx_lvm.models.ramn import RAMN
from mlx_lvm.models.ramn_config import RAMNConfig
from mlx_lvm.models.ramn_filters import age_kernels

SIZES = {"dim": 24, "rank": 10, "hidden_dim": 16}


def drawn(head: str, seed: int = 0, **options) -> RAMN:
    """Every parameter random, none zero or one."""
    model = build(RAMNConfig(head=head, **SIZES, **options))
    draw = np.random.default_rng(seed)
    weights = [
        (name, mx.array((0.3 * draw.standard_normal(w.shape)).astype(np.float32)))
        for name, w in model.weights().items()
    ]
    model.load_weights(weights, strict=True)
    return model.eval()


def contexts(batch: int, length: int, seed: int = 1) -> np.ndarray:
    return np.random.default_rng(seed).standard_normal((batch, length, 24)).astype(np.float32)


@pytest.mark.parametrize("head", ["regress", "retrieve"])
@pytest.mark.parametrize("length", [1, 3, 5, 6, 9, 40, 100])
def test_equals_the_torch_twin(head, length):
    from mlx_lvm.parity.sides import bridge

    model = drawn(head)
    twin = bridge.twin(model.config, model.weights(), "float64")
    x = contexts(3, length)
    x[1, : length // 2] = 0  # no chunks there
    ours = model(mx.array(x))
    with torch.no_grad():
        theirs = twin(torch.tensor(x, dtype=torch.float64))
    for field in ("raw", "unit", "baseline", "residual"):
        expected = getattr(theirs, field).numpy()
        error = np.abs(np.array(getattr(ours, field)) - expected).max() / np.abs(expected).max()
        assert error < 3e-6, (field, error)


@pytest.mark.parametrize("options", [{"horizons": 3}, {"queries": 0.5}, {"horizons": 4, "queries": 1.0}])
def test_horizons_and_queries_equal_the_torch_twin(options):
    from mlx_lvm.parity.sides import bridge

    model = drawn("regress", **options)
    twin = bridge.twin(model.config, model.weights(), "float64")
    x, query = contexts(3, 9), contexts(3, 1, seed=4)[:, 0]
    x[1, :4], query[2] = 0, 0
    given = (x, query) if "queries" in options else (x,)
    ours = model(*map(mx.array, given))
    with torch.no_grad():
        theirs = twin(*(torch.tensor(one, dtype=torch.float64) for one in given))
    assert (ours.ahead is None) == (theirs.ahead is None) == ("horizons" not in options)
    for field in ("raw", "baseline", "residual", *(["ahead"] if "horizons" in options else [])):
        expected = getattr(theirs, field).numpy()
        assert getattr(ours, field).shape == expected.shape
        assert np.abs(np.array(getattr(ours, field)) - expected).max() / np.abs(expected).max() < 3e-6, field


def test_each_horizon_is_the_first_with_parameters_of_its_own():
    """Its filters, map and last layer put in the first one's place give the same vector."""
    model, x = drawn("regress", horizons=3), mx.array(contexts(2, 8))
    ahead = np.array(model(x).ahead)
    np.testing.assert_allclose(ahead[:, 0], np.array(model(x).raw), rtol=1e-6)
    third = model.ahead[1]
    model.filter, model.shift_filter, model.map, model.net[-1] = (
        third.filter,
        third.shift_filter,
        third.map,
        third.output,
    )
    np.testing.assert_allclose(np.array(model(x).raw), ahead[:, 2], rtol=1e-5, atol=1e-5)
    assert np.abs(ahead[:, 2] - ahead[:, 0]).max() > 1e-2


def test_a_query_of_zeros_is_none_and_another_moves_the_prediction():
    model, x, query = drawn("regress", queries=0.5), mx.array(contexts(2, 8)), contexts(2, 1, seed=4)[:, 0]
    without = np.array(model(x).raw)
    np.testing.assert_array_equal(np.array(model(x, mx.zeros((2, 24))).raw), without)
    query[1] = 0
    found = np.array(model(x, mx.array(query)).raw)
    np.testing.assert_allclose(found[1], without[1], rtol=1e-5, atol=1e-6)
    assert np.abs(found[0] - without[0]).max() > 1e-2
    with pytest.raises(UsageError, match=r"query of shape \(3, 24\); expected \[2, 24\]"):
        model(x, mx.zeros((3, 24)))
    with pytest.raises(UsageError, match="trained without queries"):
        drawn("regress")(x, mx.array(query))


@pytest.mark.parametrize("head", ["regress", "retrieve"])
def test_zero_rows_on_the_left_are_no_chunks(head):
    model, x = drawn(head), contexts(2, 7)
    padded = np.concatenate([np.zeros((2, 13, 24), np.float32), x], axis=1)
    np.testing.assert_allclose(
        np.array(model(mx.array(padded)).raw), np.array(model(mx.array(x)).raw), rtol=1e-5, atol=1e-6
    )


def test_kernels_by_hand():
    kernels = age_kernels(4)
    assert kernels.shape == (12, 4)
    np.testing.assert_array_equal(kernels[:4], np.eye(4))
    np.testing.assert_array_equal(kernels[4:8], 0)
    np.testing.assert_allclose(
        kernels[8:11], [[1, 0.5, 0.25, 0.125], [1, 0.8, 0.64, 0.512], [1, 0.93, 0.8649, 0.804357]], rtol=1e-6
    )
    np.testing.assert_array_equal(kernels[11], 1)


def test_an_unfitted_model_is_a_steep_mixture_of_what_was_read():
    model = build(RAMNConfig(head="retrieve", dim=24, rank=10))
    model.push_strength = mx.full((1,), -40.0)
    model.start_at_baseline()
    model.eval()
    x = contexts(2, 3)
    expected = x[:, 2] + 0.3 * x[:, 1] + 0.09 * x[:, 0]
    expected /= np.linalg.norm(expected, axis=1, keepdims=True)
    np.testing.assert_allclose(np.array(model(mx.array(x)).raw), expected, rtol=1e-5, atol=1e-6)
    model.blend = mx.array([3.0, -0.5])
    np.testing.assert_allclose(
        np.array(model(mx.array(x)).raw), 3 * expected - 0.5 * x[:, 2], rtol=1e-5, atol=1e-5
    )


def test_what_a_direction_falls_back_on_is_of_head_retrieve():
    with pytest.raises(UsageError, match="fallback = emn: head regress has none"):
        build(RAMNConfig(dim=24, rank=10, fallback="emn"))


def test_a_little_trust_gives_little_say_however_long_the_query():
    """Far from home what is pushed out is long, along rare directions; t = 0.01 moves the direction by about
    0.01.
    """
    model, x = drawn("retrieve"), mx.array(contexts(3, 20))
    model.basis.weight, model.blend, model.push_metric = mx.eye(24), mx.array([2.0, 0.0]), mx.full((24,), 5.0)
    model.trust_slope, model.trust_limit = mx.ones((1,)), mx.full((1,), -100.0)
    elsewhere = np.array(model(x).raw)
    model.trust_slope, model.trust_limit = (
        mx.full((1,), 1e-6),
        mx.full((1,), float(np.log(0.01 / 0.99) * 1e6)),
    )
    a_little = np.array(model(x).raw)
    moved = np.linalg.norm(a_little - elsewhere, axis=1) / np.linalg.norm(elsewhere, axis=1)
    assert moved.min() > 0.001 and moved.max() < 0.0201


def test_pushing_lowers_the_score_of_what_was_read_long_ago_and_spares_the_last_five():
    model = drawn("retrieve")
    x = contexts(1, 8)
    before = np.array(model(mx.array(x)).raw)[0]
    model.push_strength = mx.full((1,), -40.0)
    without = np.array(model(mx.array(x)).raw)[0]
    assert np.abs(before - without).max() > 1e-3
    short = mx.array(x[:, -5:])
    spared = np.array(model(short).raw)
    model.push_strength = mx.full((1,), 2.0)
    np.testing.assert_array_equal(np.array(model(short).raw), spared)


def test_config_round_trip_and_limits():
    config = RAMNConfig(head="retrieve", dim=48)
    assert config_from_dict(as_dict(config)) == config
    assert config.width == 48
    with pytest.raises(UsageError, match="head = 'rank': must be one of regress, retrieve"):
        RAMNConfig(head="rank")
    with pytest.raises(UsageError, match="horizons = 2: head retrieve has none"):
        RAMNConfig(head="retrieve", horizons=2)
    with pytest.raises(UsageError, match=r"ramn: context of shape .*expected \[batch, 1 to 100, 48\]"):
        build(config)(mx.zeros((2, 101, 48)))
