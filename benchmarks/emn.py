"""What `emn` is worth at home: trained with the defaults on each corpus, beside the baselines fitted there.

    python benchmarks/emn.py sotu moby=NETWORK books-minilm.safetensors --out benchmarks/emn.json

A training begins with the released network of the head, which saw training documents of `sotu`, `moby` and
the books, or with NETWORK: FOLDER/without-TEXT means FOLDER/HEAD-without-TEXT (`universal.py --keep`), which
never saw the text, as a new corpus is none that the released one saw; `scratch` draws weights anew.

For every corpus both heads are trained with each seed. A figure is the mean of the seeds; its difference to
the best baseline has the 95% interval of a paired bootstrap over documents of the seeds' average, and the
lowest end among the seeds' own intervals. `--split val` is for choices; the table is of test documents, once.
Statistics and expert know no seed and are fitted once: the seconds of the first seed include them, as
everybody's training does. A prediction is timed on one context of 5 chunks and one of 100.
"""

from __future__ import annotations

import argparse
import time
from functools import cache
from pathlib import Path
from typing import Any
from unittest.mock import patch

import numpy as np

from mlx_lvm.core.linux_cpu import tune

tune()

from mlx_lvm.core.files.disk import write_json
from mlx_lvm.core.mlx import mx
from mlx_lvm.core.stats import DocumentBootstrap
from mlx_lvm.data.corpus import Corpus, load_corpus
from mlx_lvm.data.splits import split_corpus
from mlx_lvm.evaluation.setup import Bench, set_up
from mlx_lvm.hub.load import load_model
from mlx_lvm.metrics.names import CENTRED_COSINE, CENTRED_MRR, COSINE, Figures, Metric
from mlx_lvm.models.emn import EMN
from mlx_lvm.models.emn_config import EMNConfig
from mlx_lvm.models.weights import set_weights
from mlx_lvm.predictors.history import predictor_of
from mlx_lvm.training.config import TrainConfig, preset
from mlx_lvm.training.emn import task as tasks
from mlx_lvm.training.emn.prepare import prepare
from mlx_lvm.training.store import BestInMemory
from mlx_lvm.training.tasks.choose import make_task
from mlx_lvm.training.trainer import Trainer

METRICS = {"predict": (COSINE, CENTRED_COSINE), "rank": (CENTRED_MRR,)}
CALLS = 200  # predictions timed


def trained(
    head: str, corpus: Corpus, seed: int, ready: Any, start: EMN | None
) -> tuple[EMN, dict[str, Any]]:
    """(the best epoch's model by the defaults, what its training was like); ready: gives what is fitted
    before the first step.
    """
    config = EMNConfig(head=head)
    options = TrainConfig.from_dict({**preset("best", config)[0], "seed": seed})
    began = time.perf_counter()
    with patch.object(tasks, "prepare", ready):
        task, best = make_task(config, corpus, options, start=start), BestInMemory()
    prepared = time.perf_counter() - began
    trainer = Trainer(task, best)
    trainer.train()
    set_weights(task.model, best.weights or {}, "best")
    task.model.eval()
    model: EMN = task.model  # type: ignore[assignment]
    about = {
        "seconds": time.perf_counter() - began,
        "prepared": prepared,
        "windows": task.train_count,
        "epoch": trainer.state.best_epoch,
        "expert": model.config.expert,
    }
    return model, about


def milliseconds(model: EMN, length: int) -> float:
    """Median time of one prediction."""
    context = mx.random.normal((1, length, model.config.dim), key=mx.random.key(0))
    call = mx.compile(lambda x: model(x).unit)
    taken = []
    for _ in range(CALLS):
        began = time.perf_counter()
        mx.eval(call(context))
        taken.append(time.perf_counter() - began)
    return 1e3 * float(np.median(taken))


def start_of(head: str, network: str) -> EMN | None:
    if network == "scratch":
        return None
    folder = Path(network)
    name = EMN.released[EMNConfig(head=head).variant]
    found = load_model(folder.with_name(f"{head}-{folder.name}") if network else name).model
    assert isinstance(found, EMN)
    return found


def of_corpus(corpus: Corpus, heads: list[str], seeds: int, split: str, network: str = "") -> dict[str, Any]:
    bench = set_up(corpus, split)
    baselines = {one.name: bench.measure(one).figures for one in bench.baselines}
    out: dict[str, Any] = {
        "corpus": corpus.name,
        "dim": corpus.dim,
        "start": Path(network).name or "released",
        "split": split,
        "documents": len(set(bench.windows.documents.tolist())),
        "windows": len(bench.windows),
        "heads": {},
    }
    for head in heads:
        runs, found = [], []
        ready, start = _once(corpus), start_of(head, network)
        for seed in range(seeds):
            model, about = trained(head, corpus, seed, ready, start)
            found.append(bench.measure(predictor_of("emn", model)).figures)
            runs.append({"seed": seed, **about, **{f"ms_{n}": milliseconds(model, n) for n in (5, 100)}})
        compared = {metric.key: _compare(bench, baselines, found, metric) for metric in METRICS[head]}
        out["heads"][head] = {"runs": runs, **compared}
        for key, row in compared.items():
            print(f"{corpus.name} {head}: {key} {_words(row)}", flush=True)
    return out


def _once(corpus: Corpus) -> Any:
    """`prepare` for trainings that differ in their seed alone."""

    @cache
    def found(context: int, config: EMNConfig) -> Any:
        return prepare(corpus, split_corpus(corpus), context, config)

    return lambda corpus, split, context, config: found(context, config)


def _compare(
    bench: Bench, baselines: dict[str, Figures], found: list[Figures], metric: Metric
) -> dict[str, Any]:
    best = max(baselines, key=lambda name: float(metric.of(baselines[name]).mean()))
    theirs, ours = metric.of(baselines[best]), [metric.of(one) for one in found]
    bootstrap = DocumentBootstrap(bench.windows.documents)
    less = bootstrap.difference(np.mean(ours, axis=0), best, theirs)
    each = [bootstrap.difference(one, best, theirs) for one in ours]
    return {
        "value": float(np.mean(ours)),
        "seeds": [float(one.mean()) for one in ours],
        "baseline_value": float(theirs.mean()),
        **less.to_dict(),
        "relative": less.value / float(theirs.mean()),
        "lowest_end": min(one.low for one in each),
    }


def _words(row: dict[str, Any]) -> str:
    low, high = row["ci"]
    return (
        f"{row['value']:.4f}, {row['difference']:+.4f} [{low:+.4f}, {high:+.4f}] ({row['relative']:+.1%}) on "
        f"{row['closed_form']} {row['baseline_value']:.4f}; lowest end of a seed {row['lowest_end']:+.4f}"
    )


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("corpora", nargs="+", metavar="CORPUS[=NETWORK]")
    parser.add_argument("--heads", nargs="+", default=["predict", "rank"], choices=("predict", "rank"))
    parser.add_argument("--seeds", type=int, default=5)
    parser.add_argument("--split", default="test")
    parser.add_argument("--out", type=Path)
    given = parser.parse_args()
    rows = []
    for name in given.corpora:
        reference, _, network = name.partition("=")
        rows.append(of_corpus(load_corpus(reference), given.heads, given.seeds, given.split, network))
        if given.out is not None:
            write_json(given.out, {"seeds": given.seeds, "corpora": rows})


if __name__ == "__main__":
    main()
