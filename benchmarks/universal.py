"""Trains `emn` and `emn-rank`, the weights that serve any encoder, and measures them on corpora that trained
nothing.

    python benchmarks/universal.py HEAD CORPUS=TEXT[=ENCODER] ... [--without TITLE] [--split val]
                                   [--out FILE.json] [--keep DIR] [--release DIR]

A TEXT names what is written there: `sotu=sotu sotu-minilm.safetensors=sotu` is one text in two encoders. Each
text is left out in turn: a network trained on the training documents of all others is scored on every corpus
of it, with the baselines fitted there, and with intervals by paired bootstrap over documents. --without keeps
documents whose name holds TITLE out of every training: a novel that is a corpus of its own may be among
somebody's books. --keep writes the network of each text left out; one that is there already is taken, not
trained again. --release then trains on all and writes the model and its card.
"""

from __future__ import annotations

import argparse
import json
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np

from mlx_lvm.core.linux_cpu import tune

tune()

from mlx_lvm.core.files.disk import write_json
from mlx_lvm.core.stats import DocumentBootstrap
from mlx_lvm.data.corpus import Corpus, load_corpus
from mlx_lvm.data.splits import split_corpus
from mlx_lvm.evaluation.setup import set_up
from mlx_lvm.evaluation.summary import summarise
from mlx_lvm.hub.export import write_model
from mlx_lvm.hub.load import Loaded, for_corpus, load_model
from mlx_lvm.metrics.names import CENTRED_COSINE, CENTRED_MRR, COSINE
from mlx_lvm.models.emn import EMN
from mlx_lvm.predictors.history import predictor_of
from mlx_lvm.training.emn.universal import materials_of, train_on

FIGURES = {"predict": (COSINE, CENTRED_COSINE), "rank": (CENTRED_MRR,)}


def scores(network: EMN, head: str, corpus: Corpus, split: str) -> dict[str, Any]:
    """The network's figures on a corpus that it was not trained on, and its differences to the best baseline
    fitted there.
    """
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
        "windows": len(bench.windows),
        "split": "validation" if split == "val" else split,
    }
    return about | {
        metric.key: {"value": emn[metric], **emn.versus_best[metric].to_dict()} for metric in FIGURES[head]
    }


def documents_of(corpus: Corpus, without: list[str]) -> np.ndarray:
    """Its training documents, those with these words in their names left out."""
    chosen = split_corpus(corpus).train
    return chosen[[not any(title in corpus.names[d] for title in without) for d in chosen]]


def described(corpus: Corpus, documents: np.ndarray, encoder: str) -> dict[str, Any]:
    """For the card; `encoder` where the corpus names none. Titles where it is of many works: parts of one
    need none.
    """
    names = [corpus.names[d] for d in documents]
    titled = names if all("/" in name for name in names) else []
    return {"encoder": corpus.card.model or encoder, "documents": len(documents), "titles": titled}


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("head", choices=("predict", "rank"))
    parser.add_argument("corpora", nargs="+", metavar="CORPUS=TEXT[=ENCODER]")
    parser.add_argument("--without", nargs="+", default=[], metavar="TITLE")
    parser.add_argument("--split", default="test")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--out", type=Path)
    parser.add_argument("--keep", type=Path)
    parser.add_argument("--release", type=Path)
    given = parser.parse_args()
    named = [one.split("=") for one in given.corpora]
    corpora = [(load_corpus(one[0]), one[1]) for one in named]
    chosen = [documents_of(corpus, given.without) for corpus, _ in corpora]

    @cache
    def materials(number: int) -> list[Any]:
        return materials_of(given.head, corpora[number][0], chosen[number])

    def trained(left_out: str | None) -> EMN:
        some = [m for at, (_, text) in enumerate(corpora) if text != left_out for m in materials(at)]
        return train_on(given.head, some, seed=given.seed)

    rows, texts = [], list(dict.fromkeys(text for _, text in corpora))
    for text in texts:
        others = " and ".join(one for one in texts if one != text)
        kept = None if given.keep is None else given.keep / f"{given.head}-without-{text}"
        network = load_model(kept).model if kept is not None and kept.exists() else trained(text)
        assert isinstance(network, EMN)
        if kept is not None and not kept.exists():
            write_model(Loaded(network, f"without-{text}"), kept)
        for corpus, _ in (one for one in corpora if one[1] == text):
            rows.append({**scores(network, given.head, corpus, given.split), "network": others})
            print(json.dumps(rows[-1]), flush=True)
        if given.out is not None:
            write_json(given.out, {"head": given.head, "seed": given.seed, "rows": rows})
    if given.release is not None:
        about = {
            corpus.name: described(corpus, documents, "".join(one[2:]))
            for (corpus, _), documents, one in zip(corpora, chosen, named, strict=True)
        }
        name = "emn" if given.head == "predict" else "emn-rank"
        imported = {"trained_on": about, "held_out": rows}
        write_model(Loaded(trained(None), name, imported=imported), given.release)


if __name__ == "__main__":
    main()
