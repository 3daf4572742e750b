"""Training of RAMN: its anchor in closed form, then a network beside it on all positions of every document.

regress    1 - cosine, plus 0.3 of the same on centred vectors, plus half the squared error; the mean over the horizons
retrieve   (1 - p^0.3) / 0.3, p the softmax probability of the true chunk among the batch's targets and what its document
           read before the 5 chunks that no ranking holds. Between cross entropy (power 0) and 1 - p (power 1): windows that
           no query could solve weigh less than in cross entropy, as they do in a mean reciprocal rank.

The blend of head retrieve is no part of its loss: the network overrates itself where it was trained, so after every epoch the
two weights are fitted on the validation documents, as the likelihood of the true chunk among their chunks. `val_mrr` stays
honest: each half of these documents is ranked with a blend fitted on the other half.

Weights are averaged over the steps (decay 0.98), and it is the average that is validated and saved. The learning rate rises
over 30 steps and falls as a half cosine to zero at the last epoch.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from mlx_lvm.core.mlx import mx, nn, tree_flatten, tree_map, tree_unflatten
from mlx_lvm.data.corpus import Corpus
from mlx_lvm.data.splits import Split
from mlx_lvm.metrics.figures import centred_cosine, mean_cosine
from mlx_lvm.metrics.retrieval import Pool, build_pool, ranks
from mlx_lvm.models import normalize
from mlx_lvm.models.ramn import MAX_CONTEXT, RAMN, SPARED, mixed
from mlx_lvm.predictors.base import document_rows, predict_all, sample
from mlx_lvm.predictors.history import HistoryPredictor
from mlx_lvm.ranking.hybrid import Candidates, fit_logit, offsets_of, products
from mlx_lvm.training.config import TrainConfig
from mlx_lvm.training.distributed import ALONE, Group
from mlx_lvm.training.optimizer import (
    adamw,
    clip_gradients,
    coefficients,
    gradient_norm,
    only_if,
    zero_moments,
)
from mlx_lvm.training.ramn.anchor import fit_anchor, start_at_anchor
from mlx_lvm.training.ramn.documents import (
    Batch,
    causal_kernels,
    centred_rows,
    counts_of,
    mixtures_of,
    old_mask,
    segments,
    take_queries,
    take_segments,
    take_targets,
)
from mlx_lvm.training.step import NEVER, TrainStep, added
from mlx_lvm.training.trainer import Trainer

WARMUP = 30  # steps
AVERAGE = 0.98  # of the running average of the weights
POWER = 0.3
CENTRED, SQUARED = 0.3, 0.5  # weights beside the cosine
OUT_OF_RACE = -1e4
STRANGERS = 1024  # chunks of all training documents, drawn for each step, that a query is ranked against beside the batch's own
TUNING_WINDOWS = 2000  # validation windows that are ranked after an epoch
BLEND_BLOCK = 256  # of them scored together
BLEND_PAIRS = 8_000_000  # (window, candidate) pairs that a blend is fitted on: 130 MB
# Learning rate beside the network's, and whether weights decay.
GROUPS = {"net": (1.0, True), "filter": (2.0, False), "scalars": (40.0, False)}
FROZEN = [  # beside basis and map
    "mean", "shift_filter", "log_novelty", "trust_limit", "trust_slope", "input_gain", "output_gain", "blend",
]  # fmt: skip
FILTERS = (
    "filter",
    "shift_filter",
    "query_filter",
    "query_shift_filter",
)  # of every horizon, with head regress


class DocumentStep(TrainStep):
    """Calls train `model.live` on segments, given the first target of each; `model` itself is the running average.

    The statistics that the anchor was fitted from are frozen: mean, basis and map, and with head regress its filter.
    """

    def __init__(
        self, model: RAMN, corpus: Corpus, config: TrainConfig, documents: np.ndarray, total_steps: int
    ) -> None:
        self.segments = segments(corpus, documents, config.context)
        self.total_steps = total_steps
        self.live = RAMN(model.config)
        self.live.update(tree_map(lambda x: x + 0, model.parameters()))
        self.live.freeze(keys=FROZEN, recurse=False)
        self.live.basis.freeze()
        if model.config.head == "regress":
            for own in self.live.horizons:
                own.freeze(keys=[name for name in FILTERS if name in own], recurse=False)
                own.map.freeze()
        super().__init__(model, corpus, config, ALONE)
        self.moments = zero_moments(self.live.trainable_parameters())
        self._centred = centred_rows(self.segments, np.array(model.mean), model.basis.weight)

    def rate(self, number: int) -> float:
        """The network's learning rate at step 1, 2, ..."""
        fall = 0.5 * (1 + math.cos(math.pi * min((number - 1) / self.total_steps, 1.0)))
        return self.config.lr * min(1.0, number / WARMUP) * fall

    def __call__(self, targets: np.ndarray, lr: float, key: int) -> None:
        if self._compiled is None:
            self._compiled = self._compile()
        self.count = number = self.count + 1
        rate = self.rate(number)
        mx.random.seed(key)
        rates = {
            name: coefficients(rate * times, self.config.weight_decay if decays else 0.0, number)
            for name, (times, decays) in GROUPS.items()
        }
        keep = mx.array(min(AVERAGE, number / (number + 10)), dtype=mx.float32)
        self._compiled(mx.array(self.segments.table(targets)), rates, keep, mx.array(number), self._centred)

    def _compile(self) -> Callable[..., None]:
        live, average, config = self.live, self.model, self.config
        captured = {"moments": self.moments, "sums": self.sums}
        state = [live.state, average.state, captured, mx.random.state]
        loss_of = retrieve_loss if live.config.head == "retrieve" else regress_loss
        kernels, old = causal_kernels(), old_mask()
        live.train()
        value_and_grad: Callable[..., Any] = nn.value_and_grad(
            live, lambda batch, centred: loss_of(live, batch, kernels, old, centred)
        )

        @partial(mx.compile, inputs=state, outputs=state)
        def step(
            table: mx.array, rates: dict[str, mx.array], keep: mx.array, number: mx.array, centred: mx.array
        ) -> None:
            batch = take_segments(centred, table)
            (loss, cosine), gradients = value_and_grad(batch, centred)
            norm = gradient_norm(gradients)
            if config.clip:
                gradients = clip_gradients(gradients, norm, config.clip)
            captured["sums"] = added(captured["sums"], number, loss, cosine, norm, batch.valid.sum())
            sound = captured["sums"]["broken"] == NEVER
            gradients, rates = only_if(sound, gradients, rates)
            weights, captured["moments"] = grouped_adamw(
                live.trainable_parameters(), gradients, captured["moments"], rates
            )
            live.update(weights)
            average.update(
                tree_map(
                    lambda a, b: mx.where(sound, a + (1 - keep) * (b - a), a),
                    average.parameters(),
                    live.parameters(),
                )
            )

        self._captured = captured
        return step

    def state(self) -> list[Any]:
        return [self.live.parameters(), *super().state()]

    def saved(self) -> dict[str, mx.array]:
        live: Any = tree_flatten(self.live.trainable_parameters())
        return {**super().saved(), **{f"live.{name}": value for name, value in live}}

    def load(self, saved: dict[str, mx.array], count: int) -> None:
        super().load(saved, count)
        self.live.update(tree_map(lambda x: x + 0, self.model.parameters()))
        self.live.update(
            tree_unflatten([(k.removeprefix("live."), v) for k, v in saved.items() if k.startswith("live.")])
        )


