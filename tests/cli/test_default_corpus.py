"""The corpus a command takes where none is named, and what it says first where nobody knows whose vectors
these are.
"""

import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from mlx_lvm.data.card import EncoderCard
from mlx_lvm.data.corpus import Corpus, load_corpus
from mlx_lvm.errors import UsageError
from mlx_lvm.evaluation.evaluate import space_warnings
from mlx_lvm.hub.export import write_model
from mlx_lvm.hub.load import Loaded, corpus_of, load_model
from mlx_lvm.models import build, config_from_dict
from mlx_lvm.training.config import TrainConfig
from mlx_lvm.training.session import start_run

from ..helpers import write_corpus

SIZES = {"attention_dim": 4, "hidden_dim": 8}


@pytest.fixture(scope="module")
def of_nobody(small: Corpus, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with two corpora of one width, without an encoder, the second turned; a run on the first."""
    folder = tmp_path_factory.mktemp("nobody")
    card, names = EncoderCard(dim=small.dim), list(small.names)
    for name, rows in (("mine", small.numpy()), ("turned", small.numpy()[:, ::-1])):
        write_corpus(folder / f"{name}.safetensors", rows, small.offsets, names, card, {}, "F32")
    config = TrainConfig(corpus=str(folder / "mine.safetensors"), epochs=1)
    start_run("amn", SIZES, config, folder / "run").train()
    return folder


def test_a_run_is_judged_and_predicts_on_its_own_corpus(
    lvm: Callable, of_nobody: Path, small: Corpus
) -> None:
    run = of_nobody / "run"
    judged = lvm("eval", run, "--quick", "--max-windows", 40, "--json")
    assert judged.code == 0, judged.err
    result = json.loads(judged.out)
    assert result["corpus"] == "mine" and result["warnings"] == []
    predicted = lvm("predict", run, "--document", small.names[3], "--rank", "prediction", "--json")
    assert json.loads(predicted.out)["corpus"] == "mine"
    assert json.loads(lvm("attention", run, "--json").out)["corpus"] == "mine"


def test_unknown_is_said_before_any_figure(lvm: Callable, of_nobody: Path, small: Corpus) -> None:
    run, turned = of_nobody / "run", of_nobody / "turned.safetensors"
    words = "warning: whether one encoder made the vectors of turned and those that run was trained on is"
    for command in (
        ["eval", run, "--corpus", turned, "--quick", "--max-windows", 40],
        ["predict", run, "--corpus", turned, "--document", small.names[3], "--rank", "prediction"],
        ["attention", run, "--corpus", turned],
    ):
        ran = lvm(*command)
        assert ran.code == 0 and ran.out.startswith(f"{words} not known"), (command, ran.out[:300])


@pytest.mark.slow
def test_another_domain_is_warned_of_too(lvm: Callable, of_nobody: Path) -> None:
    run, turned = of_nobody / "run", of_nobody / "turned.safetensors"
    for subject, other in ((run, "run was trained on"), ("ridge", "mine holds")):
        flags = ("--corpus", of_nobody / "mine.safetensors", "--ood", turned, "--quick", "--json")
        result = json.loads(lvm("eval", subject, *flags).out)
        (warning,) = result["ood"]["warnings"]
        assert f"those that {other} is not known (no encoder is recorded)" in warning
        assert result["warnings"] == []


def test_a_part_of_a_run_is_no_model(of_nobody: Path) -> None:
    run = of_nobody / "run"
    for part in ("config.json", "checkpoints", "checkpoints/BEST"):
        with pytest.raises(UsageError, match=r"a part of the run .*run\. Name the run itself"):
            load_model(run / part)
    assert load_model(f"{run}/").name == "run"


def test_what_a_model_says(small: Corpus, tmp_path: Path) -> None:
    assert corpus_of(load_model("ramn")) == "sotu"
    assert corpus_of(load_model("emn")) == "sotu"  # for every encoder, of no corpus
    model = build(config_from_dict({"model_type": "amn", "dim": small.dim, **SIZES}))
    mine = Loaded(model, "m", corpus="notes", corpus_sha256="x", card=small.card)
    write_model(mine, tmp_path / "said")
    with pytest.raises(
        UsageError, match=r"trained on corpus 'notes', which is not shipped. .* --corpus FILE"
    ):
        corpus_of(load_model(tmp_path / "said"))
    write_model(Loaded(model, "m"), tmp_path / "silent")
    with pytest.raises(UsageError, match=r"does not say which corpus it was trained on. .* --corpus FILE"):
        corpus_of(load_model(tmp_path / "silent"))


def test_when_there_is_something_to_warn_of(small: Corpus, sotu: Corpus) -> None:
    probes = np.eye(16, small.dim, dtype=np.float32)
    model = build(config_from_dict({"model_type": "amn", "dim": small.dim, **SIZES}))
    for card, other, expected in (
        (small.card, small.card, ""),  # both name the encoder
        (None, small.card, "no encoder is recorded with the model"),
        (EncoderCard(dim=small.dim), EncoderCard(dim=small.dim), "no encoder is recorded"),
        (EncoderCard(dim=small.dim), small.card, "one records no encoder"),
        (small.card.replace(probes=probes), small.card, "one has no probe vectors"),
        (EncoderCard(dim=small.dim, probes=probes), small.card.replace(probes=probes), ""),
    ):
        found = space_warnings(Loaded(model, "m", card=card, corpus_sha256="x"), replace(small, card=other))
        assert len(found) == bool(expected) and all(f"({expected})" in line for line in found)
    own = Loaded(model, "m", corpus_sha256=small.sha256)  # of the very corpus: nothing to ask
    assert space_warnings(own, small) == [] and space_warnings("ridge", small) == []
    assert space_warnings(load_model("emn"), load_corpus("moby")) == []
    assert space_warnings(load_model("amn"), sotu) == []
