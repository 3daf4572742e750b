"""K steps of RAMN's own training, on segments of documents, against torch window by window.

Torch reads every target's history on its own, takes both losses as their formulas read, and steps with its
own AdamW in three groups, clipping, schedule and moving average. What is drawn (queries, random negatives) is
drawn alike.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import replace
from functools import partial
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional

from mlx_lvm.core.mlx import mx
from mlx_lvm.data.corpus import Corpus
from mlx_lvm.parity.checks.training import Neighbours, compare_runs, synthetic_corpus
from mlx_lvm.parity.sides import bridge
from mlx_lvm.parity.sides.sides import Subject, twin_outputs
from mlx_lvm.parity.sides.training import Trained, mlx_result, torch_result
from mlx_lvm.parity.verdict import Check, Compared
from mlx_lvm.training.config import TrainConfig
from mlx_lvm.training.ramn.documents import MAX_CONTEXT, TARGETS, Segments, segments
from mlx_lvm.training.ramn.step import DocumentStep, learning_rate

BATCH, PROBE = 3, 16  # segments; windows
# with head retrieve, besides nets
TRAINED = ("filter", "log_scale", "push_strength", "push_threshold", "push_metric")
Q, NEGATIVES, QUERY_REACH, CLOSE = 0.3, 1024, 5, 5


def document_checks(
    head: Compared, subject: Subject, corpus: Corpus, steps: int, seed: int, **options: Any
) -> Iterator[Check]:
    """Every quantity of K steps. `options` are fields of TrainConfig; clipping is set so that it acts."""
    corpus = corpus if corpus.dim == subject.config.dim else synthetic_corpus(subject.config.dim)
    subject = replace(subject, config=subject.config.replace(dropout=0.0, input_dropout=0.0))
    subject = replace(subject, weights=rotation_made_exact(subject.weights))
    config = TrainConfig(seed=seed, weight_decay=0.1, **options)
    parts = segments(corpus, np.arange(len(corpus.names)), config.context)
    draw = np.random.default_rng([seed, 78])
    batches = [draw.choice(parts.targets, min(BATCH, len(parts)), replace=False) for _ in range(steps)]
    truth_run = TorchDocuments(subject, parts, config, "float64", steps)
    truth, config = truth_run.train(batches), truth_run.config

    def run(near: Subject, dtype: str) -> Trained:
        return TorchDocuments(near, parts, config, dtype, steps).train(batches)

    model: Any = subject.model()
    rates = [learning_rate(config, number + 1, steps) for number in range(steps)]
    mine = mlx_result(model, DocumentStep(model, parts, config), batches, rates, probe_of(parts))
    runs = (mine, run(subject, "float32"), truth)
    yield from compare_runs(head, runs, set(), 40 * config.lr * steps, Neighbours(subject, run))


def rotation_made_exact(weights: Any) -> dict[str, mx.array]:
    """The weights with a basis as every training has one: a rotation."""
    basis, _ = np.linalg.qr(np.array(weights["basis.weight"]).astype(np.float64).T)
    return {**weights, "basis.weight": mx.array(basis.T.astype(np.float32))}


class TorchDocuments:
    """One side of the training in torch."""

    def __init__(
        self, subject: Subject, parts: Segments, config: TrainConfig, dtype: str, total: int
    ) -> None:
        self.parts, self.config, self.dtype = parts, config, bridge.TORCH[dtype]
        self.live, self.average = subject.twin("float32", held=dtype), subject.twin("float32", held=dtype)
        shape: Any = subject.config  # RAMN's, the one whose training this is
        self.head, self.dim = shape.head, shape.dim
        rows = parts.corpus.take(mx.array(parts.rows.astype(np.int32)))
        self.chunks = bridge.to_torch(rows).to(self.dtype)
        self.losses: list[float] = []
        groups: dict[str, list[Tensor]] = {"net": [], "filter": [], "rest": []}
        self.trained = {}
        for name, parameter in self.live.named_parameters():
            net = name.startswith("net.") or ".output." in name
            if net or (self.head == "retrieve" and name in TRAINED):
                groups["net" if net else "filter" if name == "filter" else "rest"].append(parameter)
                self.trained[name] = parameter
            else:
                parameter.requires_grad_(False)
        rates = {"net": (1, config.weight_decay), "filter": (2, 0.0), "rest": (40, 0.0)}
        settings = [
            {"params": groups[name], "lr": config.lr * times, "weight_decay": decay}
            for name, (times, decay) in rates.items()
            if groups[name]
        ]
        self.optimizer = torch.optim.AdamW(settings)
        self.schedule = torch.optim.lr_scheduler.LambdaLR(self.optimizer, partial(share_of_rate, total=total))

    def train(self, batches: list[np.ndarray]) -> Trained:
        for number, batch in enumerate(batches):
            self.step(batch, number)
        probe = twin_outputs(self.average, bridge.to_torch(probe_of(self.parts)).to(self.dtype))
        return torch_result(self.trained, self.optimizer, self.losses, probe)

    def step(self, batch: np.ndarray, number: int) -> None:
        mx.random.seed(number)
        self.optimizer.zero_grad()
        loss = (self.retrieve if self.head == "retrieve" else self.regress)(batch)
        loss.backward()
        if number == 0 and self.dtype == torch.float64:
            gradients = [p.grad for p in self.trained.values() if p.grad is not None]
            norm = math.sqrt(sum(float(gradient.square().sum()) for gradient in gradients))
            self.config = self.config.replace(clip=norm / 2)
        torch.nn.utils.clip_grad_norm_(self.trained.values(), self.config.clip)
        self.optimizer.step()
        self.schedule.step()
        self.losses.append(float(loss.detach()))
        keep = min(0.98, (number + 1) / (number + 11))
        with torch.no_grad():
            for mean, new in zip(self.average.parameters(), self.live.parameters(), strict=True):
                mean.copy_(keep * mean + (1 - keep) * new)

    def windows(self, batch: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray, Tensor]:
        """Place in the [batch, 32] grid, row, end of the document and history [n, length, dim], by target."""
        table = self.parts.table(batch)
        every = [
            (k * TARGETS + j, first + j, start, end)
            for k, (first, start, end) in enumerate(table.tolist())
            for j in range(min(TARGETS, end - first))
        ]
        places, rows, starts, ends = np.array(every).T
        lengths = np.minimum(rows - starts, MAX_CONTEXT)
        history = torch.zeros(len(rows), int(lengths.max()), self.dim, dtype=self.dtype)
        for n, (row, length) in enumerate(zip(rows, lengths, strict=True)):
            history[n, -length:] = self.chunks[row - length : row]
        return places, rows, ends, history

    def regress(self, batch: np.ndarray) -> Tensor:
        live: Any = self.live
        places, rows, ends, history = self.windows(batch)
        query, offset = None, np.zeros(len(rows), np.int64)
        if live.config.queries:
            query, offset = self.queries(len(batch), places, rows, ends)
        read = live.read(history, query)
        horizons = [(live, live.net[-1]), *((own, own.output) for own in getattr(live, "ahead", []))]
        mean, out = live.basis(live.mean), []
        for ahead, (own, last) in enumerate(horizons):
            there = (rows + ahead < ends) & ((offset != ahead) if ahead else True)
            kept = torch.tensor(np.flatnonzero(there))
            moved = sum(live.moved(own, last, read))[kept]
            truth = live.basis(self.chunks[torch.tensor(rows[there] + ahead)] - live.mean)
            unit, goal = (functional.normalize(mean + x, dim=-1) for x in (moved, truth))
            cosine = functional.cosine_similarity(unit, goal, dim=-1)
            centred = functional.cosine_similarity(unit - mean, goal - mean, dim=-1)
            squared = (moved - truth).square().sum(dim=-1)
            out.append((1 - cosine + 0.3 * (1 - centred) + 0.5 * squared).mean())
        return torch.stack(out).mean()

    def queries(
        self, count: int, places: np.ndarray, rows: np.ndarray, ends: np.ndarray
    ) -> tuple[Tensor, np.ndarray]:
        """(a query of each target or zeros, how many chunks after it that lies or 0), by MLX's draws."""
        kept, draws = (np.array(mx.random.uniform(shape=(count, TARGETS))).ravel()[places] for _ in range(2))
        left = np.minimum(ends - 1 - rows, QUERY_REACH)
        chosen = 1 + np.floor(draws * np.maximum(left, 1)).astype(np.int64)
        live: Any = self.live
        offset = np.where((left > 0) & (kept < np.float32(live.config.queries)), chosen, 0)
        query = self.chunks[torch.tensor(rows + offset)] * torch.tensor(offset > 0)[:, None]
        return query, offset

    def retrieve(self, batch: np.ndarray) -> Tensor:
        """The mean of (1 - p^q) / q, p the softmax probability of the true chunk among its candidates."""
        live: Any = self.live
        _, rows, _, history = self.windows(batch)
        _, _, query = live.ranking_query(live.read(history, None))
        rotated = live.basis(self.chunks - live.mean)
        drawn = np.array(mx.random.randint(0, len(self.chunks), (NEGATIVES,)))
        firsts = np.sort(batch)
        starts = self.parts.table(firsts)[:, 1]
        out = []
        for n, row in enumerate(rows):
            segment = int(np.searchsorted(firsts, row, side="right")) - 1
            others = np.concatenate([rows, drawn[drawn != row]])
            others = others[(row - others <= 0) | (row - others > CLOSE)]
            # What lies within the segment is among the targets.
            read = np.arange(max(starts[segment], row - MAX_CONTEXT), min(firsts[segment], row - CLOSE))
            scores = rotated[torch.tensor(np.concatenate([others, read]))] @ query[n]
            log_p = rotated[row] @ query[n] - torch.logsumexp(scores, dim=0)
            out.append((1 - torch.exp(Q * log_p)) / Q)
        return torch.stack(out).mean()


def share_of_rate(done: int, total: int) -> float:
    """Of the learning rate, after so many steps: up over 30 steps, down as half a cosine."""
    return min(1.0, (done + 1) / 30) * 0.5 * (1 + math.cos(math.pi * min(done / total, 1.0)))


def probe_of(parts: Segments) -> mx.array:
    """Histories of 5 chunks, evenly spaced."""
    rows = parts.targets[np.linspace(0, len(parts) - 1, PROBE).astype(int)]
    near = parts.rows[rows[:, None] + np.arange(-5, 0)]
    return parts.corpus.take(mx.array(near.astype(np.int32)))
