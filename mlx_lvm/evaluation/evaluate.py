"""One evaluation: a model, every baseline and the controls, on documents that none of them was fitted on.

examine(subject, corpus) -> Evaluation: figures with intervals, and those of every window; `to_dict()`: JSON
"""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

from mlx_lvm.core.result import JsonObject, Result, as_json
from mlx_lvm.core.stats import RESAMPLES, DocumentBootstrap
from mlx_lvm.data.corpus import Corpus
from mlx_lvm.data.windows import Windows
from mlx_lvm.errors import InvalidFile, UsageError, nearest
from mlx_lvm.evaluation.checks import check_controls
from mlx_lvm.evaluation.scored import Scored
from mlx_lvm.evaluation.setup import MAX_WINDOWS, Bench, Measured, set_up
from mlx_lvm.evaluation.summary import PredictorScores, Summary, summarise
from mlx_lvm.evaluation.verdict import Claim, Verdict, verdict
from mlx_lvm.hub.load import Loaded, for_corpus
from mlx_lvm.metrics.names import CENTRED_MRR, COSINE, Figures, Metric
from mlx_lvm.predictors.base import Predictor
from mlx_lvm.predictors.baselines import NAMES, Recency, controls
from mlx_lvm.predictors.history import predictor_of
from mlx_lvm.predictors.lags import LagFilter
from mlx_lvm.predictors.neighbours import NearestContexts
from mlx_lvm.predictors.ridge import Ridge
from mlx_lvm.ranking.fusion import Ranking
from mlx_lvm.ranking.hybrid import Hybrid, fuses
from mlx_lvm.ranking.ranking import fit_ranking

CONTROL_NAMES = ("oracle", "best-in-span", "random")
HyperParameters = dict[str, float | list[float]]


@dataclass(frozen=True)
class Evaluation(Result):
    """summary: figures with intervals. hyper_parameters: what validation chose, by baseline. measured,
    predictors (by name), bench and bootstrap are what a closer look needs. model: what was loaded, and
    ranking: fitted for it on the validation documents; None for a baseline.
    """

    name: str
    scored: Scored
    summary: Summary
    verdict: Verdict
    hyper_parameters: dict[str, HyperParameters]
    warnings: list[str]
    notes: list[str]
    seconds: float
    measured: dict[str, Measured]
    predictors: dict[str, Predictor]
    bench: Bench
    bootstrap: DocumentBootstrap
    model: Loaded | None = None
    ranking: Ranking | None = None

    @property
    def figures(self) -> dict[str, Figures]:
        """By predictor."""
        return {name: one.figures for name, one in self.measured.items()}

    @property
    def windows(self) -> Windows:
        return self.bench.windows

    @property
    def objective(self) -> Metric:
        """What the model is made for."""
        return self.verdict.objective

    @property
    def scores(self) -> dict[str, PredictorScores]:
        """By predictor."""
        return self.summary.scores

    def to_dict(self) -> JsonObject:
        return {
            "model": self.name,
            **self.scored.to_dict(),
            "best_closed_form": as_json(self.summary.best),
            "metrics": as_json(self.scores),
            "hyper_parameters": self.hyper_parameters,
            "verdict": self.verdict.to_dict(),
            "warnings": self.warnings,
            "notes": self.notes,
            "seconds": self.seconds,
        }


