"""Resuming: to the bit from every step of every model, and never as another run than the one that began.

`pytest -m long tests/training/test_resume.py` resumes at each of 60 steps and along twenty chains of
interruptions (about three minutes); the short form takes some of them.
"""

import json
import shutil
from collections.abc import Iterable, Iterator
from dataclasses import asdict
from pathlib import Path

import numpy as np
import pytest

from mlx_lvm.core.files.disk import sha256
from mlx_lvm.core.mlx import mx
from mlx_lvm.data.corpus import Corpus, load_corpus
from mlx_lvm.errors import InvalidFile, IOFailed, UsageError
from mlx_lvm.training import checkpoint as checkpoints
from mlx_lvm.training import run as runs
from mlx_lvm.training.config import Every, TrainConfig
from mlx_lvm.training.session import resume_run, start_run
from mlx_lvm.training.trainer import Trainer

from ...helpers import write_corpus

SIZES = {
    "amn": {"attention_dim": 8, "hidden_dim": 16},
    "lstm": {"hidden_dim": 8, "dropout": 0.3},
    "gru": {"hidden_dim": 8, "layers": 2},
    "transformer": {"hidden_dim": 8, "layers": 2, "heads": 2, "ffn_dim": 16, "dropout": 0.2},
}
STEPS = 6  # in an epoch
# Matching moments alone makes the validation loss rise soon: the plateau cuts the rate and early stop ends
# every run.
HARSH = {
    "epochs": 20,
    "batch_size": 110,
    "lr": 0.02,
    "loss_mse": 0.0,
    "loss_moment": 1.0,
    "plateau_patience": 0,
    "early_stop": 10,
}
GPU_BOUND = (
    1e-5  # of the largest weight of a tensor: how far a run resumed on a GPU may be from the undisturbed one
)


@pytest.fixture(autouse=True)
def cpu(request: pytest.FixtureRequest) -> Iterator[None]:
    """To the bit is promised on a CPU."""
    before = mx.default_device()
    mx.set_default_device(mx.gpu if "gpu" in request.node.name else mx.cpu)
    yield
    mx.set_default_device(before)


def begin(name: str, folder: Path, corpus: Path) -> Trainer:
    return start_run(name, SIZES[name], TrainConfig.from_dict({"corpus": str(corpus), **HARSH}), folder)


def until(trainer: Trainer, step: int) -> bool:
    """Train until optimiser step `step` and stop as a signal would. Whether the run ended before."""
    return trainer.train(stop=lambda: trainer.state.count >= step)


def fingerprint(trainer: Trainer) -> dict[str, str]:
    """Weights, moments and sums, the schedule, the history and its file."""
    arrays = {**trainer.task.model.weights(), **trainer.task.step.state_dict()}
    plain = {key: value for key, value in asdict(trainer.state).items() if key != "seconds"}
    return {name: sha256(np.array(value)) for name, value in arrays.items()} | {
        "state": json.dumps(plain, sort_keys=True),
        "file": (trainer.checkpoints.run / "history.jsonl").read_text(),
    }


def interrupted(name: str, folder: Path, corpus: Path, stops: Iterable[int]) -> Trainer:
    trainer = begin(name, folder, corpus)
    for step in stops:
        until(trainer, step)
        trainer = resume_run(folder)
        assert trainer.state.count == step
    trainer.train()
    shutil.rmtree(folder / "checkpoints")
    return trainer


def check(name: str, tmp_path: Path, corpus: Path, chains: list[list[int]]) -> None:
    whole = begin(name, tmp_path / "whole", corpus)
    assert whole.train() and whole.task.steps_per_epoch == STEPS
    assert whole.state.epoch < HARSH["epochs"] and whole.state.count > 60, (
        "early stop must end the run, after the last of the stops"
    )
    rates = [record["lr"] for record in whole.state.history]
    assert len(set(rates)) > 2, "the plateau must cut the rate, or nothing is crossed"
    expected = fingerprint(whole)
    for number, stops in enumerate(chains):
        stops = [step for step in stops if step < whole.state.count]
        found = fingerprint(interrupted(name, tmp_path / str(number), corpus, stops))
        assert found == expected, f"after stops at {stops}"


@pytest.mark.slow
@pytest.mark.parametrize("name", SIZES)
def test_some_stops(name: str, tmp_path: Path, small_file: Path) -> None:
    check(name, tmp_path, small_file, [[1], [STEPS - 1, STEPS, STEPS + 1, 3 * STEPS + 2]])


@pytest.mark.long
@pytest.mark.parametrize("name", SIZES)
def test_every_stop_and_chains(name: str, tmp_path: Path, small_file: Path) -> None:
    rng = np.random.default_rng(len(name))
    chains = [
        sorted(rng.choice(np.arange(1, 61), size=rng.integers(3, 7), replace=False).tolist())
        for _ in range(20)
    ]
    check(name, tmp_path, small_file, [[step] for step in range(1, 61)] + chains)


