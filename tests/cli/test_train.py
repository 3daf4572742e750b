"""`lvm train` as its user meets it: the run, the refusals, the signals."""

import json
import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from mlx_lvm.cli.models.train import presets_of
from mlx_lvm.cli.shared.progress import StopOnSignal
from mlx_lvm.core.files.safetensors import open_safetensors, to_bytes
from mlx_lvm.data.corpus import Corpus
from mlx_lvm.models import trained
from mlx_lvm.models.amn import AMNConfig
from mlx_lvm.training.config import TrainConfig, preset
from mlx_lvm.training.run import Lock
from mlx_lvm.training.session import start_run

from ..helpers import write_corpus

SMALL = ("--attention-dim", 8, "--hidden-dim", 16)


def test_a_run_from_corpus_to_verdict(lvm: Callable, tmp_path: Path, small_file: Path) -> None:
    out = lvm(
        "train", "amn", "--corpus", small_file, "--epochs", 2, "--out", tmp_path / "run", *SMALL, "--json"
    )
    assert out.code == 0, out.err
    said = json.loads(out.out)
    assert {
        "run",
        "model",
        "parameters",
        "epochs",
        "best_epoch",
        "val_cosine",
        "val_baselines",
        "seconds",
        "windows_per_second",
    } <= set(said)
    history = [json.loads(line) for line in (tmp_path / "run/history.jsonl").read_text().splitlines()]
    assert said["epochs"] == len(history) == 2 and said["val_cosine"] == max(
        record["val_cosine"] for record in history
    )
    assert said["val_baselines"]["lag-filter"] > said["val_baselines"]["mean"] > 0.3
    assert set(said["test"]["metrics"]) >= {"run", "mean", "lag-filter", "ridge", "oracle", "random"}
    config = json.loads((tmp_path / "run/config.json").read_text())
    assert config["train"]["epochs"] == 2 and config["model"] == {
        "model_type": "amn",
        "dim": 32,
        "attention_dim": 8,
        "hidden_dim": 16,
    }
    assert "validation cosine without training" in out.err and "lag-filter" in out.err


ALL_SMALL = (
    "--attention-dim",
    8,
    "--hidden-dim",
    16,
    "--layers",
    1,
    "--heads",
    2,
    "--ffn-dim",
    16,
    "--rank",
    8,
)


@pytest.mark.slow
def test_all_on_equal_terms_end_in_a_leaderboard_and_go_on_where_they_were_stopped(
    lvm: Callable, tmp_path: Path, small_file: Path
) -> None:
    """Then of a copy: finished runs stay, the one that was stopped goes on, the others begin; the result is
    that of the undisturbed one.
    """
    whole, cut = tmp_path / "whole", tmp_path / "cut"
    arguments = ("train", "all", "--corpus", small_file, "--epochs", 2, "--keep-every", 1, *ALL_SMALL)
    out = lvm(*arguments, "--out", whole, "--json")
    assert out.code == 0, out.err
    said = json.loads(out.out)
    assert [run["model"] for run in said["runs"]] == list(trained())
    rows = {row["model"]: row for row in said["comparison"]["rows"]}
    assert set(rows) == {*trained()}
    configs = {name: json.loads((whole / name / "config.json").read_text())["train"] for name in rows}
    for key in ("seed", "split_seed", "epochs", "context", "corpus"):
        assert len({config[key] for config in configs.values()}) == 1, key
    for key in ("batch_size", "loss_cosine"):
        assert len({config[key] for name, config in configs.items() if name not in ("ramn", "emn")}) == 1, key
    for run in said["runs"]:
        assert rows[run["model"]]["cosine"] == pytest.approx(
            run["test"]["metrics"][run["model"]]["cosine"], abs=1e-6
        )
        assert (
            rows[run["model"]]["p_holm"] >= rows[run["model"]]["p"] and rows[run["model"]]["latency_ms"] > 0
        )
    assert lvm("train", "all", "--corpus", small_file, "--out", whole).code == 4

    shutil.copytree(whole, cut)
    for name in ("gru", "transformer"):
        shutil.rmtree(cut / name)
    (cut / "lstm/summary.json").unlink()
    lstm = cut / "lstm/checkpoints"
    first, last = sorted(path.name for path in lstm.glob("step-*"))
    shutil.rmtree(lstm / last)
    for pointer in ("LATEST", "BEST"):
        (lstm / pointer).write_text(first)
    finished = (cut / "amn/summary.json").stat().st_mtime_ns
    again = lvm("train", "--resume", cut, "--json")
    assert again.code == 0, again.err
    assert "amn: finished before" in again.err
    assert (cut / "amn/summary.json").stat().st_mtime_ns == finished
    assert [row["cosine"] for row in json.loads(again.out)["comparison"]["rows"]] == [
        row["cosine"] for row in said["comparison"]["rows"]
    ]
    assert (cut / "gru/history.jsonl").exists() and (cut / "lstm/summary.json").exists()
    assert lvm("train", "--resume", cut, "--epochs", 3).code == 2


