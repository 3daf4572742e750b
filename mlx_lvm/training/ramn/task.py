"""RAMN on documents: a linear anchor by least squares, then a network on top, on all positions of them."""

from __future__ import annotations

from collections.abc import Iterator
from functools import cached_property

import numpy as np

from mlx_lvm.core.mlx import mx
from mlx_lvm.data.corpus import Corpus
from mlx_lvm.data.splits import Split, split_corpus
from mlx_lvm.metrics.figures import centred_cosine, mean_cosine
from mlx_lvm.metrics.retrieval import Pool, build_pool, ranks
from mlx_lvm.models.ramn import RAMN
from mlx_lvm.predictors.base import document_rows, predict_all, sample
from mlx_lvm.predictors.history import HistoryPredictor
from mlx_lvm.training.config import TrainConfig
from mlx_lvm.training.distributed import SINGLE, Group
from mlx_lvm.training.ramn import losses
from mlx_lvm.training.ramn.anchor import fit_anchor, start_at_anchor
from mlx_lvm.training.ramn.blend import besides, fit_blend, give_fallback
from mlx_lvm.training.ramn.documents import segments
from mlx_lvm.training.ramn.step import DocumentStep, learning_rate
from mlx_lvm.training.tasks.base import Task, Validation

TUNING_WINDOWS = 2000  # validation windows that are ranked after an epoch


class DocumentTask(Task):
    """Segments of the train documents. The best epoch is that of the best cosine plus 0.3 of the centred one
    (regress: what is left of its loss), or of the best mean reciprocal rank (retrieve).
    """

    shares_batches = False  # every process computes all of it, and rank 0's is the run

    model: RAMN
    corpus: Corpus
    step: DocumentStep

    def __init__(
        self,
        model: RAMN,
        corpus: Corpus,
        config: TrainConfig,
        split: Split | None = None,
        group: Group = SINGLE,
    ) -> None:
        self.model, self.corpus, self.config, self.group = model, corpus, config, group
        self.split = split or split_corpus(corpus, config.split_seed)
        self.segments = segments(corpus, self.split.train, config.context)
        self.validation = Validation(corpus, self.split, config.context)
        self.val_windows = self.validation.windows
        self.train_count = self.segments.windows
        self.skipped = self.segments.skipped + self.val_windows.skipped
        self.steps_per_epoch = -(-len(self.segments) // config.batch_size)
        self.notes: list[str] = []
        if not config.start_from:  # whose anchor it keeps
            start_at_anchor(model, fit_anchor(corpus, self.split.train, config.context, model.config))
        if model.config.fallback == "emn":
            give_fallback(model, corpus, self.split.train, config.context)
        self.step = DocumentStep(model, self.segments, config)

    @property
    def selection_metric(self) -> str:  # type: ignore[override]
        return "val_score" if self.model.config.head == "regress" else "val_mrr"

    @cached_property
    def pool(self) -> Pool:
        """The windows that are ranked after an epoch, among the chunks of the validation documents."""
        rows = document_rows(self.corpus.offsets, self.split.val)
        return build_pool(sample(self.val_windows, TUNING_WINDOWS), rows)

    @cached_property
    def beside(self) -> mx.array:
        """What head retrieve blends its direction with, for the windows of `pool`: no step changes it."""
        return besides(self.model, self.pool)

    def learning_rate(self, number: int, plateau: float) -> float:
        return learning_rate(self.config, number, self.config.epochs * self.steps_per_epoch)

    def batches(self, epoch: int, first: int) -> Iterator[np.ndarray]:
        """The first target of each segment."""
        return self.shuffled(self.segments.targets, epoch, first)

    def target_rows(self, epoch: int, step: int) -> np.ndarray:
        """Every row that the step's segments predict."""
        return self.segments.target_rows(super().target_rows(epoch, step))

    def validate(self) -> dict[str, float]:
        """val_loss is 1 - cosine. Head retrieve gets its blend first."""
        predictor, read = HistoryPredictor("ramn", self.model), self.val_windows
        if self.model.config.head == "retrieve":
            placed = self._fit_blend()
        else:
            placed = ranks(self.pool, predict_all(predictor, self.pool.windows))
        cosine, centred = mean_cosine(predictor, read), centred_cosine(predictor, read, self.validation.mean)
        return {
            "val_loss": 1 - cosine,
            "val_cosine": cosine,
            "val_centred_cosine": centred,
            "val_score": cosine + losses.CENTRED * centred,
            "val_mrr": float((1 / placed).mean()),
        }

    def _fit_blend(self) -> np.ndarray:
        """Ranks by a blend that their own documents had no part in."""
        blend, placed = fit_blend(self.model, self.pool, self.beside)
        # Of the trained weights too, else their average would drift back to the blend that the steps began
        # with.
        for model in (self.model, self.step.live):
            model.blend = mx.array(blend.astype(np.float32))
        return placed
