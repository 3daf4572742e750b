"""Out of domain: a model on a corpus it was not trained on, beside closed forms that travelled with it and closed forms
that were fitted there.

The transferred forms are fitted on the training documents of the model's own corpus: they are its equals, who saw no more
than it did. The ones fitted at home on the other corpus are what the model would have to beat to be worth carrying over;
they leave only its test documents to be compared on. What travelled from another corpus has seen none of its documents, so it is
compared on all of them as well.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import numpy as np

from mlx_lvm.data.corpus import Corpus
from mlx_lvm.data.windows import windows
from mlx_lvm.errors import UsageError
from mlx_lvm.evaluation.baselines import target_mean
from mlx_lvm.evaluation.bench import Measured, best_fraction, score
from mlx_lvm.evaluation.bootstrap import DocumentBootstrap
from mlx_lvm.evaluation.direction import offset_cosines
from mlx_lvm.evaluation.evaluate import Evaluation, examine
from mlx_lvm.evaluation.predictor import Predictor, document_rows, predict_all, sample
from mlx_lvm.evaluation.retrieval import build_pool, rank_figures, ranks
from mlx_lvm.evaluation.summary import JUDGED, claim, span, summarise, verdict
from mlx_lvm.hub import Loaded

FIGURES = ("cosine", "cosine_ci", "centred_cosine", "centred_cosine_ci", "mrr", "mrr_ci")
AGAINST = ("cosine", "centred.mrr")  # what a model is compared in to the closed forms that travelled with it


def out_of_domain(
    home: Evaluation,
    subject: Loaded | str,
    corpus: Corpus,
    max_windows: int,
    progress: Callable[[str], None] = lambda line: None,
) -> dict[str, Any]:
    """`home`: the evaluation at home. `rows`: for every predictor its figures at home, on `corpus`, and transferred.
    `versus_transferred`: a model's difference to the best closed form that travelled, in cosine and in MRR. `whole`: what travelled
    on all documents of `corpus`, see `on_all_documents`; not there, and a note says why, where the model may have seen some of them.

    Raises UsageError where `corpus` is the home corpus, InvalidFile where it is of another encoder.
    """
    there = home.bench.corpus
    if corpus.sha256 and corpus.sha256 == there.sha256:
        raise UsageError(f"--ood {corpus.name} is the corpus that everything is fitted on; name another one")
    there.card.require_same(corpus.card, f"closed forms of {there.name} on corpus {corpus.name}")
    mark = f" from {there.name}"
    travelled: list[Predictor] = [replace(one, name=one.name + mark) for one in home.bench.closed]  # type: ignore[type-var]
    seed, context = home.bench.parts.seed, home.windows.context
    found = examine(
        subject, corpus, home.bench.split, split_seed=seed, context=context, max_windows=max_windows, resamples=home.bootstrap.resamples,
        seed=home.bootstrap.seed, beside=travelled, progress=lambda line: progress(f"{corpus.name}: {line}"),
    )  # fmt: skip
    metrics = found.result["metrics"]
    rows = []
    for name, entry in home.result["metrics"].items():
        row = {
            "predictor": name,
            "kind": entry["kind"],
            "home": _figures(entry),
            "there": _figures(metrics[name]) if name in metrics else None,
        }
        rows.append({**row, "transferred": _figures(metrics[name + mark]) if name + mark in metrics else None})
    out = {
        "corpus": corpus.name,
        "home": there.name,
        "documents": found.result["documents"],
        "windows": found.result["windows"],
        "retrieval": found.result["retrieval"],
        "rows": rows,
        "metrics": metrics,
        "verdict": found.result["verdict"],
        "notes": [*found.result["notes"]],
    }
    if found.name not in home.result["metrics"] or home.result["metrics"][found.name]["kind"] != "closed form":
        out["versus_transferred"] = {metric: _against(found, [one.name for one in travelled], metric) for metric in AGAINST}
        doubt = may_have_seen(subject, corpus)
        if doubt:
            out["notes"].append(f"{found.name} is compared on the {home.bench.split} documents of {corpus.name} alone: {doubt}.")
        else:
            out["whole"] = on_all_documents(home, found, travelled, max_windows, progress)
    return out


def may_have_seen(subject: Loaded | Predictor | str, corpus: Corpus) -> str:
    """Why the subject may have been trained on documents of `corpus`; empty where it says that it was trained on another one."""
    if not isinstance(subject, Loaded) or not (subject.corpus_sha256 and corpus.sha256):
        return "which documents it was trained on is not known"
    if corpus.sha256 == subject.corpus_sha256:
        return "it was trained on others of this corpus"
    if corpus.name == subject.corpus:
        return "it was trained on another state of this corpus"
    return ""


def on_all_documents(
    home: Evaluation, found: Evaluation, travelled: list[Predictor], max_windows: int, progress: Callable[[str], None] = lambda line: None
) -> dict[str, Any]:
    """The model and the closed forms that travelled, on every document of the corpus of `found`: nothing here was fitted on one.

    The model is ranked with the share of the mean off that home's validation documents chose, a closed form with the one that
    ranks it best here: a choice in hindsight, which favours the closed forms. The mean is that of all targets here. Gives
    `documents`, `windows`, `pool`, `metrics` and `verdict` as an evaluation does, and `as_at_home`: the claims in retrieval with
    home's own mean and shares of it off, for model and closed forms alike, so that nothing at all is from here.
    """
    corpus, context, name = found.bench.corpus, home.windows.context, found.name
    everything = np.arange(len(corpus.names))
    scored = sample(windows(corpus, everything, context, "documents"), max_windows)
    pool, mean = build_pool(scored, document_rows(corpus.offsets, everything)), target_mean(corpus, everything, context)
    measured, at_home = {}, {}
    for one, same in zip([found.predictors[name], *travelled], [home.name, *(one.name for one in home.bench.closed)], strict=True):
        progress(f"{corpus.name}, all documents: scoring {one.name}")
        predicted, share = predict_all(one, scored), home.measured[same].fraction
        at_home[one.name] = rank_figures(ranks(pool, predicted, home.bench.mean, share), pool)
        fraction = share if one.name == name else best_fraction(predicted, pool, mean)
        measured[one.name] = Measured(score(predicted, pool, mean, fraction), offset_cosines(predicted, scored), fraction)
    bootstrap = DocumentBootstrap(scored.documents, home.bootstrap.resamples, home.bootstrap.seed)
    metrics, _ = summarise(measured, bootstrap, [one.name for one in travelled])
    purpose = home.result["verdict"]["purpose"]
    return {
        "documents": bootstrap.count,
        "windows": len(scored),
        "pool": float(pool.sizes.mean()),
        "metrics": metrics,
        "verdict": verdict(name, metrics[name], bootstrap.count, purpose),
        "as_at_home": {metric: _claim(name, at_home, metric, bootstrap) for metric in ("mrr", "recall_at_5")},
    }


def _claim(name: str, figures: dict[str, dict[str, np.ndarray]], metric: str, bootstrap: DocumentBootstrap) -> dict[str, Any]:
    """Of `name` against the best of the others in `metric`."""
    best = max((one for one in figures if one != name), key=lambda one: float(figures[one][metric].mean()))
    less = bootstrap.intervals({metric: figures[name][metric] - figures[best][metric]})[metric]
    found = {"closed_form": best, "difference": less.value, "ci": less.ends(), "p": less.p}
    return claim(name, {"versus_best": {metric: found}}, metric, JUDGED[f"centred.{metric}"], bootstrap.count)


def _figures(entry: dict[str, Any]) -> dict[str, Any]:
    return {key: entry[key] for key in FIGURES}


def _against(found: Evaluation, travelled: list[str], metric: str) -> dict[str, Any]:
    """The model's paired difference to the best transferred closed form."""
    best = max(travelled, key=lambda name: float(found.measured[name].figures[metric].mean()))
    difference = found.measured[found.name].figures[metric] - found.measured[best].figures[metric]
    one = found.bootstrap.intervals({"difference": np.asarray(difference)})["difference"]
    return {"closed_form": best, "difference": one.value, "ci": one.ends(), "p": one.p}


def transferred_sentences(name: str, found: dict[str, Any]) -> list[str]:
    """How a model stands to the best closed forms that travelled with it; none for what is itself a closed form."""
    return [
        f"Against the best closed form carried over from {found['home']}: {name} {against['difference']:+.4f} in {JUDGED[metric]} to "
        f"{against['closed_form']} (95% interval {span(against['ci'], '+.4f')}, {found['documents']} documents)."
        for metric, against in found.get("versus_transferred", {}).items()
    ]


def whole_sentences(found: dict[str, Any]) -> list[str]:
    """The same on every document of the other corpus: what travelled has seen none of them."""
    if "whole" not in found:
        return []
    whole = found["whole"]
    scored = f"All {whole['documents']} documents of {found['corpus']}, {whole['windows']:,} windows among {whole['pool']:,.0f} chunks:"
    judged = [whole["verdict"][metric]["sentence"] for metric in JUDGED]
    home = f"everything fitted on {found['home']}, centring too:"
    return [*(f"{scored} {one}" for one in judged), *(f"{scored} {home} {one['sentence']}" for one in whole["as_at_home"].values())]
