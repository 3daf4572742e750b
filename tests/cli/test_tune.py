"""`lvm tune`: a study that goes on, never sees the test documents, and ends with a command that trains what
it found.
"""

import json
import os
import shlex
from collections.abc import Callable
from dataclasses import fields
from pathlib import Path

import numpy as np
import pytest

from mlx_lvm.data.corpus import Corpus
from mlx_lvm.data.splits import split_corpus
from mlx_lvm.errors import UsageError
from mlx_lvm.models import architectures
from mlx_lvm.models.transformer import TransformerConfig
from mlx_lvm.training.config import SEARCH, TrainConfig, preset
from mlx_lvm.training.tune import Search, open_study, run_search, trials_of

from ..helpers import write_corpus

optuna = pytest.importorskip("optuna", reason="the search is optuna's: pip install 'mlx-lvm[tune]'")

FIXED = {"epochs": 2, "batch_size": 64}


def search(corpus: Path) -> Search:
    sizes = {"attention_dim": 8, "hidden_dim": 16}
    return Search(
        "amn", TrainConfig(corpus=str(corpus), **FIXED), sizes, frozenset({*FIXED, *sizes, "corpus"})
    )


@pytest.mark.slow
def test_a_study_ends_with_the_command_that_trains_its_best(
    lvm: Callable, tmp_path: Path, small_file: Path
) -> None:
    out = tmp_path / "study"
    arguments = (
        "tune",
        "amn",
        "--corpus",
        small_file,
        "--epochs",
        2,
        "--attention-dim",
        8,
        "--hidden-dim",
        16,
        "--out",
        out,
        "--json",
    )
    said = json.loads(lvm(*arguments, "--trials", 2).out)
    assert [trial["state"] for trial in said["trials"]] == ["complete"] * 2
    values = [trial["centred_cosine"] for trial in said["trials"]]
    assert said["best"]["centred_cosine"] == max(values)
    assert (out / "study.db").exists() and (out / "optimization_history.png").read_bytes()[:4] == b"\x89PNG"
    again = json.loads(lvm(*arguments, "--trials", 3).out)
    assert again["trials"][:2] == said["trials"] and len(again["trials"]) == 3, "the study must go on"

    command = shlex.split(again["command"])
    assert command[:3] == ["lvm", "train", "amn"]
    trained = lvm(*command[1:], "--out", tmp_path / "run", "--json")
    assert trained.code == 0, trained.err
    reached = [
        json.loads(line)["val_centred_cosine"]
        for line in (tmp_path / "run/history.jsonl").read_text().splitlines()
    ]
    assert max(reached) == again["best"]["centred_cosine"], "the command must repeat the trial, to the bit"


def test_the_command_leaves_away_what_the_preset_sets() -> None:
    options, sizes = preset("best", TransformerConfig())
    made = Search("transformer", TrainConfig.from_dict({**options, "batch_size": 64}), {**sizes, "layers": 2})
    assert made.command({"lr": 1e-3}) == "lvm train transformer --batch-size 64 --lr 0.001 --layers 2"
    assert made.command({"dropout": 0.1}) == "lvm train transformer --batch-size 64 --dropout 0.1 --layers 2"


@pytest.mark.slow
def test_a_head_that_is_made_to_rank_is_judged_by_how_it_ranks(
    lvm: Callable, tmp_path: Path, small_file: Path
) -> None:
    arguments = (
        "ramn",
        "--head",
        "retrieve",
        "--corpus",
        small_file,
        "--epochs",
        1,
        "--rank",
        8,
        "--hidden-dim",
        16,
    )
    said = json.loads(lvm("tune", *arguments, "--trials", 1, "--out", tmp_path / "study", "--json").out)
    trained = lvm(*shlex.split(said["command"])[1:], "--out", tmp_path / "run", "--json")
    assert trained.code == 0, trained.err
    (record,) = [json.loads(line) for line in (tmp_path / "run/history.jsonl").read_text().splitlines()]
    assert (
        said["best"]["mrr"] == record["val_mrr"] != record["val_centred_cosine"]
        and "centred_cosine" not in said["best"]
    )


@pytest.mark.slow
def test_test_documents_are_never_looked_at(tmp_path: Path, small: Corpus, small_file: Path) -> None:
    """Other vectors in the test documents, the same trials to the bit; other ones in validation change
    them.
    """
    split, results = split_corpus(small, 0), []
    for number, documents in enumerate(([], split.test, split.val)):
        vectors = small.numpy()
        rows = np.isin(small.document_of(np.arange(len(small))), documents)
        vectors[rows] = np.random.default_rng(0).normal(size=(int(rows.sum()), small.dim)).astype(np.float32)
        path = tmp_path / str(number) / "c.safetensors"
        path.parent.mkdir()
        write_corpus(path, vectors, small.offsets, list(small.names), small.card, {}, "F32")
        one = search(path)
        study = open_study(tmp_path / str(number) / "s.db", one)
        assert run_search(study, one, 2)
        results.append([(trial.value, trial.options["lr"]) for trial in trials_of(study)])
    assert results[0] == results[1] != results[2]


