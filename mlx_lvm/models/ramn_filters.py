"""RAMN's mixtures of the document by age, and the filters over them that each horizon has of its own."""

from __future__ import annotations

import numpy as np

from mlx_lvm.core.mlx import mx, nn
from mlx_lvm.models.base import MAX_CONTEXT
from mlx_lvm.models.layers import Linear
from mlx_lvm.models.ramn_config import RAMNConfig

LAGS = 8
DECAYS = (0.5, 0.8, 0.93)
MIXTURES = LAGS + len(DECAYS) + 1
LAST, BEFORE_LAST, FAST, SLOW, ALL = 0, 1, LAGS, LAGS + 2, LAGS + 3
MAPPED = (LAST, SLOW, ALL)  # mixtures that the linear map reads
SEEN = (LAST, BEFORE_LAST, FAST, SLOW, ALL)  # and those that the network reads
STEEP = 0.3  # decay of the mixture that an unfitted model is


def age_kernels(length: int = MAX_CONTEXT) -> np.ndarray:
    """k(age) of every mixture for ages 1 .. length, float32 [mixtures, length]."""
    age = np.arange(1, length + 1)
    rows = [age == lag for lag in range(1, LAGS + 1)] + [decay ** (age - 1.0) for decay in DECAYS]
    return np.stack([*rows, np.ones(length)]).astype(np.float32)


def steep_mixture(dim: int) -> np.ndarray:
    """Filter of an unfitted model, float32 [mixtures, dim]: the last chunks, each 0.3 of the one after it."""
    out = np.zeros((MIXTURES, dim), np.float32)
    out[:LAGS] = (STEEP ** np.arange(LAGS))[:, None]
    return out


def add_filters(module: nn.Module, config: RAMNConfig) -> None:
    """What each horizon has of its own: filters for here and elsewhere, those with a query, and the map."""
    steep = steep_mixture(config.dim)
    module.filter, module.shift_filter = mx.array(steep), mx.array(steep)
    if config.queries:
        with_query = np.concatenate([steep, np.zeros((1, config.dim), np.float32)])
        module.query_filter, module.query_shift_filter = mx.array(with_query), mx.array(with_query)
    if config.head == "regress":
        module.map = Linear(len(MAPPED) * config.width, config.dim, bias=False)


def mixed(here: mx.array, elsewhere: mx.array, trust: mx.array) -> mx.array:
    """t here + (1 - t) elsewhere, as a difference: t's gradient would be of two long sums that cancel."""
    return elsewhere + trust * (here - elsewhere)


class HorizonHead(nn.Module):
    """The parameters of a horizon after the first."""

    def __init__(self, config: RAMNConfig) -> None:
        super().__init__()
        add_filters(self, config)
        self.output = Linear(config.hidden_dim, config.width)
