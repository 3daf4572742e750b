"""Recency-anchored mixture network (RAMN): a linear predictor, and what a network adds to it.

z_i = x_i - m                                   every chunk read, less the mean of the training targets
f_k = B (sum_i k(age_i) z_i / sum_i k(age_i))   12 mixtures by age, in the basis B of the targets' principal
                                                directions: the last 8 chunks, 3 exponential averages, mean
a   = sum_k w_k * f_k                           the anchor: a filter of its own for every direction
r   = net([f_1, f_2, f_fast, f_slow, f_all])    the correction, in the first `rank` directions

t   = sigmoid(slope (limit - log sum_i v_i f_all,i^2))
      trust: near 1 where the document's mean lies as the training documents' do, v their inverse variances;
      near 0 in another domain

head regress:   raw = m + B^T (t (a + W [f_1, f_slow, f_all] + r) + (1 - t) a')
                the next chunk itself. W is a linear map, a' an anchor whose filters sum to 1, so that it
                needs no m. Before training it is what `training.ramn.anchor` fits
head retrieve:  q = s (a + r),  h = q - v * B sum_i b softplus(<q, B z_i> - c) z_i  over all but the last 5
                raw = B^T (d (t h/|h| + (1 - t) a'/|a'|)) + e b
                a direction that ranks the next chunk first. Not a likely chunk: rare directions count for
                more in h, and what was read long ago is pushed out of the ranking. a' is a steep mixture
                less 0.3 f_all. b is the last chunk, or what `emn-rank` says (`fallback`). The blend d, e is
                fitted on documents that trained nothing, where the network proves less right than it is
                where it was trained, down to b alone; |raw| is what makes the softmax over candidates a
                probability. h and a' are mixed as unit vectors: far from home h is long, and a trust of 0.05
                would let it decide

horizons H:     head regress once more for each of the H - 1 chunks after the next, with w, W, w' and the
                network's last layer of its own
queries:        where a query vector is given, w and w' are others, over 13 mixtures: the last is B (query -
                m); the network reads it too. A query of zeros is none

A row of zeros (`is_chunk`) is no chunk: contexts of several lengths share a batch when zeros fill them up on
the left.
"""

from __future__ import annotations

import math
from typing import Any, ClassVar

from mlx_lvm.config import Range
from mlx_lvm.core.activations import GELU
from mlx_lvm.core.mlx import mx, nn
from mlx_lvm.errors import UsageError
from mlx_lvm.models.base import (
    WIDTHS,
    WINDOW_OPTIONS,
    Prediction,
    Products,
    VectorModel,
    is_chunk,
    normalize,
    row_sum,
)
from mlx_lvm.models.emn import EMN
from mlx_lvm.models.emn_config import EMNConfig
from mlx_lvm.models.layers import Linear
from mlx_lvm.models.ramn_config import RAMNConfig
from mlx_lvm.models.ramn_filters import (
    ALL,
    MAPPED,
    MIXTURES,
    SEEN,
    HorizonHead,
    add_filters,
    age_kernels,
    mixed,
)

LENGTH_SCALES = (6.0, 30.0)  # chunks; the network knows the number read as exp(-n / scale)
RECENT_KEPT = 5  # last chunks that are never pushed out


