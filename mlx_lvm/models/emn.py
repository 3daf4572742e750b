"""Equivariant mixture network (EMN): weighs what was read by its geometry, never by its coordinates.

z_i = x_i - m                                        every chunk read, less the mean of the corpus
rows r_a: z of the last 16 chunks, 3 averages that forget (decays 0.5, 0.8, 0.93), the mean c of all, m,
          and an expert's prediction less m where there is one
features: the cosines among the rows, their lengths relative to that of the chunks, how much was read

head predict:  raw = sum_a (f_a + b_a + d_a) r_a     the next chunk; f the lag filter that fits the corpus,
               d from the features
head rank:     raw = (e^t / s) (sum_a (b_a + d_a) r_a + W sum_a (b'_a + d'_a) r_a)
               a direction that ranks the next chunk first; s the length of the chunks, W = C^-1/2 the
               corpus's own covariance at unit scale

So f(Q x; Q m) = Q f(x; m) for every orthogonal Q, and f(s x; s m) = s f(x; m) for head predict: no parameter
of the network depends on the width, the encoder or the unit of length, and one file serves them all. What it
needs of a corpus (m, f, W) is no weight but a statistic, computed in one pass; with `dim` 0 a file holds
none, and `training.emn.bind.bind` adds those of the corpus at hand.

The expert is linear and solved by least squares, see `training.emn.experts`: a filter for every principal
direction and a ridge map of the last chunk, the slow average and c.

A row of zeros is no chunk: contexts of several lengths share a batch when zeros fill them up on the left.
"""

from __future__ import annotations

from typing import Any, ClassVar

import numpy as np

from mlx_lvm.config import Range
from mlx_lvm.core.activations import gelu
from mlx_lvm.core.mlx import mx, nn
from mlx_lvm.errors import UsageError
from mlx_lvm.models.base import Prediction, Products, VectorModel, is_chunk, normalize
from mlx_lvm.models.emn_config import EMNConfig
from mlx_lvm.models.emn_geometry import (
    CENTRE,
    EXPERT,
    MEAN,
    PAIRED,
    REFERENCES,
    ROWS,
    TOKENS,
    invariants,
    kernels,
    pair_places,
    products_of,
    widened,
)
from mlx_lvm.models.layers import Linear

MIXED = (*range(8), *range(TOKENS, CENTRE + 1))  # rows that the expert filters
# of these the first and the last two, which its map reads: last chunk, slow average, mean of all
MAPPED = (0, 10, 11)
KIND = 6  # numbers that tell the network which row it looks at
STEP = 0.1  # size of a correction relative to what the network's last layer says
STEEP = 0.3  # an untrained direction: the last chunks, each 0.3 of the one after it
# log of an untrained direction's length relative to that of the chunks: the softmax over candidates is a
# probability
SHARPNESS = 2.7


class Expert(nn.Module):
    """A linear prediction from the rows, less m: in the corpus's principal directions, a filter for each and
    a map of three rows.
    """

    def __init__(self, config: EMNConfig) -> None:
        super().__init__()
        self.width = config.width
        self.basis = Linear(config.dim, config.dim, bias=False)
        self.basis.weight = mx.eye(config.dim)
        self.filter = mx.zeros((len(MIXED), config.dim))
        self.map = Linear(len(MAPPED) * config.width, config.dim, bias=False)

    def __call__(self, rows: mx.array) -> mx.array:
        """rows [..., 20, dim] -> [..., dim]."""
        mixed = self.turned(mx.concatenate([rows[..., :8, :], rows[..., TOKENS:, :]], axis=-2))
        cut = mixed[..., : self.width]
        read = mx.concatenate([cut[..., :1, :], cut[..., MAPPED[1] :, :]], axis=-2).flatten(-2)
        return ((self.filter * mixed).sum(axis=-2) + self.map(read)) @ self.basis.weight

    def turned(self, rows: mx.array) -> mx.array:
        """rows [..., 12, dim] in the basis. Of one window as (B r^T)^T, half of the time of r B^T on a CPU,
        whose BLAS would lay out all of B anew for twelve rows.
        """
        if rows.size > len(MIXED) * rows.shape[-1]:
            return self.basis(rows)
        return (self.basis.weight @ rows.swapaxes(-1, -2)).swapaxes(-1, -2)


