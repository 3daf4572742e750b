"""Torch twin of the recency-anchored mixture network, window by window and chunk by chunk as the formulas
read.

mixture_k = B sum_i k(age_i) z_i / sum_i k(age_i);  t = sigmoid(slope (limit - log sum v mixture_all^2))
anchor = t (sum_k w_k * mixture_k + W [...]) + (1 - t) sum_k w'_k * mixture_k;  correction = t net([...])
where there is a query: w and w' are u and u', and mixture_13 = B (query - m);  further horizons: another w,
w', u, u', W, last layer regress: m + B^T (anchor + correction)
retrieve: q = s (sum_k w_k * mixture_k + net([...]))
          h = q - v * B sum_i b softplus(<q, B z_i> - c) z_i
          d B^T (t h/|h| + (1 - t) a'/|a'|) + e b, a' = sum_k w'_k * mixture_k, b the last chunk or emn-rank's
          direction
"""

from __future__ import annotations

from typing import Any, ClassVar, NamedTuple

import torch
from torch import Tensor, nn
from torch.nn import functional

from mlx_lvm.parity.twins.base import Prediction, Twin, is_chunk, normalize
from mlx_lvm.parity.twins.emn import EMN

LAGS, DECAYS = 8, (0.5, 0.8, 0.93)
# 0-7: lags 1-8; 8-10: averages, fastest first; 11: mean of everything read
MAPPED, SEEN = (0, 10, 11), (0, 1, 8, 10, 11)


class Read(NamedTuple):
    """z [batch, length, dim], present [batch, length], mixtures [batch, 12, dim], trust [batch, 1], hidden
    [batch, hidden].

    queried: (whether there is a query [batch, 1], the mixtures and it [batch, 13, dim]), None for a model
    without.
    """

    z: Tensor
    present: Tensor
    mixtures: Tensor
    queried: tuple[Tensor, Tensor] | None
    trust: Tensor
    hidden: Tensor


class Horizon(nn.Module):
    """The parameters of a horizon after the first."""

    def __init__(self, config: Any, mixtures: int, width: int) -> None:
        super().__init__()
        self.filter = nn.Parameter(torch.zeros(mixtures, config.dim))
        self.shift_filter = nn.Parameter(torch.zeros(mixtures, config.dim))
        if config.queries:
            self.query_filter = nn.Parameter(torch.zeros(mixtures + 1, config.dim))
            self.query_shift_filter = nn.Parameter(torch.zeros(mixtures + 1, config.dim))
        self.map = nn.Linear(len(MAPPED) * width, config.dim, bias=False)
        self.output = nn.Linear(config.hidden_dim, width)


def filtered(weights: Tensor, mixtures: Tensor) -> Tensor:
    """[batch, dim]: sum_k w_k * mixture_k."""
    return torch.einsum("kd,bkd->bd", weights, mixtures)


