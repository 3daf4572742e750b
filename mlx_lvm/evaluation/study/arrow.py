"""The arrow of time: the same recipe trained on documents as they are and on documents read backwards.

Text whose order carries meaning is easier to follow in one direction. Both directions have the same windows,
documents and split, so the difference forward - backward is paired by document, compared with the lag
filter's own difference.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace

import numpy as np

from mlx_lvm.core.mlx import mx
from mlx_lvm.core.result import Interval, JsonObject, Result
from mlx_lvm.core.stats import RESAMPLES, DocumentBootstrap
from mlx_lvm.data.corpus import Corpus
from mlx_lvm.data.windows import Windows, windows
from mlx_lvm.errors import UsageError
from mlx_lvm.evaluation.setup import MAX_WINDOWS
from mlx_lvm.hub.load import Loaded
from mlx_lvm.metrics.figures import cosine_values
from mlx_lvm.models import as_dict, config_from_dict
from mlx_lvm.models.weights import set_weights
from mlx_lvm.predictors.base import Predictor, sample
from mlx_lvm.predictors.history import predictor_of
from mlx_lvm.predictors.lags import fit_lag_filter
from mlx_lvm.training.config import TrainConfig
from mlx_lvm.training.state import Progress
from mlx_lvm.training.store import BestInMemory
from mlx_lvm.training.tasks.base import Task
from mlx_lvm.training.tasks.choose import make_task
from mlx_lvm.training.trainer import Trainer

EPOCHS = 5


@dataclass(frozen=True)
class Arrow(Result):
    """figures: cosines of model and lag filter in each direction, and their differences."""

    derived = ("sentence",)

    model: str
    epochs: int
    documents: int
    windows: int
    figures: dict[str, Interval]

    @property
    def sentence(self) -> str:
        found, beyond = self.figures["model difference"], self.figures["beyond the lag filter"]
        ends = beyond.span("+.4f", empty="")
        tail = (
            f"after {self.epochs} epochs each; the lag filter's own difference is "
            f"{self.figures['lag-filter difference'].value:+.4f}, beyond it {beyond.value:+.4f}"
            f"{ends and f' (95% interval {ends})'}."
        )
        cosine = f"cosine {found.value:+.4f}"
        if self.documents < 2:
            return f"Forward against backward: {cosine}, no interval from a single document, {tail}"
        words = {"better": "Forward is easier than backward", "worse": "Backward is easier than forward"}
        known = f"95% interval {found.span('+.4f')}, {self.documents} documents"
        return f"{words.get(found.outcome, 'No arrow of time seen')}: {cosine} ({known}) {tail}"

    def to_dict(self) -> JsonObject:
        figures = {n: {"value": one.value, "ci": one.ends(), "p": one.p} for n, one in self.figures.items()}
        return {**super().to_dict(), "figures": figures}


def reversed_corpus(corpus: Corpus) -> Corpus:
    """Every document's chunks in the opposite order; names, and so the split, stay."""
    rows = np.arange(len(corpus))
    document = corpus.document_of(rows)
    order = mx.array((corpus.offsets[document] + corpus.offsets[document + 1] - 1 - rows).astype(np.int32))
    scales = None if corpus.scales is None else mx.take(corpus.scales, order)
    vectors = mx.take(corpus.vectors, order, axis=0)
    name = f"{corpus.name} reversed"
    return replace(corpus, name=name, vectors=vectors, scales=scales, sha256="", path=None)


def arrow_of_time(
    model: Loaded,
    corpus: Corpus,
    epochs: int = EPOCHS,
    max_windows: int = MAX_WINDOWS,
    resamples: int = RESAMPLES,
    progress: Callable[[str], None] = lambda line: None,
) -> Arrow:
    """Trains twice by the model's own recipe, and scores both on the test documents of their direction.

    Raises UsageError for a model that does not say how it was trained.
    """
    if not model.train:
        unknown = f"{model.name} does not say how it was trained"
        raise UsageError(f"{unknown}, so its recipe cannot be repeated backwards")
    config = TrainConfig.from_dict({**model.train, "epochs": epochs, "early_stop": 0})
    sizes = config_from_dict({**as_dict(model.model.config), "dim": corpus.dim})
    figures: dict[str, np.ndarray] = {}
    for direction, vectors in (("forward", corpus), ("backward", reversed_corpus(corpus))):
        task = make_task(sizes, vectors, config)
        train_best(task, direction, progress)
        scored = sample(windows(vectors, task.split.test, config.context, "test documents"), max_windows)
        lag_filter = fit_lag_filter(vectors, task.split.train, config.context)
        figures[f"model {direction}"] = scored_cosines(predictor_of(direction, task.model), scored)
        figures[f"lag-filter {direction}"] = scored_cosines(lag_filter, scored)
    bootstrap = DocumentBootstrap(scored.documents, resamples)
    for name in ("model", "lag-filter"):
        figures[f"{name} difference"] = figures[f"{name} forward"] - figures[f"{name} backward"]
    figures["beyond the lag filter"] = figures["model difference"] - figures["lag-filter difference"]
    return Arrow(model.name, epochs, bootstrap.count, len(scored), bootstrap.named(figures))


def train_best(task: Task, direction: str, progress: Callable[[str], None]) -> None:
    """Train the task's model and leave it with the weights of its best epoch, ready to predict."""

    def tell(p: Progress) -> None:
        progress(f"{direction}: epoch {p.epoch}/{task.config.epochs}, step {p.step}/{p.steps}")

    best = BestInMemory()
    Trainer(task, best).train(tell)
    assert best.weights is not None, "the first epoch is always the best so far"
    set_weights(task.model, best.weights, "the best epoch")
    task.model.eval()


def scored_cosines(predictor: Predictor, scored: Windows) -> np.ndarray:
    """[windows] float64."""
    blocks = scored.blocks()
    return np.concatenate([cosine_values(predictor.predict(scored, b), scored.truth(b)) for b in blocks])
