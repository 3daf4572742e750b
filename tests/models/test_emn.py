"""EMN: the torch twin in float64, rotations and scales, zero rows as no chunks, and what a file for every
encoder says of itself.
"""

import numpy as np
import pytest
import torch

from mlx_lvm.core.mlx import mx
from mlx_lvm.errors import UsageError
from mlx_lvm.models.emn import EMN
from mlx_lvm.models.emn_config import EMNConfig
from mlx_lvm.parity.sides import bridge

FORMS = [("predict", False), ("predict", True), ("rank", False), ("rank", True)]


def drawn(head: str, expert: bool, dim: int = 24) -> EMN:
    """Every parameter random, none zero or one."""
    model = EMN(EMNConfig(dim=dim, head=head, expert="yes" if expert else "no", rank=10, hidden_dim=16))
    draw = np.random.default_rng(0)
    weights = [
        (name, mx.array((0.3 * draw.standard_normal(w.shape)).astype(np.float32)))
        for name, w in model.weights().items()
    ]
    model.load_weights(weights, strict=True)
    return model.eval()


def contexts(batch: int, length: int, dim: int = 24, seed: int = 1) -> np.ndarray:
    return np.random.default_rng(seed).standard_normal((batch, length, dim)).astype(np.float32)


def rotation(dim: int, seed: int) -> np.ndarray:
    """A random orthogonal matrix, float64."""
    return np.linalg.qr(np.random.default_rng(seed).standard_normal((dim, dim)))[0]


def rotated(weights: dict[str, mx.array], q: np.ndarray) -> dict[str, mx.array]:
    """The statistics of the corpus as they are where every chunk x is Q x; the network's weights as they
    were.
    """
    out = {name: np.array(value).astype(np.float64) for name, value in weights.items()}
    out["mean"] = q @ out["mean"]
    if "whiten" in out:
        out["whiten"] = q @ out["whiten"] @ q.T
    if "expert.basis.weight" in out:
        out["expert.basis.weight"] = out["expert.basis.weight"] @ q.T
    return {name: mx.array(value.astype(np.float32)) for name, value in out.items()}


