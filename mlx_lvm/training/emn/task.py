"""EMN on one corpus: statistics and expert, which are solved for, then the network, in seconds.

Head predict learns from windows as inner products of their rows, head rank from segments of documents.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np

from mlx_lvm.core.mlx import mx
from mlx_lvm.data.corpus import Corpus
from mlx_lvm.data.sampling import sample_documents
from mlx_lvm.data.splits import Split, split_corpus
from mlx_lvm.data.storage.mapped import MappedCorpus
from mlx_lvm.metrics.figures import centred_cosines
from mlx_lvm.metrics.retrieval import build_pool, ranks
from mlx_lvm.models.base import normalize
from mlx_lvm.models.emn import EMN
from mlx_lvm.predictors.base import document_rows, sample
from mlx_lvm.training.config import TrainConfig
from mlx_lvm.training.distributed import SINGLE, Group
from mlx_lvm.training.emn.geometry import geometry_of
from mlx_lvm.training.emn.prepare import directions, model_of, prepare
from mlx_lvm.training.emn.reading import document_of
from mlx_lvm.training.emn.scores import by_document, centred_weight, figures_of, lead
from mlx_lvm.training.emn.step import EmnStep, Ranked
from mlx_lvm.training.ramn.step import learning_rate
from mlx_lvm.training.state import epoch_order
from mlx_lvm.training.tasks.base import Task, Validation

TUNING_WINDOWS = 2000  # validation windows that are ranked after an epoch
LEAST_STEPS = 25  # of an epoch of head predict: a small corpus is gone through again


class EmnTask(Task):
    """The network of the model given, with the statistics and the expert of the corpus.

    The best epoch is that of the largest lead over the model before the first step, in validation cosine
    plus a weight times the centred one (predict: what its loss weighs) or in mean reciprocal rank (rank); see
    `scores.lead`. Where no epoch leads, the start is kept: of few documents it knows more than they say.
    """

    scores_start = True  # with statistics and expert of the corpus it predicts before any step

    model: EMN
    step: EmnStep

    def __init__(
        self,
        model: EMN,
        corpus: Corpus,
        config: TrainConfig,
        split: Split | None = None,
        group: Group = SINGLE,
    ) -> None:
        self.corpus, self.config, self.group = corpus, config, group
        self.split = split or split_corpus(corpus, config.split_seed)
        self.validation = Validation(corpus, self.split, config.context)
        self.val_windows = self.validation.windows
        self.prepared = prepare(corpus, self.split, config.context, model.config)
        self.model = model_of(self.prepared, model)
        parts, found = self.prepared.train.parts, self.prepared.statistics
        self.notes: list[str] = []
        self.train_count, self.skipped = parts.windows, parts.skipped + self.val_windows.skipped
        material: Any
        if model.config.head == "predict":
            material = geometry_of(self.prepared.train, found)
            self._targets, self._held = material.targets, geometry_of(self.prepared.val, found)
            self._document = document_of(self.prepared.val)
        else:
            material, self._targets = Ranked(self.prepared.train, found), parts.targets
            chosen = sample(self.val_windows, TUNING_WINDOWS)
            self._kept = np.flatnonzero(np.isin(self.val_windows.targets, chosen.targets)).astype(np.int32)
            self._document = chosen.documents
            self._pool = build_pool(chosen, document_rows(corpus.offsets, self.split.val))
        least = LEAST_STEPS if model.config.head == "predict" else 1
        self.steps_per_epoch = max(-(-len(self._targets) // config.batch_size), least)
        documents = len(np.unique(self._document))
        weight = centred_weight(material) if model.config.head == "predict" else 0.0
        self.step = EmnStep(self.model, [material], config, group, (weight,), documents)

    selection_metric = "val_lead"

    @property
    def baselines(self) -> dict[str, float]:
        return self.validation.baselines

    def learning_rate(self, number: int, plateau: float) -> float:
        return learning_rate(self.config, number, self.config.epochs * self.steps_per_epoch)

    def batches(self, epoch: int, first: int) -> Iterator[np.ndarray]:
        """Windows by number (predict), or the first target of each segment (rank)."""
        order, size = epoch_order(len(self._targets), self.config.seed, epoch), self.config.batch_size
        if self.steps_per_epoch * size > len(order) + size:
            order = np.resize(order, self.steps_per_epoch * size)
        for step in range(first, self.steps_per_epoch):
            yield self._targets[order[step * size : (step + 1) * size]]

    def target_rows(self, epoch: int, step: int) -> np.ndarray:
        batch, parts = next(self.batches(epoch, step)), self.prepared.train.parts
        if self.model.config.head == "rank":
            return parts.target_rows(batch)
        every = parts.target_rows(
            parts.targets
        )  # of all windows, of which the geometry holds as many as it may
        held = np.linspace(0, len(every) - 1, len(self._targets)).round().astype(np.int64)
        return every[held[batch]]

    def validate(self) -> dict[str, float]:
        """val_loss is 1 - cosine."""
        self.model.eval()
        if self.model.config.head == "predict":
            cosines, centred_ = figures_of(self.model, self._held)
            cosine, centred = float(cosines.mean()), float(centred_.mean())
            scores = cosines + self.step.centred[0] * centred_
            found = {"val_score": float(scores.mean())}
        else:
            raw = directions(self.model, self.prepared.val, self.model.whiten)
            scores = 1 / ranks(self._pool, mx.take(raw, mx.array(self._kept), axis=0))
            found = {"val_mrr": float(scores.mean())}
            truth = self.val_windows.truth()
            cosine = float((normalize(raw) * normalize(truth)).sum(axis=-1).mean())
            centred = float(centred_cosines(raw, truth, mx.array(self.validation.mean)).mean())
        found["val_lead"] = self._lead(scores)
        return {"val_loss": 1 - cosine, "val_cosine": cosine, "val_centred_cosine": centred, **found}

    def _lead(self, scores: np.ndarray) -> float:
        """Over the start, which is what is scored before the first step."""
        now, counts = by_document(scores, self._document)
        if not self.step.count:
            self.step.at_start = mx.array(now.astype(np.float32))
            return 0.0
        return lead(now, np.array(self.step.at_start, np.float64), counts)


def sampled_task(model: EMN, corpus: MappedCorpus, config: TrainConfig, group: Group = SINGLE) -> EmnTask:
    """On as many documents as the memory holds: 14,000 weights learn no more from all of a corpus that is
    larger.
    """
    memory = config.memory_bytes()
    assert memory is not None
    held = sample_documents(corpus, config.context, config.split_seed, memory // READING)
    task = EmnTask(model, held.corpus, config, None, group)
    task.notes.append(
        f"statistics, training and validation are of {held.corpus.sampled}: what --memory holds"
    )
    task.corpus = corpus
    return task


READING = (
    6  # a sample is held as it is stored, in float32 less the mean, with an expert's rows, and in the basis
)