class RAMN(VectorModel):
    """Context [batch, length, dim] and, with `queries`, a query [batch, dim] -> Prediction with baseline (the
    anchor's part) and residual, and with `horizons` above 1 `ahead` [batch, horizons, dim].

    2,531,138 (regress) or 2,089,543 (retrieve) parameters at the default sizes, with fallback emn those of
    `emn-rank` besides. Torch twin: `mlx_lvm.parity.twins.ramn.RAMN`.
    """

    config_class = RAMNConfig
    title = "Recency-anchored mixture network"
    task = "documents"
    # Batches are segments of 32 targets, and the learning rate falls to zero at the last epoch.
    recipes: ClassVar = {
        "ramn": {"epochs": 3, "lr": 2e-4, "weight_decay": 0.1, "clip": 5.0, "early_stop": 0},
        "ramn-retrieve": {
            "epochs": 12,
            "batch_size": 24,
            "lr": 5e-4,
            "weight_decay": 0.1,
            "clip": 5.0,
            "early_stop": 0,
            "fallback": "emn",
        },
    }
    unused_options = WINDOW_OPTIONS
    search: ClassVar = {"dropout": Range(0.0, 0.5), "hidden_dim": WIDTHS}
    small: ClassVar = {"dim": 48, "head": "retrieve", "rank": 20, "hidden_dim": 32, "fallback": "emn"}

    config: RAMNConfig

    def __init__(self, config: RAMNConfig) -> None:
        super().__init__(config)
        dim, width, hidden = config.dim, config.width, config.hidden_dim
        seen = len(SEEN) + bool(config.queries)
        self.mean = mx.zeros((dim,))
        self.basis = Linear(dim, dim, bias=False)
        self.basis.weight = mx.eye(dim)
        self.log_novelty = mx.full((dim,), -math.log(dim))
        self.trust_limit, self.trust_slope = mx.full((1,), 2.0), mx.ones((1,))
        self.input_gain = mx.ones((seen * width,))
        self.output_gain = mx.ones((width,))
        self.net = [
            nn.Dropout(config.input_dropout),
            Linear(seen * width + len(LENGTH_SCALES), hidden),
            GELU(),
            nn.Dropout(config.dropout),
            Linear(hidden, hidden),
            GELU(),
            nn.Dropout(config.dropout),
            Linear(hidden, width),
        ]
        add_filters(self, config)
        if config.horizons > 1:
            self.ahead = [HorizonHead(config) for _ in range(config.horizons - 1)]
        if config.head == "retrieve":
            self.log_scale = mx.zeros((1,))
            self.push_strength, self.push_threshold = mx.full((1,), -1.0), mx.zeros((1,))
            self.push_metric = mx.zeros((dim,))
            self.blend = mx.array([1.0, 0.0])
        if config.fallback == "emn":
            self.emn = EMN(EMNConfig(dim=dim, head="rank", expert="no", dropout=0.0))
        self._kernels = mx.array(age_kernels()[:, ::-1].copy())  # oldest first, as contexts are

    @property
    def horizon_heads(self) -> list[Any]:
        """What has the parameters of each horizon: the model itself for the first, then `HorizonHead`s."""
        return [self, *(self.ahead if self.config.horizons > 1 else [])]

    @property
    def last_layers(self) -> list[Linear]:
        """The network's last layer for each horizon."""
        return [self.net[-1], *(one.output for one in self.horizon_heads[1:])]

    def __call__(self, context: mx.array, query: mx.array | None = None) -> Prediction:
        self.check_context(context)
        batch, length, dim = context.shape
        present = is_chunk(context).astype(context.dtype)
        # A mean for each window, so that its gradient adds up a window's chunks before windows: MLX adds in
        # order, and many small numbers after a large one all round the same way.
        z = (context - mx.broadcast_to(self.mean, (batch, 1, dim))) * present[..., None]
        kernels = self._kernels[:, -length:].astype(context.dtype)
        mixtures = self.basis((kernels @ z) / mx.maximum(present @ kernels.T, 1e-6)[..., None])
        parts, trust = self.parts(mixtures, present.sum(axis=-1), self.query_terms(query, context[:, 0]))
        basis = self.basis.weight
        if self.config.head == "regress":
            every = [
                (self.mean + mixed(here, elsewhere, trust) @ basis, (trust * moved) @ basis)
                for here, elsewhere, moved in parts
            ]
            baseline, residual = every[0]
            ahead = mx.stack([anchor + moved for anchor, moved in every], axis=1) if len(every) > 1 else None
            raw = baseline + residual
            return Prediction(raw, normalize(raw), None, baseline, residual, ahead)
        ((here, elsewhere, moved),) = parts
        found = mx.exp(self.log_scale) * (here + moved)
        old = present * (mx.arange(length) < length - RECENT_KEPT)
        pushed = (self.push_weights(z, found @ basis, old)[:, None, :] @ z).squeeze(1)
        left = found - pushed @ basis.T * mx.exp(self.push_metric)
        beside = self.beside(context)
        raw, baseline = (self.blended(one, elsewhere, trust, beside) for one in (left, here))
        # What they differ in, taken before `beside` is added: next to a long one it would be lost.
        residual = (self.blend[0] * trust * (normalize(left) - normalize(here))) @ basis
        return Prediction(raw, normalize(raw), None, baseline, residual)

    def beside(self, context: mx.array) -> mx.array:
        """b [batch, dim], which the direction is blended with: the last chunk, or what emn-rank says."""
        return self.emn(context).raw if self.config.fallback == "emn" else context[:, -1]

    def blended(self, here: mx.array, elsewhere: mx.array, trust: mx.array, beside: mx.array) -> mx.array:
        """d (t h/|h| + (1 - t) a'/|a'|) + e b: h, a' and b [batch, dim], t [batch, 1]."""
        found = mixed(normalize(here), normalize(elsewhere), trust) @ self.basis.weight
        # a product, whose gradient adds up in many sums what MLX would in one
        return self.blend @ mx.stack([found, beside], axis=-2)

    def query_terms(self, query: mx.array | None, like: mx.array) -> tuple[mx.array, mx.array] | None:
        """(whether there is a query [batch, 1], B (query - m) or zero [batch, dim]); None if it takes none.

        like [batch, dim]: shape and dtype. Raises UsageError for a query that the model cannot take.
        """
        if not self.config.queries:
            if query is not None:
                remedy = "train one with --queries 0.5"
                raise UsageError(f"ramn: trained without queries, so it takes none; {remedy}")
            return None
        if query is None:
            query = mx.zeros_like(like)
        if query.shape != like.shape:
            raise UsageError(f"ramn: query of shape {tuple(query.shape)}; expected {list(like.shape)}")
        there = is_chunk(query, keepdims=True)
        return there, self.basis((query - self.mean) * there)

    def parts(
        self, mixtures: mx.array, count: mx.array, queried: tuple[mx.array, mx.array] | None = None
    ) -> tuple[list[tuple[mx.array, mx.array, mx.array]], mx.array]:
        """([(a, a', r) for each horizon], t) of mixtures [..., 12, dim], the number of chunks read [...] and
        what `query_terms` gives; all in the basis.
        """
        trust, hidden, width = self.trust(mixtures), self.hidden(mixtures, count, queried), self.config.width
        beyond = [(0, 0)] * (hidden.ndim - 1) + [(0, self.config.dim - width)]
        out = []
        for own, last in zip(self.horizon_heads, self.last_layers, strict=True):
            here, elsewhere = self.filtered(own, mixtures, queried)
            if self.config.head == "regress":
                here = here + own.map(mx.concatenate([mixtures[..., k, :width] for k in MAPPED], axis=-1))
            out.append((here, elsewhere, mx.pad(last(hidden) * self.output_gain, beyond)))
        return out, trust

    def filtered(
        self, own: Any, mixtures: mx.array, queried: tuple[mx.array, mx.array] | None
    ) -> tuple[mx.array, mx.array]:
        """Both filters of a horizon over mixtures [..., 12, dim]: (a, a') [..., dim], before the map."""
        here, elsewhere = ((one * mixtures).sum(axis=-2) for one in (own.filter, own.shift_filter))
        if queried is None:
            return here, elsewhere
        there, query = queried

        def with_query(one: mx.array) -> mx.array:
            return (one[:-1] * mixtures).sum(axis=-2) + one[-1] * query

        here = mx.where(there, with_query(own.query_filter), here)
        return here, mx.where(there, with_query(own.query_shift_filter), elsewhere)

    def trust(self, mixtures: mx.array) -> mx.array:
        """t: [..., 12, dim] -> [..., 1]."""
        novelty = row_sum(mx.square(mixtures[..., ALL, :]) * mx.exp(self.log_novelty))
        # sigmoid(x), whose gradient MLX takes as t (1 - t): near 1 that keeps no digits.
        return mx.exp(-nn.softplus(self.trust_slope * (mx.log(novelty + 1e-6) - self.trust_limit)))

    def hidden(
        self, mixtures: mx.array, count: mx.array, queried: tuple[mx.array, mx.array] | None = None
    ) -> mx.array:
        """The network before its last layer: mixtures [..., 12, dim], chunks read [...] -> [..., hidden]."""
        read = [mixtures[..., k, :] for k in SEEN] + ([queried[1]] if queried else [])
        parts = [one[..., : self.config.width] for one in read]
        lengths = [mx.exp(-count / scale)[..., None] for scale in LENGTH_SCALES]
        x = mx.concatenate([mx.concatenate(parts, axis=-1) * self.input_gain, *lengths], axis=-1)
        for layer in self.net[:-1]:
            x = layer(x)
        return x

    def push_weights(self, z: mx.array, query: mx.array, old: mx.array) -> mx.array:
        """How far chunks are pushed out: z [batch, length, dim], query [batch, dim], old [batch, length]."""
        scores = (z @ query[:, :, None]).squeeze(-1)
        return mx.exp(self.push_strength) * nn.softplus(scores - self.push_threshold) * old

    def start_at_baseline(self) -> None:
        """The network's last layers become zero: the model begins as its anchor."""
        for last in self.last_layers:
            last.weight, last.bias = mx.zeros_like(last.weight), mx.zeros_like(last.bias)

    @classmethod
    def products(cls, config: Any, context: int) -> Products:
        """Ages and the context need no gradient, nor do mixtures of them."""
        if (config.head, config.horizons, config.queries) != ("regress", 1, 0):
            return super().products(config, context)
        d, h, width = config.dim, config.hidden_dim, min(config.rank, config.dim)
        mixing, rotation = MIXTURES * context * d, MIXTURES * d * d
        network = (len(SEEN) * width + len(LENGTH_SCALES)) * h + h * h + h * width
        total = mixing + rotation + network + len(MAPPED) * width * d + 2 * d * d
        return Products(total, 2 * mixing + rotation)
