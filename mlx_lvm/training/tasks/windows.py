"""Windows of a corpus in memory: every target of the train documents once an epoch, in the seed's order."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from functools import partial

import numpy as np

from mlx_lvm.core.mlx import mx
from mlx_lvm.data.corpus import Corpus, gather
from mlx_lvm.data.splits import Split, split_corpus
from mlx_lvm.data.windows import context_rows, windows
from mlx_lvm.models import VectorModel, normalize
from mlx_lvm.training.config import TrainConfig
from mlx_lvm.training.distributed import SINGLE, Group
from mlx_lvm.training.losses import total_loss
from mlx_lvm.training.step import TrainStep
from mlx_lvm.training.tasks.base import Task, Validation


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

    def batches(self, epoch: int, first: int) -> Iterator[np.ndarray]:
        return self.shuffled(self.train_windows.targets, epoch, first)

    def validate(self) -> dict[str, float]:
        return self.validation.figures(self._sums)
