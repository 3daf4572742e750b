"""What each architecture needs: trained by its recipe on 10, 25, 50 and 100% of a corpus's documents.

    python benchmarks/shares.py CORPUS [--models amn lstm ...] [--shares 10 25 50 100] [--out FILE.json]
    python benchmarks/shares.py CORPUS --out FILE.json --plot FILE.svg

A share is of the training documents, drawn without regard to their length; a larger one holds the smaller.
Validation and test documents are the same throughout, so the figures of a column are of the same windows.
Baselines are fitted on the same share. `emn` draws its weights anew here (`--from scratch`), as every other.
A figure's difference is to the best baseline of its share, with the 95% interval of a paired bootstrap over
test documents. What FILE.json holds already is not measured again, so a run that was stopped goes on; with
--plot the curves are drawn.
"""

from __future__ import annotations

import argparse
import json
import time
from pathlib import Path
from typing import Any

import numpy as np

from mlx_lvm.core.linux_cpu import tune

tune()

from mlx_lvm.core.files.disk import write_json
from mlx_lvm.core.stats import DocumentBootstrap
from mlx_lvm.data.corpus import Corpus, load_corpus
from mlx_lvm.data.splits import Split, split_corpus
from mlx_lvm.data.windows import windows
from mlx_lvm.metrics.figures import window_figures
from mlx_lvm.models import architecture
from mlx_lvm.models.weights import set_weights
from mlx_lvm.predictors.base import Predictor, predict_all
from mlx_lvm.predictors.baselines import fit_baselines, target_mean
from mlx_lvm.predictors.history import predictor_of
from mlx_lvm.training.config import TrainConfig, preset
from mlx_lvm.training.store import BestInMemory
from mlx_lvm.training.tasks.choose import make_task
from mlx_lvm.training.trainer import Trainer

MODELS = ("emn", "ramn", "amn", "lstm", "gru", "transformer")
SHARES = (10, 25, 50, 100)
METRICS = ("cosine", "centred_cosine")
CONTEXT = 5


def part(split: Split, share: int) -> Split:
    """The split with so many percent of its training documents."""
    order = np.random.default_rng(0).permutation(split.train)
    return Split(split.seed, np.sort(order[: round(len(order) * share / 100)]), split.val, split.test)


class Share:
    """A share's baselines and their figures on the test windows."""

    def __init__(self, corpus: Corpus, share: int) -> None:
        self.corpus, self.share = corpus, share
        whole = split_corpus(corpus)
        self.split = part(whole, share)
        self.windows = windows(corpus, whole.test, CONTEXT)
        # One mean for every share, so that the centred cosine is of the same thing.
        self.mean = target_mean(corpus, whole.train, CONTEXT)
        found = fit_baselines(corpus, self.split.train, self.split.val, CONTEXT)
        self.baselines = {one.name: self.figures(one) for one in found}

    def figures(self, predictor: Predictor) -> dict[str, np.ndarray]:
        """A number a test window, by metric."""
        found = window_figures(predict_all(predictor, self.windows), self.windows, self.mean)
        return {metric: getattr(found, metric) for metric in METRICS}

    def row(self, name: str) -> dict[str, Any]:
        """One architecture, trained on this share and compared."""
        config = architecture(name).config_class().replace(dim=self.corpus.dim)
        options = TrainConfig.from_dict(preset("best", config)[0])
        began = time.perf_counter()
        task, best = make_task(config, self.corpus, options, split=self.split), BestInMemory()
        trainer = Trainer(task, best)
        trainer.train()
        set_weights(task.model, best.weights or {}, "best")
        task.model.eval()
        row: dict[str, Any] = {
            "corpus": self.corpus.name,
            "model": name,
            "share": self.share,
            "documents": len(self.split.train),
            "windows": task.train_count,
            "epoch": trainer.state.best_epoch,
            "seconds": round(time.perf_counter() - began, 1),
        }
        ours = self.figures(predictor_of(name, task.model))
        bootstrap = DocumentBootstrap(self.windows.documents)
        for metric in METRICS:
            first, theirs = max(
                ((one, found[metric]) for one, found in self.baselines.items()), key=lambda of: of[1].mean()
            )
            less = bootstrap.difference(ours[metric], first, theirs)
            row[metric] = {
                "value": float(ours[metric].mean()),
                "baseline_value": float(theirs.mean()),
                **less.to_dict(),
            }
        return row


def words(row: dict[str, Any]) -> str:
    parts = []
    for metric in METRICS:
        found = row[metric]
        low, high = found["ci"]
        parts.append(
            f"{metric} {found['value']:.4f}, {found['difference']:+.4f} [{low:+.4f}, {high:+.4f}] on "
            f"{found['closed_form']} {found['baseline_value']:.4f}"
        )
    about = f"{row['share']}%, {row['documents']} documents, {row['windows']} windows"
    return f"{row['model']}, {about}: {'; '.join(parts)}; best epoch {row['epoch']}, {row['seconds']:.0f} s"


def plot(rows: list[dict[str, Any]], path: Path) -> None:
    import matplotlib

    matplotlib.use("svg")
    import matplotlib.pyplot as plt

    plt.rcParams.update({"svg.fonttype": "none", "svg.hashsalt": "shares", "font.size": 9})
    figure, axes = plt.subplots(1, 2, figsize=(8.4, 3.4), sharex=True)
    shares = sorted({row["share"] for row in rows})
    for axis, metric in zip(axes, METRICS, strict=True):
        of_share = {row["share"]: row[metric]["baseline_value"] for row in rows}
        axis.plot(shares, [of_share[share] for share in shares], "k--", label="best baseline", lw=1.2)
        for name in MODELS:
            mine = sorted((row["share"], row[metric]["value"]) for row in rows if row["model"] == name)
            if mine:
                axis.plot(*zip(*mine, strict=True), "-o", label=name, ms=3, lw=1.2)
        axis.set(xscale="log", xlabel="% of the training documents", ylabel=metric.replace("_", " "))
        axis.set_xticks(shares, [str(share) for share in shares])
        axis.minorticks_off()
        axis.grid(alpha=0.3, lw=0.5)
    figure.legend(*axes[0].get_legend_handles_labels(), loc="upper center", ncols=7, frameon=False)
    figure.tight_layout(rect=(0, 0, 1, 0.93))
    figure.savefig(path, metadata={"Date": None})


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("corpus")
    parser.add_argument("--models", nargs="+", default=list(MODELS), choices=MODELS)
    parser.add_argument("--shares", nargs="+", type=int, default=list(SHARES))
    parser.add_argument("--out", type=Path)
    parser.add_argument("--plot", type=Path)
    given = parser.parse_args()
    corpus = load_corpus(given.corpus)
    known = given.out is not None and given.out.exists()
    rows: list[dict[str, Any]] = json.loads(given.out.read_text()) if known else []
    for share in given.shares:
        done = {row["model"] for row in rows if row["share"] == share}
        missing = [name for name in given.models if name not in done]
        measure = Share(corpus, share) if missing else None
        for name in missing:
            assert measure is not None
            rows.append(measure.row(name))
            print(words(rows[-1]), flush=True)
            if given.out is not None:
                write_json(given.out, rows)
    if given.plot is not None:
        plot(rows, given.plot)


if __name__ == "__main__":
    main()
