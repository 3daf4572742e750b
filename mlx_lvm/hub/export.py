"""A model as a Hub folder: weights, config and card. What the card tells of it is measured by the caller."""

from __future__ import annotations

import base64
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
from mlx_lvm.hub.golden import GOLDEN_DIM, GOLDEN_WINDOWS
from mlx_lvm.hub.load import WEIGHTS, Loaded
from mlx_lvm.models import VectorModel, as_dict, build
from mlx_lvm.models.weights import DTYPES, set_weights
from mlx_lvm.predictors.baselines import FILTERS, fit_baselines
from mlx_lvm.predictors.lags import LagFilter


def fit_filter(name: str, corpus: str = "sotu", context: int = 5, split_seed: int = 0) -> Loaded:
    """The baseline of that name (one of `FILTERS`), fitted on the training documents of a corpus, as a
    model.

    Raises UsageError for a baseline that is not a filter.
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
    return Loaded(
        form.model(), name, context, split_seed, vectors.name, vectors.sha256, vectors.card, imported=origin
    )  # fmt: skip


def require_free(folder: Path, overwrite: bool) -> None:
    """Raises IOFailed where something is there that nobody asked to overwrite, or where nothing can be
    written: before minutes are spent on what goes there.
    """
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
    corpus:  whose first test windows are the golden pair; without one the pair the model came with, or a
    drawn one parity:  the card's section about it

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
    golden = golden_pair(loaded, rounded, corpus)
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
    """(the model as a reader of the file will have it, the tensors as stored: weights and torch's
    buffers).
    """
    stored = {
        name: value.astype(DTYPES[dtype]) for name, value in {**model.weights(), **model.buffers()}.items()
    }
    rounded = build(model.config)
    set_weights(rounded, {name: stored[name] for name in model.weights()}, "export")
    return rounded, stored


def golden_pair(loaded: Loaded, model: VectorModel, corpus: Corpus | None) -> dict[str, str]:
    """Two windows and what the model answers: the first test windows, or the pair the model came with."""
    if loaded.golden is not None:
        contexts = loaded.golden[0]
    elif corpus is not None:
        found = windows(
            corpus, split_corpus(corpus, loaded.split_seed).test, loaded.context, "test documents"
        )
        contexts = np.array(found.contexts(np.arange(len(found))[:GOLDEN_WINDOWS]))
        contexts = np.resize(contexts, (GOLDEN_WINDOWS, *contexts.shape[1:]))
    else:
        draw = mx.random.normal(
            (GOLDEN_WINDOWS, loaded.context, loaded.model.config.dim or GOLDEN_DIM), key=mx.random.key(0)
        )
        contexts = np.array(draw / mx.linalg.norm(draw, axis=-1, keepdims=True))
    contexts = contexts.astype(np.float16)
    read = mx.array(contexts).astype(mx.float32)
    output = np.array(model.serving(read)(read).unit)
    return {
        "golden_input": base64.b64encode(contexts.astype("<f2").tobytes()).decode(),
        "golden_output": base64.b64encode(output.astype("<f4").tobytes()).decode(),
    }