def examine(
    subject: Loaded | Predictor | str,
    corpus: Corpus,
    split: str = "test",
    *,
    split_seed: int | None = None,
    context: int | None = None,
    max_windows: int = MAX_WINDOWS,
    resamples: int = RESAMPLES,
    seed: int = 0,
    alongside: Sequence[Predictor] = (),
    progress: Callable[[str], None] = lambda line: None,
) -> Evaluation:
    """`subject` is a loaded model, any predictor, or the name of a baseline or control. Baselines are fitted
    on the corpus's training documents and tuned on its validation documents; `split` says which documents
    everything is scored on. `split_seed` and `context` default to those the model was trained with (0 and 5
    for what is no model). `alongside`: further predictors to score, which are no opponents. A model that is
    not made for ranking is scored a second time as it ranks, fused with what it has read; that row is no
    opponent either.

    Raises UsageError for an unknown name or a split seed that is not the model's, InvalidFile where a part
    has no window or the corpus is of another encoder, CheckFailed where a control fails.
    """
    began = time.perf_counter()
    if isinstance(subject, Loaded):
        subject = for_corpus(subject, corpus)
    name, predictor, notes = subject_of(subject, corpus, split_seed)
    if isinstance(subject, Loaded):
        context, split_seed = context or subject.context, subject.split_seed
    context, split_seed = context or 5, split_seed or 0
    bench = set_up(corpus, split, split_seed, context, max_windows, progress)
    everyone: dict[str, Predictor] = {name: predictor} if predictor else {}
    ranking, hybrid = None, ""
    if predictor:
        progress(f"fitting the ranking of {name}")
        ranking = fit_ranking(predictor, bench.tuning, bench.mean)
        if fuses(predictor):
            fused = Hybrid(predictor, ranking.plain.weights, bench.mean)
            hybrid = fused.name
            everyone[hybrid] = fused
    everyone.update({other.name: other for other in [*bench.baselines, *alongside, *controls(seed)]})
    measured = measure_all(bench, everyone, progress)

    bootstrap = DocumentBootstrap(bench.windows.documents, resamples, seed)
    baselines = [key for key in NAMES if key in everyone and key != name]
    kinds = {key: kind_of(key) for key in everyone} | {other.name: "transferred" for other in alongside}
    summary = summarise(measured, bootstrap, baselines, kinds | ({hybrid: "hybrid"} if hybrid else {}))
    judged = verdict(name, summary.scores[name], bootstrap.count, objective_of(subject), bench.split)
    if hybrid:
        gain = summary.scores[hybrid].versus_best[CENTRED_MRR]
        judged = replace(judged, hybrid=Claim(hybrid, gain, CENTRED_MRR.words, bootstrap.count))
    return Evaluation(
        name=name,
        scored=Scored.of(bench, bootstrap),
        summary=summary,
        verdict=judged,
        hyper_parameters=hyper_parameters(bench.baselines),
        warnings=space_warnings(subject, corpus),
        notes=[*notes, *_notes(bench)],
        seconds=round(time.perf_counter() - began, 2),
        measured=measured,
        predictors=everyone,
        bench=bench,
        bootstrap=bootstrap,
        model=subject if isinstance(subject, Loaded) else None,
        ranking=ranking,
    )


def objective_of(subject: Loaded | Predictor | str) -> Metric:
    """The figure that a model is made for: MRR for one that ranks, cosine for everything else."""
    ranks = isinstance(subject, Loaded) and subject.model.config.objective == "rank"
    return CENTRED_MRR if ranks else COSINE


def measure_all(
    bench: Bench, everyone: dict[str, Predictor], progress: Callable[[str], None]
) -> dict[str, Measured]:
    """Every predictor's figures, once the controls among them have passed."""
    measured = {}
    for key, one in everyone.items():
        progress(f"scoring {key}")
        measured[key] = bench.measure(one)
    check_controls({key: one.figures for key, one in measured.items()}, bench.pool, everyone["random"])
    return measured


def kind_of(name: str) -> str:
    """What a predictor is to an evaluation, by its name."""
    return "control" if name in CONTROL_NAMES else "baseline" if name in NAMES else "model"


