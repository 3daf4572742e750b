"""The leaderboard: the figures of single evaluations, p-values corrected over the models, what it refuses."""

import dataclasses
import json
from pathlib import Path

import numpy as np
import pytest
from numpy.testing import assert_allclose

from mlx_lvm.core.mlx import mx
from mlx_lvm.core.stats import holm
from mlx_lvm.data.card import EncoderCard
from mlx_lvm.data.corpus import Corpus
from mlx_lvm.data.splits import split_corpus
from mlx_lvm.data.windows import windows
from mlx_lvm.errors import InvalidFile, UsageError
from mlx_lvm.evaluation.evaluate import examine
from mlx_lvm.evaluation.leaderboard import COLUMNS, Leaderboard, OwnContext, compare, runs_under
from mlx_lvm.hub.load import Loaded
from mlx_lvm.models import build, config_from_dict
from mlx_lvm.predictors.base import ModelPredictor


def model(small: Corpus, kind: str, seed: int, **known: object) -> Loaded:
    mx.random.seed(seed)
    sizes = {"attention_dim": 4} if kind == "amn" else {"layers": 1}
    network = build(config_from_dict({"model_type": kind, "dim": small.dim, "hidden_dim": 8, **sizes}))
    network.eval()
    known = {"card": small.card, "corpus_sha256": small.sha256, **known}
    return Loaded(network, kind, **known)  # type: ignore[arg-type]


@pytest.fixture(scope="module")
def three(small: Corpus, tmp_path_factory: pytest.TempPathFactory) -> list[Loaded]:
    run = tmp_path_factory.mktemp("run")
    (run / "summary.json").write_text(json.dumps({"best_epoch": 3, "epochs": 7, "seconds": 12.5}))
    still = model(small, "amn", 1, folder=run)
    still.model.start_at_baseline()
    return [model(small, "lstm", 2), still, model(small, "amn", 3)]


@pytest.fixture(scope="module")
def standings(small: Corpus, three: list[Loaded]) -> Leaderboard:
    return compare(three, small, resamples=500)


@pytest.fixture(scope="module")
def board(standings: Leaderboard) -> dict:
    return standings.to_dict()


def test_rows_are_those_of_single_evaluations(board: dict, small: Corpus, three: list[Loaded]) -> None:
    json.dumps(board, allow_nan=False)
    rows = {row["model"]: row for row in board["rows"]}
    assert [row["cosine"] for row in board["rows"]] == sorted(
        (row["cosine"] for row in rows.values()), reverse=True
    )
    assert set(rows) == {"lstm", "amn", "amn (2)"}
    for name, loaded in zip(("lstm", "amn", "amn (2)"), three, strict=True):
        alone = examine(loaded, small, resamples=500).to_dict()["metrics"][loaded.name]
        row = rows[name]
        assert row["parameters"] == loaded.model.parameter_count()
        for key in ("cosine", "mrr", "recall_at_10", "centred_cosine"):
            assert row[key] == pytest.approx(alone[key], abs=1e-6)
            assert_allclose(row[f"{key}_ci"], alone[f"{key}_ci"], atol=1e-6)
        assert row["gain"] == pytest.approx(alone["versus_best"]["cosine"]["difference"], abs=1e-6)
        assert (
            row["closed_form"]
            == alone["versus_best"]["cosine"]["closed_form"]
            == board["best_closed_form"]["cosine"]
        )
        assert row["latency_ms"] > 0
    assert (rows["amn"]["best_epoch"], rows["amn"]["seconds"], rows["lstm"]["seconds"]) == (3, 12.5, None)
    closed = {row["model"]: row["cosine"] for row in board["closed_forms"]}
    assert len(closed) == 10 and rows["amn"]["cosine"] == pytest.approx(closed["mean"], abs=1e-6)
    assert max(closed, key=lambda name: closed[name]) == board["best_closed_form"]["cosine"]
    assert {row["model"]: row["mrr"] for row in board["controls"]}["oracle"] == 1


def test_p_values_are_corrected_over_the_models(board: dict) -> None:
    plain = {row["model"]: row["p"] for row in board["rows"]}
    assert {row["model"]: row["p_holm"] for row in board["rows"]} == holm(plain)
    assert min(row["p_holm"] for row in board["rows"]) == pytest.approx(3 * min(plain.values()))


def test_a_longer_context_bounds_the_windows_of_all(small: Corpus) -> None:
    short, long = model(small, "amn", 1, context=3), model(small, "lstm", 2, context=6)
    board = compare([short, long], small, resamples=50).to_dict()
    test = split_corpus(small).test
    assert board["windows"] == sum(small.lengths[test] - 6) and board["context"] == 6
    found = windows(small, test, 6)
    narrow = dataclasses.replace(found, context=3)
    own = np.array(OwnContext(ModelPredictor("amn", short.model), 3).predict(found))
    assert_allclose(own, np.array(short.model(narrow.contexts()).raw), atol=1e-6)
    assert {row["model"]: row["context"] for row in board["rows"]} == {"amn": 3, "lstm": 6}


def test_what_cannot_be_compared_is_refused(small: Corpus, three: list[Loaded], tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="nothing to compare"):
        compare([], small)
    with pytest.raises(UsageError, match="models of different splits"):
        compare([three[0], dataclasses.replace(three[1], split_seed=4)], small)
    with pytest.raises(InvalidFile, match="two different encoders"):
        compare([dataclasses.replace(three[0], card=EncoderCard(model="other", dim=small.dim))], small)
    with pytest.raises(UsageError, match="no finished run under"):
        runs_under(tmp_path)
    (tmp_path / "b/checkpoints").mkdir(parents=True)
    (tmp_path / "b/checkpoints/BEST").write_text("step-1")
    (tmp_path / "a/checkpoints").mkdir(parents=True)  # killed before its first epoch
    assert runs_under(tmp_path) == [tmp_path / "b"]


def test_tables(standings: Leaderboard, board: dict) -> None:
    rows = standings.table
    assert len(rows) == 3 + 3 and {len(row) for row in rows} == {len(COLUMNS)}
    lines = standings.markdown.splitlines()
    assert lines[0].count("|") == lines[1].count("|") == lines[2].count("|") == len(COLUMNS) + 1
    first = board["rows"][0]
    low, high = first["cosine_ci"]
    assert f"{first['cosine']:.4f} [{low:.4f} {high:.4f}]" in lines[2]
    assert f"chance MRR {board['retrieval']['split']['chance']['mrr']:.4f}" in lines[-1]