def test_a_config_file_repeats_the_run_to_the_bit(lvm: Callable, tmp_path: Path, small_file: Path) -> None:
    first = lvm(
        "train", "amn", "--corpus", small_file, "--epochs", 1, "--lr", 1e-3, "--out", tmp_path / "a", *SMALL
    )
    again = lvm("train", "--config", tmp_path / "a/config.toml", "--out", tmp_path / "b")
    assert (first.code, again.code) == (0, 0), again.err
    weights = [
        next((tmp_path / name / "checkpoints").glob("step-*/model.safetensors")).read_bytes() for name in "ab"
    ]
    assert weights[0] == weights[1]
    assert (tmp_path / "a/history.jsonl").read_bytes() == (tmp_path / "b/history.jsonl").read_bytes()


def test_precedence_flag_file_preset(lvm: Callable, tmp_path: Path, small_file: Path) -> None:
    (tmp_path / "c.toml").write_text(
        f'corpus = "{small_file}"\nepochs = 1\nlr = 0.002\nresidual_init = "zero"\n[model]\nhidden_dim = 16\n'
    )
    arguments = (
        "--config",
        tmp_path / "c.toml",
        "--preset",
        "seed",
        "--lr",
        0.003,
        "--attention-dim",
        8,
        "--out",
        tmp_path / "run",
    )
    out = lvm("train", "amn", *arguments)
    assert out.code == 0, out.err
    config = json.loads((tmp_path / "run/config.json").read_text())
    assert (config["train"]["lr"], config["train"]["residual_init"], config["train"]["loss_cosine"]) == (
        0.003,
        "zero",
        0.0,
    )
    assert (config["model"]["hidden_dim"], config["model"]["attention_dim"]) == (16, 8)