def subject_of(
    subject: Loaded | Predictor | str, corpus: Corpus, split_seed: int | None
) -> tuple[str, Predictor | None, list[str]]:
    """(name, predictor unless it is a baseline or control, notes)."""
    known = [*NAMES, *CONTROL_NAMES]
    if isinstance(subject, str):
        if subject not in known:
            raise UsageError(f"unknown baseline '{subject}'.{nearest(subject, known)}")
        return subject, None, []
    name = f"{subject.name} (model)" if subject.name in known else subject.name
    if not isinstance(subject, Loaded):
        return name, subject, []
    if split_seed not in (None, subject.split_seed):
        raise UsageError(
            f"--split-seed {split_seed}: {name} was trained with split seed {subject.split_seed}; another "
            "one would test it on documents it was trained on. Omit the option."
        )
    subject = for_corpus(subject, corpus)
    if subject.card is not None:
        subject.card.require_same(corpus.card, f"{name} on corpus {corpus.name}")
    elif subject.model.config.dim != corpus.dim:
        reads = f"{name} reads vectors of {subject.model.config.dim} dimensions"
        raise InvalidFile(f"{reads}, corpus {corpus.name} has {corpus.dim}")
    notes = list(subject.notes)
    if subject.corpus_sha256 and subject.corpus_sha256 != corpus.sha256:
        where = subject.corpus or "another corpus"
        if where == corpus.name:
            where = f"another state of {corpus.name} (its sha256 differs)"
        notes.append(
            f"{name} was trained on {where}, not on {corpus.name} as it is here; the baselines are fitted on "
            f"the training documents of {corpus.name} itself."
        )
    elif not subject.corpus_sha256 and "trained_on" not in subject.imported:
        notes.append(
            f"{name} does not say which corpus it was trained on; that it never saw these documents is not "
            "checked."
        )
    return name, predictor_of(name, subject.model), notes


def space_warnings(subject: Loaded | Predictor | str, corpus: Corpus) -> list[str]:
    """What it means where nothing tells whether model and corpus are of one encoder."""
    if not isinstance(subject, Loaded) or not subject.model.config.dim:
        return []
    if subject.corpus_sha256 and subject.corpus_sha256 == corpus.sha256:
        return []
    unknown = "no encoder is recorded with the model"
    if subject.card is not None:
        unknown = subject.card.unknown(corpus.card)
    return [unknown_space(f"{subject.name} was trained on", corpus, unknown)] if unknown else []


def unknown_space(other: str, corpus: Corpus, unknown: str) -> str:
    """The warning; other: whose vectors the others are, as 'X was trained on'."""
    return (
        f"whether one encoder made the vectors of {corpus.name} and those that {other} is not known "
        f"({unknown}). If two did, no figure here means anything."
    )


def hyper_parameters(baselines: list[Predictor]) -> dict[str, HyperParameters]:
    """What validation chose, and the scalars of the filters."""
    out: dict[str, HyperParameters] = {}
    for one in baselines:
        if isinstance(one, Recency):
            out[one.name] = {"decay": one.decay}
        elif isinstance(one, Ridge):
            out[one.name] = {"penalty": one.penalty}
        elif isinstance(one, NearestContexts):
            out[one.name] = {"neighbours": one.neighbours}
        elif isinstance(one, LagFilter):
            scalars = {"mean_weight": one.mean_weight, "centroid_weight": one.centroid_weight}
            out[one.name] = {"weights": one.weights.tolist(), **scalars}
    return out


def sample_notes(corpus: Corpus) -> list[str]:
    """That the figures are those of a part of the corpus, where they are."""
    larger = f"{corpus.name} is larger than the memory it may take"
    said = f"{larger}: everything here, fitted or scored, is of {corpus.sampled}."
    return [said] if corpus.sampled else []


def _notes(bench: Bench) -> list[str]:
    notes, scored = sample_notes(bench.corpus), len(bench.windows)
    if bench.split != "test":
        seen = {
            "train": "baselines were fitted",
            "val": "hyper-parameters were chosen",
            "all": "baselines were fitted and tuned",
        }
        notes.append(
            f"Split '{bench.split}': {seen[bench.split]} on these documents, and a model was trained or "
            "selected on them. No verdict on new text."
        )
    if scored < bench.available:
        notes.append(f"{scored:,} of {bench.available:,} windows scored, evenly spaced.")
    return notes
