"""A model as a Hub folder: weights, config and card. What the card tells of it is measured by the caller."""

from __future__ import annotations

import json
import os
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from mlx_lvm import __version__
from mlx_lvm.core.files.disk import sha256, write_atomic, write_json
from mlx_lvm.core.files.safetensors import to_bytes
from mlx_lvm.core.mlx import mx
from mlx_lvm.core.result import Result
from mlx_lvm.data.corpus import Corpus
from mlx_lvm.data.sampling import load_or_sample
from mlx_lvm.data.splits import split_corpus
from mlx_lvm.data.windows import windows
from mlx_lvm.errors import IOFailed, UsageError
from mlx_lvm.hub.card import CardFigures, model_card
from mlx_lvm.hub.golden import GOLDEN_DIM, GOLDEN_WINDOWS, golden_entries
from mlx_lvm.hub.load import WEIGHTS, Loaded
from mlx_lvm.models import VectorModel, as_dict, build
from mlx_lvm.models.weights import DTYPES, set_weights
from mlx_lvm.predictors.baselines import FILTERS, fit_baselines
from mlx_lvm.predictors.lags import LagFilter


def fit_filter(name: str, corpus: str = "sotu", context: int = 5, split_seed: int = 0) -> Loaded:
    """The baseline of that name, fitted on a corpus's training documents, as a model.

    Raises UsageError for a baseline that is none of `FILTERS`.
    """
    if name not in FILTERS:
        raise UsageError(
            f"'{name}' is a baseline, but not a filter that a file could hold; expected one of "
            f"{', '.join(FILTERS)}"
        )
    vectors = load_or_sample(corpus, context, split_seed)
    parts = split_corpus(vectors, split_seed)
    (form,) = fit_baselines(vectors, parts.train, parts.val, context, only=(name,))
    assert isinstance(form, LagFilter)
    origin = {"closed_form": name, "fitted_on": f"{len(parts.train)} training documents of {vectors.name}"}
    known = (vectors.name, vectors.sha256, vectors.card)
    return Loaded(form.model(), name, context, split_seed, *known, imported=origin)


def require_free(folder: Path, overwrite: bool) -> None:
    """Raises IOFailed, before minutes are spent, for a folder that holds something or cannot be written."""
    if folder.exists() and (not folder.is_dir() or any(folder.iterdir())) and not overwrite:
        raise IOFailed(
            f"{folder}: already there. Pass --overwrite to replace its model, or name another --out."
        )
    nearest = next(place for place in (folder, *folder.absolute().parents) if place.exists())
    if not nearest.is_dir():
        raise IOFailed(f"{folder}: {nearest} is a file, not a folder. Name another --out.")
    if not os.access(nearest, os.W_OK | os.X_OK):
        raise IOFailed(f"{folder}: {nearest} cannot be written by this user. Name another --out.")


@dataclass(frozen=True)
class Written(Result):
    """path: the folder; sha256: of the weights' file; dtype: that it stores them in."""

    path: str
    sha256: str
    dtype: str
    parameters: int


def write_model(
    loaded: Loaded,
    folder: Path,
    *,
    dtype: str = "float32",
    figures: CardFigures | None = None,
    corpus: Corpus | None = None,
    parity: str | None = None,
) -> Written:
    """Write model.safetensors, config.json and README.md; the same arguments give the same bytes.

    figures: what the card tells of the model as stored (`mlx_lvm.evaluation.export` measures it)
    corpus:  whose first test windows are the golden pair of a model that came with none
    parity:  the card's section about it

    Raises UsageError for an unknown dtype.
    """
    require_dtype(dtype)
    rounded, stored = round_weights(loaded.model, dtype)
    ranking = figures.ranking if figures else loaded.ranking
    about = {
        "model": as_dict(loaded.model.config),
        "context": loaded.context,
        "split_seed": loaded.split_seed,
        # A path would tell of this machine.
        "train": {**loaded.train, "corpus": loaded.corpus} if loaded.train else {},
        "corpus": {"name": loaded.corpus, "sha256": loaded.corpus_sha256},
        "encoder_card": loaded.card.to_dict() if loaded.card else None,
        "mlx_lvm": __version__,
        **({"imported": loaded.imported} if loaded.imported else {}),
        **({"ranking": ranking} if ranking else {}),
    }
    golden = golden_entries(rounded, golden_contexts(loaded, corpus))
    data = to_bytes(stored, {"format": "pt", "mlx_lvm": json.dumps(about, sort_keys=True), **golden})
    write_atomic(folder / WEIGHTS, data)
    write_json(folder / "config.json", as_dict(loaded.model.config))
    write_atomic(folder / "README.md", model_card(loaded, dtype, sha256(data), figures, parity).encode())
    return Written(str(folder), sha256(data), dtype, rounded.parameter_count())


def require_dtype(dtype: str) -> None:
    """Raises UsageError for one that no file is written in."""
    if dtype not in DTYPES:
        raise UsageError(f"unknown dtype '{dtype}'; expected one of {', '.join(DTYPES)}")


def round_weights(model: VectorModel, dtype: str) -> tuple[VectorModel, dict[str, mx.array]]:
    """(the model as a reader of the file has it, the tensors as stored: weights and torch's buffers)."""
    held = {**model.weights(), **model.buffers()}
    stored = {name: value.astype(DTYPES[dtype]) for name, value in held.items()}
    rounded = build(model.config)
    set_weights(rounded, {name: stored[name] for name in model.weights()}, "export")
    return rounded, stored


def golden_contexts(loaded: Loaded, corpus: Corpus | None) -> np.ndarray:
    """[2, length, dim]: the first test windows, or those of the pair the model came with, or drawn ones."""
    if loaded.golden is not None:
        return loaded.golden[0]
    if corpus is not None:
        test = split_corpus(corpus, loaded.split_seed).test
        found = windows(corpus, test, loaded.context, "test documents")
        contexts = np.array(found.contexts(np.arange(len(found))[:GOLDEN_WINDOWS]))
        return np.resize(contexts, (GOLDEN_WINDOWS, *contexts.shape[1:]))
    shape = (GOLDEN_WINDOWS, loaded.context, loaded.model.config.dim or GOLDEN_DIM)
    draw = mx.random.normal(shape, key=mx.random.key(0))
    return np.array(draw / mx.linalg.norm(draw, axis=-1, keepdims=True))
