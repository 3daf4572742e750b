"""A leaderboard: several models on the same windows of the same documents, and baselines fitted once for all.

compare([load_model(...), ...], corpus) -> dict with `rows`, best cosine first
"""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

from mlx_lvm.core.files import read_json
from mlx_lvm.core.mlx import mx
from mlx_lvm.core.stats import RESAMPLES, DocumentBootstrap, holm
from mlx_lvm.data.corpus import Corpus
from mlx_lvm.data.windows import Windows
from mlx_lvm.errors import InvalidFile, UsageError
from mlx_lvm.evaluation.evaluate import (
    describe,
    kind_of,
    measure_all,
    sample_notes,
    space_warnings,
    subject_of,
)
from mlx_lvm.evaluation.setup import MAX_WINDOWS, set_up
from mlx_lvm.evaluation.summary import PredictorScores, summarise
from mlx_lvm.hub.load import Loaded
from mlx_lvm.metrics.names import CENTRED_COSINE, CENTRED_MRR, COSINE, MRR, Metric
from mlx_lvm.metrics.retrieval import CUTS
from mlx_lvm.predictors.base import ALL, Index, Predictor
from mlx_lvm.predictors.baselines import NAMES, controls

LATENCY_CALLS, WARM_CALLS = 50, 5
FIGURES = (COSINE, CENTRED_COSINE, *(Metric("split", f"recall_at_{cut}") for cut in CUTS), MRR)
MARKDOWN = (
    "model",
    "parameters",
    "best epoch",
    "cosine",
    "Δ best baseline",
    "p (Holm)",
    "MRR",
    "R@1",
    "R@10",
    "train s",
    "ms",
)


@dataclass(frozen=True)
class OwnContext:
    """A model that reads its own number of chunks, whatever the windows hold."""

    inner: Predictor
    context: int

    @property
    def name(self) -> str:
        return self.inner.name

    @property
    def history(self) -> int | None:
        return self.inner.history

    def predict(self, windows: Windows, index: Index = ALL) -> mx.array:
        return self.inner.predict(replace(windows, context=self.context), index)


def compare(
    loaded: Sequence[Loaded],
    corpus: Corpus,
    split: str = "test",
    *,
    max_windows: int = MAX_WINDOWS,
    resamples: int = RESAMPLES,
    seed: int = 0,
    progress: Callable[[str], None] = lambda line: None,
) -> dict[str, Any]:
    """`rows`: model, architecture, parameters, best_epoch, FIGURES with intervals, gain over the best
    baseline with its interval and a p-value that Holm's procedure corrected over the models, seconds of
    training, latency_ms of one prediction (median, batch 1). Everyone is scored on the windows that the
    longest context of them can read.

    Raises UsageError for no model or models of different splits, InvalidFile for another encoder, CheckFailed
    where a control fails.
    """
    if not loaded:
        raise UsageError("nothing to compare: name runs, exported folders or .safetensors files")
    seeds = {one.split_seed for one in loaded}
    if len(seeds) > 1 and corpus.assigned is None:
        listed = ", ".join(f"{one.name} {one.split_seed}" for one in loaded)
        raise UsageError(
            f"models of different splits ({listed}): some would be scored on documents they were trained on"
        )
    context = max(one.context for one in loaded)
    models, notes = named(loaded, corpus)
    notes += sample_notes(corpus)
    bench = set_up(corpus, split, loaded[0].split_seed, context, max_windows, progress)
    everyone: dict[str, Predictor] = {
        **{name: OwnContext(one, model.context) for name, (model, one) in models.items()}
    }
    everyone.update({one.name: one for one in [*bench.baselines, *controls(seed)]})
    measured = measure_all(bench, everyone, progress)
    bootstrap = DocumentBootstrap(bench.windows.documents, resamples, seed)
    kinds = {name: kind_of(name, set()) for name in everyone}
    summary = summarise(measured, bootstrap, NAMES, kinds)
    corrected = holm({name: summary.scores[name].versus_best[COSINE].p for name in models})
    rows = []
    for name, (model, _) in models.items():
        progress(f"timing {name}")
        gain = summary.scores[name].versus_best[COSINE]
        rows.append(
            {
                "model": name,
                "architecture": model.model.config.model_type,
                "parameters": model.model.parameter_count(),
                "context": model.context,
                **from_run(model.folder),
                **figures(summary.scores[name]),
                "closed_form": gain.baseline,
                "gain": gain.value,
                "gain_ci": gain.ends(),
                "p": gain.p,
                "p_holm": corrected[name],
                "latency_ms": latency(everyone[name], bench.windows),
            }
        )
    rows.sort(key=lambda row: -row["cosine"])

    def others(kind: str) -> list[dict[str, Any]]:
        named = ((name, scores) for name, scores in summary.scores.items() if scores.kind == kind)
        return [{"model": name, "kind": kind, **figures(scores)} for name, scores in named]

    return {
        **describe(bench, bootstrap),
        "best_closed_form": summary.best_json(),
        "rows": rows,
        "closed_forms": sorted(others("baseline"), key=lambda row: -row["cosine"]),
        "controls": others("control"),
        "warnings": [line for model in loaded for line in space_warnings(model, corpus)],
        "notes": notes,
    }


