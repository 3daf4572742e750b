"""A leaderboard: several models on the same windows of the same documents, and baselines fitted once for all.

compare([load_model(...), ...], corpus) -> Leaderboard
"""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np

from mlx_lvm.core.files.disk import read_json
from mlx_lvm.core.mlx import mx
from mlx_lvm.core.result import JsonObject, Result, as_json, entry, markdown_table
from mlx_lvm.core.stats import RESAMPLES, Difference, DocumentBootstrap, holm
from mlx_lvm.data.corpus import Corpus
from mlx_lvm.data.windows import Windows
from mlx_lvm.errors import InvalidFile, UsageError
from mlx_lvm.evaluation.evaluate import kind_of, measure_all, sample_notes, space_warnings, subject_of
from mlx_lvm.evaluation.scored import Scored
from mlx_lvm.evaluation.setup import MAX_WINDOWS, set_up
from mlx_lvm.evaluation.summary import PredictorScores, summarise
from mlx_lvm.hub.load import Loaded
from mlx_lvm.metrics.names import CENTRED_COSINE, CENTRED_MRR, COSINE, IN_DOCUMENT_MRR, MRR, RECALLS, Metric
from mlx_lvm.predictors.base import OwnContext, Predictor
from mlx_lvm.predictors.baselines import NAMES, controls

LATENCY_CALLS, WARM_CALLS = 50, 5
BASELINES = 3  # best ones under the models
SHOWN = (MRR, RECALLS[0], RECALLS[2])
FIGURES = (COSINE, CENTRED_COSINE, *RECALLS, MRR)
COLUMNS = (
    *("model", "parameters", "best epoch", "cosine", "Δ best baseline", "p (Holm)", "MRR", "R@1", "R@10"),
    *("train s", "ms"),
)


@dataclass(frozen=True)
class Training(Result):
    """What a run's summary.json says of it; None where there is none."""

    best_epoch: int | None = None
    epochs: int | None = None
    seconds: float | None = None

    @staticmethod
    def of_run(folder: Path | None) -> Training:
        path = folder / "summary.json" if folder is not None else None
        values = read_json(path) if path is not None and path.exists() else {}
        if not isinstance(values, dict):
            raise InvalidFile(f"{path}: not an object")
        return Training(values.get("best_epoch"), values.get("epochs"), values.get("seconds"))


@dataclass(frozen=True)
class Row(Result):
    """p_holm: of the gain in cosine, corrected over the models; latency_ms: of one prediction, median."""

    model: str
    architecture: str
    parameters: int
    context: int
    training: Training
    scores: PredictorScores
    p_holm: float
    latency_ms: float

    @property
    def gain(self) -> Difference:
        """Over the best baseline in cosine."""
        return self.scores.versus_best[COSINE]

    @property
    def cells(self) -> list[str]:
        """Under COLUMNS."""
        known, gain = self.training, self.gain
        return [
            self.model,
            f"{self.parameters:,}",
            "-" if known.best_epoch is None else str(known.best_epoch),
            self.scores.values[COSINE].text(),
            gain.text("+.4f"),
            f"{self.p_holm:.2g}",
            *(f"{self.scores[metric]:.4f}" for metric in SHOWN),
            "-" if known.seconds is None else f"{known.seconds:.0f}",
            f"{self.latency_ms:.2f}",
        ]

    def to_dict(self) -> JsonObject:
        gain = self.gain
        return {
            **{key: getattr(self, key) for key in ("model", "architecture", "parameters", "context")},
            **vars(self.training),
            **figures(self.scores),
            **{"closed_form": gain.baseline, "gain": gain.value, "gain_ci": gain.ends(), "p": gain.p},
            **{"p_holm": self.p_holm, "latency_ms": self.latency_ms},
        }


