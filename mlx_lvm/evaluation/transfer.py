"""Out of domain: a model on a corpus it was not trained on, beside closed forms that travelled with it and closed forms
that were fitted there.

The transferred forms are fitted on the training documents of the model's own corpus: they are its equals, who saw no more
than it did. The ones fitted at home on the other corpus are what the model would have to beat to be worth carrying over.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import numpy as np

from mlx_lvm.data.corpus import Corpus
from mlx_lvm.errors import UsageError
from mlx_lvm.evaluation.evaluate import Evaluation, examine
from mlx_lvm.evaluation.predictor import Predictor
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
    `versus_transferred`: a model's difference to the best closed form that travelled, in cosine and in MRR.

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
        "notes": found.result["notes"],
    }
    if found.name not in home.result["metrics"] or home.result["metrics"][found.name]["kind"] != "closed form":
        out["versus_transferred"] = {metric: _against(found, [one.name for one in travelled], metric) for metric in AGAINST}
    return out


def _figures(entry: dict[str, Any]) -> dict[str, Any]:
    return {key: entry[key] for key in FIGURES}


def _against(found: Evaluation, travelled: list[str], metric: str) -> dict[str, Any]:
    """The model's paired difference to the best transferred closed form."""
    best = max(travelled, key=lambda name: float(found.measured[name].figures[metric].mean()))
    difference = found.measured[found.name].figures[metric] - found.measured[best].figures[metric]
    one = found.bootstrap.intervals({"difference": np.asarray(difference)})["difference"]
    return {"closed_form": best, "difference": one.value, "ci": one.ends(), "p": one.p}