def grouped_adamw(
    parameters: Any, gradients: Any, moments: dict[str, Any], rates: dict[str, mx.array]
) -> tuple[Any, dict[str, Any]]:
    """AdamW with a learning rate and a decay for each group of parameters: the network, the filter, and the rest."""
    leaves: Any = {
        name: dict(tree_flatten(tree))
        for name, tree in (("p", parameters), ("g", gradients), *moments.items())
    }
    out: dict[str, dict[str, mx.array]] = {"p": {}, "first": {}, "second": {}}
    for group, coefs in rates.items():
        names = [name for name in leaves["p"] if group_of(name) == group]
        part = {key: {name: values[name] for name in names} for key, values in leaves.items()}
        weights, moved = adamw(
            part["p"], part["g"], {"first": part["first"], "second": part["second"]}, coefs
        )
        for key, values in (("p", weights), ("first", moved["first"]), ("second", moved["second"])):
            out[key].update(values)
    trees = {
        key: tree_unflatten([(name, values[name]) for name in leaves["p"]]) for key, values in out.items()
    }
    return trees["p"], {"first": trees["first"], "second": trees["second"]}


def group_of(name: str) -> str:
    return "net" if name.startswith(("net.", "ahead.")) else "filter" if name == "filter" else "scalars"


def regress_loss(
    model: RAMN, batch: Batch, kernels: mx.array, old: mx.array, centred: mx.array
) -> tuple[mx.array, mx.array]:
    """(loss per target, sum of cosines with the next chunk), all in the basis, where cosines are the same."""
    asked, place = None, mx.zeros(batch.valid.shape, dtype=mx.int32)
    if model.config.queries:
        kept = mx.random.uniform(shape=batch.valid.shape) < model.config.queries
        query, place = take_queries(centred, batch.table, mx.random.uniform(shape=batch.valid.shape))
        place = mx.where(kept, place, 0)
        asked = ((place > 0)[..., None], query * kept[..., None])
    parts, trust = model.parts(mixtures_of(batch, kernels), counts_of(batch), asked)
    mean, losses, cosines = model.basis(model.mean), [], []
    for ahead, (here, elsewhere, correction) in enumerate(parts):
        target, there = take_targets(centred, batch.table, ahead)
        unseen = (place != ahead) if ahead else True  # a query tells nobody what it is itself
        moved, valid = mixed(here, elsewhere, trust) + trust * correction, (there & unseen).astype(mx.float32)
        unit, truth = normalize(mean + moved), normalize(mean + target)
        cosine = (unit * truth).sum(axis=-1)
        apart = 1 - (normalize(unit - mean) * normalize(truth - mean)).sum(axis=-1)
        loss = 1 - cosine + CENTRED * apart + SQUARED * mx.square(moved - target).sum(axis=-1)
        losses.append((loss * valid).sum() / mx.maximum(valid.sum(), 1))
        cosines.append((cosine * valid).sum())
    return mx.stack(losses).mean(), cosines[0]