@pytest.mark.parametrize(
    ("arguments", "code", "words"),
    [
        ([], 2, "which model"),
        (["filter"], 2, "is fitted, not trained: lvm export lag-filter"),
        (["amm"], 2, "Did you mean 'amn'?"),
        (["amn", "--epochs", 0], 2, "epochs = 0: must be at least 1"),
        (["amn", "--lr", "nan"], 2, "must be finite"),
        (["amn", "--lr", "-1"], 2, "must be above 0"),
        (["amn", "--batch-size", "0"], 2, "must be at least 1"),
        (["amn", "--loss-mse", "0", "--loss-cosine", "0"], 2, "all loss weights are zero"),
        (["amn", "--preset", "sed"], 2, "Did you mean 'seed'?"),
        (["amn", "--device", "tpu"], 2, "expected cpu or gpu"),
        (["amn", "--corpus", "sotuu"], 2, "Did you mean 'sotu'?"),
        (["amn", "--corpus", "nowhere/x.safetensors"], 3, "no such file"),
        (["amn", "--config", "nowhere.toml"], 3, "no such file"),
        (["amn", "--context", "100"], 3, "no window of 100 + 1 chunks"),
        (["amn", "--out", "/proc/nowhere/run"], 4, "cannot be written"),
        (["--resume", "nowhere"], 3, "no run here"),
        (["amn", "--resume", "nowhere"], 3, "no run here"),
        (["amn", "--force"], 2, "--force goes with --resume"),
        (["amn", "--checkpoint-every", "5 minutes"], 2, "expected steps (200) or a time (30s, 5m, 1h)"),
        (["amn", "--report-to", "tensorbord"], 2, "Did you mean 'tensorboard'?"),
        (["--resume", "nowhere", "--seeds", "2"], 2, "omit --seeds"),
        (["--resume", "nowhere", "--out", "elsewhere"], 2, "continues in its own folder"),
        (["amn", "--ffn-dim", "3"], 2, "not an option of amn"),
        (
            ["ramn", "--loss-cosine", "2", "--temperature", "1"],
            2,
            "--loss-cosine, --temperature: not an option of ramn",
        ),
        (["ramn", "--preset", "seed"], 2, "preset 'seed' is not a recipe of ramn"),
        (["amn", "--nonsense"], 2, "No such option"),
    ],
)
def test_refusals(
    lvm: Callable,
    tmp_path: Path,
    small_file: Path,
    monkeypatch: pytest.MonkeyPatch,
    arguments: list,
    code: int,
    words: str,
) -> None:
    monkeypatch.chdir(tmp_path)
    if "--corpus" not in arguments and "--resume" not in arguments:
        arguments = [*arguments, "--corpus", small_file]
    out = lvm("train", *arguments)
    assert (out.code, words in out.err + out.out) == (code, True), out.err
    assert list(tmp_path.iterdir()) == []


def test_an_unknown_key_in_a_file_names_the_nearest(lvm: Callable, tmp_path: Path) -> None:
    (tmp_path / "c.toml").write_text("epoch = 3\n")
    out = lvm("train", "amn", "--config", tmp_path / "c.toml")
    assert out.code == 2 and "unknown key 'epoch'. Did you mean 'epochs'?" in out.err
    (tmp_path / "c.toml").write_text("[model]\nhiden_dim = 3\n")
    out = lvm("train", "amn", "--config", tmp_path / "c.toml")
    assert out.code == 2 and "Did you mean 'hidden_dim'?" in out.err
    (tmp_path / "c.toml").write_text("epochs = = 3\n")
    assert lvm("train", "amn", "--config", tmp_path / "c.toml").code == 3


