"""Everything that is fitted before EMN's first step: statistics, and an expert where that predicts validation
documents better.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np

from mlx_lvm.core.mlx import mx
from mlx_lvm.data.corpus import Corpus
from mlx_lvm.data.splits import Split
from mlx_lvm.models.emn import EMN
from mlx_lvm.models.emn_config import EMNConfig
from mlx_lvm.predictors.baselines import target_mean
from mlx_lvm.training.emn.balance import balance
from mlx_lvm.training.emn.experts import FittedExpert, applied, expert_module, fit_expert, with_expert
from mlx_lvm.training.emn.geometry import geometry_of
from mlx_lvm.training.emn.reading import BLOCK, Reading, apart, document_of, reading, take_batch
from mlx_lvm.training.emn.scores import centred_weight, scores_of
from mlx_lvm.training.emn.statistics import Statistics, hold, statistics_of


@dataclass(frozen=True, eq=False)
class Prepared:
    """config: with `expert` settled and the corpus's width. train, val: documents as they are read, with the
    expert's row.
    """

    config: EMNConfig
    statistics: Statistics
    expert: FittedExpert | None
    train: Reading
    val: Reading


def prepare(corpus: Corpus, split: Split, context: int, config: EMNConfig) -> Prepared:
    """Raises InvalidFile where a part of the corpus has no window."""
    config = config.replace(dim=corpus.dim)
    mean = target_mean(corpus, split.train, context)
    train, val = (reading(corpus, documents, context, mean) for documents in (split.train, split.val))
    rank = config.head == "rank"
    if not rank:
        train = apart(train)
    plain = Prepared(config.replace(expert="no"), statistics_of(train, rank), None, train, val)
    if config.expert == "no":
        return plain
    chosen = config.replace(expert="yes")
    fitted = fit_expert(train, split.train, chosen)
    informed = with_expert(train, fitted, chosen)
    found = Prepared(
        chosen,
        statistics_of(informed, rank),
        fitted,
        informed,
        applied(val, expert_module(fitted.whole, chosen)),
    )
    return found if config.expert == "yes" or better(plain, found) else plain


def better(plain: Prepared, found: Prepared) -> bool:
    """Whether the lag filter with the expert's row predicts validation documents better, by more than its
    standard error.
    """
    if plain.config.head == "rank":  # which has no filter: judged by what predicts
        plain, found = (replace(one, statistics=statistics_of(one.train, False)) for one in (plain, found))
    geometries = [geometry_of(one.val, one.statistics) for one in (plain, found)]
    weight = centred_weight(geometries[0])
    scores = [scores_of(None, geometry, weight) for geometry in geometries]
    document = document_of(plain.val)
    gains = np.array([(scores[1] - scores[0])[document == one].mean() for one in np.unique(document)])
    error = gains.std(ddof=1) / np.sqrt(len(gains)) if len(gains) > 1 else 0.0
    return bool(gains.mean() > error)


def model_of(prepared: Prepared, network: EMN | None = None) -> EMN:
    """A model of the corpus that begins as its lag filter, or with the network of another EMN of the same
    head and size.
    """
    model = EMN(prepared.config)
    model.start_at_baseline()
    if network is not None:
        own = network.weights()
        shared = EMN(prepared.config.replace(dim=0, expert="no")).weights()
        model.load_weights(list({**model.weights(), **{name: own[name] for name in shared}}.items()))
    hold(model, prepared.statistics)
    if prepared.expert is not None:
        model.expert = expert_module(prepared.expert.whole, prepared.config)
    if network is not None:
        model.eval()
        balance(model, prepared.train, prepared.statistics)
        model.train()
    return model


def directions(model: EMN, read: Reading, whiten: mx.array) -> mx.array:
    """Head rank: the raw direction of every window that was read, in the order of `windows`, [n, dim]."""
    out = []
    for index in read.parts.blocks(BLOCK):
        batch = take_batch(read.arrays, mx.array(read.parts.table(read.parts.targets[index])))
        rows = batch.rows
        corrections, scale = model.corrections(rows @ rows.swapaxes(-1, -2), batch.tokens, batch.count)
        raw = model.direction(rows, corrections, scale, whiten)
        valid = np.flatnonzero(np.array(batch.valid).reshape(-1)).astype(np.int32)
        out.append(mx.take(raw.flatten(0, 1), mx.array(valid), axis=0))
        mx.eval(out[-1])
    return mx.concatenate(out)