def retrieve_loss(
    model: RAMN, batch: Batch, kernels: mx.array, old: mx.array, centred: mx.array
) -> tuple[mx.array, mx.array]:
    """(loss per target, sum of cosines of the ranking direction with its target), of what a trusted document is ranked by
    before the blend.
    """
    ((here, _, correction),), _ = model.parts(mixtures_of(batch, kernels), counts_of(batch))
    query = mx.exp(model.log_scale) * (here + correction)
    read = batch.present[:, None, :] * old
    scores = query @ batch.z.swapaxes(1, 2)
    weights = mx.exp(model.push_strength) * nn.softplus(scores - model.push_threshold) * read
    query = query - (weights @ batch.z) * mx.exp(model.push_metric)

    before = batch.z[:, :MAX_CONTEXT]
    own = query @ before.swapaxes(1, 2) + mx.where(read[..., :MAX_CONTEXT] > 0, 0.0, OUT_OF_RACE)
    flat, truth = query.flatten(0, 1), batch.truth.flatten(0, 1)
    rows, valid = batch.rows[:, MAX_CONTEXT:].flatten(), batch.valid.flatten()
    back = rows[:, None] - rows[None, :]
    context = (back > 0) & (back <= SPARED)
    logits = flat @ truth.T + mx.where(valid[None, :] & ~context, 0.0, OUT_OF_RACE)
    correct = (flat * truth).sum(axis=-1)
    others = mx.random.randint(0, centred.shape[0], (STRANGERS,))
    back = rows[:, None] - others[None, :]
    beyond = flat @ mx.take(centred, others, axis=0).T + mx.where(
        (back >= 0) & (back <= SPARED), OUT_OF_RACE, 0.0
    )
    every = mx.concatenate([logits, own.flatten(0, 1), beyond], axis=-1)
    log_probability = correct - mx.logsumexp(every, axis=-1)
    loss = (1 - mx.exp(POWER * log_probability)) / POWER
    kept = valid.astype(mx.float32)
    cosine = (normalize(flat) * normalize(truth)).sum(axis=-1)
    return (loss * kept).sum() / kept.sum(), (cosine * kept).sum()


