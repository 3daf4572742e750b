"""Torch references for the models, built here from torch's own modules, and the arbiter: float64 torch."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch import nn as tnn

from mlx_lvm.core.mlx import mx, nn
from mlx_lvm.models import ModelConfig, VectorModel, architecture, build

UNIT_ROUNDOFF = 2.0**-24


class TorchAMN(tnn.Module):
    def __init__(self, dim=768, attention_dim=256, hidden_dim=512):
        super().__init__()
        half = hidden_dim // 2
        self.context_encoder, self.query_encoder = (
            tnn.Linear(dim, attention_dim),
            tnn.Linear(dim, attention_dim),
        )
        self.residual_net = tnn.Sequential(
            tnn.Linear(2 * dim, hidden_dim), tnn.GELU(), tnn.LayerNorm(hidden_dim),
            tnn.Linear(hidden_dim, half), tnn.GELU(), tnn.LayerNorm(half), tnn.Linear(half, dim),
        )  # fmt: skip

    def forward(self, x):
        baseline = x.mean(1)
        scores = torch.einsum("bld,bd->bl", self.context_encoder(x), self.query_encoder(baseline))
        weights = F.softmax(scores / math.sqrt(self.query_encoder.out_features), dim=-1)
        return baseline + self.residual_net(
            torch.cat([baseline, torch.einsum("bl,bld->bd", weights, x)], dim=-1)
        )


class TorchLSTM(tnn.Module):
    def __init__(self, dim=768, hidden_dim=512, layers=2, dropout=0.2):
        super().__init__()
        self.lstm = tnn.LSTM(
            dim, hidden_dim, layers, dropout=dropout if layers > 1 else 0.0, batch_first=True
        )
        self.output_proj = tnn.Linear(hidden_dim, dim)

    def forward(self, x):
        return self.output_proj(self.lstm(x)[0][:, -1])


class TorchGRUBlock(tnn.Module):
    def __init__(self, hidden_dim):
        super().__init__()
        self.gru = tnn.GRU(hidden_dim, hidden_dim, batch_first=True)
        self.norm = tnn.LayerNorm(hidden_dim)

    def forward(self, x):
        return self.norm(x + self.gru(x)[0])


class TorchGRU(tnn.Module):
    def __init__(self, dim=768, hidden_dim=512, layers=4):
        super().__init__()
        self.input_proj, self.output_proj = tnn.Linear(dim, hidden_dim), tnn.Linear(hidden_dim, dim)
        self.blocks = tnn.ModuleList([TorchGRUBlock(hidden_dim) for _ in range(layers)])

    def forward(self, x):
        x = self.input_proj(x)
        for block in self.blocks:
            x = block(x)
        return self.output_proj(x[:, -1])


class TorchPositions(tnn.Module):
    def __init__(self, dim):
        super().__init__()
        position, rate = (
            torch.arange(100.0)[:, None],
            torch.exp(torch.arange(0, dim, 2) * (-math.log(10000.0) / dim)),
        )
        table = torch.zeros(1, 100, dim)
        table[0, :, 0::2], table[0, :, 1::2] = torch.sin(position * rate), torch.cos(position * rate)
        self.register_buffer("pe", table)

    def forward(self, x):
        return x + self.pe[:, : x.shape[1]]


class TorchTransformer(tnn.Module):
    def __init__(self, dim=768, hidden_dim=512, layers=4, heads=8, ffn_dim=2048, dropout=0.1):
        super().__init__()
        self.input_proj, self.pos_encoder = tnn.Linear(dim, hidden_dim), TorchPositions(hidden_dim)
        layer = tnn.TransformerDecoderLayer(hidden_dim, heads, ffn_dim, dropout, batch_first=True)
        self.transformer_decoder = tnn.TransformerDecoder(layer, layers)
        self.head = tnn.Sequential(
            tnn.Linear(hidden_dim, hidden_dim),
            tnn.GELU(),
            tnn.LayerNorm(hidden_dim),
            tnn.Linear(hidden_dim, dim),
        )

    def forward(self, x):
        embedded = self.pos_encoder(self.input_proj(x))
        mask = tnn.Transformer.generate_square_subsequent_mask(x.shape[1], dtype=x.dtype)
        return self.head(self.transformer_decoder(embedded, embedded, tgt_mask=mask, memory_mask=mask)[:, -1])


TWINS = {"amn": TorchAMN, "lstm": TorchLSTM, "gru": TorchGRU, "transformer": TorchTransformer}


def make_config(name: str, **sizes) -> ModelConfig:
    return architecture(name).config_class(**sizes)


def make_pair(config: ModelConfig, seed: int = 0) -> tuple[VectorModel, tnn.Module]:
    """The model and its torch reference with the same weights, every one of them drawn anew: nothing is zero
    or one.
    """
    rng, model = np.random.default_rng(seed), build(config)
    values = {
        name: (
            ("norm" in name and name.endswith("weight"))
            + rng.standard_normal(w.shape) * (0.3 if w.ndim == 1 else w.shape[-1] ** -0.5)
        )
        for name, w in model.weights().items()
    }
    model.load_weights(
        [(name, mx.array(value.astype(np.float32))) for name, value in values.items()], strict=True
    )
    twin = TWINS[config.model_type](**config.to_dict())
    state = {**model.weights(), **model.buffers()}
    twin.load_state_dict(
        {name: torch.from_numpy(np.array(value)) for name, value in state.items()}, strict=True
    )
    model.eval()
    return model, twin.eval()


def torch_numbers(
    twin: tnn.Module, x: np.ndarray, seed_raw: np.ndarray, seed_unit: np.ndarray, dtype=torch.float64
) -> dict:
    """raw, unit and the gradient of <raw, seed_raw> + <unit, seed_unit> for the context and every
    parameter.
    """
    twin = twin.to(dtype)
    twin.zero_grad(set_to_none=True)
    context = torch.from_numpy(x).to(dtype).requires_grad_()
    raw = twin(context)
    unit = F.normalize(raw, dim=-1)
    (
        (raw * torch.from_numpy(seed_raw).to(dtype)).sum()
        + (unit * torch.from_numpy(seed_unit).to(dtype)).sum()
    ).backward()
    grads = {f"grad {name}": p.grad for name, p in twin.named_parameters()}
    tensors = {"raw": raw, "unit": unit, "grad context": context.grad, **grads}
    return {name: t.detach().double().numpy() for name, t in tensors.items()}


def mlx_numbers(
    model: VectorModel, x: np.ndarray, seed_raw: np.ndarray, seed_unit: np.ndarray, compiled: bool = False
) -> dict:
    def loss(parameters, context):
        model.update(parameters)
        out = model(context)
        return (
            (out.raw * mx.array(seed_raw)).sum() + (out.unit * mx.array(seed_unit)).sum(),
            out.raw,
            out.unit,
        )

    parameters = model.parameters()
    function = mx.value_and_grad(loss, argnums=(0, 1))
    (_, raw, unit), (grads, grad_context) = (mx.compile(function) if compiled else function)(
        parameters, mx.array(x)
    )
    model.update(parameters)
    arrays = {"raw": raw, "unit": unit, "grad context": grad_context}
    arrays |= {f"grad {name}": g for name, g in nn.utils.tree_flatten(grads)}
    return {name: np.array(value).astype(np.float64) for name, value in arrays.items()}


def rms(x: np.ndarray) -> float:
    return float(np.sqrt(np.mean(np.square(x))))


def error_ratios(ours: dict, theirs: dict, truth: dict) -> dict[str, float]:
    """Our rms error over torch's own, for every array; torch's counts as at least one roundoff of the
    truth.
    """
    assert ours.keys() == theirs.keys() == truth.keys()
    out = {}
    for name, t in truth.items():
        assert ours[name].shape == t.shape and np.isfinite(ours[name]).all(), name
        error = rms(ours[name] - t)
        out[name] = error / max(rms(theirs[name] - t), UNIT_ROUNDOFF * rms(t)) if error else 0.0
    return out


class Reference:
    """The helpers above, for tests that cannot import this file."""

    config = staticmethod(make_config)
    pair = staticmethod(make_pair)
    twins = TWINS

    @staticmethod
    def ratios(
        config: ModelConfig,
        batch: int,
        length: int,
        seed: int = 0,
        compiled: bool = False,
        train: bool = False,
    ) -> dict[str, float]:
        model, twin = make_pair(config, seed)
        if train:
            model.train()
        rng = np.random.default_rng([seed, batch, length])
        x = rng.standard_normal((batch, length, config.dim)).astype(np.float32)
        seeds = [rng.standard_normal((batch, config.dim)).astype(np.float32) for _ in range(2)]
        ours = mlx_numbers(model, x, *seeds, compiled=compiled)
        theirs = torch_numbers(twin, x, *seeds, dtype=torch.float32)
        return error_ratios(ours, theirs, torch_numbers(twin, x, *seeds))


@pytest.fixture(scope="session")
def reference() -> type[Reference]:
    return Reference