def named(loaded: Sequence[Loaded], corpus: Corpus) -> tuple[dict[str, tuple[Loaded, Predictor]], list[str]]:
    """Models by name, a number behind those that share one, and what a reader must know of them."""
    out: dict[str, tuple[Loaded, Predictor]] = {}
    notes: list[str] = []
    for model in loaded:
        name, predictor, said = subject_of(model, corpus, None)
        assert predictor is not None
        unique, number = name, 1
        while unique in out:
            number += 1
            unique = f"{name} ({number})"
        out[unique] = (model, replace(predictor, name=unique))  # type: ignore[type-var]
        notes += [note for note in said if note not in notes]
    return out, notes


def figures(scores: PredictorScores) -> dict[str, Any]:
    """FIGURES with their intervals, and MRR as each ranks best and in the document."""
    out: dict[str, Any] = {}
    for metric in FIGURES:
        interval = scores.values[metric]
        out |= {metric.key: interval.value, f"{metric.key}_ci": interval.ends()}
    return {
        **out,
        "centred_mrr": scores[CENTRED_MRR],
        "in_document_mrr": scores[Metric("in_document", "mrr")],
    }


def from_run(folder: Path | None) -> dict[str, Any]:
    """What the run's summary.json says of its training; None where there is none."""
    keys = ("best_epoch", "epochs", "seconds")
    path = folder / "summary.json" if folder is not None else None
    values = read_json(path) if path is not None and path.exists() else {}
    if not isinstance(values, dict):
        raise InvalidFile(f"{path}: not an object")
    return {key: values.get(key) for key in keys}


def latency(predictor: Predictor, windows: Windows) -> float:
    """Median milliseconds of one prediction, batch 1, from the rows of its context to the vector."""
    times = []
    for call in range(WARM_CALLS + LATENCY_CALLS):
        i = call % len(windows)
        began = time.perf_counter()
        mx.eval(predictor.predict(windows, slice(i, i + 1)))
        times.append(time.perf_counter() - began)
    return float(np.median(times[WARM_CALLS:]) * 1e3)


def runs_under(root: Path) -> list[Path]:
    """Run folders with a checkpoint right under `root`, by name. Raises UsageError where there is none."""
    found = sorted(path.parent for path in root.glob("*/checkpoints") if (path / "BEST").exists())
    if not found:
        raise UsageError(
            f"no finished run under {root}/. Train one (lvm train amn), or name models: lvm compare RUN ..."
        )
    return found


def table(result: dict[str, Any], baselines: int = 3) -> list[list[str]]:
    """Rows of text under MARKDOWN's columns: every model, then the best baselines."""
    out = []
    for row in result["rows"]:
        seconds = "-" if row["seconds"] is None else f"{row['seconds']:.0f}"
        epoch = "-" if row["best_epoch"] is None else str(row["best_epoch"])
        gain = spread(row["gain"], row["gain_ci"], "+.4f")
        cells = [
            row["model"],
            f"{row['parameters']:,}",
            epoch,
            spread(row["cosine"], row["cosine_ci"]),
            gain,
            f"{row['p_holm']:.2g}",
        ]
        out.append(
            [
                *cells,
                *(f"{row[key]:.4f}" for key in ("mrr", "recall_at_1", "recall_at_10")),
                seconds,
                f"{row['latency_ms']:.2f}",
            ]
        )
    for row in result["closed_forms"][:baselines]:
        measured = [f"{row[key]:.4f}" for key in ("mrr", "recall_at_1", "recall_at_10")]
        out.append(
            [
                row["model"],
                "baseline",
                "-",
                spread(row["cosine"], row["cosine_ci"]),
                "-",
                "-",
                *measured,
                "-",
                "-",
            ]
        )
    return out


def markdown(result: dict[str, Any]) -> str:
    """The leaderboard as a Markdown table, with a line that says what was scored."""
    lines = ["| " + " | ".join(MARKDOWN) + " |", "|---" * len(MARKDOWN) + "|"]
    lines += ["| " + " | ".join(row) + " |" for row in table(result)]
    return "\n".join([*lines, "", sentence(result), ""])


def sentence(result: dict[str, Any]) -> str:
    pool = result["retrieval"]["split"]
    return (
        f"{result['corpus']}, {result['split']}: {result['windows']:,} windows in {result['documents']} "
        "documents; 95% intervals by paired bootstrap over documents; best baseline in cosine: "
        f"{result['best_closed_form']['cosine']}; retrieval among {pool['pool']:,.0f} chunks, chance MRR "
        f"{pool['chance']['mrr']:.4f}; ms: one prediction, batch 1, median."
    )


def spread(value: float, ci: Sequence[float | None], form: str = ".4f") -> str:
    low, high = ci
    return (
        f"{value:{form}}" if low is None or high is None else f"{value:{form}} [{low:{form}} {high:{form}}]"
    )
