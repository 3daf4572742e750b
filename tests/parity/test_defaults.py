"""Where MLX's defaults differ from torch's and a port that trusts them goes wrong.

Each test states the difference as it is in the MLX we build on. One that fails says that a release changed a
default: look at what the project does about it, then at this list.
"""

import inspect
import math

import mlx.optimizers as optim
import numpy as np
import torch

from mlx_lvm.core.mlx import mx, nn, tree_flatten
from mlx_lvm.models import normalize
from mlx_lvm.training.optimizer import adamw, coefficients, zero_moments
from mlx_lvm.training.schedule import Plateau


def names(module: nn.Module) -> set[str]:
    return {name for name, _ in tree_flatten(module.parameters())}


def test_adamw_does_not_correct_its_bias() -> None:
    assert inspect.signature(optim.AdamW).parameters["bias_correction"].default is False
    step = {"w": mx.array([1.0])}
    moved = optim.AdamW(learning_rate=0.1, weight_decay=0.0).apply_gradients({"w": mx.array([2.0])}, step)[
        "w"
    ]
    assert abs(float(moved[0]) - 0.9) > 0.1  # torch's first step is lr times the sign
    ours, _ = adamw(step, {"w": mx.array([2.0])}, zero_moments(step), coefficients(0.1, 0.0, 1))
    assert math.isclose(float(ours["w"][0]), 0.9, rel_tol=1e-6)


def test_lstm_and_gru_have_one_bias_and_one_layer() -> None:
    assert names(nn.LSTM(4, 3)) == {"Wx", "Wh", "bias"}
    assert names(nn.GRU(4, 3)) == {"Wx", "Wh", "b", "bhn"}
    assert "num_layers" not in inspect.signature(nn.LSTM).parameters


def test_multi_head_attention_has_no_bias_by_default_and_splits_the_projection() -> None:
    assert names(nn.MultiHeadAttention(8, 2)) == {
        f"{part}_proj.weight" for part in ("query", "key", "value", "out")
    }
    assert torch.nn.MultiheadAttention(8, 2).in_proj_bias is not None


def test_decoder_layer_normalises_first_and_the_stack_last() -> None:
    layer = nn.TransformerDecoderLayer(8, 2)
    assert layer.norm_first is True and torch.nn.TransformerDecoderLayer(8, 2).norm_first is False
    assert "ln1.weight" in names(layer)
    assert any(name.startswith("ln.") for name in names(nn.TransformerDecoder(1, 8, 2, 16)))
    assert torch.nn.TransformerDecoder(torch.nn.TransformerDecoderLayer(8, 2), 1).norm is None


def test_decoder_layer_drops_out_in_fewer_places() -> None:
    mlx = [
        m
        for _, m in nn.TransformerDecoderLayer(8, 2, dropout=0.1).named_modules()
        if isinstance(m, nn.Dropout)
    ]
    theirs = [m for m in torch.nn.TransformerDecoderLayer(8, 2).modules() if isinstance(m, torch.nn.Dropout)]
    assert len(mlx) < len(theirs) + 2  # torch's two attentions drop out inside as well


def test_a_boolean_mask_means_the_opposite() -> None:
    x = mx.random.normal((1, 1, 2, 4))
    allowed = mx.array([[True, False], [True, True]])
    ours = mx.fast.scaled_dot_product_attention(x, x, x, scale=0.5, mask=allowed)
    assert mx.allclose(ours[0, 0, 0], x[0, 0, 0]).item()  # True: may look
    attention = torch.nn.MultiheadAttention(4, 1, batch_first=True)
    weights = attention(*[torch.randn(1, 2, 4)] * 3, attn_mask=torch.tensor([[False, True], [False, False]]))[
        1
    ]
    assert float(weights[0, 0, 1].detach()) == 0  # True: may not


def test_an_array_attribute_is_a_parameter() -> None:
    class Table(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.table, self._hidden = mx.zeros((2,)), mx.zeros((2,))

    assert names(Table()) == {"table"}
    buffer = torch.nn.Module()
    buffer.register_buffer("table", torch.zeros(2))
    assert not list(buffer.parameters()) and "table" in buffer.state_dict()


def test_sequential_names_its_layers_otherwise() -> None:
    assert names(nn.Sequential(nn.Linear(2, 2))) == {"layers.0.weight", "layers.0.bias"}
    assert set(torch.nn.Sequential(torch.nn.Linear(2, 2)).state_dict()) == {"0.weight", "0.bias"}


def test_there_is_no_normalise_and_a_zero_vector_is_ours_to_keep() -> None:
    assert not hasattr(nn, "normalize")
    zero = np.zeros((1, 4), np.float32)
    assert np.isnan(np.array(mx.array(zero) / mx.linalg.norm(mx.array(zero), axis=-1, keepdims=True))).all()
    assert np.array_equal(
        np.array(normalize(mx.array(zero))), torch.nn.functional.normalize(torch.from_numpy(zero)).numpy()
    )
    assert np.isnan(
        np.array(mx.grad(lambda x: mx.maximum(mx.sqrt(mx.square(x).sum()), 1e-12).sum())(mx.array(zero)))
    ).all()
    theirs = torch.zeros((1, 4), requires_grad=True)
    torch.nn.functional.normalize(theirs).sum().backward()
    assert np.array_equal(
        np.array(mx.grad(lambda x: normalize(x).sum())(mx.array(zero))), theirs.grad.numpy()
    )


def test_half_precision_is_normalised_without_underflow() -> None:
    small = np.full((1, 64), 1e-4, np.float16)  # its squares are zero in float16
    assert np.allclose(np.array(normalize(mx.array(small))), 1 / 8, atol=1e-3)


def test_gelu_is_exact_in_both_and_layer_norm_has_torchs_epsilon() -> None:
    x = np.linspace(-4, 4, 101, dtype=np.float32)
    exact = torch.nn.functional.gelu(torch.from_numpy(x).double()).numpy()
    assert np.abs(np.array(nn.GELU()(mx.array(x))) - exact).max() < 1e-6
    assert nn.LayerNorm(4).eps == torch.nn.LayerNorm(4).eps == 1e-5


def test_dropout_scales_as_torchs() -> None:
    mx.random.seed(0)
    kept = np.array(nn.Dropout(0.25)(mx.ones((10_000,))))
    assert set(np.round(np.unique(kept), 5)) == {0, np.float32(1.33333)}


def test_there_is_no_reduce_on_plateau() -> None:
    assert not [name for name in dir(optim) if "plateau" in name.lower()]
    assert Plateau(1e-3, 0.5, 3).lr == 1e-3


def test_softmax_in_half_precision_sums_in_half_precision_unless_told() -> None:
    assert inspect.getdoc(mx.softmax) is not None
    scores = mx.zeros((1, 1000), dtype=mx.bfloat16)
    assert abs(float(mx.softmax(scores, axis=-1, precise=True).astype(mx.float32).sum()) - 1) < 0.01


def test_a_whole_array_is_summed_in_order_on_the_cpu() -> None:
    """Why norms and losses are summed row by row."""
    x = np.random.default_rng(0).standard_normal((1024, 512)).astype(np.float32)
    true = float(np.square(x.astype(np.float64)).sum())
    rows = float(mx.square(mx.array(x)).sum(axis=-1).sum())
    assert abs(rows - true) / true < 2e-6