def broken(kind: str, small: Corpus, source: Path, path: Path) -> None:
    """A corpus file with one thing wrong."""
    file = open_safetensors(source)
    tensors = {name: np.array(file.numpy(name)) for name in file.tensors}
    metadata = {key: value for key, value in file.metadata.items() if not key.startswith("sha256")}
    if kind == "truncated":
        path.write_bytes(source.read_bytes()[:-100])
        return
    if kind == "folder":
        path.mkdir()
        return
    if kind in ("flipped", "renamed"):
        data = bytearray(source.read_bytes())
        data[len(data) // 2 if kind == "flipped" else data.index(small.names[0].encode())] ^= 1
        path.write_bytes(data)
        return
    if kind == "nan":
        tensors["vectors"][7, 3] = np.nan
    elif kind == "inf":
        tensors["vectors"][8, 3] = np.inf
    elif kind == "zero":
        tensors["vectors"][9] = 0
    elif kind == "cover":
        tensors["document_offsets"][-1] -= 1
    elif kind == "empty":
        tensors["vectors"] = tensors["vectors"][:0]
    elif kind == "dim":
        tensors["vectors"] = tensors["vectors"][:, :31]
    path.write_bytes(to_bytes(tensors, metadata))


@pytest.mark.parametrize(
    ("kind", "words"),
    [
        ("truncated", "cut off"),
        ("folder", "corpus|folder|index"),
        ("flipped", "sha256"),
        ("renamed", "names, offsets, scales or probes do not have the sha256"),
        ("nan", "row 7"),
        ("inf", "row 8"),
        ("zero", "row 9"),
        ("cover", "offsets"),
        ("empty", "empty"),
        ("dim", "31 dimensions under an encoder card that says 32"),
    ],
)
def test_a_broken_corpus_is_named(
    lvm: Callable, tmp_path: Path, small: Corpus, small_file: Path, kind: str, words: str
) -> None:
    path = tmp_path / "bad.safetensors"
    broken(kind, small, small_file, path)
    out = lvm("train", "amn", "--corpus", path, "--out", tmp_path / "run")
    assert out.code == 3 and str(path) in out.err and any(word in out.err for word in words.split("|")), (
        out.err
    )
    assert not (tmp_path / "run").exists()


def test_documents_shorter_than_a_window(lvm: Callable, tmp_path: Path, small: Corpus) -> None:
    vectors = small.numpy(np.arange(40))
    write_corpus(
        tmp_path / "c.safetensors", vectors, np.arange(0, 41, 4), [f"d{k}" for k in range(10)], small.card, {}
    )
    out = lvm("train", "amn", "--corpus", tmp_path / "c.safetensors", "--out", tmp_path / "run")
    assert out.code == 3 and "the longest has 4 chunks" in out.err and "--context" in out.err


def test_a_run_folder_in_use_is_refused(lvm: Callable, tmp_path: Path, small_file: Path) -> None:
    assert (
        lvm("train", "amn", "--corpus", small_file, "--epochs", 1, "--out", tmp_path / "run", *SMALL).code
        == 0
    )
    out = lvm("train", "amn", "--corpus", small_file, "--out", tmp_path / "run")
    assert out.code == 4 and "already holds a run" in out.err
    (tmp_path / "file").write_text("")
    assert lvm("train", "amn", "--corpus", small_file, "--out", tmp_path / "file").code == 4


@pytest.mark.slow
@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_signal_writes_a_checkpoint_and_says_how_to_go_on(
    tmp_path: Path, small_file: Path, lvm: Callable, number: signal.Signals
) -> None:
    run = tmp_path / "run"
    command = [
        sys.executable,
        "-m",
        "mlx_lvm.cli.main",
        "train",
        "amn",
        "--corpus",
        str(small_file),
        "--out",
        str(run),
        *map(str, SMALL),
    ]
    process = subprocess.Popen(
        [*command, "--epochs", "100000"],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env=os.environ,
    )
    try:
        deadline = time.monotonic() + 60
        while not (run / "checkpoints/LATEST").exists() and time.monotonic() < deadline:
            time.sleep(0.05)
        process.send_signal(number)
        out, err = process.communicate(timeout=60)
    finally:
        process.kill()
    assert process.returncode == 128 + number, err
    assert f"lvm train --resume {run}" in out and "Traceback" not in err
    config = json.loads((run / "config.json").read_text())
    count = json.loads(
        (run / "checkpoints" / (run / "checkpoints/LATEST").read_text().strip() / "state.json").read_text()
    )["count"]
    assert count > 0
    config["train"]["epochs"] = json.loads((run / "history.jsonl").read_text().splitlines()[-1])["epoch"] + 1
    (run / "config.json").write_text(json.dumps(config))
    assert lvm("train", "--resume", run).code == 0


@pytest.fixture
def run(tmp_path: Path, small_file: Path) -> Path:
    """A run of one epoch, not yet judged."""
    options = TrainConfig.from_dict(
        {**preset("best", AMNConfig())[0], "corpus": str(small_file), "epochs": 1}
    )
    assert start_run("amn", {"attention_dim": 8, "hidden_dim": 16}, options, tmp_path / "run").train()
    return tmp_path / "run"


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["--lr", 0.9], "--lr 0.9: the run has 3e-05"),
        (["--hidden-dim", 32, "--force"], "--hidden-dim 32: the run has 16"),
        (["--epochs", 2], "--epochs 2: the run has 1. --force changes it"),
        (["lstm"], "--model-type lstm: the run has amn"),
        (["--preset", "seed"], "--residual-init torch: the run has zero"),
    ],
)
def test_resume_names_the_option_that_is_another(
    lvm: Callable, run: Path, arguments: list, words: str
) -> None:
    out = lvm("train", "--resume", run, *arguments)
    assert out.code == 2 and words in out.err, out.err


