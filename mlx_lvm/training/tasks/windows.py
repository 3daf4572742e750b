"""Windows of a corpus in memory: every target of the train documents once an epoch, in an order of the
seed's.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from functools import cached_property, partial

import numpy as np

from mlx_lvm.core.mlx import mx
from mlx_lvm.data.corpus import Corpus, gather
from mlx_lvm.data.splits import Split, split_corpus
from mlx_lvm.data.windows import context_rows, windows
from mlx_lvm.metrics.figures import mean_cosine
from mlx_lvm.models import VectorModel, normalize
from mlx_lvm.predictors.base import Predictor
from mlx_lvm.predictors.baselines import ContextMean, fit_lag_filter, target_mean
from mlx_lvm.training.config import TrainConfig
from mlx_lvm.training.distributed import SINGLE, Group
from mlx_lvm.training.losses import total_loss
from mlx_lvm.training.state import epoch_order
from mlx_lvm.training.step import TrainStep
from mlx_lvm.training.tasks.base import Task

VALIDATION_BLOCK = 1024  # windows


class Validation:
    """The validation windows of a split, and what a model and two baselines reach on them."""

    def __init__(self, corpus: Corpus, split: Split, context: int) -> None:
        self.corpus, self.split, self.context = corpus, split, context
        self.windows = windows(corpus, split.val, context, "val")
        self.mean = target_mean(corpus, split.train, context)

    @cached_property
    def baselines(self) -> dict[str, float]:
        """Cosine of what needs no training."""
        forms: list[Predictor] = [ContextMean(), fit_lag_filter(self.corpus, self.split.train, self.context)]
        return {form.name: mean_cosine(form, self.windows) for form in forms}

    def figures(self, sums: Callable[[mx.array], mx.array]) -> dict[str, float]:
        """Means of what `sums` adds up over a block's targets: loss, cosine, centred cosine."""
        targets = self.windows.targets
        parts = [sums(mx.array(targets[block])) for block in self.windows.blocks(VALIDATION_BLOCK)]
        totals = np.array(mx.stack(parts).sum(axis=0)).astype(np.float64)
        names = ("val_loss", "val_cosine", "val_centred_cosine")
        return {name: float(total) / len(targets) for name, total in zip(names, totals, strict=True)}


def validation_sums(
    model: VectorModel, corpus: Corpus, config: TrainConfig, mean: np.ndarray
) -> Callable[[mx.array], mx.array]:
    """A compiled function from target rows [n] to sums [loss, cosine, centred cosine] over them.

    A function of its own, because a compiled training step keeps dropout whatever `model.eval()` says later.
    """
    loss_of, centre = total_loss(config.loss_weights(), config.temperature), mx.array(mean)
    vectors = [corpus.vectors] if corpus.scales is None else [corpus.vectors, corpus.scales]

    @partial(mx.compile, inputs=[model.state])
    def sums(targets: mx.array, vectors: mx.array, scales: mx.array | None = None) -> mx.array:
        prediction = model(gather(vectors, scales, context_rows(targets, config.context)))
        target = gather(vectors, scales, targets)
        cosine = (prediction.unit * normalize(target)).sum()
        centred = (normalize(prediction.unit - centre) * normalize(normalize(target) - centre)).sum()
        return mx.stack([loss_of(prediction, target) * targets.size, cosine, centred])

    return lambda targets: sums(targets, *vectors)


class WindowTask(Task):
    """`model` on the windows of the corpus's train documents, `config.batch_size` of them a step."""

    corpus: Corpus
    step: TrainStep

    def __init__(
        self,
        model: VectorModel,
        corpus: Corpus,
        config: TrainConfig,
        split: Split | None = None,
        group: Group = SINGLE,
    ) -> None:
        self.model, self.corpus, self.config, self.group = model, corpus, config, group
        self.split = split or split_corpus(corpus, config.split_seed)
        self.train_windows = windows(corpus, self.split.train, config.context, "train")
        self.validation = Validation(corpus, self.split, config.context)
        self.val_windows = self.validation.windows
        self.train_count = len(self.train_windows)
        self.skipped = self.train_windows.skipped + self.val_windows.skipped
        self.steps_per_epoch = -(-self.train_count // config.batch_size)
        self.notes: list[str] = []
        self.step = TrainStep(model, corpus, config, group)
        self._sums = validation_sums(model, corpus, config, self.validation.mean)

    @property
    def baselines(self) -> dict[str, float]:
        return self.validation.baselines

    def batches(self, epoch: int, first: int) -> Iterator[np.ndarray]:
        order, size = epoch_order(self.train_count, self.config.seed, epoch), self.config.batch_size
        for step in range(first, self.steps_per_epoch):
            yield self.train_windows.targets[order[step * size : (step + 1) * size]]

    def target_rows(self, epoch: int, step: int) -> np.ndarray:
        return next(self.batches(epoch, step))

    def validate(self) -> dict[str, float]:
        return self.validation.figures(self._sums)