class EMN(VectorModel):
    """Context [batch, length, dim] -> Prediction; head predict with baseline (what the lag filter says) and
    residual.

    14,389 parameters (predict) or 15,594 (rank) at the default sizes, and the statistics of a corpus. Torch
    twin: `mlx_lvm.parity.twins.emn.EMN`.
    """

    config_class = EMNConfig
    title = "Equivariant mixture network"
    task = "geometry"
    recipes: ClassVar = {
        "emn": {
            "epochs": 6,
            "batch_size": 128,
            "lr": 6e-3,
            "weight_decay": 0.01,
            "clip": 5.0,
            "early_stop": 0,
        },
        "emn-rank": {
            "epochs": 8,
            "batch_size": 16,
            "lr": 5e-3,
            "weight_decay": 0.01,
            "clip": 5.0,
            "early_stop": 0,
        },
    }
    # Networks for every encoder: what they learned elsewhere holds on the next corpus too.
    released: ClassVar = {"emn": "emn", "emn-rank": "emn-rank"}
    # Its losses follow from its head; its start and schedule are its own.
    unused_options = (
        "loss_mse",
        "loss_cosine",
        "loss_infonce",
        "loss_moment",
        "loss_variance",
        "temperature",
        "residual_init",
        "precision",
        "plateau_factor",
        "plateau_patience",
    )
    search: ClassVar = {"dropout": Range(0.0, 0.5), "hidden_dim": Range(choices=(24, 48, 96))}
    small: ClassVar = {"dim": 48, "expert": "yes", "rank": 20, "hidden_dim": 16}

    config: EMNConfig

    def __init__(self, config: EMNConfig) -> None:
        super().__init__(config)
        hidden, outputs = config.hidden_dim, 1 if config.head == "predict" else 2
        paired = len(PAIRED)
        self.kind = mx.random.normal((ROWS, KIND), scale=0.5)
        self.every_in = Linear(paired * (paired - 1) // 2 + paired + 3, hidden)
        self.every_hidden = Linear(hidden, hidden)
        self.every_out = Linear(hidden, ROWS * outputs)
        self.each_in = Linear(len(REFERENCES) + 2 + KIND, hidden, bias=False)
        self.each_every = Linear(hidden, hidden)
        self.each_hidden = Linear(hidden, hidden)
        self.each_out = Linear(hidden, outputs)
        self.dropout = nn.Dropout(config.dropout)
        self.base = mx.zeros((outputs, ROWS))
        if config.head == "rank":
            steep = np.zeros((2, ROWS), np.float32)
            steep[:, :TOKENS] = [[0.5], [1.0]] * STEEP ** np.arange(TOKENS)
            self.base = mx.array(steep)
            self.log_scale = mx.full((1,), SHARPNESS)
        if config.dim:
            self.mean = mx.zeros((config.dim,))
            if config.head == "predict":
                self.filter = mx.array(np.eye(1, ROWS, MEAN, dtype=np.float32)[0])
            else:
                self.whiten = mx.eye(config.dim)
            if config.has_expert:
                self.expert = Expert(config)
        self._kernels = mx.array(kernels()[:, ::-1].copy())  # oldest first, as contexts are

    def __call__(self, context: mx.array) -> Prediction:
        self.check_context(context)
        dtype, context = context.dtype, widened(context)
        present = is_chunk(context).astype(context.dtype)
        # A mean for each window, so that its gradient adds up a window's chunks before windows.
        mean = mx.broadcast_to(self.mean, (context.shape[0], 1, context.shape[2]))
        rows = self.rows((context - mean) * present[..., None], present, mean)
        tokens, count = present[:, -TOKENS:].sum(axis=-1), present.sum(axis=-1)
        gram, relative = products_of(rows)
        corrections, scale = self.corrections(gram, tokens, count)
        if self.config.head == "rank":
            towards = self.towards(relative, corrections, self.whiten)
            raw = towards * self.length(scale)
            return Prediction(raw.astype(dtype), normalize(towards).astype(dtype))
        baseline = ((self.filter + self.base[0]) @ rows).astype(dtype)
        residual = (corrections @ rows).squeeze(1).astype(dtype)
        raw = baseline + residual
        return Prediction(raw, normalize(raw), None, baseline, residual)

    def check_context(self, context: mx.array) -> None:
        """Raises UsageError for a model with no corpus's statistics, and where `context` is not [batch,
        1..100, dim].
        """
        if not self.config.dim:
            raise UsageError(
                f"{self.config.variant}: serves any encoder, so it holds no corpus's mean. Give it the "
                "corpus that the chunks come from: --corpus FILE, or "
                "`mlx_lvm.training.emn.bind.bind(model, corpus)` in Python"
            )
        super().check_context(context)

    def adopt(self, start: VectorModel) -> None:
        """Take over the network of another EMN, of whatever corpus; statistics and expert stay."""
        if not isinstance(start, EMN) or (start.config.head, start.config.hidden_dim) != (
            self.config.head,
            self.config.hidden_dim,
        ):
            found, wanted = (
                f"{c.variant} of hidden_dim {getattr(c, 'hidden_dim', None)}"
                for c in (start.config, self.config)
            )
            raise UsageError(f"a {wanted} cannot begin with the weights of a {found}")
        mine, given = self.weights(), start.weights()
        network = EMN(self.config.replace(dim=0, expert="no")).weights()
        self.load_weights(list({**mine, **{name: given[name] + 0 for name in network}}.items()))

    def serving(self, contexts: mx.array) -> EMN:
        """Itself, or with no corpus's statistics a copy whose corpus is these contexts alone: their mean,
        nothing fitted.
        """
        if self.config.dim:
            return self
        out = EMN(self.config.replace(dim=contexts.shape[-1]))
        out.load_weights(list({**out.weights(), **self.weights()}.items()))
        out.mean = contexts.astype(mx.float32).mean(axis=(0, 1))
        out.eval()
        return out

    def rows(self, z: mx.array, present: mx.array, mean: mx.array) -> mx.array:
        """r [batch, 22, dim] of centred chunks z [batch, length, dim], which of them are there, and m [batch,
        1, dim].
        """
        weights = self._kernels[:, -z.shape[1] :].astype(z.dtype)
        read = (weights @ z) / mx.maximum(present @ weights.T, 1e-6)[..., None]
        return self.complete(read, mean)

    def complete(self, read: mx.array, mean: mx.array) -> mx.array:
        """The 20 rows that are read [..., 20, dim], and m [..., 1, dim], as all 22."""
        expert = self.expert(read)[..., None, :] if self.config.has_expert else mx.zeros_like(mean)
        return mx.concatenate([read, mean, expert], axis=-2)

    def corrections(self, gram: mx.array, tokens: mx.array, count: mx.array) -> tuple[mx.array, mx.array]:
        """(d, d' [..., outputs, 22], length of the chunks [..., 1]) of what `invariants` takes."""
        each, every, scale = invariants(gram, tokens, count)
        each, every = each.astype(self.kind.dtype), every.astype(self.kind.dtype)
        together = gelu(self.every_in(every))
        together = gelu(self.every_hidden(self.dropout(together)))
        kinds = mx.broadcast_to(self.kind, (*each.shape[:-1], KIND))
        one = self.each_in(mx.concatenate([each, kinds], axis=-1)) + self.each_every(together)[..., None, :]
        one = gelu(self.each_hidden(self.dropout(gelu(one))))
        of_all = mx.unflatten(self.every_out(together), -1, (-1, ROWS))
        return STEP * (self.each_out(one).swapaxes(-1, -2) + of_all), scale

    def direction(self, rows: mx.array, corrections: mx.array, scale: mx.array, whiten: mx.array) -> mx.array:
        """Head rank: rows [..., 22, dim], corrections [..., 2, 22], scale [..., 1], whiten [dim, dim] ->
        [..., dim].

        The unit of rows and scale cancels. In the chunks' own, the gradient of 1 / scale would overflow where
        they are small.
        """
        return self.towards(rows, corrections, whiten) * self.length(scale)

    def towards(self, rows: mx.array, corrections: mx.array, whiten: mx.array) -> mx.array:
        """The direction before it has its length, [..., dim]."""
        plain, white = mx.split((self.base + corrections) @ rows, 2, axis=-2)
        return plain.squeeze(-2) + white.squeeze(-2) @ whiten.T

    def length(self, scale: mx.array) -> mx.array:
        """What a direction is multiplied by, [..., 1]. No unit vector depends on it."""
        return mx.exp(self.log_scale) / scale

    def start_at_baseline(self) -> None:
        """The last layers become zero: head predict begins as the lag filter. So do the weights that read an
        expert, so that a network trained without one can be given one.
        """
        for last in (self.every_out, self.each_out):
            last.weight, last.bias = mx.zeros_like(last.weight), mx.zeros_like(last.bias)
        every, each = (
            np.ones(self.every_in.weight.shape[1], np.float32),
            np.ones(self.each_in.weight.shape[1], np.float32),
        )
        pairs = pair_places()
        every[: len(pairs)] = pairs % ROWS != EXPERT
        every[len(pairs) + len(PAIRED) - 1] = each[len(REFERENCES) - 1] = 0
        self.every_in.weight = self.every_in.weight * mx.array(every)
        self.each_in.weight = self.each_in.weight * mx.array(each)

    @classmethod
    def products(cls, config: Any, context: int) -> Products:
        """Rows and their inner products need no gradient. Raises ValueError for a model with an expert."""
        if config.expert == "yes":
            return super().products(config, context)
        d, h, outputs = config.dim, config.hidden_dim, 1 if config.head == "predict" else 2
        together, each = 108, 12 + KIND  # features; see `invariants`
        mixing, pairs = (ROWS - 2) * context * d, ROWS * ROWS * d
        network = together * h + h * h + h * ROWS * outputs
        network += ROWS * (each * h + h * h + h * outputs) + h * h
        # Filter and corrections, or two directions.
        out = 2 * ROWS * d + (d * d if config.head == "rank" else 0)
        return Products(mixing + pairs + network + out, 2 * mixing + 2 * pairs + together * h)