@pytest.mark.skipif(
    not mx.is_available(mx.gpu),
    reason="needs a GPU that MLX can use: a Mac with Apple silicon, or NVIDIA's with mlx-lvm[cuda13]",
)
@pytest.mark.parametrize("name", SIZES)
def test_on_a_gpu_within_the_stated_bound(name: str, tmp_path: Path, small_file: Path) -> None:
    """Batches and dropout are the same; only the order of sums inside a kernel could differ."""
    config = TrainConfig(corpus=str(small_file), batch_size=64)
    weights = []
    for folder, stops in ((tmp_path / "whole", [24]), (tmp_path / "resumed", [5, 11, 24])):
        trainer = start_run(name, SIZES[name], config, folder)
        for stop in stops:
            until(trainer, stop)
            trainer = resume_run(folder)
        weights.append({key: np.array(value) for key, value in trainer.task.model.weights().items()})
    for key, value in weights[0].items():
        assert np.abs(value - weights[1][key]).max() <= GPU_BOUND * max(np.abs(value).max(), 1e-3), key


def test_a_run_without_a_checkpoint_starts_over(tmp_path: Path, small_file: Path) -> None:
    whole = begin("amn", tmp_path / "whole", small_file)
    until(whole, 8)
    begin("amn", tmp_path / "killed", small_file)
    again = resume_run(tmp_path / "killed")
    until(again, 8)
    assert fingerprint(again) == fingerprint(whole) and "from the beginning" in again.notes[0]


@pytest.fixture
def stopped(tmp_path: Path, small_file: Path) -> Path:
    trainer = begin("transformer", tmp_path / "run", small_file)
    until(trainer, 9)
    return tmp_path / "run"


@pytest.mark.slow
@pytest.mark.parametrize(
    ("given", "words"),
    [
        ({"lr": 0.01}, "--lr 0.01: the run has 0.02"),
        ({"seed": 3, "batch_size": 64}, "--batch-size 64: the run has 110"),
        ({"heads": 4}, "--heads 4: the run has 2"),
        ({"model_type": "lstm"}, "--model-type lstm: the run has transformer"),
        ({"attention_dim": 4}, "not an option of transformer"),
    ],
)
@pytest.mark.parametrize("force", [False, True])
def test_another_option_is_another_run(stopped: Path, given: dict, words: str, force: bool) -> None:
    with pytest.raises(UsageError) as error:
        resume_run(stopped, given, force)
    assert words in str(error.value)


def test_the_same_options_are_fine_and_some_change_by_force(stopped: Path, small_file: Path) -> None:
    assert (
        resume_run(stopped, {"lr": 0.02, "heads": 2, "epochs": 20, "corpus": str(small_file)}).state.count
        == 9
    )
    with pytest.raises(UsageError, match="--epochs 3: the run has 20"):
        resume_run(stopped, {"epochs": 3})
    trainer = resume_run(stopped, {"epochs": 3, "checkpoint_every": "2", "keep_every": 1}, force=True)
    assert trainer.train() and trainer.state.epoch == 3
    assert json.loads((stopped / "config.json").read_text())["train"]["epochs"] == 3
    assert "epochs = 3" in (stopped / "config.toml").read_text()
    assert set(checkpoints.names(stopped / "checkpoints")) >= {f"step-{k * STEPS:08d}" for k in (2, 3)}


def test_other_code_is_named(stopped: Path) -> None:
    config = json.loads((stopped / "config.json").read_text())
    config["conditions"] |= {"training code": "0", "mlx": "0.1"}
    (stopped / "config.json").write_text(json.dumps(config))
    with pytest.raises(UsageError) as error:
        resume_run(stopped)
    assert "training code: began with 0, here is" in str(error.value) and "mlx: began with 0.1" in str(
        error.value
    )
    assert resume_run(stopped, force=True).state.count == 9


def test_another_corpus_is_refused_a_moved_one_is_not(
    stopped: Path, small: Corpus, small_file: Path, tmp_path: Path
) -> None:
    moved = tmp_path / "moved.safetensors"
    moved.write_bytes(small_file.read_bytes())
    assert resume_run(stopped, {"corpus": str(moved)}).state.count == 9
    vectors = small.numpy() * 2
    write_corpus(moved, vectors, small.offsets, list(small.names), small.card, {}, "F32")
    assert load_corpus(moved).sha256 != small.sha256
    with pytest.raises(InvalidFile, match="not the one this run began with"):
        resume_run(stopped, {"corpus": str(moved)})


def test_a_checkpoint_of_another_run_is_refused(stopped: Path, tmp_path: Path, small_file: Path) -> None:
    trainer = begin("lstm", tmp_path / "other", small_file)
    until(trainer, 9)
    shutil.rmtree(stopped / "checkpoints")
    shutil.copytree(tmp_path / "other/checkpoints", stopped / "checkpoints")
    with pytest.raises(InvalidFile, match="is missing"):
        resume_run(stopped)


