"""A run finds its corpus again after either has moved, takes a new place for it everywhere, and says what to
do where it is gone.
"""

import json
import os
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest

from mlx_lvm.data.corpus import Corpus
from mlx_lvm.errors import InvalidFile
from mlx_lvm.evaluation.judge import judge_run
from mlx_lvm.hub.load import corpus_of, load_model
from mlx_lvm.training.config import TrainConfig
from mlx_lvm.training.own_corpus import own_corpus
from mlx_lvm.training.run import read_config
from mlx_lvm.training.session import resume_run, start_run

from ..helpers import write_corpus

SIZES = {"attention_dim": 4, "hidden_dim": 8}


@pytest.fixture
def project(tmp_path: Path, small_file: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder with a corpus and a run that was trained there, its corpus named from within."""
    folder = tmp_path / "project"
    folder.mkdir()
    shutil.copy(small_file, folder / "c.safetensors")
    monkeypatch.chdir(folder)
    start_run("amn", SIZES, TrainConfig(corpus="c.safetensors", epochs=1), Path("run")).train()
    return folder


def test_both_or_one_of_them_moved(project: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    assert own_corpus(project / "run", read_config(project / "run")) == str(project / "c.safetensors")
    project.rename(tmp_path / "both")
    os.symlink("both/run", "a link")
    moved = tmp_path / "both" / "c.safetensors"
    assert own_corpus(Path("a link"), read_config(Path("a link"))) == str(moved)
    assert resume_run(Path("a link"), {"epochs": 2}, force=True).train()
    assert json.loads(Path("a link/config.json").read_text())["corpus"]["path"] == str(moved)
    Path("elsewhere").mkdir()
    (tmp_path / "both" / "run").rename("elsewhere/run")  # the run alone: by the path recorded last
    assert corpus_of(load_model("elsewhere/run")) == str(moved)


def test_another_corpus_in_its_place_is_not_taken(
    project: Path, small: Corpus, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    shutil.copytree(project / "run", tmp_path / "run")
    rows = small.offsets[:9]
    vectors, names = small.numpy()[: rows[-1]], list(small.names[:8])
    write_corpus(tmp_path / "c.safetensors", vectors, rows, names, small.card, {}, "F32")
    # Beside the run and as it was named lies another corpus; its own is where it was.
    assert corpus_of(load_model("run")) == str(project / "c.safetensors")
    (project / "c.safetensors").unlink()
    with pytest.raises(InvalidFile, match=r"not the one this run began with .* --corpus FILE"):
        resume_run(Path("run"))


@pytest.mark.slow
def test_a_new_place_reaches_everything(
    lvm: Callable, project: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (project / "c.safetensors").rename(tmp_path / "new.safetensors")
    monkeypatch.chdir(tmp_path)
    for command in (
        ["train", "--resume", "project/run"],
        ["eval", "project/run", "--quick"],
        ["predict", "project/run", "-d", 0],
        ["attention", "project/run"],
        ["compare", "project/run"],
        ["export", "project/run", "--out", "exported"],
    ):
        ran = lvm(*command)
        assert ran.code == 3 and "--corpus FILE" in ran.err, (command, ran.err)
        assert "its corpus 'c' is no longer at" in ran.err
    ran = lvm("train", "--resume", "project/run", "--corpus", "new.safetensors", "--json")
    assert ran.code == 0, ran.err
    assert json.loads(ran.out)["test"]["windows"] == judge_run(project / "run").scored.windows
    config = read_config(project / "run")
    assert config["train"]["corpus"] == "new.safetensors"
    assert config["corpus"]["path"] == str(tmp_path / "new.safetensors")
    assert config["corpus"]["path_from_run"] == "../../new.safetensors"
    assert 'corpus = "new.safetensors"' in (project / "run" / "config.toml").read_text()
    assert lvm("eval", "project/run", "--quick").code == 0


@pytest.mark.slow
def test_several_runs_are_resumed_on_a_corpus_that_moved(
    lvm: Callable, small_file: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    shutil.copy(small_file, "c.safetensors")
    sizes = ("--attention-dim", 4, "--hidden-dim", 8, "--epochs", 1)
    assert lvm("train", "amn", "--corpus", "c.safetensors", "--seeds", 2, "--out", "runs", *sizes).code == 0
    shutil.rmtree("runs/seed-1")
    Path("runs/seed-0/summary.json").unlink()
    Path("c.safetensors").rename("new.safetensors")
    ran = lvm("train", "--resume", "runs")
    assert ran.code != 0 and "--corpus FILE" in ran.err
    ran = lvm("train", "--resume", "runs", "--corpus", "new.safetensors")
    assert ran.code == 0, ran.err
    for seed in ("seed-0", "seed-1"):
        assert read_config(Path("runs") / seed)["train"]["corpus"] == "new.safetensors"


def test_a_shipped_corpus_is_known_by_its_name(tmp_path: Path) -> None:
    start_run("amn", SIZES, TrainConfig(corpus="moby", epochs=1), tmp_path / "run")
    config = read_config(tmp_path / "run")
    assert not {"path", "path_from_run"} & set(config["corpus"])
    assert own_corpus(tmp_path / "run", config) == "moby"