class RAMN(Twin):
    """Scores against what was read are taken in the basis, where MLX takes them in the embedding space."""

    model_type: ClassVar[str] = "ramn"
    defaults: ClassVar = {
        "dim": 768,
        "head": "regress",
        "rank": 192,
        "hidden_dim": 768,
        "input_dropout": 0.4,
        "dropout": 0.6,
        "horizons": 1,
        "queries": 0.0,
        "fallback": "last",
    }

    def __init__(self, config: Any = None) -> None:
        super().__init__(config)
        dim, hidden = self.config.dim, self.config.hidden_dim
        width, mixtures = min(self.config.rank, dim), LAGS + len(DECAYS) + 1
        self.width = width  # directions that the network reads and corrects
        seen = len(SEEN) + (1 if self.config.queries else 0)
        self.mean = nn.Parameter(torch.zeros(dim))
        self.basis = nn.Linear(dim, dim, bias=False)
        self.filter = nn.Parameter(torch.zeros(mixtures, dim))
        self.shift_filter = nn.Parameter(torch.zeros(mixtures, dim))
        if self.config.queries:
            self.query_filter = nn.Parameter(torch.zeros(mixtures + 1, dim))
            self.query_shift_filter = nn.Parameter(torch.zeros(mixtures + 1, dim))
        self.log_novelty = nn.Parameter(torch.zeros(dim))
        self.trust_limit = nn.Parameter(torch.zeros(1))
        self.trust_slope = nn.Parameter(torch.zeros(1))
        self.input_gain = nn.Parameter(torch.ones(seen * width))
        self.output_gain = nn.Parameter(torch.ones(width))
        self.net = nn.Sequential(
            nn.Dropout(self.config.input_dropout),
            nn.Linear(seen * width + 2, hidden),
            nn.GELU(),
            nn.Dropout(self.config.dropout),
            nn.Linear(hidden, hidden),
            nn.GELU(),
            nn.Dropout(self.config.dropout),
            nn.Linear(hidden, width),
        )
        if self.config.head == "regress":
            self.map = nn.Linear(len(MAPPED) * width, dim, bias=False)
        else:
            self.log_scale = nn.Parameter(torch.zeros(1))
            self.push_strength = nn.Parameter(torch.zeros(1))
            self.push_threshold = nn.Parameter(torch.zeros(1))
            self.push_metric = nn.Parameter(torch.zeros(dim))
            self.blend = nn.Parameter(torch.zeros(2))
            if self.config.fallback == "emn":
                self.emn = EMN({"dim": dim, "head": "rank", "expert": "no", "dropout": 0.0})
        if self.config.horizons > 1:
            further = range(self.config.horizons - 1)
            self.ahead = nn.ModuleList(Horizon(self.config, mixtures, width) for _ in further)

    @property
    def takes_queries(self) -> bool:
        return bool(self.config.queries)

    def forward(self, context: Tensor, query: Tensor | None = None) -> Prediction:
        read = self.read(context, query)
        if self.config.head == "regress":
            anchor, correction = self.moved(self, self.net[-1], read)
            baseline, residual = self.mean + anchor @ self.basis.weight, correction @ self.basis.weight
            raw = baseline + residual
        else:
            here, elsewhere, query = self.ranking_query(read)
            beside = self.emn(context).raw if self.config.fallback == "emn" else context[:, -1]
            raw, baseline = (self.blended(x, elsewhere, read.trust, beside) for x in (query, here))
            turned = normalize(query, dim=-1) - normalize(here, dim=-1)
            residual = self.blend[0] * read.trust * (turned @ self.basis.weight)
        ahead = None
        if self.config.horizons > 1:
            further: Any = self.ahead
            later = [torch.add(*self.moved(own, own.output, read)) for own in further]
            ahead = torch.stack([raw, *(self.mean + moved @ self.basis.weight for moved in later)], dim=1)
        return Prediction(raw, normalize(raw, dim=-1), None, baseline, residual, ahead)

    def read(self, context: Tensor, query: Tensor | None) -> Read:
        """What both heads see of a context and a query."""
        present = is_chunk(context)
        z = torch.where(present[..., None], context - self.mean, (context - self.mean) * 0)
        mixtures = self.basis(self.mixtures(z, present))
        seen = mixtures[:, list(SEEN), : self.width].flatten(1)
        queried = None
        if self.config.queries:
            query = torch.zeros_like(context[:, 0]) if query is None else query
            there = is_chunk(query)[:, None]
            turned = self.basis(torch.where(there, query - self.mean, (query - self.mean) * 0))
            seen = torch.cat([seen, turned[:, : self.width]], dim=1)
            queried = (there, torch.cat([mixtures, turned[:, None]], dim=1))
        novelty = (mixtures[:, 11].square() * torch.exp(self.log_novelty)).sum(dim=1, keepdim=True)
        trust = 1 / (1 + torch.exp(-self.trust_slope * (self.trust_limit - torch.log(novelty + 1e-6))))
        count = present.sum(dim=1, keepdim=True).to(context.dtype)
        lengths = [torch.exp(-count / 6), torch.exp(-count / 30)]
        hidden = self.net[:-1](torch.cat([seen * self.input_gain, *lengths], dim=1))
        return Read(z, present, mixtures, queried, trust, hidden)

    def moved(self, own: Any, last: nn.Module, read: Read) -> tuple[Tensor, Tensor]:
        """Head regress, one horizon, in the basis: (anchor, correction), both less the mean."""
        anchor = self.anchor(own, read.mixtures, read.queried, read.trust)
        return anchor, self.correction(last(read.hidden), read.trust)

    def ranking_query(self, read: Read) -> tuple[Tensor, Tensor, Tensor]:
        """Head retrieve, in the basis: (a, a', h) of the formulas above, of a document that is trusted."""
        one = torch.ones_like(read.trust)
        here = self.anchor(self, read.mixtures, None, one)
        elsewhere = self.anchor(self, read.mixtures, None, 0 * one)
        query = torch.exp(self.log_scale) * (here + self.correction(self.net[-1](read.hidden), one))
        rotated = read.z @ self.basis.weight.T
        scores = torch.einsum("bd,bld->bl", query, rotated) - self.push_threshold
        age = torch.arange(rotated.shape[1], 0, -1, device=rotated.device)
        strength = torch.exp(self.push_strength) * torch.logaddexp(scores, torch.zeros_like(scores))
        strength = strength * (read.present & (age > 5)).to(rotated.dtype)
        push = torch.einsum("bl,bld->bd", strength, rotated) * torch.exp(self.push_metric)
        return here, elsewhere, query - push

    def blended(self, here: Tensor, elsewhere: Tensor, trust: Tensor, beside: Tensor) -> Tensor:
        """What ranks: a unit vector for here, one for elsewhere, and what is beside them as it is."""
        moved = trust * normalize(here, dim=-1) + (1 - trust) * normalize(elsewhere, dim=-1)
        return self.blend[0] * (moved @ self.basis.weight) + self.blend[1] * beside

    def anchor(
        self, own: Any, mixtures: Tensor, queried: tuple[Tensor, Tensor] | None, trust: Tensor
    ) -> Tensor:
        """t (filter + map) + (1 - t) filter, all of the horizon whose parameters `own` has."""
        here, elsewhere = filtered(own.filter, mixtures), filtered(own.shift_filter, mixtures)
        if queried is not None:
            there, thirteen = queried
            here = torch.where(there, filtered(own.query_filter, thirteen), here)
            elsewhere = torch.where(there, filtered(own.query_shift_filter, thirteen), elsewhere)
        if self.config.head == "regress":
            here = here + own.map(mixtures[:, list(MAPPED), : self.width].flatten(1))
        return trust * here + (1 - trust) * elsewhere

    def correction(self, moved: Tensor, trust: Tensor) -> Tensor:
        """The network's output in all directions: zero past the first `rank`."""
        moved = moved * self.output_gain
        return trust * functional.pad(moved, (0, self.config.dim - self.width))

    def mixtures(self, z: Tensor, present: Tensor) -> Tensor:
        """[batch, 12, dim]: weighted means of the chunks that are there; zero where none has any weight."""
        ages = range(z.shape[1], 0, -1)
        weights = [[float(age == lag) for age in ages] for lag in range(1, LAGS + 1)]
        weights += [[decay ** (age - 1) for age in ages] for decay in DECAYS] + [[1.0 for _ in ages]]
        by_age = torch.tensor(weights, dtype=z.dtype, device=z.device)
        own = torch.einsum("kl,bl->bkl", by_age, present.to(z.dtype))
        return torch.einsum("bkl,bld->bkd", own, z) / own.sum(dim=2, keepdim=True).clamp(min=1e-6)
