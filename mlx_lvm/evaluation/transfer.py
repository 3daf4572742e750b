"""Out of domain: a model on a corpus it was not trained on, beside closed forms that travelled with it and closed forms
that were fitted there.

The transferred forms are fitted on the training documents of the model's own corpus: they are its equals, who saw no more
than it did. The ones fitted at home on the other corpus are what the model would have to beat to be worth carrying over;
they leave only its test documents to be compared on. What travelled from another corpus has seen none of its documents, so it is
compared on all of them as well, but for those that stand in the training documents under whatever name.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import numpy as np

from mlx_lvm.core.mlx import mx
from mlx_lvm.core.stats import DocumentBootstrap
from mlx_lvm.data.corpus import Corpus
from mlx_lvm.data.quality.audit import COPY
from mlx_lvm.data.quality.duplicates import NEAR
from mlx_lvm.data.windows import windows
from mlx_lvm.errors import UsageError
from mlx_lvm.evaluation.evaluate import Evaluation, examine
from mlx_lvm.evaluation.setup import Measured, best_fraction, score
from mlx_lvm.evaluation.study.direction import offset_cosines
from mlx_lvm.evaluation.summary import JUDGED, claim, span, summarise, verdict
from mlx_lvm.hub.load import Loaded
from mlx_lvm.metrics.retrieval import build_pool, rank_figures, ranks
from mlx_lvm.models.base import normalize
from mlx_lvm.predictors.base import Predictor, document_rows, predict_all, sample
from mlx_lvm.predictors.baselines import target_mean

FIGURES = ("cosine", "cosine_ci", "centred_cosine", "centred_cosine_ci", "mrr", "mrr_ci")
AGAINST = ("cosine", "centred.mrr")  # what a model is compared in to the closed forms that travelled with it
LOOKED = 16  # chunks of a document, spread through it, by which a copy of it is known
BLOCK = 16_384  # chunks of the training documents that these are compared with at a time


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
        rows.append(
            {**row, "transferred": _figures(metrics[name + mark]) if name + mark in metrics else None}
        )
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
    if (
        found.name not in home.result["metrics"]
        or home.result["metrics"][found.name]["kind"] != "closed form"
    ):
        out["versus_transferred"] = {
            metric: _against(found, [one.name for one in travelled], metric) for metric in AGAINST
        }
        progress(f"{corpus.name}: looking for training documents of {there.name}")
        doubt, copied = may_have_seen(subject, corpus), copies(corpus, there, home.bench.parts.train)
        if len(copied):
            judged = np.isin(copied, found.bench.parts.part(home.bench.split)).sum()
            out["notes"].append(
                f"{len(copied)} of {len(corpus.names)} documents of {corpus.name} are training documents of {there.name} as well, "
                f"'{corpus.names[copied[0]]}' first: no comparison on all documents has them, "
                f"that on the {home.bench.split} documents has {judged}."
            )
        if doubt:
            out["notes"].append(
                f"{found.name} is compared on the {home.bench.split} documents of {corpus.name} alone: {doubt}."
            )
        elif len(copied) < len(corpus.names):
            others = np.setdiff1d(np.arange(len(corpus.names)), copied)
            out["whole"] = on_all_documents(home, found, travelled, others, max_windows, progress)
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


def copies(corpus: Corpus, home: Corpus, documents: np.ndarray) -> np.ndarray:
    """Documents of `corpus` that are among `documents` of `home` under whatever name, [n]: of LOOKED chunks spread through one,
    more than COPY have a cosine above NEAR with a chunk there.
    """
    ends = zip(corpus.offsets[:-1], corpus.offsets[1:], strict=True)
    looked = [np.linspace(a, b - 1, min(LOOKED, b - a)).round().astype(np.int32) for a, b in ends]
    theirs = document_rows(home.offsets, documents).astype(np.int32)
    nearest = []
    for rows in np.array_split(np.concatenate(looked), -(-sum(map(len, looked)) // BLOCK)):
        mine, best = normalize(corpus.take(mx.array(rows))), mx.full((len(rows),), -1.0)
        for start in range(0, len(theirs), BLOCK):
            products = mine @ normalize(home.take(mx.array(theirs[start : start + BLOCK]))).T
            best = mx.maximum(best, products.max(axis=1))
            mx.eval(best)
        nearest.append(np.array(best))
    counts = [len(rows) for rows in looked]
    same = np.bincount(np.repeat(np.arange(len(counts)), counts), np.concatenate(nearest) > NEAR)
    return np.flatnonzero(same > COPY * np.array(counts))


def on_all_documents(
    home: Evaluation,
    found: Evaluation,
    travelled: list[Predictor],
    documents: np.ndarray,
    max_windows: int,
    progress: Callable[[str], None] = lambda line: None,
) -> dict[str, Any]:
    """The model and the closed forms that travelled, on `documents` of the corpus of `found`, all but copies: nothing here was
    fitted on one.

    The model is ranked with the share of the mean off that home's validation documents chose, a closed form with the one that
    ranks it best here: a choice in hindsight, which favours the closed forms. The mean is that of all targets here. Gives
    `documents`, `copies` left out, `windows`, `pool`, `metrics` and `verdict` as an evaluation does, and `as_at_home`: the claims
    in retrieval with home's own mean and shares of it off, for model and closed forms alike, so that nothing at all is from here.
    """
    corpus, context, name = found.bench.corpus, home.windows.context, found.name
    scored = sample(windows(corpus, documents, context, "documents"), max_windows)
    pool, mean = (
        build_pool(scored, document_rows(corpus.offsets, documents)),
        target_mean(corpus, documents, context),
    )
    measured, at_home = {}, {}
    for one, same in zip(
        [found.predictors[name], *travelled],
        [home.name, *(one.name for one in home.bench.closed)],
        strict=True,
    ):
        progress(f"{corpus.name}, all documents: scoring {one.name}")
        predicted, share = predict_all(one, scored), home.measured[same].fraction
        at_home[one.name] = rank_figures(ranks(pool, predicted, home.bench.mean, share), pool)
        fraction = share if one.name == name else best_fraction(predicted, pool, mean)
        measured[one.name] = Measured(
            score(predicted, pool, mean, fraction), offset_cosines(predicted, scored), fraction
        )
    bootstrap = DocumentBootstrap(scored.documents, home.bootstrap.resamples, home.bootstrap.seed)
    metrics, _ = summarise(measured, bootstrap, [one.name for one in travelled])
    purpose = home.result["verdict"]["purpose"]
    return {
        "documents": bootstrap.count,
        "copies": len(corpus.names) - len(documents),
        "windows": len(scored),
        "pool": float(pool.sizes.mean()),
        "metrics": metrics,
        "verdict": verdict(name, metrics[name], bootstrap.count, purpose),
        "as_at_home": {metric: _claim(name, at_home, metric, bootstrap) for metric in ("mrr", "recall_at_5")},
    }


def _claim(
    name: str, figures: dict[str, dict[str, np.ndarray]], metric: str, bootstrap: DocumentBootstrap
) -> dict[str, Any]:
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
    which = f" that are no training documents of {found['home']}" if whole["copies"] else ""
    among = f"{whole['windows']:,} windows among {whole['pool']:,.0f} chunks"
    scored = f"All {whole['documents']} documents of {found['corpus']}{which}, {among}:"
    judged = [whole["verdict"][metric]["sentence"] for metric in JUDGED]
    home = f"everything fitted on {found['home']}, centring too:"
    return [
        *(f"{scored} {one}" for one in judged),
        *(f"{scored} {home} {one['sentence']}" for one in whole["as_at_home"].values()),
    ]