def fit_blend(model: RAMN, pool: Pool) -> tuple[np.ndarray, np.ndarray]:
    """(d, e of `models.ramn` [2], rank of each window's truth [n]).

    d, e give the windows of the pool the likeliest true chunks, every chunk of the pool a candidate, or as many evenly spaced
    ones as BLEND_PAIRS allows. The ranks are by the blend that the windows of the other half of the documents give; one
    document has no other half, and is ranked by its own. The model's blend is left at (1, 0).
    """
    corpus, read = pool.windows.corpus, pool.windows
    model.blend = mx.array([1.0, 0.0])
    count = min(len(pool.rows), BLEND_PAIRS // len(read))
    rows = mx.array(
        pool.rows[np.linspace(0, len(pool.rows) - 1, count).round().astype(np.int64)].astype(np.int32)
    )
    candidates = Candidates(corpus, rows, normalize(corpus.take(rows)))
    terms = mx.stack(
        [predict_all(HistoryPredictor("ramn", model), read), corpus.take(mx.array(read.targets - 1))], axis=1
    )
    scores, offsets = [], []
    for index in read.blocks(BLEND_BLOCK):
        scores.append(products(terms[index], read, index, candidates))
        offsets.append(
            mx.minimum(offsets_of(read, index, candidates), 0)
        )  # the pool stands for no larger corpus
        mx.eval(scores[-1], offsets[-1])
    features, added = mx.concatenate(scores), mx.concatenate(offsets)

    def fitted(where: np.ndarray) -> np.ndarray:
        chosen = mx.array(np.flatnonzero(where).astype(np.int32))
        return fit_logit(mx.take(features, chosen, axis=0), mx.take(added, chosen, axis=0))

    half = np.unique(read.documents, return_inverse=True)[1] % 2
    blend = fitted(half >= 0)
    used = np.tile(blend, (len(read), 1))
    if half.any():
        for one in (0, 1):
            used[half == one] = fitted(half != one)
    return blend, ranks(pool, (mx.array(used.astype(np.float32))[:, :, None] * terms).sum(axis=1))


class RamnTrainer(Trainer):
    """A `Trainer` whose batches are segments of documents. The best epoch is that of the best validation cosine plus 0.3 of
    the centred one (regress: what is left of its loss), or mean reciprocal rank (retrieve).
    """

    model: RAMN
    train_step: DocumentStep

    def __init__(
        self,
        model: RAMN,
        corpus: Corpus,
        config: TrainConfig,
        folder: Path,
        split: Split | None = None,
        group: Group = ALONE,
    ) -> None:
        super().__init__(model, corpus, config, folder, split, group)
        start_at_anchor(model, fit_anchor(corpus, self.split.train, config.context, model.config))
        self.train_windows = segments(corpus, self.split.train, config.context)  # type: ignore[assignment]
        self.train_step = DocumentStep(
            model, corpus, config, self.split.train, config.epochs * self.steps_per_epoch
        )
        self._pool = build_pool(
            sample(self.val_windows, TUNING_WINDOWS), document_rows(corpus.offsets, self.split.val)
        )

    @property
    def judged_by(self) -> str:  # type: ignore[override]
        return "val_score" if self.model.config.head == "regress" else "val_mrr"

    def validate(self) -> tuple[float, float, float]:
        """Mean (1 - cosine, cosine, centred cosine) over the validation windows. Head retrieve gets its blend first."""
        if self.model.config.head == "retrieve":
            blend, self._ranks = fit_blend(self.model, self._pool)
            for one in (self.model, self.train_step.live):
                one.blend = mx.array(blend.astype(np.float32))
        else:
            self._ranks = ranks(
                self._pool, predict_all(HistoryPredictor("ramn", self.model), self._pool.windows)
            )
        predictor = HistoryPredictor("ramn", self.model)
        cosine, centred = (
            mean_cosine(predictor, self.val_windows),
            centred_cosine(predictor, self.val_windows, self.mean),
        )
        self._score = cosine + CENTRED * centred
        return 1 - cosine, cosine, centred

    def further_figures(self) -> dict[str, float]:
        """Learning rate of the last step, cosine and centred cosine weighed as in the loss of head regress, and the mean
        reciprocal rank of the true chunk among the validation documents' chunks.
        """
        return {
            "lr": self.train_step.rate(self.state.count),
            "val_score": self._score,
            "val_mrr": float((1 / self._ranks).mean()),
        }
