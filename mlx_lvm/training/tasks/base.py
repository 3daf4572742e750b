"""What a `Trainer` asks of what it trains: batches, step, validation, the metric that selects."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterator

import numpy as np

from mlx_lvm.data.corpus import Corpus
from mlx_lvm.data.splits import Split
from mlx_lvm.data.storage.mapped import MappedCorpus
from mlx_lvm.data.windows import Windows
from mlx_lvm.models import VectorModel
from mlx_lvm.training.config import TrainConfig
from mlx_lvm.training.distributed import Group
from mlx_lvm.training.step import Step


class Task(ABC):
    """Everything about a training but its loop: the trainer calls nothing else.

    A subclass sets these attributes, and `step` last, for it may copy the model's weights.
    """

    selection_metric = "val_cosine"  # the figure of `validate` whose best epoch is kept

    scores_start = False  # whether the model before its first step is a candidate too, as epoch 0

    shares_batches = True  # whether the processes of a group each compute a part of every batch

    model: VectorModel  # what is validated and saved
    corpus: Corpus | MappedCorpus
    config: TrainConfig
    group: Group
    split: Split
    step: Step
    steps_per_epoch: int
    train_count: int  # windows that an epoch trains on
    val_windows: Windows
    skipped: int  # documents too short for a window
    notes: list[str]  # what the user should know of it before it begins

    @property
    @abstractmethod
    def baselines(self) -> dict[str, float]:
        """Validation cosine of what needs no training, by name."""

    @abstractmethod
    def batches(self, epoch: int, first: int) -> Iterator[np.ndarray]:
        """What each step of an epoch takes, from step `first` on: a function of seed and epoch."""

    @abstractmethod
    def target_rows(self, epoch: int, step: int) -> np.ndarray:
        """Rows of the corpus that a step predicts, to tell of a batch that broke."""

    @abstractmethod
    def validate(self) -> dict[str, float]:
        """Validation means: val_loss, val_cosine, val_centred_cosine, and what else selects."""

    def learning_rate(self, number: int, plateau: float) -> float:
        """Of optimiser step 1, 2, ...; `plateau` is what the validation loss has left of `config.lr`."""
        return plateau

    def close(self) -> None:  # noqa: B027 (most tasks hold nothing open)
        """Let go of what reads ahead; nothing is trained on after that."""