@pytest.mark.parametrize(("head", "expert"), FORMS)
@pytest.mark.parametrize("length", [1, 3, 5, 16, 17, 40, 100])
def test_equals_the_torch_twin(head: str, expert: bool, length: int) -> None:
    model = drawn(head, expert)
    twin = bridge.twin(model.config, model.weights(), "float64")
    x = contexts(3, length)
    x[1, : length // 2] = 0  # no chunks there
    ours = model(mx.array(x))
    with torch.no_grad():
        theirs = twin(torch.tensor(x, dtype=torch.float64))
    for field in ("raw", "unit", *(("baseline", "residual") if head == "predict" else ())):
        expected = getattr(theirs, field).numpy()
        error = np.abs(np.array(getattr(ours, field)) - expected).max() / np.abs(expected).max()
        assert error < 3e-6, (field, error)


@pytest.mark.parametrize(("head", "expert"), FORMS)
@pytest.mark.parametrize("seed", range(3))
def test_a_rotated_corpus_has_rotated_predictions(head: str, expert: bool, seed: int) -> None:
    """f(Q x; Q m) = Q f(x; m), in MLX in float32 and in PyTorch in float64."""
    model, q, x = drawn(head, expert), rotation(24, seed), contexts(4, 20, seed=seed)
    turned = drawn(head, expert)
    turned.load_weights(list(rotated(model.weights(), q).items()))
    given = (x @ q.T).astype(np.float32)
    expected = np.array(model(mx.array(x)).raw) @ q.T
    found = np.array(turned(mx.array(given)).raw)
    assert np.abs(found - expected).max() < 2e-5 * np.abs(expected).max()
    twins = [bridge.twin(one.config, one.weights(), "float64") for one in (model, turned)]
    with torch.no_grad():
        before, after = (
            twin(torch.tensor(z, dtype=torch.float64)).raw.numpy()
            for twin, z in zip(twins, (x, given), strict=True)
        )
    assert (
        np.abs(after - before @ q.T).max() < 2e-6 * np.abs(before).max()
    )  # rotated weights are stored in float32
    assert np.abs(found - np.array(model(mx.array(given)).raw)).max() > 1e-2 * np.abs(expected).max()


@pytest.mark.parametrize("scale", [1e-6, 0.01, 30.0, 1e6])
def test_chunks_in_another_unit_have_predictions_in_it(scale: float) -> None:
    """Head predict: f(s x; s m) = s f(x; m). Head rank gives the same direction, of the same length."""
    for head, factor in (("predict", scale), ("rank", 1.0)):
        model, x = drawn(head, False), contexts(3, 30)
        scaled = drawn(head, False)
        scaled.mean = model.mean * scale
        found, expected = (
            np.array(scaled(mx.array(x * np.float32(scale))).raw),
            np.array(model(mx.array(x)).raw),
        )
        assert np.abs(found - factor * expected).max() < 1e-5 * factor * np.abs(expected).max()


@pytest.mark.parametrize("head", ["predict", "rank"])
def test_rows_of_zeros_are_no_chunks(head: str) -> None:
    model, x = drawn(head, True), contexts(2, 9)
    filled = np.concatenate([np.zeros((2, 30, 24), np.float32), x], axis=1)
    given = np.array(model(mx.array(x)).raw)
    assert np.abs(np.array(model(mx.array(filled)).raw) - given).max() < 1e-5 * np.abs(given).max()
    filled[:, 29] = 0.1
    assert np.abs(np.array(model(mx.array(filled)).raw) - given).max() > 1e-3


def test_no_parameter_depends_on_the_width() -> None:
    for head, count in (("predict", 14_433), ("rank", 15_583)):
        small, wide = EMN(EMNConfig(dim=0, head=head)), EMN(EMNConfig(dim=1024, head=head))
        assert small.parameter_count() == count and 4 * count < 100_000
        of_a_corpus = set(wide.weights()) - set(small.weights())
        assert of_a_corpus == {"mean", "filter" if head == "predict" else "whiten"}
        assert all(wide.weights()[name].shape == value.shape for name, value in small.weights().items())


def test_it_starts_as_the_lag_filter() -> None:
    model = drawn("predict", False)
    model.base = mx.zeros_like(model.base)
    model.start_at_baseline()
    out = model(mx.array(contexts(3, 12)))
    assert np.array_equal(np.array(out.raw), np.array(out.baseline))
    assert np.abs(np.array(out.baseline)).max() > 0.1


def test_a_network_that_knew_no_expert_is_the_same_with_an_expert_of_no_say() -> None:
    """`start_at_baseline` silences what reads an expert; so trained weights can be given one and lose
    nothing.
    """
    without, with_one = drawn("predict", False), drawn("predict", True)
    without.start_at_baseline()
    without.each_out.weight = mx.ones_like(without.each_out.weight)
    with_one.load_weights(list({**with_one.weights(), **without.weights()}.items()))
    with_one.expert.filter, with_one.expert.map.weight = (
        mx.ones_like(with_one.expert.filter),
        mx.zeros_like(with_one.expert.map.weight),
    )
    x = mx.array(contexts(2, 12))
    assert (
        np.abs(np.array(with_one(x).raw) - np.array(without(x).raw)).max() > 1e-3
    )  # an expert that says something
    with_one.expert.filter = mx.zeros_like(with_one.expert.filter)
    assert np.array_equal(np.array(with_one(x).raw), np.array(without(x).raw))


@pytest.mark.parametrize("head", ["predict", "rank"])
def test_without_a_corpus_it_says_what_it_lacks(head: str) -> None:
    with pytest.raises(UsageError, match=r"holds no corpus's mean\. Give it the corpus"):
        EMN(EMNConfig(dim=0, head=head))(mx.zeros((1, 5, 24)))
    with pytest.raises(
        UsageError, match=r"emn: context of shape \(1, 5, 23\); expected \[batch, 1 to 100, 24\]"
    ):
        drawn(head, False)(mx.zeros((1, 5, 23)))
