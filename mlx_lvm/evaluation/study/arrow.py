"""The arrow of time: the same recipe trained on documents as they are and on documents read backwards.

Text whose order carries meaning is easier to follow in one direction. Both directions have the same windows, documents
and split, so the difference forward - backward is paired by document; the lag filter's own difference stands beside it.
"""

from __future__ import annotations

import tempfile
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

from mlx_lvm.core.mlx import mx
from mlx_lvm.core.stats import RESAMPLES, DocumentBootstrap
from mlx_lvm.data.corpus import Corpus
from mlx_lvm.data.splits import split_corpus
from mlx_lvm.data.windows import windows
from mlx_lvm.errors import UsageError
from mlx_lvm.evaluation.setup import MAX_WINDOWS
from mlx_lvm.hub.load import Loaded
from mlx_lvm.metrics.figures import cosines
from mlx_lvm.models import as_dict, build, config_from_dict
from mlx_lvm.predictors.base import ModelPredictor, Predictor, sample
from mlx_lvm.predictors.baselines import fit_lag_filter

EPOCHS = 5


def reversed_corpus(corpus: Corpus) -> Corpus:
    """Every document's chunks in the opposite order; names, and so the split, stay."""
    rows = np.arange(len(corpus))
    document = corpus.document_of(rows)
    order = mx.array((corpus.offsets[document] + corpus.offsets[document + 1] - 1 - rows).astype(np.int32))
    scales = None if corpus.scales is None else mx.take(corpus.scales, order)
    return replace(
        corpus,
        name=f"{corpus.name} reversed",
        vectors=mx.take(corpus.vectors, order, axis=0),
        scales=scales,
        sha256="",
        path=None,
    )


def arrow_of_time(
    model: Loaded,
    corpus: Corpus,
    epochs: int = EPOCHS,
    max_windows: int = MAX_WINDOWS,
    resamples: int = RESAMPLES,
    seed: int = 0,
    progress: Callable[[str], None] = lambda line: None,
) -> dict[str, Any]:
    """Trains twice by the model's own recipe, `epochs` long, and scores both on the test documents of their direction.

    Raises UsageError for a model that does not say how it was trained.
    """
    from mlx_lvm.training.config import TrainConfig
    from mlx_lvm.training.trainer import Trainer

    if not model.train:
        raise UsageError(
            f"{model.name} does not say how it was trained, so its recipe cannot be repeated backwards"
        )
    config = TrainConfig.from_dict({**model.train, "epochs": epochs, "early_stop": 0})
    sizes = config_from_dict({**as_dict(model.model.config), "dim": corpus.dim})
    figures: dict[str, np.ndarray] = {}
    documents = np.zeros(0)
    for direction, one in (("forward", corpus), ("backward", reversed_corpus(corpus))):
        parts = split_corpus(one, config.split_seed)
        mx.random.seed(config.seed)
        network = build(sizes)
        if config.residual_init == "zero":
            network.start_at_baseline()
        with tempfile.TemporaryDirectory() as folder:
            trainer = Trainer(network, one, config, Path(folder))
            trainer.train(
                lambda p, d=direction: progress(f"{d}: epoch {p.epoch}/{epochs}, step {p.step}/{p.steps}")  # type: ignore[misc]
            )
            best = _best(network, Path(folder))
        scored = sample(windows(one, parts.test, config.context, "test documents"), max_windows)
        documents = scored.documents
        forms: dict[str, Predictor] = {
            "model": ModelPredictor(direction, best),
            "lag-filter": fit_lag_filter(one, parts.train, config.context),
        }
        for name, predictor in forms.items():
            values = [
                np.array(cosines(predictor.predict(scored, block), scored.truth(block)))
                for block in scored.blocks()
            ]
            figures[f"{name} {direction}"] = np.concatenate(values).astype(np.float64)
    bootstrap = DocumentBootstrap(documents, resamples, seed)
    for name in ("model", "lag-filter"):
        figures[f"{name} difference"] = figures[f"{name} forward"] - figures[f"{name} backward"]
    figures["beyond the lag filter"] = figures["model difference"] - figures["lag-filter difference"]
    found = {
        name: {"value": one.value, "ci": one.ends(), "p": one.p}
        for name, one in bootstrap.intervals(figures).items()
    }
    return {
        "model": model.name,
        "epochs": epochs,
        "documents": bootstrap.count,
        "windows": len(documents),
        "figures": found,
        "sentence": _sentence(found, epochs, bootstrap.count),
    }


def _best(network: Any, folder: Path) -> Any:
    from mlx_lvm.training import checkpoint as checkpoints

    loaded, _, _ = checkpoints.load_newest(folder / "checkpoints", "BEST")
    network.load_weights(list(loaded.weights.items()), strict=True)
    network.eval()
    return network


def _sentence(found: dict[str, Any], epochs: int, documents: int) -> str:
    one, rest = found["model difference"], found["beyond the lag filter"]
    low, high = one["ci"]
    beyond = f"{rest['value']:+.4f}" + (
        "" if rest["ci"][0] is None else f" (95% interval {rest['ci'][0]:+.4f} to {rest['ci'][1]:+.4f})"
    )
    filter_ = found["lag-filter difference"]["value"]
    tail = (
        f"after {epochs} epochs each; the lag filter's own difference is {filter_:+.4f}, beyond it {beyond}."
    )
    if low is None:
        return f"Forward against backward: cosine {one['value']:+.4f}, no interval from a single document, {tail}"
    words = (
        "Forward is easier than backward"
        if low > 0
        else "Backward is easier than forward"
        if high < 0
        else "No arrow of time seen"
    )
    return f"{words}: cosine {one['value']:+.4f} (95% interval {low:+.4f} to {high:+.4f}, {documents} documents) {tail}"
