"""Dropout: torch's places, torch's rates, new draws at every compiled step, none in eval mode."""

import numpy as np
import pytest
import torch

from mlx_lvm.core.mlx import mx, nn
from mlx_lvm.models import build
from mlx_lvm.models.layers import MultiheadAttention

ALL = 1 - 1e-9  # as good as always
LSTM = {"dim": 6, "hidden_dim": 8, "layers": 3}
TRANSFORMER = {"dim": 6, "hidden_dim": 8, "layers": 2, "heads": 2, "ffn_dim": 16}
PLACES = ["self_attn", "multihead_attn", "dropout", "dropout1", "dropout2", "dropout3"]


def draw(shape, seed=0):
    return np.random.default_rng(seed).standard_normal(shape).astype(np.float32)


def both(model, twin, x):
    """raw of ours and of torch's, in the mode they are in."""
    with torch.no_grad():
        return np.array(model(mx.array(x)).raw), twin(torch.from_numpy(x)).raw.numpy()


@pytest.mark.parametrize("place", [*PLACES, None])
def test_transformer_places(reference, place):
    """One place drops everything, in every layer and on both sides; then none does: there is no place beside
    the six.
    """
    model, twin = reference.pair(reference.config("transformer", **TRANSFORMER, dropout=0.0))
    for ours, theirs in zip(model.transformer_decoder.layers, twin.transformer_decoder.layers, strict=True):
        for name in PLACES:
            share = ALL if name == place else 0.0
            if name.endswith("attn"):
                getattr(ours, name).dropout = nn.Dropout(share)
                getattr(theirs, name).dropout = share
            else:
                setattr(ours, name, nn.Dropout(share))
                getattr(theirs, name).p = share
    x = draw((4, 5, 6))
    plain, _ = both(model.eval(), twin.eval(), x)
    ours, theirs = both(model.train(), twin.train(), x)
    np.testing.assert_allclose(ours, theirs, atol=2e-5)
    assert (np.abs(ours - plain).max() > 1e-2) == (place is not None)


def test_lstm_between_layers_only(reference):
    model, twin = reference.pair(reference.config("lstm", **LSTM, dropout=ALL))
    twin.lstm.dropout = 1.0
    x = draw((4, 5, 6))
    ours, theirs = both(model.train(), twin.train(), x)
    np.testing.assert_allclose(ours, theirs, atol=2e-6)
    assert np.abs(ours - ours[:1]).max() == 0  # the last layer saw zeros whatever the context
    assert np.abs(ours).max() > 0.1  # and its own output was not dropped


@pytest.mark.parametrize("name", ["lstm", "gru"])
def test_single_layer_drops_nothing(reference, name):
    sizes = LSTM | {"layers": 1}
    model = build(reference.config(name, **sizes, **({"dropout": ALL} if name == "lstm" else {})))
    x = mx.array(draw((4, 5, 6)))
    np.testing.assert_array_equal(np.array(model.train()(x).raw), np.array(model.eval()(x).raw))


@pytest.mark.parametrize(
    ("name", "sizes"), [("lstm", LSTM | {"dropout": 0.3}), ("transformer", TRANSFORMER | {"dropout": 0.15})]
)
def test_rates_are_torchs(reference, name, sizes):
    """Mean and spread of 20,000 draws for one context, against as many of torch's."""
    n = 20_000
    model, twin = reference.pair(reference.config(name, **sizes))
    x = np.repeat(draw((1, 3, 6)), n, axis=0)
    torch.manual_seed(0)
    mx.random.seed(0)
    ours, theirs = (out.astype(np.float64) for out in both(model.train(), twin.train(), x))
    spread = theirs.std(0)
    assert spread.min() > 1e-3
    assert np.abs((ours.mean(0) - theirs.mean(0)) / spread).max() < 5 * np.sqrt(2 / n)
    kurtosis = (((theirs - theirs.mean(0)) / spread) ** 4).mean(0)
    assert (np.abs(ours.var(0) / spread**2 - 1) < 5 * np.sqrt(2 * (kurtosis - 1) / n)).all()


def test_attention_keeps_its_expectation():
    """Attention is linear in its weights, so the mean over many draws is what eval mode gives."""
    n = 40_000
    layer = MultiheadAttention(8, 2, dropout=0.4)
    layer.in_proj_bias, layer.out_proj.bias = mx.array(draw(24)), mx.array(draw(8, 1))
    x = mx.array(draw((1, 4, 8), 2))
    mx.random.seed(1)
    repeated = mx.broadcast_to(x, (n, 4, 8))
    draws = np.array(layer.train()(repeated, repeated)).astype(np.float64)
    expected = np.array(layer.eval()(x, x))[0]
    assert np.abs((draws.mean(0) - expected) / draws.std(0)).max() < 5 / np.sqrt(n)


@pytest.mark.parametrize(
    ("name", "sizes"), [("lstm", LSTM | {"dropout": 0.5}), ("transformer", TRANSFORMER | {"dropout": 0.5})]
)
def test_compiled_steps_draw_anew_and_repeat_by_seed(reference, name, sizes):
    model = build(reference.config(name, **sizes))
    x = mx.array(draw((8, 4, 6)))

    def run():
        mx.random.seed(7)
        state = [model.state, mx.random.state]
        step = mx.compile(
            lambda x: nn.value_and_grad(model, lambda x: model(x).raw.square().mean())(x)[0],
            inputs=state,
            outputs=state,
        )
        return [step(x).item() for _ in range(4)]

    model.train()
    losses = run()
    assert len(set(losses)) == 4
    assert run() == losses
    model.eval()
    assert len({model(x).raw.square().mean().item() for _ in range(3)}) == 1
    assert len(set(run())) == 1
