"""One evaluation: a model beside every closed form and the controls, on documents that none of them was fitted on.

evaluate(subject, corpus) -> dict, ready for JSON
examine(subject, corpus) -> Evaluation: the dict, and every window's figures for whoever looks closer
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np

from mlx_lvm.backend import mx
from mlx_lvm.data.corpus import Corpus
from mlx_lvm.data.splits import split_corpus
from mlx_lvm.data.windows import Windows, windows
from mlx_lvm.errors import InvalidFile, UsageError, nearest
from mlx_lvm.evaluation.baselines import NAMES, controls, fit_baselines, target_mean
from mlx_lvm.evaluation.bootstrap import RESAMPLES, DocumentBootstrap, Interval, intervals
from mlx_lvm.evaluation.checks import check_controls
from mlx_lvm.evaluation.metrics import skill, window_figures
from mlx_lvm.evaluation.predictor import ModelPredictor, Predictor, document_rows, predict_all, sample
from mlx_lvm.evaluation.retrieval import CUTS, Pool, build_pool, chance, rank_figures, ranks
from mlx_lvm.hub import Loaded

FRACTIONS = (0.0, 0.6, 1.0)  # of the mean taken off queries and candidates
TUNING_WINDOWS = 2_000  # validation windows that the fraction is chosen on
MAX_WINDOWS = 20_000  # windows scored, evenly spaced where a split has more
COMPARED = ("cosine", "centred_cosine", *(f"recall_at_{cut}" for cut in CUTS), "mrr", "centred.mrr", "in_document.mrr")
CONTROL_NAMES = ("oracle", "best-in-span", "random")


@dataclass(frozen=True)
class Evaluation:
    """result: the figures with their intervals. figures: {predictor: {figure: [windows]}}. predictors: by name."""

    result: dict[str, Any]
    figures: dict[str, dict[str, np.ndarray]]
    windows: Windows
    predictors: dict[str, Predictor]
    mean: np.ndarray


def evaluate(subject: Loaded | Predictor | str, corpus: Corpus, split: str = "test", **options: Any) -> dict[str, Any]:
    """The result of `examine`, which says what the arguments are."""
    return examine(subject, corpus, split, **options).result


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
    progress: Callable[[str], None] = lambda line: None,
) -> Evaluation:
    """`subject` is a loaded model, any predictor, or the name of a closed form or control. Closed forms are fitted on the
    corpus's training documents and tuned on its validation documents; `split` says which documents everything is scored on.
    `split_seed` and `context` default to those the model was trained with (0 and 5 for what is no model).

    Raises UsageError for an unknown name or a split seed that is not the model's, InvalidFile where a part has no window or
    the corpus is of another encoder, CheckFailed where a control fails.
    """
    began = time.perf_counter()
    name, predictor, notes = _subject(subject, corpus, split_seed)
    if isinstance(subject, Loaded):
        context, split_seed = context or subject.context, subject.split_seed
    context, split_seed = context or 5, split_seed or 0
    parts = split_corpus(corpus, split_seed)
    chosen = parts.part(split)
    available = windows(corpus, chosen, context, f"{split} documents")
    scored = sample(available, max_windows)
    progress("fitting closed forms")
    closed = fit_baselines(corpus, parts.train, parts.val, context)
    mean = target_mean(corpus, parts.train, context)
    everyone: dict[str, Predictor] = {name: predictor} if predictor else {}
    everyone.update({other.name: other for other in [*closed, *controls(seed)]})

    pool = build_pool(scored, document_rows(corpus.offsets, chosen))
    tuning = sample(windows(corpus, parts.val, context, "validation documents"), TUNING_WINDOWS)
    tuning_pool = build_pool(tuning, document_rows(corpus.offsets, parts.val))
    figures, fractions = {}, {}
    for key, one in everyone.items():
        progress(f"scoring {key}")
        fractions[key] = best_fraction(predict_all(one, tuning), tuning_pool, mean)
        figures[key] = score(predict_all(one, scored), pool, mean, fractions[key])
    check_controls(figures, pool, corpus.dim)

    bootstrap = DocumentBootstrap(scored.documents, resamples, seed)
    closed_names = [key for key in NAMES if key in everyone and key != name]
    metrics, best = _summarise(figures, bootstrap, closed_names, fractions)
    for key, entry in metrics.items():
        entry["kind"] = "control" if key in CONTROL_NAMES else "closed form" if key in NAMES else "model"
    result = {
        "model": name,
        "corpus": corpus.name,
        "corpus_sha256": corpus.sha256,
        "split": split,
        "split_seed": split_seed,
        "context": context,
        "documents": bootstrap.count,
        "windows": len(scored),
        "skipped_documents": scored.skipped,
        "resamples": resamples,
        "best_closed_form": best,
        "metrics": metrics,
        "retrieval": {"split": _describe(pool), "document": _describe(pool.in_document())},
        "hyper_parameters": hyper_parameters(closed),
        "verdict": verdict(name, metrics[name], bootstrap.count),
        "notes": [*notes, *_notes(split, scored, len(available))],
        "seconds": round(time.perf_counter() - began, 2),
    }
    return Evaluation(result, figures, scored, everyone, mean)


def _subject(subject: Loaded | Predictor | str, corpus: Corpus, split_seed: int | None) -> tuple[str, Predictor | None, list[str]]:
    """(name, predictor unless it is a closed form or control, notes)."""
    known = [*NAMES, *CONTROL_NAMES]
    if isinstance(subject, str):
        if subject not in known:
            raise UsageError(f"unknown closed form '{subject}'.{nearest(subject, known)}")
        return subject, None, []
    name = f"{subject.name} (model)" if subject.name in known else subject.name
    if not isinstance(subject, Loaded):
        return name, subject, []
    if split_seed not in (None, subject.split_seed):
        raise UsageError(
            f"--split-seed {split_seed}: {name} was trained with split seed {subject.split_seed}; another one would test it on "
            "documents it was trained on. Leave the option away."
        )
    if subject.card is not None:
        subject.card.require_same(corpus.card, f"{name} on corpus {corpus.name}")
    elif subject.model.config.dim != corpus.dim:
        raise InvalidFile(f"{name} reads vectors of {subject.model.config.dim} dimensions, corpus {corpus.name} has {corpus.dim}")
    notes = list(subject.notes)
    if subject.card is None:
        notes.append(f"{name} does not say which encoder it was trained on; that it is the corpus's is not checked.")
    if subject.corpus_sha256 and subject.corpus_sha256 != corpus.sha256:
        notes.append(
            f"{name} was trained on {subject.corpus or 'another corpus'}, not on {corpus.name}; the closed forms are fitted on the "
            f"training documents of {corpus.name} itself."
        )
    elif not subject.corpus_sha256:
        notes.append(f"{name} does not say which corpus it was trained on; that it never saw these documents is not checked.")
    return name, ModelPredictor(name, subject.model), notes


def best_fraction(predicted: mx.array, pool: Pool, mean: np.ndarray) -> float:
    """The share of the mean whose removal gives the best MRR on validation documents; 0 wins ties."""
    return max(FRACTIONS, key=lambda fraction: float((1 / ranks(pool, predicted, mean, fraction)).mean()))


def score(predicted: mx.array, pool: Pool, mean: np.ndarray, fraction: float) -> dict[str, np.ndarray]:
    """Every figure of every window; retrieval in the split, `centred.*` with `fraction` of the mean taken off, and
    `in_document.*`.
    """
    raw = ranks(pool, predicted)
    centred = ranks(pool, predicted, mean, fraction) if fraction else raw
    inside = pool.in_document()
    figures = {**window_figures(predicted, pool.windows, mean), "rank": raw, **rank_figures(raw, pool)}
    for prefix, values, where in (("centred", centred, pool), ("in_document", ranks(inside, predicted), inside)):
        figures.update({f"{prefix}.{key}": value for key, value in rank_figures(values, where).items()})
    return figures


def _summarise(
    figures: dict[str, dict[str, np.ndarray]], bootstrap: DocumentBootstrap, closed: list[str], fractions: dict[str, float]
) -> tuple[dict[str, dict[str, Any]], dict[str, str]]:
    """Means, intervals and paired differences to the best closed form of every predictor, and which form is best at what."""
    names, columns = list(figures), list(next(iter(figures.values())))
    values, resampled = {}, {}
    for key in names:
        table = np.stack([figures[key][column] for column in columns], axis=1)
        values[key] = dict(zip(columns, table.mean(axis=0).tolist(), strict=True))
        resampled[key] = dict(zip(columns, bootstrap.means(table).T, strict=True))
    best = {metric: max(closed, key=lambda key: values[key][metric]) for metric in COMPARED}

    def interval(value: float, draws: np.ndarray) -> Interval:
        return intervals(np.array([value]), draws[:, None], bootstrap.count)[0]

    out: dict[str, dict[str, Any]] = {}
    for key in names:
        entry: dict[str, Any] = {}
        for column in columns:
            if column in ("rank", "to_context", "truth_to_context"):
                continue
            place, leaf = _place(entry, column)
            found = interval(values[key][column], resampled[key][column])
            place[leaf], place[f"{leaf}_ci"] = found.value, _finite(found)
        ratio = values[key]["to_context"] / values[key]["truth_to_context"]
        draws = resampled[key]["to_context"] / resampled[key]["truth_to_context"]
        entry["context_ratio"], entry["context_ratio_ci"] = ratio, _finite(interval(ratio, draws))
        entry["centred"]["fraction"] = fractions[key]
        entry["skill"] = {
            metric: skill(values[key][metric], values[best[metric]][metric]) for metric in ("cosine", "centred_cosine", "mrr")
        }
        entry["versus_best"] = {}
        for metric, other in best.items():
            if key != other:
                difference = values[key][metric] - values[other][metric]
                found = interval(difference, resampled[key][metric] - resampled[other][metric])
                entry["versus_best"][metric] = {"closed_form": other, "difference": difference, "ci": _finite(found), "p": found.p}
        if key != "mean" and "mean" in values:
            found = interval(values[key]["cosine"] - values["mean"]["cosine"], resampled[key]["cosine"] - resampled["mean"]["cosine"])
            entry["versus_mean"] = {"difference": found.value, "ci": _finite(found), "p": found.p}
        out[key] = entry
    return out, best


def _place(entry: dict[str, Any], column: str) -> tuple[dict[str, Any], str]:
    head, _, tail = column.rpartition(".")
    return (entry.setdefault(head, {}), tail) if head else (entry, tail)


def _finite(interval: Interval) -> list[float | None]:
    return [end if math.isfinite(end) else None for end in (interval.low, interval.high)]


def _describe(pool: Pool) -> dict[str, Any]:
    by_chance = chance(pool)
    by_chance.pop("mrr_variance")
    return {
        "pool": float(pool.sizes.mean()),
        "smallest_pool": int(pool.sizes.min()),
        "windows_with_near_duplicates": int((pool.hit_counts() > 1).sum()),
        "chance": by_chance,
    }


def hyper_parameters(closed: list[Predictor]) -> dict[str, Any]:
    """What validation chose, and the scalars of the filters."""
    out: dict[str, Any] = {}
    for predictor in closed:
        for key in ("decay", "penalty", "neighbours", "weights", "mean_weight", "centroid_weight"):
            value = getattr(predictor, key, None)
            if isinstance(value, (int, float)) or (key == "weights" and isinstance(value, np.ndarray)):
                out.setdefault(predictor.name, {})[key] = value.tolist() if isinstance(value, np.ndarray) else value
    return out


def verdict(name: str, entry: dict[str, Any], documents: int) -> dict[str, Any]:
    """In a sentence: better than, not distinguishable from or worse than the best closed form, by cosine."""
    out: dict[str, Any] = {"documents": documents}
    for metric, words in (("cosine", "cosine"), ("centred_cosine", "centred cosine"), ("centred.mrr", "MRR")):
        found = entry["versus_best"][metric]
        outcome = _outcome(found)
        against = f"the best closed form in {words}: {found['difference']:+.4f} against {found['closed_form']}"
        out[metric] = {"outcome": outcome, **found, "sentence": _sentence(name, outcome, against, found, documents)}
    if "versus_mean" in entry:
        found = entry["versus_mean"]
        against = f"the mean of its context in cosine: {found['difference']:+.4f}"
        out["mean"] = {"outcome": _outcome(found), **found, "sentence": _sentence(name, _outcome(found), against, found, documents)}
    out["outcome"], out["sentence"] = out["cosine"]["outcome"], out["cosine"]["sentence"]
    return out


def _outcome(found: dict[str, Any]) -> str:
    low, high = found["ci"]
    return "better" if low is not None and low > 0 else "worse" if high is not None and high < 0 else "not distinguishable"


def _sentence(name: str, outcome: str, against: str, found: dict[str, Any], documents: int) -> str:
    relation = {"better": "better than", "worse": "worse than", "not distinguishable": "not distinguishable from"}[outcome]
    low, high = found["ci"]
    span = f"95% interval {low:+.4f} to {high:+.4f}" if low is not None else "no interval from a single document"
    return f"{name} is {relation} {against} ({span}, {documents} {'document' if documents == 1 else 'documents'})."


def _notes(split: str, scored: Windows, available: int) -> list[str]:
    notes = []
    if split != "test":
        seen = {"train": "closed forms were fitted", "val": "hyper-parameters were chosen", "all": "closed forms were fitted and tuned"}
        notes.append(
            f"Split '{split}': {seen[split]} on these documents, and a model was trained or selected on them. No verdict on new text."
        )
    if len(scored) < available:
        notes.append(f"{len(scored):,} of {available:,} windows scored, evenly spaced.")
    return notes
