"""What a `Trainer` asks of what it trains: batches, step, validation, the metric that selects."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator
from functools import cached_property

import numpy as np

from mlx_lvm.core.mlx import mx
from mlx_lvm.data.corpus import Corpus
from mlx_lvm.data.splits import Split
from mlx_lvm.data.storage.mapped import MappedCorpus
from mlx_lvm.data.windows import Windows, windows
from mlx_lvm.metrics.figures import mean_cosine
from mlx_lvm.models import VectorModel
from mlx_lvm.predictors.base import Predictor
from mlx_lvm.predictors.baselines import ContextMean, target_mean
from mlx_lvm.predictors.lags import fit_lag_filter
from mlx_lvm.training.config import TrainConfig
from mlx_lvm.training.distributed import Group
from mlx_lvm.training.state import epoch_order
from mlx_lvm.training.step import StepState

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


class Task(ABC):
    """Everything about a training but its loop: the trainer calls nothing else.

    A subclass sets these attributes, and `step` last, for it may copy the model's weights.
    """

    selection_metric = "val_cosine"  # the figure of `validate` whose best epoch is kept

    scores_start = False  # whether the model before its first step is a candidate too, as epoch 0

    shares_batches = True  # whether the processes of a group each compute a part of every batch

    validation: Validation
    model: VectorModel  # what is validated and saved
    corpus: Corpus | MappedCorpus
    config: TrainConfig
    group: Group
    split: Split
    step: StepState
    steps_per_epoch: int
    train_count: int  # windows that an epoch trains on
    val_windows: Windows
    skipped: int  # documents too short for a window
    notes: list[str]  # what the user should know of it before it begins

    @property
    def baselines(self) -> dict[str, float]:
        """Validation cosine of what needs no training, by name."""
        return self.validation.baselines

    @abstractmethod
    def batches(self, epoch: int, first: int) -> Iterator[np.ndarray]:
        """What each step of an epoch takes, from step `first` on: a function of seed and epoch."""

    def shuffled(self, targets: np.ndarray, epoch: int, first: int) -> Iterator[np.ndarray]:
        """`targets` in the order of seed and epoch, `batch_size` a step, from step `first` on."""
        order, size = epoch_order(len(targets), self.config.seed, epoch), self.config.batch_size
        for step in range(first, self.steps_per_epoch):
            yield targets[order[step * size : (step + 1) * size]]

    def target_rows(self, epoch: int, step: int) -> np.ndarray:
        """Rows of the corpus that a step predicts, to tell of a batch that broke."""
        return next(self.batches(epoch, step))

    @abstractmethod
    def validate(self) -> dict[str, float]:
        """Validation means: val_loss, val_cosine, val_centred_cosine, and what else selects."""

    def learning_rate(self, number: int, plateau: float) -> float:
        """Of optimiser step 1, 2, ...; `plateau` is what the validation loss has left of `config.lr`."""
        return plateau

    def close(self) -> None:  # noqa: B027 (most tasks hold nothing open)
        """Let go of what reads ahead; nothing is trained on after that."""