def test_a_trial_that_lags_is_cut_and_a_killed_one_is_not_counted(
    tmp_path: Path, small_file: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    one = search(small_file)
    study = open_study(tmp_path / "s.db", one)
    reports = iter([[0.5, 0.6, 0.7]] * 5 + [[0.5, 0.1, 0.9]] + [[0.5, 0.6, 0.8]])

    class Fake:
        """Reports what it is told to, as a trainer would after each epoch."""

        def __init__(self, *arguments: object) -> None: ...

        def train(self, on_epoch: Callable, stop: Callable) -> bool:
            self.state = type("State", (), {"history": [], "epoch": 0})
            for epoch, value in enumerate(next(reports), 1):
                self.state.history.append({"val_centred_cosine": value})
                on_epoch({"epoch": epoch, "val_centred_cosine": value})
            return True

    monkeypatch.setattr("mlx_lvm.training.tune.new_task", lambda *arguments, **start: None)
    monkeypatch.setattr("mlx_lvm.training.tune.Trainer", Fake)
    study.ask()  # and never told: its process was killed
    study = open_study(tmp_path / "s.db", one)
    run_search(study, one, 7)
    states = [trial.state for trial in trials_of(study)]
    assert states == ["fail"] + ["complete"] * 5 + ["pruned", "complete"]
    assert trials_of(study)[6].epochs == 2


def test_time_and_signals_end_the_search(tmp_path: Path, small_file: Path) -> None:
    one = search(small_file)
    study = open_study(tmp_path / "s.db", one)
    assert run_search(study, one, 100, seconds=0.01)
    assert not run_search(study, one, 100, stop=lambda: True)
    assert len(study.trials) <= 1


@pytest.mark.skipif(not os.path.isdir("/proc/self/fd"), reason="Linux alone lists a process's files there")
def test_the_study_is_open_only_while_it_is_read_or_written(tmp_path: Path, small_file: Path) -> None:
    """Python 3.13 warns of a connection that nobody closed."""
    study = open_study(tmp_path / "s.db", search(small_file))
    assert not study.trials
    opened = [os.path.realpath(f"/proc/self/fd/{number}") for number in os.listdir("/proc/self/fd")]
    assert str(tmp_path / "s.db") not in opened


def test_another_search_does_not_take_the_study(tmp_path: Path, small_file: Path) -> None:
    open_study(tmp_path / "s.db", search(small_file))
    other = search(small_file)
    other.base = other.base.replace(epochs=3)
    with pytest.raises(UsageError, match="with other options"):
        open_study(tmp_path / "s.db", other)


def test_the_space_names_options_and_allows_what_they_allow() -> None:
    known = {field.name for field in fields(TrainConfig)}
    assert set(SEARCH) <= known and "context" not in SEARCH
    for name, allowed in SEARCH.items():
        for value in allowed.choices or (allowed.low, allowed.high):
            TrainConfig.from_dict({name: value})
    for model in architectures().values():
        for name, allowed in model.search.items():
            for value in allowed.choices or (allowed.low, allowed.high):
                model.config_class.from_dict({name: value})


@pytest.mark.parametrize(
    ("arguments", "code", "words"),
    [
        (["amm"], 2, "Did you mean 'amn'?"),
        (["amn", "--time", "soon"], 2, "expected a time such as 30s"),
        (["amn", "--trials", "0"], 2, "trials"),
        (["amn", "--heads", "3"], 2, "not an option of amn"),
        (["amn", "--lr", "-1"], 2, "must be above 0"),
    ],
)
def test_refusals(
    lvm: Callable,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    arguments: list[str],
    code: int,
    words: str,
) -> None:
    monkeypatch.chdir(tmp_path)
    out = lvm("tune", *arguments)
    assert (out.code, words in out.err) == (code, True), out.err
    assert list(tmp_path.iterdir()) == []


def test_a_file_that_is_no_study(lvm: Callable, tmp_path: Path, small_file: Path) -> None:
    (tmp_path / "study.db").write_bytes(b"not a database " * 100)
    out = lvm("tune", "amn", "--corpus", small_file, "--out", tmp_path)
    assert out.code == 3 and "study.db" in out.err
