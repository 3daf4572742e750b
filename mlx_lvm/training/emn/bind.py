"""A network for every encoder as the model of one corpus, with its statistics."""

from __future__ import annotations

from dataclasses import replace

import numpy as np

from mlx_lvm.core.mlx import mx
from mlx_lvm.data.corpus import Corpus
from mlx_lvm.data.splits import split_corpus
from mlx_lvm.errors import UsageError
from mlx_lvm.models.emn import EMN
from mlx_lvm.models.emn_geometry import EXPERT
from mlx_lvm.training.emn.balance import balance
from mlx_lvm.training.emn.experts import expert_module
from mlx_lvm.training.emn.statistics import hold, read_with_expert, statistics_of

# Share of the centred cosine where nothing is trained: its best baseline is harder to pass than cosine's.
CENTRED = 0.7
CORPUS_WEIGHTS = ("mean", "filter", "whiten")  # beside an expert's, which begin with "expert."


def bind(model: EMN, corpus: Corpus, documents: np.ndarray | None = None, context: int = 5) -> EMN:
    """The model with the statistics of a corpus: those of `documents`, by default its training documents
    under split seed 0. It has an expert of theirs, unless that is given a weight below zero.

    Raises UsageError for a model that has an expert, which is of one corpus alone.
    """
    if model.config.has_expert:
        raise UsageError(
            f"{model.config.variant}: has the expert of one corpus and serves no other; train one for "
            f"{corpus.name}"
        )
    chosen = split_corpus(corpus).train if documents is None else documents
    read, fitted = read_with_expert(corpus, chosen, context, model.config)
    found = statistics_of(read, whiten=model.config.head == "rank")
    if fitted is not None and found.filter[EXPERT] < 0:
        # Of few documents, what the others say lies away from the one left out, and the filter learned that.
        read, fitted = replace(read, expert=mx.zeros((1, corpus.dim))), None
        found = statistics_of(read, whiten=False)
    config = model.config.replace(dim=corpus.dim, expert="no" if fitted is None else "yes")
    out = EMN(config)
    own = {name: value for name, value in model.weights().items() if name not in CORPUS_WEIGHTS}
    out.load_weights(list({**out.weights(), **own}.items()))
    hold(out, found)
    if fitted is not None:
        out.expert = expert_module(fitted.whole, config)
    out.eval()
    balance(out, read, found, CENTRED)
    mx.eval(out.parameters())  # else a compiled prediction would scale its weights at every call
    out.train(model.training)
    return out