@pytest.mark.slow
def test_a_preset_is_the_recipe_of_the_model(lvm: Callable, tmp_path: Path, small_file: Path) -> None:
    sizes = (
        "--hidden-dim",
        16,
        "--layers",
        1,
        "--heads",
        2,
        "--ffn-dim",
        16,
        "--corpus",
        small_file,
        "--epochs",
        1,
    )
    assert lvm("train", "transformer", *sizes, "--out", tmp_path / "best").code == 0
    assert lvm("train", "transformer", *sizes, "--preset", "seed", "--out", tmp_path / "seed").code == 0
    best, seed = (json.loads((tmp_path / name / "config.json").read_text()) for name in ("best", "seed"))
    assert (best["model"]["dropout"], best["train"]["lr"]) == (0.3, 3e-4)
    assert (seed["model"]["dropout"], seed["train"]["lr"]) == (0.1, 5e-4)
    assert lvm("train", "--resume", tmp_path / "best", "--preset", "best").code == 0, (
        "not AMN's recipe, its own"
    )
    given = lvm("train", "--resume", tmp_path / "best", "--preset", "seed", "--lr", 0.9, "--dropout", 0.3)
    assert given.code == 2 and "--lr 0.9: the run has 0.0003" in given.err and "--dropout" not in given.err, (
        given.err
    )
    other = lvm("train", "--resume", tmp_path / "seed", "--preset", "best")
    assert other.code == 2 and "--dropout 0.3: the run has 0.1" in other.err, other.err
    unknown = lvm("train", "--resume", tmp_path / "seed", "--preset", "bets")
    assert unknown.code == 2 and "Did you mean 'best'?" in unknown.err, unknown.err


def test_the_help_of_an_option_shows_what_each_preset_sets() -> None:
    assert presets_of("dropout") == "; best: transformer 0.3"
    assert presets_of("early_stop") == "; best: 5, emn 0, emn-rank 0, ramn 0, ramn-retrieve 0"
    assert presets_of("residual_init") == "; seed: torch" and presets_of("context") == ""


@pytest.mark.slow
def test_resume_takes_the_same_options_and_more_epochs_by_force(
    lvm: Callable, run: Path, tmp_path: Path, small_file: Path
) -> None:
    assert (
        lvm("train", "amn", "--resume", run, "--lr", 3e-5, "--config", run / "config.toml", "--out", run).code
        == 0
    )
    assert json.loads((run / "summary.json").read_text())["epochs"] == 1, "a run that had only to be judged"
    assert lvm("train", "--resume", run, "--epochs", 2, "--force", "--json").code == 0
    whole = lvm("train", "amn", "--corpus", small_file, "--epochs", 2, "--out", tmp_path / "whole", *SMALL)
    assert whole.code == 0
    assert (run / "history.jsonl").read_bytes() == (tmp_path / "whole/history.jsonl").read_bytes()


def test_two_processes_cannot_train_into_one_folder(lvm: Callable, run: Path) -> None:
    with Lock(run):
        out = lvm("train", "--resume", run)
        assert (
            out.code == 4 and f"another process (pid {os.getpid()}) is training into this folder" in out.err
        )


