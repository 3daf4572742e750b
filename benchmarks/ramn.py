"""What each part of RAMN is worth, and what more documents are worth, on validation documents.

    python benchmarks/ramn.py ramn --documents 0.25 0.5
    python benchmarks/ramn.py ramn-retrieve --documents 0.25 0.5 --out retrieve.json

The model is a released one or a run. Parts are taken out of it where that is possible; where not, it is
trained without them. Differences to the whole model, with intervals by paired bootstrap over documents. The
other domain is the training documents of `moby`, which no training here sees. For test documents: `lvm train
ramn --seeds 5`, `lvm eval ramn --ood moby`.
"""

from __future__ import annotations

import argparse
import json
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any
from unittest.mock import patch

import numpy as np

from mlx_lvm.core.linux_cpu import tune

tune()

from mlx_lvm.core.mlx import mx, tree_map
from mlx_lvm.core.stats import DocumentBootstrap
from mlx_lvm.data.corpus import Corpus, load_corpus
from mlx_lvm.data.splits import Split, split_corpus
from mlx_lvm.evaluation.setup import Bench, set_up
from mlx_lvm.hub.load import load_model
from mlx_lvm.metrics.names import JUDGED, Figures
from mlx_lvm.models.ramn import RAMN
from mlx_lvm.models.ramn_config import RAMNConfig
from mlx_lvm.models.weights import set_weights
from mlx_lvm.predictors.history import HistoryPredictor
from mlx_lvm.training.config import TrainConfig, preset
from mlx_lvm.training.ramn import anchor, linear, losses, step
from mlx_lvm.training.store import BestInMemory
from mlx_lvm.training.tasks.choose import make_task
from mlx_lvm.training.trainer import Trainer

SHOWN = JUDGED
# Left out of the training: {head: {what: (module, constant, value)}}.
UNTRAINED: dict[str, dict[str, tuple[Any, str, Any]]] = {
    "regress": {
        "bands: one filter for all directions": (linear, "bands", lambda dim: [slice(0, dim)]),
        "average of the weights": (step, "AVERAGE", 0.0),
        "centred cosine in the loss": (losses, "CENTRED", 0.0),
    },
    "retrieve": {
        "whitening": (anchor, "WHITENING", {"input": 0.2, "output": 0.0, "push": 0.0}),
        "average of the weights": (step, "AVERAGE", 0.0),
        "loss power 0.3: cross entropy": (losses, "GCE_Q", 0.01),
    },
}


def train(head: str, corpus: Corpus, split: Split, **sizes: Any) -> RAMN:
    """The best epoch's model by the head's recipe, seed 0."""
    config = RAMNConfig(head=head, **sizes)
    options = TrainConfig.from_dict(preset("best", config)[0])
    task, best = make_task(config, corpus, options, split=split), BestInMemory()
    trainer = Trainer(task, best)
    trainer.train()
    print(f"   best epoch {trainer.state.best_epoch}, {trainer.state.seconds:.0f} s", flush=True)
    set_weights(task.model, best.weights or {}, "best")
    return task.model  # type: ignore[return-value]


@contextmanager
def without(model: RAMN, part: str) -> Iterator[None]:
    """The trained model without a part of it, while it lasts."""
    before = tree_map(lambda x: x + 0, model.parameters())
    if part == "network":
        model.start_at_baseline()
    elif part == "map":
        for own in model.horizon_heads:
            own.map.weight = mx.zeros_like(own.map.weight)
    elif part == "trust":
        model.trust_limit = mx.full((1,), 100.0)
    elif part == "push":
        model.push_strength = mx.full((1,), -40.0)
    elif part == "blend":
        model.blend = mx.array([1.0, 0.0])
    try:
        yield
    finally:
        model.update(before)


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("model", help="a released RAMN or a run's folder")
    parser.add_argument(
        "--documents",
        type=float,
        nargs="*",
        default=[],
        help="also train on these shares of the training documents",
    )
    parser.add_argument("--out", type=Path)
    options = parser.parse_args()
    corpus, loaded = load_corpus("sotu"), load_model(options.model)
    model: Any = loaded.model
    head = model.config.head
    split = split_corpus(corpus, 0)
    benches = {"sotu": set_up(corpus, "val"), "moby": set_up(load_corpus("moby"), "train")}
    result: dict[str, Any] = {}
    whole: dict[str, Figures] = {}

    def report(what: str, model: RAMN) -> None:
        for place, bench in benches.items():
            figures = bench.measure(HistoryPredictor(what, model)).figures
            whole.setdefault(place, figures)
            result[f"{place}: {what}"] = row = compared(figures, whole[place], bench)
            cells = (
                f"{key} {one['value']:.4f} ({one['less']:+.4f} [{one['ci'][0]:+.4f} {one['ci'][1]:+.4f}])"
                for key, one in row.items()
            )
            print(f"{place}  {what:40}", *cells, sep="  ", flush=True)

    began = time.perf_counter()
    report("the whole", model)
    for part in ("network", "trust", *(["map"] if head == "regress" else ["push", "blend"])):
        with without(model, part):
            report(f"without {part}", model)
    for what, (module, name, value) in UNTRAINED[head].items():
        with patch.object(module, name, value):
            report(f"without {what}", train(head, corpus, split))
    order = np.random.default_rng(0).permutation(split.train)
    for share in options.documents:
        some = Split(split.seed, np.sort(order[: round(share * len(order))]), split.val, split.test)
        report(f"{share:.0%} of the documents", train(head, corpus, some))
    print(f"{time.perf_counter() - began:.0f} s")
    if options.out:
        options.out.write_text(json.dumps(result, indent=2) + "\n", "utf-8")


def compared(figures: Figures, whole: Figures, bench: Bench) -> dict[str, Any]:
    """Each figure, and its difference to the whole model's with an interval."""
    found = DocumentBootstrap(bench.windows.documents).intervals(
        *(metric.of(figures) - metric.of(whole) for metric in SHOWN)
    )
    return {
        metric.key: {"value": float(metric.of(figures).mean()), "less": less.value, "ci": less.ends()}
        for metric, less in zip(SHOWN, found, strict=True)
    }


if __name__ == "__main__":
    main()
