"""A model for others: the Hub's folder of it, with what was measured on its card."""

from __future__ import annotations

from collections.abc import Callable
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from mlx_lvm.api.corpus import Corpus
from mlx_lvm.api.model import Model
from mlx_lvm.core.result import JsonObject
from mlx_lvm.errors import UsageError
from mlx_lvm.evaluation.export import export as write
from mlx_lvm.hub.export import fit_filter, require_free
from mlx_lvm.hub.load import load_model
from mlx_lvm.predictors.baselines import NAMES


def export(
    model: Model | str | Path,
    folder: str | Path,
    *,
    dtype: str = "float32",
    corpus: Corpus | str | Path | None = None,
    measure: bool = True,
    context: int = 5,
    overwrite: bool = False,
    progress: Callable[[str], None] = lambda line: None,
) -> JsonObject:
    """Write model.safetensors, config.json and a model card; PyTorch loads the file strictly, as it is.

    model:   a Model, a name that `load` takes, or a filter's (`lag-filter`, `shrunk-mean`), which is fitted
             first
    dtype:   "float32", "float16" or "bfloat16", what the weights are stored in
    corpus:  what the card's figures are measured on, by default what the model was trained on; a file
    measure: whether its card has figures of test documents, and of parity where torch is installed (a minute)
    context: chunks that a filter reads

    Returns `path`, `sha256`, `dtype`, `parameters`, and `evaluation` where it was measured. Raises UsageError
    for an unknown dtype, IOFailed where the folder holds something and `overwrite` is not set, InvalidFile
    where corpus and model do not fit.

    >>> export("runs/emn-sotu-1", "exported")
    """
    section = _parity() if measure else None
    require_free(Path(folder), overwrite)
    reference = _reference(corpus)
    if isinstance(model, str) and model in NAMES and not Path(model).exists():
        loaded = fit_filter(model, reference or "sotu", context)
    else:
        loaded = model.loaded if isinstance(model, Model) else load_model(model)
    parity = section(loaded) if section else None
    exported = write(
        loaded,
        Path(folder),
        dtype=dtype,
        overwrite=overwrite,
        corpus=reference,
        measure=measure,
        parity=parity,
        progress=progress,
    )
    return exported.to_dict()


def _reference(corpus: Corpus | str | Path | None) -> str | None:
    if not isinstance(corpus, Corpus):
        return None if corpus is None else str(corpus)
    if corpus.held.path is None:
        raise UsageError(f"{corpus.name}: a part of a larger corpus; name its file")
    return str(corpus.held.path)


def _parity() -> Any:
    """What writes a card's parity section, TF32 off from MLX's first product on; None without torch."""
    if find_spec("torch") is None:
        return None
    from mlx_lvm.parity.sides.setup import prepare

    prepare()
    from mlx_lvm.parity.report.card import parity_section

    return parity_section
