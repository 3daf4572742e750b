"""Trains `emn` and `emn-rank`, the weights that serve any encoder, and measures them on corpora that trained
nothing.

    python benchmarks/universal.py HEAD CORPUS=GROUP ... [--hold-out GROUP] [--write DIR] [--out FILE.json]
        [--split val]

A GROUP names a text: `sotu=sotu sotu-minilm.safetensors=sotu` is one text in two encoders. With --hold-out
nothing of a group is trained on, in any encoder, and every corpus of it is scored beside the baselines fitted
on it. Without, all are trained on: the training documents of each, so that test documents stay unseen.
"""

from __future__ import annotations

import argparse
import json
from pathlib import Path
from typing import Any

from mlx_lvm.core.files import write_json
from mlx_lvm.core.stats import DocumentBootstrap
from mlx_lvm.data.corpus import load_corpus
from mlx_lvm.data.splits import split_corpus
from mlx_lvm.evaluation.setup import set_up
from mlx_lvm.evaluation.summary import summarise
from mlx_lvm.hub.load import Loaded, for_corpus
from mlx_lvm.metrics.names import CENTRED_COSINE, CENTRED_MRR, COSINE
from mlx_lvm.models import VectorModel
from mlx_lvm.predictors.history import predictor_of
from mlx_lvm.training.emn.universal import train_network

FIGURES = {"predict": (COSINE, CENTRED_COSINE), "rank": (CENTRED_MRR,)}


def scores(network: VectorModel, head: str, name: str, split: str) -> dict[str, Any]:
    """The network's figures on a corpus that it was not trained on, and its differences to the best baseline
    fitted there.
    """
    corpus = load_corpus(name)
    bench = set_up(corpus, split)
    model = for_corpus(Loaded(network, "emn"), corpus).model
    everyone = [predictor_of("emn", model), *bench.baselines]
    measured = {one.name: bench.measure(one) for one in everyone}
    baselines = [one.name for one in bench.baselines]
    kinds = {"emn": "model", **dict.fromkeys(baselines, "baseline")}
    summary = summarise(measured, DocumentBootstrap(bench.windows.documents), baselines, kinds)
    emn = summary.scores["emn"]
    about = {
        "corpus": corpus.name,
        "dim": corpus.dim,
        "documents": len(set(bench.windows.documents.tolist())),
    }
    found = {
        metric.key: {"value": emn[metric], **emn.versus_best[metric].to_dict()} for metric in FIGURES[head]
    }
    return {**about, "windows": len(bench.windows), **found}


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("head", choices=("predict", "rank"))
    parser.add_argument("corpora", nargs="+", metavar="CORPUS=GROUP")
    parser.add_argument("--hold-out", metavar="GROUP")
    parser.add_argument("--split", default="test")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--write", type=Path)
    parser.add_argument("--out", type=Path)
    given = parser.parse_args()
    named = [text.rpartition("=")[::2] for text in given.corpora]
    trained = []
    for name, group in named:
        if group != given.hold_out:
            corpus = load_corpus(name)
            trained.append((corpus, split_corpus(corpus).train))
    network = train_network(
        given.head, trained, seed=given.seed, progress=lambda line: print(line, flush=True)
    )
    if given.write is not None:
        from mlx.utils import tree_flatten

        from mlx_lvm.core.mlx import mx

        mx.save_safetensors(str(given.write), dict(tree_flatten(network.parameters())))
    rows = [
        scores(network, given.head, name, given.split) for name, group in named if group == given.hold_out
    ]
    print(json.dumps(rows, indent=1))
    if given.out is not None:
        write_json(
            given.out, {"head": given.head, "hold_out": given.hold_out, "seed": given.seed, "rows": rows}
        )


main()