def test_a_state_that_cannot_be_is_refused(stopped: Path) -> None:
    """The manifest vouches for what was written, not for sense."""
    loaded, name, _ = checkpoints.load_newest(stopped / "checkpoints")
    for change in (
        {"count": 7},
        {"epoch": "1"},
        {"step": -1},
        {"plateau": {"lr": 1}},
        {"unknown": 1},
        {"history": 3},
    ):
        damaged = checkpoints.Checkpoint(loaded.weights, loaded.optimizer, loaded.state | change)
        checkpoints.save(stopped / "checkpoints", damaged, name, ("LATEST",))
        with pytest.raises(InvalidFile, match=r"does not parse|cannot be optimiser step"):
            resume_run(stopped)
    short = {key: value for key, value in loaded.optimizer.items() if key != "first.head.0.bias"}
    checkpoints.save(
        stopped / "checkpoints",
        checkpoints.Checkpoint(loaded.weights, short, loaded.state),
        name,
        ("LATEST",),
    )
    with pytest.raises(InvalidFile, match=r"first\.head\.0\.bias"):
        resume_run(stopped)


def test_a_kill_between_the_two_pointers_is_mended(tmp_path: Path, small_file: Path) -> None:
    """LATEST is written before BEST; a kill in between must not leave the run with an older best."""
    trainer = begin("amn", tmp_path / "run", small_file)
    until(trainer, STEPS)
    folder = trainer.checkpoints.folder
    assert trainer.state.best_epoch == 1
    checkpoints.point(folder, "step-00000001", ("BEST",))
    (tmp_path / "run/history.jsonl").unlink()
    (folder / ".tmp-step-00000009-1").mkdir()
    (tmp_path / "run/.config.json.1.tmp").write_text("")
    again = resume_run(tmp_path / "run")
    again.prepare()
    assert checkpoints.pointed(folder, "BEST") == f"step-{STEPS:08d}"
    assert len(runs.read_history(tmp_path / "run")) == 1
    assert (
        not list(folder.glob(".tmp*"))
        and not list((tmp_path / "run").glob("*.tmp"))
        and len(again.notes) == 2
    )


@pytest.mark.parametrize("back", [False, True])
def test_a_run_folder_removed_while_training(tmp_path: Path, small_file: Path, back: bool) -> None:
    trainer = begin("amn", tmp_path / "run", small_file)

    def remove() -> bool:
        if trainer.state.count == 8:
            shutil.rmtree(tmp_path / "run")
            if back:
                (tmp_path / "run").mkdir()
        return False

    with pytest.raises(IOFailed, match="was removed or replaced while training"):
        trainer.train(stop=remove)
    assert not (tmp_path / "run/checkpoints").exists()


def test_kept_checkpoints_and_their_bound(tmp_path: Path, small_file: Path) -> None:
    trainer = start_run(
        "amn",
        SIZES["amn"],
        TrainConfig(corpus=str(small_file), epochs=5, batch_size=110, keep_every=2),
        tmp_path / "run",
    )
    one, most = trainer.checkpoint_bytes()
    trainer.task.config = trainer.task.config.replace(checkpoint_every="2")
    trainer.train()
    kept = checkpoints.names(trainer.checkpoints.folder)
    assert set(kept) >= {f"step-{k * STEPS:08d}" for k in (2, 4, 5)} and len(kept) <= 4
    on_disk = sum(path.stat().st_size for path in trainer.checkpoints.folder.rglob("*.safetensors"))
    assert 0.9 * len(kept) * one < on_disk < most + len(kept) * 8192  # headers


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("0", Every()),
        ("200", Every(steps=200)),
        ("30s", Every(0, 30)),
        ("5m", Every(0, 300)),
        ("2h", Every(0, 7200)),
    ],
)
def test_when_a_checkpoint_is_due(text: str, expected: Every) -> None:
    assert Every.parse(text) == expected


@pytest.mark.parametrize("text", ["", "-1", "5 m", "m", "1.5m", "10d", "1e3", "9" * 30])
def test_no_such_time(text: str) -> None:
    with pytest.raises(UsageError, match="expected steps"):
        TrainConfig(checkpoint_every=text)


def test_checkpoints_by_time(tmp_path: Path, small_file: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A clock that moves ten seconds a look: a checkpoint is due after every third step or so."""
    trainer = begin("amn", tmp_path / "run", small_file)
    clock = iter(range(0, 10**7, 10))
    monkeypatch.setattr("mlx_lvm.training.trainer.time.monotonic", lambda: float(next(clock)))
    saved: list[int] = []
    save = trainer.save
    monkeypatch.setattr(trainer, "save", lambda pointers: (saved.append(trainer.state.count), save(pointers)))
    trainer.task.config = trainer.task.config.replace(checkpoint_every="20s")
    trainer.train(stop=lambda: trainer.state.count >= 5)
    assert saved == [2, 4, 5]


def test_two_processes_take_two_default_folders(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """No look before the leap: whoever makes a folder first has it."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(Path, "exists", lambda self: False)  # both looked before either made its folder
    assert [runs.claim("amn", "x") for _ in range(2)] == [Path("runs/amn-x-1"), Path("runs/amn-x-2")]
