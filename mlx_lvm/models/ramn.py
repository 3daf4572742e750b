"""Recency-anchored mixture network (RAMN): a closed form of the document so far, and what a network adds to it.

z_i = x_i - m                                       every chunk read, less the mean of the training targets
f_k = B (sum_i k(age_i) z_i / sum_i k(age_i))       12 mixtures by age, in the basis B of the targets' principal directions:
                                                    the last 8 chunks, 3 exponential averages, the mean of all
a   = sum_k w_k * f_k                               the anchor: a filter of its own for every direction
r   = net([f_1, f_2, f_fast, f_slow, f_all])        the correction, in the first `rank` directions

t   = sigmoid(slope (limit - log sum_i v_i f_all,i^2))  trust: near 1 where the document's mean lies as the training
                                                    documents' do, v their inverse variances; near 0 in another domain

head regress:   raw = m + B^T (t (a + W [f_1, f_slow, f_all] + r) + (1 - t) a'): the next chunk itself, W a linear map, a' an
                anchor whose filters sum to 1, so that it needs no m. Before training it is what `training.anchor` fits
head retrieve:  q = s (t (a + r) + (1 - t) a'),  raw = B^T (q - t v * B sum_i b softplus(<q, B z_i> - c) z_i) over chunks more
                than 5 back: a direction that ranks the next chunk first. Not a likely chunk: rare directions count for more in
                it, and what was read long ago is pushed out of the ranking. a' is a steep mixture less 0.3 f_all

A row of zeros is no chunk: contexts of several lengths share a batch when zeros fill them up on the left.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import ClassVar

import numpy as np

from mlx_lvm.backend import mx, nn
from mlx_lvm.config import option
from mlx_lvm.models.base import MAX_CONTEXT, ModelConfig, Prediction, VectorModel, normalize

LAGS = 8
DECAYS = (0.5, 0.8, 0.93)
MIXTURES = LAGS + len(DECAYS) + 1
LAST, BEFORE_LAST, FAST, SLOW, ALL = 0, 1, LAGS, LAGS + 2, LAGS + 3
MAPPED = (LAST, SLOW, ALL)  # mixtures that the linear map reads
SEEN = (LAST, BEFORE_LAST, FAST, SLOW, ALL)  # and those that the network reads
LENGTH_SCALES = (6.0, 30.0)  # chunks; the network knows the number read as exp(-n / scale)
SPARED = 5  # last chunks that are never pushed out
STEEP = 0.3  # decay of the mixture that an unfitted model is


@dataclass(frozen=True)
class RAMNConfig(ModelConfig):
    model_type: ClassVar[str] = "ramn"
    title: ClassVar[str] = "ramn"

    head: str = option(
        "regress", "what it predicts: the chunk itself (regress) or a direction to rank chunks by (retrieve)",
        choices=("regress", "retrieve"), group="Model",
    )  # fmt: skip
    rank: int = option(192, "principal directions that the map reads and the network reads and moves", low=1, high=65536, group="Model")
    hidden_dim: int = option(768, "width of the network", low=1, high=65536, group="Model")
    input_dropout: float = option(0.4, "share of the network's input zeroed while training", low=0, below=1, group="Model")
    dropout: float = option(0.6, "share of its hidden units zeroed while training", low=0, below=1, group="Model")

    @property
    def variant(self) -> str:
        return self.model_type if self.head == "regress" else f"{self.model_type}-{self.head}"

    @property
    def width(self) -> int:
        """`rank`, or all directions where there are fewer."""
        return min(self.rank, self.dim)


def age_kernels(length: int = MAX_CONTEXT) -> np.ndarray:
    """k(age) of every mixture for ages 1 .. length, float32 [mixtures, length]."""
    age = np.arange(1, length + 1)
    rows = [age == lag for lag in range(1, LAGS + 1)] + [decay ** (age - 1.0) for decay in DECAYS] + [np.ones(length)]
    return np.stack(rows).astype(np.float32)


class RAMN(VectorModel):
    """Context [batch, length, dim] -> Prediction with baseline (the anchor's part) and residual [batch, dim].

    2,531,138 (regress) or 2,089,541 (retrieve) parameters at the default sizes. Torch twin: `mlx_lvm.parity.ramn.RAMN`.
    """

    config: RAMNConfig
    history = MAX_CONTEXT  # chunks before the target that it reads where a document has them

    def __init__(self, config: RAMNConfig) -> None:
        super().__init__(config)
        dim, width, hidden = config.dim, config.width, config.hidden_dim
        steep = np.zeros((MIXTURES, dim), np.float32)
        steep[:LAGS] = (STEEP ** np.arange(LAGS))[:, None]
        self.mean = mx.zeros((dim,))
        self.basis = nn.Linear(dim, dim, bias=False)
        self.basis.weight = mx.eye(dim)
        self.filter, self.shift_filter = mx.array(steep), mx.array(steep)
        self.log_novelty = mx.full((dim,), -math.log(dim))
        self.trust_limit, self.trust_slope = mx.full((1,), 2.0), mx.ones((1,))
        self.input_gain = mx.ones((len(SEEN) * width,))
        self.output_gain = mx.ones((width,))
        self.net = [
            nn.Dropout(config.input_dropout),
            nn.Linear(len(SEEN) * width + len(LENGTH_SCALES), hidden),
            nn.GELU(),
            nn.Dropout(config.dropout),
            nn.Linear(hidden, hidden),
            nn.GELU(),
            nn.Dropout(config.dropout),
            nn.Linear(hidden, width),
        ]
        if config.head == "regress":
            self.map = nn.Linear(len(MAPPED) * width, dim, bias=False)
        else:
            self.log_scale = mx.zeros((1,))
            self.push_strength, self.push_threshold = mx.full((1,), -1.0), mx.zeros((1,))
            self.push_metric = mx.zeros((dim,))
        self._kernels = mx.array(age_kernels()[:, ::-1].copy())  # oldest first, as contexts are

    @property
    def purpose(self) -> str:  # type: ignore[override]
        return "cosine" if self.config.head == "regress" else "centred.mrr"

    def __call__(self, context: mx.array) -> Prediction:
        self.check_context(context)
        length = context.shape[1]
        present = (mx.abs(context).max(axis=-1) != 0).astype(context.dtype)
        z = (context - self.mean) * present[..., None]
        kernels = self._kernels[:, -length:].astype(context.dtype)
        mixtures = self.basis((kernels @ z) / mx.maximum(present @ kernels.T, 1e-6)[..., None])
        baseline, residual, trust = self.parts(mixtures, present.sum(axis=-1))
        basis = self.basis.weight
        if self.config.head == "regress":
            baseline, residual = self.mean + baseline @ basis, residual @ basis
        else:
            scale = mx.exp(self.log_scale)
            baseline, residual = scale * baseline, scale * residual
            old = present * (mx.arange(length) < length - SPARED)
            weights = self.push_weights(z, (baseline + residual) @ basis, old)
            push = trust * ((weights[:, None, :] @ z).squeeze(1) @ basis.T) * mx.exp(self.push_metric)
            baseline, residual = baseline @ basis, (residual - push) @ basis
        raw = baseline + residual
        return Prediction(raw, normalize(raw), None, baseline, residual)

    def parts(self, mixtures: mx.array, count: mx.array) -> tuple[mx.array, mx.array, mx.array]:
        """(t a + (1 - t) a', t r, t) of mixtures [..., 12, dim] and the number of chunks read [...], all in the basis."""
        trust = self.trust(mixtures)
        elsewhere = (self.shift_filter * mixtures).sum(axis=-2)
        return trust * self.anchor(mixtures) + (1 - trust) * elsewhere, trust * self.correction(mixtures, count), trust

    def trust(self, mixtures: mx.array) -> mx.array:
        """t: [..., 12, dim] -> [..., 1]."""
        novelty = (mx.square(mixtures[..., ALL, :]) * mx.exp(self.log_novelty)).sum(axis=-1, keepdims=True)
        return mx.sigmoid(self.trust_slope * (self.trust_limit - mx.log(novelty + 1e-6)))

    def anchor(self, mixtures: mx.array) -> mx.array:
        """a: mixtures [..., 12, dim] -> [..., dim], both in the basis."""
        filtered = (self.filter * mixtures).sum(axis=-2)
        if self.config.head == "retrieve":
            return filtered
        return filtered + self.map(mx.concatenate([mixtures[..., k, : self.config.width] for k in MAPPED], axis=-1))

    def correction(self, mixtures: mx.array, count: mx.array) -> mx.array:
        """r: mixtures [..., 12, dim] and the number of chunks read [...] -> [..., dim], zero past the first `rank` directions."""
        parts = [mixtures[..., k, : self.config.width] for k in SEEN]
        lengths = [mx.exp(-count / scale)[..., None] for scale in LENGTH_SCALES]
        x = mx.concatenate([mx.concatenate(parts, axis=-1) * self.input_gain, *lengths], axis=-1)
        for layer in self.net:
            x = layer(x)
        beyond = self.config.dim - self.config.width
        return mx.pad(x * self.output_gain, [(0, 0)] * (x.ndim - 1) + [(0, beyond)])

    def push_weights(self, z: mx.array, query: mx.array, old: mx.array) -> mx.array:
        """How far each chunk is pushed out: z [batch, length, dim], query [batch, dim], old [batch, length] 0 or 1 -> like `old`."""
        scores = (z @ query[:, :, None]).squeeze(-1)
        return mx.exp(self.push_strength) * nn.softplus(scores - self.push_threshold) * old

    def start_at_baseline(self) -> None:
        """The network's last layer becomes zero: the model begins as its anchor."""
        last = self.net[-1]
        last.weight, last.bias = mx.zeros_like(last.weight), mx.zeros_like(last.bias)
