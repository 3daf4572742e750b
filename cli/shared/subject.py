"""What `lvm eval` and `lvm predict` are given: a model or a baseline, by name."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, NamedTuple

import typer

from mlx_lvm.errors import UsageError
from mlx_lvm.predictors.baselines import NAMES

if TYPE_CHECKING:
    from mlx_lvm.data.corpus import Corpus
    from mlx_lvm.predictors.base import Predictor

Subject = Annotated[
    str,
    typer.Argument(
        metavar="MODEL",
        help="Architecture, run folder, exported folder, .safetensors file, or a baseline: "
        f"{', '.join(NAMES)}.",
    ),
]


class NamedSubject(NamedTuple):
    """A model or baseline by name: its predictor, the chunks it reads, its split, the ranking stored with it,
    the sha256 of the corpus it was trained on, and notes.
    """

    predictor: Predictor
    context: int
    split_seed: int
    ranking: dict[str, Any]
    trained_on: str
    notes: list[str]


def is_baseline(name: str, precision: str) -> bool:
    """Whether the name is a baseline's and no file's. Raises UsageError for one in another precision than
    float32.
    """
    baseline = name in NAMES and not Path(name).exists()
    if baseline and precision != "float32":
        raise UsageError(
            f"--precision {precision}: {name} is a baseline, computed in float32; omit the option"
        )
    return baseline


def load_subject(name: str, corpus: Corpus, precision: str = "float32") -> NamedSubject:
    """A model, or a baseline fitted on the corpus's training documents."""
    from mlx_lvm.data.splits import split_corpus
    from mlx_lvm.evaluation.evaluate import subject_of
    from mlx_lvm.hub.load import load_model
    from mlx_lvm.predictors.baselines import fit_baselines

    if is_baseline(name, precision):
        parts = split_corpus(corpus)
        return NamedSubject(
            fit_baselines(corpus, parts.train, parts.val, 5, only=(name,))[0], 5, 0, {}, "", []
        )
    loaded = load_model(name).compute_in(precision)
    _, predictor, notes = subject_of(loaded, corpus, None)
    assert predictor is not None  # a loaded model always has one
    return NamedSubject(
        predictor, loaded.context, loaded.split_seed, loaded.ranking, loaded.corpus_sha256, notes
    )
