"""The twins against an independent statement of each architecture, and the way of weights between the
frameworks.
"""

import math

import numpy as np
import pytest
import torch

from mlx_lvm.core.mlx import mx
from mlx_lvm.errors import SetupInvalid, UsageError
from mlx_lvm.models import architecture, build
from mlx_lvm.parity.sides import bridge
from mlx_lvm.parity.sides.recurrence import steps_of
from mlx_lvm.parity.sides.sides import Subject
from mlx_lvm.parity.twins import losses, twin_class

PARAMETERS = {"amn": 1_510_912, "lstm": 5_120_768, "gru": 7_095_552, "transformer": 17_867_520}


@pytest.mark.parametrize("name", PARAMETERS)
def test_parameter_count_at_the_default_sizes(name: str) -> None:
    with torch.device("meta"):
        twin = twin_class(name)()
    assert sum(p.numel() for p in twin.parameters()) == PARAMETERS[name]


@pytest.mark.slow
@pytest.mark.parametrize(
    "config",
    [{"model_type": name} for name in ("amn", "lstm", "gru", "ramn")]
    + [{"model_type": "ramn", "head": "retrieve"}],
)
def test_twins_and_losses_stay_on_one_device(config: dict) -> None:
    """torch's meta device refuses tensors of another, as a GPU would. (The transformer's torch layers ask
    their mask for values.)
    """
    with torch.device("meta"):
        twin = twin_class(config["model_type"])(config)
    context, target = torch.randn(3, 9, 768, device="meta"), torch.randn(3, 768, device="meta")
    for name in losses.LOSSES:
        losses.total({name: 1.0}, twin(context), target, 0.07).backward()
    assert all(p.grad is None or p.grad.device.type == "meta" for p in twin.parameters())


def test_amn_against_numpy() -> None:
    torch.manual_seed(0)
    twin = twin_class("amn")({"model_type": "amn", "dim": 6, "attention_dim": 4, "hidden_dim": 8}).double()
    w = {name: value.numpy() for name, value in twin.state_dict().items()}
    x = np.random.default_rng(0).standard_normal((2, 3, 6))

    def linear(name: str, v: np.ndarray) -> np.ndarray:
        return v @ w[f"{name}.weight"].T + w[f"{name}.bias"]

    def norm(name: str, v: np.ndarray) -> np.ndarray:
        return (v - v.mean(-1, keepdims=True)) / np.sqrt(v.var(-1, keepdims=True) + 1e-5) * w[
            f"{name}.weight"
        ] + w[f"{name}.bias"]

    erf = np.vectorize(math.erf)
    baseline = x.mean(axis=1)
    scores = np.einsum("ba,bla->bl", linear("query_encoder", baseline), linear("context_encoder", x)) / 2
    attention = np.exp(scores) / np.exp(scores).sum(-1, keepdims=True)
    h = np.concatenate([baseline, np.einsum("bl,bld->bd", attention, x)], axis=-1)
    for layer, after in ((0, 2), (3, 5)):
        h = linear(f"residual_net.{layer}", h)
        h = norm(f"residual_net.{after}", h * 0.5 * (1 + erf(h / math.sqrt(2))))
    raw = baseline + linear("residual_net.6", h)

    out = twin(torch.from_numpy(x))
    np.testing.assert_allclose(out.raw.detach(), raw, atol=1e-14)
    np.testing.assert_allclose(out.attention.detach(), attention, atol=1e-14)
    np.testing.assert_allclose(
        out.unit.detach(), raw / np.linalg.norm(raw, axis=-1, keepdims=True), atol=1e-14
    )


def test_positions() -> None:
    twin = twin_class("transformer")({"hidden_dim": 8, "dim": 4, "heads": 2, "ffn_dim": 4, "layers": 1})
    table = twin.pos_encoder.pe
    assert table.shape == (1, 100, 8)
    assert float(table[0, 7, 2]) == pytest.approx(math.sin(7 / 10000 ** (2 / 8)), abs=1e-7)
    assert float(table[0, 99, 7]) == pytest.approx(math.cos(99 / 10000 ** (6 / 8)), abs=1e-7)


@pytest.mark.parametrize(
    "module", [torch.nn.LSTM(5, 4, 2, batch_first=True), torch.nn.GRU(5, 4, 2, batch_first=True)]
)
def test_steps_are_torchs_own_recurrence(module: torch.nn.Module) -> None:
    module = module.double()
    x = torch.randn(3, 6, 5, dtype=torch.float64)
    seen = []
    ours = steps_of(module, x, lambda tap, value: (seen.append(tap), value)[1])
    torch.testing.assert_close(ours, module(x)[0], atol=1e-14, rtol=0)
    assert len(seen) == len(set(seen)) == 2 * 6 * (6 if isinstance(module, torch.nn.LSTM) else 5)


@pytest.mark.parametrize("name", PARAMETERS)
@pytest.mark.parametrize("dtype", ["float32", "bfloat16", "float16"])
def test_mlx_weights_load_strictly_and_return_bit_for_bit(name: str, dtype: str) -> None:
    config = architecture(name).config_class(
        **({"dim": 16, "hidden_dim": 16} | ({"heads": 2, "ffn_dim": 8} if name == "transformer" else {}))
    )
    subject = Subject.drawn(config, 1)
    twin = subject.twin(dtype)
    for key, value in subject.weights.items():
        back = bridge.to_mlx(dict(twin.named_parameters())[key])
        assert back.dtype == bridge.MLX[dtype]
        assert mx.array_equal(back, value.astype(bridge.MLX[dtype])).item()
    assert not twin.training


def test_bfloat16_rounds_once() -> None:
    # 1 + 2^-8 + 2^-20 lies above the tie between two bfloat16; through a float16 it would fall on the tie and
    # round down.
    value = mx.array([1 + 2.0**-8 + 2.0**-20], dtype=mx.float32)
    assert bridge.to_float64(value.astype(mx.bfloat16))[0] == 1 + 2.0**-7
    assert float(bridge.to_torch(value.astype(mx.bfloat16))[0]) == 1 + 2.0**-7


def test_missing_or_strange_weights_are_refused() -> None:
    config = architecture("amn").config_class(dim=8, attention_dim=4, hidden_dim=4)
    weights = build(config).weights()
    with pytest.raises(SetupInvalid, match="Missing key"):
        bridge.twin(config, {k: v for k, v in weights.items() if k != "query_encoder.bias"})
    with pytest.raises(SetupInvalid, match="Unexpected key"):
        bridge.twin(config, {**weights, "extra": mx.zeros((1,))})
    with pytest.raises(UsageError, match="unknown key 'hidden'"):
        twin_class("amn")({"hidden": 3})
