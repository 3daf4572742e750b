"""`lvm export`: a model as a Hub folder, with the numbers on its card measured while it is written."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field, replace
from pathlib import Path

from mlx_lvm.core.result import INLINED, Result
from mlx_lvm.data.corpus import Corpus
from mlx_lvm.data.sampling import load_or_sample
from mlx_lvm.data.splits import split_corpus
from mlx_lvm.data.windows import windows
from mlx_lvm.evaluation.evaluate import Evaluation, examine
from mlx_lvm.hub.card import CardFigures
from mlx_lvm.hub.export import Written, require_dtype, require_free, round_weights, write_model
from mlx_lvm.hub.load import Loaded, corpus_of, for_corpus, load_model
from mlx_lvm.metrics.figures import mean_cosine
from mlx_lvm.predictors.history import predictor_of

Progress = Callable[[str], None]


@dataclass(frozen=True)
class Exported(Result):
    """What was written, and what was measured for its card."""

    written: Written = field(metadata=INLINED)
    evaluation: Evaluation | None = None


def export(
    reference: str | Path | Loaded,
    folder: Path,
    *,
    dtype: str = "float32",
    overwrite: bool = False,
    corpus: str | None = None,
    measure: bool = True,
    parity: str | None = None,
    progress: Progress = lambda line: None,
) -> Exported:
    """Write model.safetensors, config.json and README.md; the same model gives the same bytes.

    corpus: measured on its test documents, by default the one the model was trained on
    parity: the card's section about it

    Raises UsageError for an unknown dtype, IOFailed where the folder holds something and `overwrite` is not
    set, InvalidFile where corpus and model do not fit.
    """
    require_dtype(dtype)
    require_free(folder, overwrite)
    loaded = reference if isinstance(reference, Loaded) else load_model(reference)
    if not loaded.model.config.dim:
        if corpus is None:  # it is of no corpus; what its card tells of it came with it
            return Exported(write_model(loaded, folder, dtype=dtype, parity=parity))
        loaded = of_one_corpus(loaded, load_or_sample(corpus, loaded.context, loaded.split_seed))
    if not measure:
        return Exported(write_model(loaded, folder, dtype=dtype, parity=parity))
    vectors = load_or_sample(corpus or corpus_of(loaded), loaded.context, loaded.split_seed)
    found, figures = card_figures(loaded, dtype, vectors, progress)
    written = write_model(loaded, folder, dtype=dtype, figures=figures, corpus=vectors, parity=parity)
    return Exported(written, found)


def of_one_corpus(loaded: Loaded, corpus: Corpus) -> Loaded:
    """A model for every encoder as that of one corpus, whose statistics go into the file."""
    origin = {"network": loaded.name, "statistics": f"training documents of {corpus.name}"}
    bound = replace(for_corpus(loaded, corpus), corpus=corpus.name, corpus_sha256=corpus.sha256)
    return replace(bound, imported=origin, train={}, ranking={}, golden=None)


def card_figures(
    loaded: Loaded, dtype: str, corpus: Corpus, progress: Progress = lambda line: None
) -> tuple[Evaluation, CardFigures]:
    """The evaluation of the weights as stored, on the test documents, and what the card says of it."""
    stored, _ = round_weights(loaded.model, dtype)
    subject = replace(loaded, model=stored, name=stored.config.variant)
    found = examine(subject, corpus, progress=progress)
    scored = found.scored
    figures = CardFigures(
        model=found.name,
        corpus=scored.corpus,
        split=scored.split,
        split_seed=scored.split_seed,
        documents=scored.documents,
        windows=scored.windows,
        candidates=scored.retrieval.split.pool,
        sentences=found.verdict.sentences,
        scores={name: scores.values for name, scores in found.scores.items()},
        ranking=found.ranking.to_dict() if found.ranking else {},
    )
    if dtype == "float32":
        return found, figures
    test = windows(corpus, split_corpus(corpus, loaded.split_seed).test, loaded.context, "test documents")
    full, rounded = (mean_cosine(predictor_of("", model), test) for model in (loaded.model, stored))
    return found, replace(figures, rounding=rounded - full)
