"""A model or a baseline by name as it serves a corpus, and how it ranks that corpus's chunks."""

from __future__ import annotations

from pathlib import Path
from typing import NamedTuple

from mlx_lvm.core.result import JsonObject
from mlx_lvm.data.corpus import Corpus
from mlx_lvm.data.splits import split_corpus
from mlx_lvm.errors import UsageError
from mlx_lvm.evaluation.evaluate import space_warnings, subject_of
from mlx_lvm.hub.load import Loaded, corpus_of, load_model
from mlx_lvm.predictors.base import Predictor
from mlx_lvm.predictors.baselines import NAMES, fit_baselines
from mlx_lvm.ranking.predict import Ranker
from mlx_lvm.ranking.query import Query
from mlx_lvm.ranking.ranking import ranking_for, ranking_mean

BASELINE_CONTEXT = 5  # chunks that a baseline reads


class Serving(NamedTuple):
    """A model or baseline by name, ready for a corpus."""

    predictor: Predictor
    context: int  # chunks that it reads
    split_seed: int
    ranking: JsonObject  # stored with it
    trained_on: str  # the sha256 of a corpus
    warnings: list[str]  # what to know before any figure of it
    notes: list[str]


def is_baseline(name: str, precision: str = "float32") -> bool:
    """Whether the name is a baseline's and no file's. Raises UsageError for one in another precision."""
    baseline = name in NAMES and not Path(name).exists()
    if baseline and precision != "float32":
        raise UsageError(
            f"--precision {precision}: {name} is a baseline, computed in float32; omit the option"
        )
    return baseline


def reading(
    subject: Loaded | str, context: int | None = None, split_seed: int | None = None
) -> tuple[int, int]:
    """(chunks that a window has, seed of the split): as given, else the model's own."""
    loaded = _model(subject)
    own = (loaded.context, loaded.split_seed) if loaded else (BASELINE_CONTEXT, 0)
    return context or own[0], own[1] if split_seed is None else split_seed


def default_corpus(subject: Loaded | str) -> str:
    """What is taken where no corpus is named: the one the model was trained on; `sotu` for a baseline."""
    loaded = _model(subject)
    return corpus_of(loaded) if loaded else "sotu"


def _model(subject: Loaded | str) -> Loaded | None:
    """None for a baseline."""
    if isinstance(subject, Loaded):
        return subject
    return None if is_baseline(subject) else load_model(subject)


def serve(subject: Loaded | str, corpus: Corpus, precision: str = "float32") -> Serving:
    """A model, or a baseline fitted on the corpus's training documents.

    Raises InvalidFile where the model is of another encoder than the corpus.
    """
    if isinstance(subject, str) and is_baseline(subject, precision):
        parts = split_corpus(corpus)
        (fitted,) = fit_baselines(corpus, parts.train, parts.val, BASELINE_CONTEXT, only=(subject,))
        return Serving(fitted, BASELINE_CONTEXT, 0, {}, "", [], [])
    loaded = subject if isinstance(subject, Loaded) else load_model(subject).compute_in(precision)
    _, predictor, notes = subject_of(loaded, corpus, None)
    assert predictor is not None  # a loaded model always has one
    known = (loaded.context, loaded.split_seed, loaded.ranking, loaded.corpus_sha256)
    return Serving(predictor, *known, space_warnings(loaded, corpus), notes)


def ranker_of(
    serving: Serving, corpus: Corpus, query: Query | None = None, approximate: bool = False
) -> tuple[Ranker | None, list[str]]:
    """How it ranks the chunks of a corpus: as fitted on that corpus's validation documents (seconds, unless
    the model came with it); None where there is nothing to fit on, and what a reader must know of it.
    """
    parts = split_corpus(corpus, serving.split_seed)
    found, notes = ranking_for(serving.ranking, serving.predictor, corpus, parts, serving.context)
    if found is None:
        return None, notes
    return Ranker(found, ranking_mean(corpus, parts, serving.context), query, approximate), notes