@dataclass(frozen=True)
class Leaderboard(Result):
    """Models, and baselines by name, best cosine first; best: the best baseline by metric."""

    scored: Scored
    best: dict[Metric, str]
    rows: list[Row]
    baselines: dict[str, PredictorScores]
    controls: dict[str, PredictorScores]
    warnings: list[str]
    notes: list[str]

    @property
    def table(self) -> list[list[str]]:
        """Text under COLUMNS: every model, then the best baselines."""
        shown = list(self.baselines.items())[:BASELINES]
        return [
            *(row.cells for row in self.rows),
            *(
                [name, "baseline", "-", scores.values[COSINE].text(), "-", "-"]
                + [f"{scores[metric]:.4f}" for metric in SHOWN]
                + ["-", "-"]
                for name, scores in shown
            ),
        ]

    @property
    def sentence(self) -> str:
        """What was scored."""
        what, pool = self.scored, self.scored.retrieval.split
        return (
            f"{what.corpus}, {what.split}: {what.windows:,} windows in {what.documents} documents; 95% "
            f"intervals by paired bootstrap over documents; best baseline in cosine: {self.best[COSINE]}; "
            f"retrieval among {pool.pool:,.0f} chunks, chance MRR {pool.chance.mrr:.4f}; ms: one prediction, "
            "batch 1, median."
        )

    @property
    def markdown(self) -> str:
        return "\n".join([*markdown_table(COLUMNS, self.table), "", self.sentence, ""])

    def to_dict(self) -> JsonObject:
        """For JSON, with the baselines under their older name."""

        def listed(others: dict[str, PredictorScores]) -> list[JsonObject]:
            return [{"model": n, "kind": one.kind, **figures(one)} for n, one in others.items()]

        return {
            **self.scored.to_dict(),
            "best_closed_form": as_json(self.best),
            "rows": [row.to_dict() for row in self.rows],
            "closed_forms": listed(self.baselines),
            "controls": listed(self.controls),
            "warnings": self.warnings,
            "notes": self.notes,
        }


def figures(scores: PredictorScores) -> JsonObject:
    """FIGURES with their intervals, and MRR as each ranks best and in the document."""
    shown = {"centred_mrr": scores[CENTRED_MRR], "in_document_mrr": scores[IN_DOCUMENT_MRR]}
    for metric in FIGURES:
        shown |= entry(metric.key, scores.values[metric])
    return shown


def compare(
    loaded: Sequence[Loaded],
    corpus: Corpus,
    split: str = "test",
    *,
    max_windows: int = MAX_WINDOWS,
    resamples: int = RESAMPLES,
    seed: int = 0,
    progress: Callable[[str], None] = lambda line: None,
) -> Leaderboard:
    """Everyone is scored on the windows that the longest context of them can read.

    Raises UsageError for no model or several splits, InvalidFile for another encoder, CheckFailed where a
    control fails.
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
    others = {one.name: one for one in [*bench.baselines, *controls(seed)]}
    everyone: dict[str, Predictor] = {
        **{name: OwnContext(one, model.context) for name, (model, one) in models.items()},
        **others,
    }
    measured = measure_all(bench, everyone, progress)
    bootstrap = DocumentBootstrap(bench.windows.documents, resamples, seed)
    summary = summarise(measured, bootstrap, NAMES, {name: kind_of(name) for name in everyone})
    corrected = holm({name: summary.scores[name].versus_best[COSINE].p for name in models})
    rows = []
    for name, (model, _) in models.items():
        progress(f"timing {name}")
        rows.append(
            Row(
                model=name,
                architecture=model.model.config.model_type,
                parameters=model.model.parameter_count(),
                context=model.context,
                training=Training.of_run(model.folder),
                scores=summary.scores[name],
                p_holm=corrected[name],
                latency_ms=latency(everyone[name], bench.windows),
            )
        )

    def of_kind(kind: str) -> dict[str, PredictorScores]:
        return {name: scores for name, scores in summary.scores.items() if scores.kind == kind}

    return Leaderboard(
        scored=Scored.of(bench, bootstrap),
        best=summary.best,
        rows=sorted(rows, key=lambda row: -row.scores[COSINE]),
        baselines=dict(sorted(of_kind("baseline").items(), key=lambda item: -item[1][COSINE])),
        controls=of_kind("control"),
        warnings=[line for model in loaded for line in space_warnings(model, corpus)],
        notes=notes,
    )


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
        remedy = "Train one (lvm train amn), or name models: lvm compare RUN ..."
        raise UsageError(f"no finished run under {root}/. {remedy}")
    return found
