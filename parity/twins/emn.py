"""Torch twin of the equivariant mixture network, window by window and row by row as the formulas read.

z_i = x_i - m;  rows: the last 16 z, three decaying averages of z, the mean c of z, m, and an expert's
prediction less m (or zero) d = 0.1 (each_net(cosines with ten rows, length, mean cosine with the 16, kind;
every_net's hidden) + every_net(all pairs, lengths, n)) predict: sum_a (filter_a + base_a + d_a) r_a
rank: e^t / s (sum_a (base_a + d_a) r_a + W sum_a (base'_a + d'_a) r_a),  s the root mean square length of the
16
"""

from __future__ import annotations

from typing import Any, ClassVar

import torch
from torch import Tensor, nn
from torch.nn.functional import gelu

from mlx_lvm.errors import UsageError
from mlx_lvm.parity.twins.base import Prediction, Twin, is_chunk, normalize

TOKENS, DECAYS, KIND = 16, (0.5, 0.8, 0.93), 6
CENTRE, MEAN, EXPERT, ROWS = 19, 20, 21, 22
REFERENCES = [0, 1, 2, 3, 16, 17, 18, 19, 20, 21]
PAIRED = [0, 1, 2, 3, 4, 5, 6, 7, 16, 17, 18, 19, 20, 21]
SMALLEST = 1e-6  # length relative to the largest number below which a row is none


class Expert(nn.Module):
    """p - m = B^T (sum_k f_k * B r_k + M [B r_last, B r_slow, B c], each cut to `width` directions)."""

    def __init__(self, dim: int, width: int) -> None:
        super().__init__()
        self.width = width
        self.basis = nn.Linear(dim, dim, bias=False)
        self.filter = nn.Parameter(torch.zeros(12, dim))
        self.map = nn.Linear(3 * width, dim, bias=False)

    def forward(self, rows: Tensor) -> Tensor:
        chosen = [*range(8), 16, 17, 18, CENTRE]
        turned = self.basis(rows[:, chosen])
        out = (self.filter * turned).sum(dim=1)
        read = torch.cat([turned[:, k, : self.width] for k in (0, 10, 11)], dim=-1)
        return (out + self.map(read)) @ self.basis.weight


