"""How many documents `emn` needs: used as it is, trained further, or trained from scratch, and what
baselines do there.

    python benchmarks/documents.py CORPUS=NETWORK ... [--draws 2] [--out FILE.json] [--plot FILE.svg]

Somebody has N documents of a corpus (5, 10, 20, 50, 100, all), a fifth of them for validation. NETWORK is a
model for every encoder that saw nothing of the corpus (`benchmarks/universal.py --keep`). Three ways to use
the N: its statistics alone (zero-shot), `lvm train emn --from NETWORK`, and `lvm train emn --from scratch`;
and the baselines fitted on the same documents. All are scored on the same windows of the corpus's test
documents; means over draws.
"""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any

import numpy as np

from mlx_lvm.core.linux_cpu import tune

tune()

from mlx_lvm.core.files.disk import write_json
from mlx_lvm.data.corpus import Corpus, load_corpus
from mlx_lvm.data.splits import Split, split_corpus
from mlx_lvm.data.windows import windows
from mlx_lvm.hub.load import load_model
from mlx_lvm.metrics.figures import window_figures
from mlx_lvm.models.emn import EMN
from mlx_lvm.models.emn_config import EMNConfig
from mlx_lvm.models.weights import set_weights
from mlx_lvm.predictors.base import Predictor, predict_all, sample
from mlx_lvm.predictors.baselines import fit_baselines, target_mean
from mlx_lvm.predictors.history import predictor_of
from mlx_lvm.training.config import TrainConfig, preset
from mlx_lvm.training.emn.bind import bind
from mlx_lvm.training.store import BestInMemory
from mlx_lvm.training.tasks.choose import make_task
from mlx_lvm.training.trainer import Trainer

COUNTS = (5, 10, 20, 50, 100)
BASELINES = ("recency", "lag-filter", "lag-filter-centroid", "ridge")
SCORED = 800  # test windows, evenly spaced
WAYS = ("best baseline", "from scratch", "trained further", "zero-shot")


def trained(corpus: Corpus, split: Split, start: EMN | None) -> EMN:
    config = EMNConfig()
    options = TrainConfig.from_dict(preset("best", config)[0])
    task, best = make_task(config, corpus, options, split=split, start=start), BestInMemory()
    Trainer(task, best).train()
    set_weights(task.model, best.weights or {}, "best")
    return task.model  # type: ignore[return-value]


def of_documents(corpus: Corpus, mine: np.ndarray, network: EMN) -> dict[str, dict[str, float]]:
    """{way: {cosine, centred_cosine}} for somebody with these documents, the last of them for validation."""
    held = max(1, len(mine) // 5)
    split = Split(0, np.sort(mine[:-held]), np.sort(mine[-held:]), split_corpus(corpus).test)
    read = sample(windows(corpus, split.test, 5), SCORED)
    everyone: list[tuple[str, Predictor]] = [
        ("best baseline", one) for one in fit_baselines(corpus, split.train, split.val, 5, BASELINES)
    ]
    for way, model in (
        ("from scratch", trained(corpus, split, None)),
        ("trained further", trained(corpus, split, network)),
        ("zero-shot", bind(network, corpus, np.sort(mine))),
    ):
        everyone.append((way, predictor_of("emn", model)))
    # Centred by the mean that all documents give, so that the figure is of the same thing whatever the
    # number.
    mean, out = target_mean(corpus, split_corpus(corpus).train, 5), {}
    for way, predictor in everyone:
        figures = window_figures(predict_all(predictor, read), read, mean)
        found = {
            "cosine": float(figures.cosine.mean()),
            "centred_cosine": float(figures.centred_cosine.mean()),
        }
        before = out.setdefault(way, found)
        out[way] = {key: max(value, before[key]) for key, value in found.items()}
    return out


def curve(corpus: Corpus, network: EMN, draws: int) -> list[dict[str, Any]]:
    parts, rows = split_corpus(corpus), []
    every = np.concatenate([parts.train, parts.val])
    long_enough = every[corpus.lengths[every] > 5]
    for count in (*(n for n in COUNTS if n < len(long_enough)), len(long_enough)):
        found = []
        for draw in range(draws if count < len(long_enough) else 1):
            mine = np.random.default_rng(draw).permutation(long_enough)[:count]
            found.append(of_documents(corpus, mine, network))
        row: dict[str, Any] = {"documents": count, "draws": len(found)}
        for way in WAYS:
            row[way] = {key: float(np.mean([one[way][key] for one in found])) for key in found[0][way]}
        rows.append(row)
        print(corpus.name, row, flush=True)
    return rows


def plot(curves: dict[str, list[dict[str, Any]]], path: Path) -> None:
    import matplotlib

    matplotlib.use("svg")
    import matplotlib.pyplot as plt

    plt.rcParams.update({"svg.fonttype": "none", "svg.hashsalt": "emn", "font.size": 9})
    figure, axes = plt.subplots(2, len(curves), figsize=(4.2 * len(curves), 5.4), squeeze=False, sharex="col")
    for column, (name, rows) in enumerate(curves.items()):
        for line, key in enumerate(("cosine", "centred_cosine")):
            axis = axes[line][column]
            for way, style in zip(WAYS, ("k--", "C1-o", "C0-o", "C2-o"), strict=True):
                values = [row[way][key] for row in rows]
                axis.plot([row["documents"] for row in rows], values, style, label=way, ms=3, lw=1.2)
            axis.set(xscale="log", ylabel=key.replace("_", " "), title=name if not line else "")
            axis.set_xticks([row["documents"] for row in rows], [str(row["documents"]) for row in rows])
            axis.minorticks_off()
            axis.grid(alpha=0.3, lw=0.5)
        axes[1][column].set_xlabel("documents")
    axes[0][0].legend(frameon=False)
    figure.tight_layout()
    figure.savefig(path, metadata={"Date": None})


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("corpora", nargs="+", metavar="CORPUS=NETWORK")
    parser.add_argument("--draws", type=int, default=2)
    parser.add_argument("--out", type=Path)
    parser.add_argument("--plot", type=Path)
    given = parser.parse_args()
    curves = {}
    for text in given.corpora:
        name, _, network = text.rpartition("=")
        corpus, model = load_corpus(name), load_model(network).model
        assert isinstance(model, EMN)
        curves[corpus.name] = curve(corpus, model, given.draws)
        if given.out is not None:
            write_json(given.out, curves)
    if given.plot is not None:
        plot(curves, given.plot)


if __name__ == "__main__":
    main()