@pytest.mark.slow
def test_two_processes_with_one_new_folder(tmp_path: Path, small_file: Path) -> None:
    """One trains, the other is told; the folder holds the options of the one that trained."""
    out = tmp_path / "run"
    command = [
        sys.executable,
        "-m",
        "mlx_lvm.cli.main",
        "train",
        "amn",
        "--corpus",
        str(small_file),
        "--out",
        str(out),
        *map(str, SMALL),
    ]
    both = [
        subprocess.Popen(
            [*command, "--epochs", str(n)], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
        )
        for n in (2, 3)
    ]
    ended = {process.communicate(timeout=90)[1][:300]: process.returncode for process in both}
    assert sorted(process.returncode for process in both) == [0, 4], ended
    winner = 2 if both[0].returncode == 0 else 3
    assert (
        json.loads((out / "config.json").read_text())["train"]["epochs"]
        == winner
        == json.loads((out / "summary.json").read_text())["epochs"]
    )


@pytest.mark.slow
def test_seeds_are_single_runs_with_mean_and_spread(lvm: Callable, tmp_path: Path, small_file: Path) -> None:
    arguments = ("train", "amn", "--corpus", small_file, "--epochs", 1, "--preset", "seed", *SMALL)
    out = lvm(*arguments, "--seed", 4, "--seeds", 2, "--out", tmp_path / "all", "--json")
    assert out.code == 0, out.err
    said = json.loads(out.out)
    reached = [summary["val_cosine"] for summary in said["runs"]]
    assert len(set(reached)) == 2
    assert said["mean"]["val cosine"] == pytest.approx(np.mean(reached)) and said["std"][
        "val cosine"
    ] == pytest.approx(np.std(reached, ddof=1))
    tested = [
        summary["test"]["metrics"][f"seed-{4 + k}"]["centred"]["mrr"]
        for k, summary in enumerate(said["runs"])
    ]
    assert said["mean"]["test MRR"] == pytest.approx(np.mean(tested))
    assert lvm(*arguments, "--seed", 5, "--out", tmp_path / "one").code == 0
    assert (tmp_path / "one/history.jsonl").read_bytes() == (
        tmp_path / "all/seed-5/history.jsonl"
    ).read_bytes()


def test_broken_numbers_end_with_five(lvm: Callable, tmp_path: Path, small_file: Path) -> None:
    wild = ("--lr", 10, "--weight-decay", 900, "--clip", 0, "--epochs", 5)
    out = lvm("train", "amn", "--corpus", small_file, "--out", tmp_path / "run", *SMALL, *wild)
    assert out.code == 5 and "NaN or Inf at epoch 1" in out.err and (tmp_path / "run/broken.json").exists()


def test_disk_use_is_said(lvm: Callable, tmp_path: Path, small_file: Path) -> None:
    said = lvm(
        "train",
        "amn",
        "--corpus",
        small_file,
        "--epochs",
        4,
        "--keep-every",
        2,
        "--out",
        tmp_path / "run",
        *SMALL,
    ).out
    parameters = 2 * (32 * 8 + 8) + (64 * 16 + 16) + 2 * 16 + (16 * 8 + 8) + 2 * 8 + (8 * 32 + 32)
    one = 3 * 4 * parameters / 1e6  # weights and two moments in float32
    assert f"checkpoints: {one:.1f} MB each, at most {5 * one:.1f} MB of disk" in said


def test_a_second_signal_leaves_at_once() -> None:
    with StopOnSignal() as signals:
        os.kill(os.getpid(), signal.SIGINT)
        assert signals.received == signal.SIGINT
        with pytest.raises(SystemExit) as exit:
            os.kill(os.getpid(), signal.SIGINT)
        assert exit.value.code == 130
    with StopOnSignal() as signals:
        signals.at_once = "the training is done"
        with pytest.raises(SystemExit) as exit:
            os.kill(os.getpid(), signal.SIGTERM)
        assert exit.value.code == 143