class EMN(Twin):
    """Rows of zeros on the left of a context are no chunks."""

    model_type: ClassVar[str] = "emn"
    defaults: ClassVar = {
        "dim": 768,
        "head": "predict",
        "expert": "auto",
        "rank": 192,
        "hidden_dim": 48,
        "dropout": 0.1,
    }

    def __init__(self, config: Any = None) -> None:
        super().__init__(config)
        dim, hidden, ranks = self.config.dim, self.config.hidden_dim, self.config.head == "rank"
        outputs, paired = 2 if ranks else 1, len(PAIRED)
        self.kind = nn.Parameter(torch.zeros(ROWS, KIND))
        self.every_in = nn.Linear(paired * (paired - 1) // 2 + paired + 3, hidden)
        self.every_hidden = nn.Linear(hidden, hidden)
        self.every_out = nn.Linear(hidden, ROWS * outputs)
        self.each_in = nn.Linear(len(REFERENCES) + 2 + KIND, hidden, bias=False)
        self.each_every = nn.Linear(hidden, hidden)
        self.each_hidden = nn.Linear(hidden, hidden)
        self.each_out = nn.Linear(hidden, outputs)
        self.dropout = nn.Dropout(self.config.dropout)
        self.base = nn.Parameter(torch.zeros(outputs, ROWS))
        if ranks:
            self.log_scale = nn.Parameter(torch.zeros(1))
        if dim:
            self.mean = nn.Parameter(torch.zeros(dim))
            if ranks:
                self.whiten = nn.Parameter(torch.eye(dim))
            else:
                self.filter = nn.Parameter(torch.zeros(ROWS))
            if self.config.expert == "yes":
                self.expert = Expert(dim, min(self.config.rank, dim))

    def rows(self, context: Tensor, present: Tensor) -> Tensor:
        """[batch, 22, dim]; present [batch, length] 0 or 1."""
        z = (context - self.mean) * present[..., None]
        length = context.shape[1]
        none = torch.zeros_like(z[:, 0])
        out = [z[:, length - age] if age <= length else none for age in range(1, TOKENS + 1)]
        ages = torch.arange(length, 0, -1, device=context.device).to(context.dtype)
        for decay in (*DECAYS, 1.0):
            weight = decay ** (ages - 1) * present
            out.append((weight[..., None] * z).sum(dim=1) / weight.sum(dim=1, keepdim=True).clamp(min=1e-6))
        read = torch.stack(out, dim=1)
        expert = self.expert(read) if self.config.expert == "yes" else none
        return torch.cat([read, self.mean.expand(len(z), 1, -1), expert[:, None]], dim=1)

    def features(self, rows: Tensor, present: Tensor) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        """Of each row [batch, 22, 12], of all [batch, 108], their largest number and length [batch, 1]."""
        dtype = rows.dtype
        if dtype in (torch.float16, torch.bfloat16):  # where squares have room
            rows, present = rows.float(), present.float()
        largest = rows.abs().amax(dim=(1, 2), keepdim=True).clamp(min=1e-30).detach()
        rows = rows / largest
        square = (rows * rows).sum(dim=-1).clamp(min=SMALLEST**2)
        size = square.sqrt()
        cosine = (rows @ rows.transpose(1, 2)) / (size[:, :, None] * size[:, None, :])
        tokens = present[:, -TOKENS:].sum(dim=1, keepdim=True).clamp(min=1)
        scale = (square[:, :TOKENS].sum(dim=1, keepdim=True) / tokens).sqrt()
        length = torch.where(square > SMALLEST**2, size / (size + scale) - 0.5, torch.zeros_like(size))
        heard = cosine[:, :, :TOKENS].sum(dim=-1) / tokens
        each = torch.cat([cosine[:, :, REFERENCES], length[..., None], heard[..., None]], dim=-1)
        pairs = [cosine[:, a, b] for k, a in enumerate(PAIRED) for b in PAIRED[k + 1 :]]
        n = present.sum(dim=1).clamp(min=1)
        read = [n.log() / 4, (-n / 6).exp(), (-n / 30).exp()]
        every = torch.stack([*pairs, *(length[:, a] for a in PAIRED), *read], dim=-1)
        return each.to(dtype), every.to(dtype), largest[:, 0], scale

    def forward(self, context: Tensor) -> Prediction:
        if not self.config.dim:
            raise UsageError(
                "emn: these weights serve any encoder and hold no corpus's mean; export them for one corpus"
            )
        present = is_chunk(context).to(context.dtype)
        rows = self.rows(context, present)
        each, every, largest, scale = self.features(rows, present)
        together = gelu(self.every_in(every))
        together = gelu(self.every_hidden(self.dropout(together)))
        kinds = self.kind.expand(len(rows), -1, -1)
        one = self.each_in(torch.cat([each, kinds], dim=-1)) + self.each_every(together)[:, None]
        one = gelu(self.each_hidden(self.dropout(gelu(one))))
        outputs = len(self.base)
        alone = self.each_out(one).transpose(1, 2)
        moved = 0.1 * (alone + self.every_out(together).reshape(-1, outputs, ROWS))
        if self.config.head == "rank":
            plain, white = (((self.base[k] + moved[:, k])[..., None] * rows).sum(dim=1) for k in (0, 1))
            # By the largest number first: the gradient of 1 / (scale largest) would overflow where chunks are
            # small.
            relative = (plain + white @ self.whiten.T).to(scale.dtype) / largest
            raw = (relative * (self.log_scale.exp() / scale)).to(rows.dtype)
            return Prediction(raw, normalize(raw, dim=-1))
        baseline = ((self.filter + self.base[0])[:, None] * rows).sum(dim=1)
        residual = (moved[:, 0][..., None] * rows).sum(dim=1)
        raw = baseline + residual
        return Prediction(raw, normalize(raw, dim=-1), None, baseline, residual)
