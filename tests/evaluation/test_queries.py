"""What a query is worth: who is drawn, and the table on a small corpus."""

import json

import numpy as np
import pytest

from mlx_lvm.data.corpus import Corpus
from mlx_lvm.data.splits import split_corpus
from mlx_lvm.evaluation.evaluate import examine
from mlx_lvm.evaluation.study.queries import draw
from mlx_lvm.evaluation.study.study import study
from mlx_lvm.hub.load import Loaded
from mlx_lvm.models import build, config_from_dict
from mlx_lvm.ranking.mixture import AHEAD
from mlx_lvm.training.ramn.anchor import fit_anchor, start_at_anchor


def test_queries_follow_the_target_and_strangers_are_of_other_documents() -> None:
    documents = np.repeat([0, 1, 2], [40, 3, 30])
    ends = np.array([50, 60, 100])[documents]
    first = np.concatenate([np.arange(6, 46), [57, 58, 59], np.arange(65, 95)])
    own, strangers = draw(first, ends, documents, np.random.default_rng(0))
    assert (own >= first).all() and (own < np.minimum(first + AHEAD, ends)).all()
    assert set(own - first) == set(range(AHEAD))
    place = np.searchsorted([50, 60, 100], strangers, side="right")
    assert (place != documents).all()


def test_the_table(small: Corpus) -> None:
    model = build(
        config_from_dict(
            {"model_type": "ramn", "dim": small.dim, "rank": 12, "hidden_dim": 16, "queries": 0.5}
        )
    )
    start_at_anchor(model, fit_anchor(small, split_corpus(small).train, 5, model.config))
    evaluation = examine(Loaded(model, "ramn", card=small.card), small, resamples=200)
    found = study(evaluation).to_dict()["queries"]
    json.dumps(found, allow_nan=False)
    corpus, scored = small, evaluation.windows
    more = scored.targets + 1 < corpus.offsets[1:][scored.documents]
    rows = found["rows"]
    assert found["windows"] == more.sum() and list(rows) == ["none", "own", "stranger", "query alone"]
    assert rows["none"]["cosine"] == pytest.approx(
        evaluation.measured["ramn"].figures.window.cosine[more].mean(), abs=1e-6
    )
    assert rows["own"]["cosine"] > rows["none"]["cosine"] > rows["stranger"]["cosine"]
    gain = found["gains"]["own"]["cosine"]
    assert (
        gain["difference"] == pytest.approx(rows["own"]["cosine"] - rows["none"]["cosine"])
        and gain["ci"][0] < gain["difference"]
    )
