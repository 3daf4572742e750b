"""Streamed training: the same steps as from memory in another order, resumed to the bit, and bad files told
by name.
"""

import json
import os
import shutil
import subprocess
import sys
from collections.abc import Callable
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from mlx_lvm.core import memory as core_memory
from mlx_lvm.core.files.disk import sha256
from mlx_lvm.core.files.safetensors import SafeFile
from mlx_lvm.data import memory, sampling
from mlx_lvm.data.blocks import Epoch
from mlx_lvm.data.card import EncoderCard
from mlx_lvm.data.corpus import Corpus, load_corpus
from mlx_lvm.data.ingest.choosing import choose
from mlx_lvm.data.ingest.transform import subset
from mlx_lvm.data.storage.reader import open_corpus
from mlx_lvm.data.storage.stream import RowReader
from mlx_lvm.data.storage.writer import CorpusWriter
from mlx_lvm.data.windows import windows
from mlx_lvm.errors import InvalidFile, IOFailed, LvmError, SetupInvalid, UsageError
from mlx_lvm.predictors.history import HistoryPredictor
from mlx_lvm.training import checkpoint as checkpoints
from mlx_lvm.training.config import TrainConfig
from mlx_lvm.training.emn.task import EmnTask
from mlx_lvm.training.session import resume_run, start_run
from mlx_lvm.training.state import step_key
from mlx_lvm.training.step import TrainStep
from mlx_lvm.training.tasks import streamed
from mlx_lvm.training.tasks.choose import initial_model
from mlx_lvm.training.tasks.streamed import StreamedTask, settle, streams
from mlx_lvm.training.trainer import Trainer

from ..helpers import fuses

SIZES = {"attention_dim": 8, "hidden_dim": 16}
OPTIONS = {
    "epochs": 3,
    "batch_size": 20,
    "lr": 0.002,
    "memory": "100K",
}  # of 123 KB: four blocks of some eight documents
DTYPES = ("F32", "F16", "BF16", "I8")


@pytest.fixture(scope="module", params=DTYPES)
def shards(
    request: pytest.FixtureRequest, small_file: Path, tmp_path_factory: pytest.TempPathFactory
) -> Path:
    """The small corpus in some shards."""
    out = tmp_path_factory.mktemp("shards") / request.param
    mapped = open_corpus(small_file)
    subset(mapped, choose(mapped, [], None, 0), out, request.param, shard_bytes=12_000)
    return out


def begin(folder: Path, corpus: Path, **options: Any) -> Trainer:
    values = {"corpus": str(corpus), **OPTIONS, **options}
    if corpus.is_dir():
        values["memory"] = str(int(4 * 204 * open_corpus(corpus).nbytes / len(open_corpus(corpus))))
    trainer = start_run("amn", SIZES, TrainConfig.from_dict(values), folder)
    assert isinstance(trainer.task, StreamedTask)
    return trainer


def fingerprint(trainer: Trainer) -> dict[str, str]:
    arrays = {**trainer.task.model.weights(), **trainer.task.step.state_dict()}
    plain = {key: value for key, value in asdict(trainer.state).items() if key != "seconds"}
    return {name: sha256(np.array(value)) for name, value in arrays.items()} | {
        "state": json.dumps(plain, sort_keys=True)
    }


@pytest.mark.slow
def test_the_same_steps_as_from_memory(shards: Path, tmp_path: Path) -> None:
    """Fed the same windows in the same order, the corpus in memory trains the same weights, to the bit."""
    trainer = begin(tmp_path / "run", shards, epochs=2, plateau_patience=9)
    orders = [
        trainer.task.target_rows(epoch, step)
        for epoch in range(2)
        for step in range(trainer.task.steps_per_epoch)
    ]
    whole = load_corpus(shards)
    expected = windows(whole, trainer.task.split.train, 5).targets
    half = len(orders) // 2
    for rows in (np.concatenate(orders[:half]), np.concatenate(orders[half:])):
        np.testing.assert_array_equal(np.sort(rows), expected)
    assert (np.concatenate(orders[:half]) != np.concatenate(orders[half:])).mean() > 0.9
    trainer.train()

    model = initial_model(trainer.task.model.config, trainer.task.config)
    step = TrainStep(model, whole, trainer.task.config)
    for count, rows in enumerate(orders):
        epoch, within = divmod(count, trainer.task.steps_per_epoch)
        step(rows.astype(np.int32), trainer.task.config.lr, step_key(0, epoch, within))
    for name, value in model.weights().items():
        np.testing.assert_array_equal(
            np.array(value), np.array(trainer.task.model.weights()[name]), err_msg=name
        )


@pytest.mark.slow
def test_resumed_equals_undisturbed(shards: Path, tmp_path: Path) -> None:
    whole = begin(tmp_path / "whole", shards)
    assert whole.train()
    steps = whole.task.steps_per_epoch
    for number, stops in enumerate(
        [[1], [3, 4, steps - 1, steps, steps + 1, 2 * steps + 7], [11, 2 * steps]]
    ):
        folder = tmp_path / str(number)
        trainer: Any = begin(folder, shards)
        for stop in stops:
            trainer.train(stop=lambda stop=stop: trainer.state.count >= stop)  # noqa: B023 (called at once)
            trainer = resume_run(folder)
            assert isinstance(trainer.task, StreamedTask) and trainer.state.count == stop
        trainer.train()
        assert fingerprint(trainer) == fingerprint(whole), f"after stops at {stops}"


@fuses
def test_nothing_is_compiled_anew(small_file: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from mlx_lvm.training import step as step_module

    traced = []
    real = step_module.context_rows
    monkeypatch.setattr(
        step_module,
        "context_rows",
        lambda targets, context: (traced.append(targets.shape), real(targets, context))[1],
    )
    trainer = begin(tmp_path / "run", small_file)
    trainer.train()
    last = len(trainer.task.layout) % 20
    assert last and sorted(set(traced)) == [(last,), (20,)] and len(traced) == 2


def test_start_up_reads_a_part(small_file: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Whoever maps the vectors might read them all, so nobody may; and what is read is counted."""
    real, read, took = SafeFile.numpy, os.preadv, []
    monkeypatch.setattr(
        SafeFile,
        "numpy",
        lambda self, name: pytest.fail("maps the vectors") if name == "vectors" else real(self, name),
    )
    monkeypatch.setattr(os, "preadv", lambda *arguments: (took.append(read(*arguments)), took[-1])[1])
    trainer = begin(tmp_path / "run", small_file)
    size = trainer.task.corpus.shards[0].file.tensors["vectors"]
    assert 0 < sum(took) < 0.3 * (size.end - size.start)
    trainer.train()
    per_epoch = sum(trainer.task.layout.stretch_rows) / len(trainer.task.corpus)
    assert sum(took) / (size.end - size.start) < 0.3 + 3 * (per_epoch + 4 * 19 * 6 / len(trainer.task.corpus))


def test_what_was_sampled_is_told(small_file: Path, tmp_path: Path) -> None:
    trainer = begin(tmp_path / "run", small_file)
    streamed_, sampled = trainer.notes
    assert "more than --memory 100K" in streamed_ and "checksums are not" in streamed_
    counted = [int(word) for word in sampled.split() if word.isdigit()]
    assert counted[1] == len(trainer.task.split.train) and 0 < counted[0] < counted[1]
    assert counted[2] == len(trainer.task.split.val) == len(set(trainer.task.val_windows.documents.tolist()))


def spoil(path: Path, row: int, value: float) -> None:
    info = open_corpus(path).shards[0].file.tensors["vectors"]
    with open(path, "r+b") as file:
        file.seek(info.start + row * 32 * 4)
        file.write(np.float32(value).tobytes())


def third_block(trainer: Trainer) -> tuple[int, int]:
    """(a row that only the third block reads, and no sample; its first step)."""
    order = Epoch(trainer.task.layout, 0, 0)
    first, second, third = (order.block(number) for number in range(3))
    read = {
        row
        for block in (first, second)
        for a, b in zip(block.starts, block.stops, strict=True)
        for row in range(a, b)
    }
    sampled = set(trainer.task.sample.corpus.names)
    names = [trainer.task.corpus.names[d] for d in trainer.task.corpus.document_of(third.rows)]
    return next(
        int(row)
        for row, name in zip(third.rows, names, strict=True)
        if row not in read and name not in sampled
    ), third.first


@pytest.mark.parametrize("value", [float("nan"), float("inf"), 3e38])
def test_a_bad_row_stops_with_its_name(small_file: Path, tmp_path: Path, value: float) -> None:
    file = tmp_path / "c.safetensors"
    shutil.copy(small_file, file)
    trainer = begin(tmp_path / "run", file)
    row, step = third_block(trainer)
    spoil(file, row, value)
    trainer.task.reader = RowReader(trainer.task.corpus)  # which knows the file as it is now
    with pytest.raises(InvalidFile) as error:
        trainer.train()
    assert (
        str(file) in str(error.value)
        and f"row {row} (document" in str(error.value)
        and error.value.exit_code == 3
    )
    assert trainer.state.count == step, "the blocks before it were trained on"
    assert checkpoints.pointed(trainer.checkpoints.folder, "LATEST") == f"step-{step:08d}", (
        "and nothing of that is lost"
    )


def deleted(file: Path) -> None:
    file.unlink()


def replaced(file: Path) -> None:
    shutil.copy(file, file.with_name("other"))
    os.replace(file.with_name("other"), file)


def cut_off(file: Path) -> None:
    times = file.stat()
    os.truncate(file, times.st_size // 2)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("happens", "words"),
    [(deleted, "gone or unreadable"), (replaced, "was replaced"), (cut_off, "was replaced")],
)
def test_a_file_that_goes_or_changes(
    small_file: Path, tmp_path: Path, happens: Callable[[Path], None], words: str
) -> None:
    file = tmp_path / "c.safetensors"
    shutil.copy(small_file, file)
    trainer = begin(tmp_path / "run", file)
    whole = begin(tmp_path / "whole", small_file)
    whole.train()

    def stop() -> bool:
        if trainer.state.count == 5:
            happens(file)
        return False

    with pytest.raises(IOFailed) as error:
        trainer.train(stop=stop)
    assert words in str(error.value) and str(file) in str(error.value)
    done = trainer.state.count
    assert 5 <= done < trainer.task.steps_per_epoch
    shutil.copy(small_file, file)  # put back, the run goes on as if nothing had been
    again = resume_run(tmp_path / "run")
    assert again.state.count == done
    again.train()
    assert isinstance(again.task, StreamedTask) and fingerprint(again) == fingerprint(whole)


def test_a_read_that_ends_early(small_file: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The file is cut off between the look at it and the read."""
    trainer = begin(tmp_path / "run", small_file)
    monkeypatch.setattr(os, "preadv", lambda *arguments: 0)
    with pytest.raises(IOFailed, match="cut off while vectors are read"):
        trainer.train()


def test_what_is_streamed(small_file: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    mapped = open_corpus(small_file)
    assert streams(TrainConfig(memory="100K"), mapped) and not streams(TrainConfig(memory="200K"), mapped)
    assert settle(TrainConfig(), mapped).memory == "auto" and not streams(TrainConfig(), mapped)
    monkeypatch.setattr(streamed, "roomy", lambda: 3 << 20)
    assert settle(TrainConfig(), mapped).memory == "auto"
    monkeypatch.setattr(type(mapped), "nbytes", 4 << 20)
    settled = settle(TrainConfig(), mapped)
    assert (
        settled.memory == "3M"
        and streams(settled, mapped)
        and settle(TrainConfig(memory="8M"), mapped).memory == "8M"
    )
    for bad in ("", "lots", "-1", "0"):
        with pytest.raises(UsageError, match="is not a size"):
            TrainConfig(memory=bad)


def test_memory_is_the_least_of_all_limits(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    machine = memory.machine_memory()
    assert 1 << 28 < machine <= os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    (tmp_path / "limit").write_text("1000000\n")
    (tmp_path / "max").write_text("max\n")
    monkeypatch.setattr(
        core_memory, "CONTAINER", (str(tmp_path / "max"), str(tmp_path / "none"), str(tmp_path / "limit"))
    )
    assert memory.machine_memory() == 1_000_000 and memory.roomy() == 500_000


def test_what_cannot_be_streamed(small_file: Path, tmp_path: Path) -> None:
    with pytest.raises(SetupInvalid, match="ramn is trained on a corpus in memory"):
        start_run("ramn", {}, TrainConfig(corpus=str(small_file), memory="100K"), tmp_path / "run")
    with pytest.raises(UsageError, match="more --memory"):
        start_run("amn", SIZES, TrainConfig(corpus=str(small_file), memory="20K"), tmp_path / "run")
    assert not (tmp_path / "run").exists()


def test_no_training_document_is_long_enough(small: Corpus, tmp_path: Path) -> None:
    with pytest.raises(LvmError, match="no window of 30"):
        start_run(
            "amn", SIZES, TrainConfig(corpus=str(small.path), memory="100K", context=30), tmp_path / "run"
        )


@pytest.mark.slow
def test_the_commands(
    lvm: Callable[..., Any], small_file: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    run = tmp_path / "run"
    sizes = ("--attention-dim", 8, "--hidden-dim", 16, "--batch-size", 20)
    ran = lvm(
        "train",
        "amn",
        "--corpus",
        small_file,
        "--memory",
        "100K",
        "--epochs",
        2,
        "--out",
        run,
        *sizes,
        "--early-stop",
        0,
    )
    assert ran.code == 0, ran.err
    assert "streamed in 5 blocks" in ran.err and "sampled for validation" in ran.err
    assert "everything here, fitted or scored, is of" in ran.out + ran.err
    assert lvm("train", "--resume", run, "--memory", "90K").code == 2
    ran = lvm("train", "--resume", run, "--epochs", 3, "--force", "--json")
    assert ran.code == 0 and '"epochs": 3' in ran.out
    monkeypatch.setattr(
        sampling, "roomy", lambda: 100_000
    )  # a machine on which half of the memory is less than the corpus
    for command in (("eval", run, "--corpus", small_file, "--quick"), ("compare", run)):
        ran = lvm(*command, "--json")
        assert ran.code == 0 and "is of 5 of 33 train documents" in ran.out, ran.err
    assert lvm("export", run, "--out", tmp_path / "exported").code == 0
    assert (
        lvm("train", "ramn", "--corpus", small_file, "--memory", "100K", "--out", tmp_path / "no").code == 3
    )


GROWTH = r"""
import re, resource, sys
from pathlib import Path
from mlx_lvm.core.linux_cpu import tune; tune()
from mlx_lvm.training.config import TrainConfig
from mlx_lvm.training.session import start_run
def peak():
    if sys.platform != "linux":
        return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    # ru_maxrss begins with the parent's
    return 1024 * int(re.search(r"VmHWM:\s+(\d+)", Path("/proc/self/status").read_text())[1])
def run(corpus, folder, steps, **options):
    config = TrainConfig(corpus=corpus, epochs=1, context=2, **options)
    trainer = start_run("amn", {"attention_dim": 4, "hidden_dim": 8}, config, Path(folder))
    trainer.train(stop=lambda: trainer.state.count >= steps)
run(sys.argv[1], sys.argv[3] + "-small", 900, memory="16M")
before = peak()
run(sys.argv[2], sys.argv[3], 900, memory=sys.argv[4])
print(peak() - before)
"""


@pytest.mark.slow
@pytest.mark.parametrize(("given", "grows"), [("16M", False), ("1G", True)])
def test_memory_stays_within_what_is_given(tmp_path: Path, given: str, grows: bool) -> None:
    """Four times the vectors, 82 MB, need no more memory than 20 MB, both under 16 MB.

    From memory they do, or the test sees nothing. Pages of the file that the scales of 900,000 more rows lie
    in are mapped and count here; the system takes them back when it needs them.
    """
    vectors = np.random.default_rng(0).integers(-99, 99, (300_000, 64)).astype(np.float32)
    for name, times in (("small", 1), ("large", 4)):
        documents, names = np.arange(0, times * 300_000 + 1, 1000), [str(k) for k in range(times * 300)]
        with CorpusWriter(tmp_path / name, documents, names, EncoderCard(dim=64), {}, "I8") as writer:
            for part in range(times):
                writer.put(part * 300_000, vectors)
            writer.finish()
    arguments = [str(tmp_path / "small"), str(tmp_path / "large"), str(tmp_path / "run"), given]
    ran = subprocess.run(
        [sys.executable, "-c", GROWTH, *arguments], capture_output=True, text=True, timeout=120
    )
    assert ran.returncode == 0, ran.stderr
    grown = int(ran.stdout)
    assert (grown > 60e6) if grows else (grown < 20e6), f"grew by {grown / 1e6:.0f} MB"


def test_all_that_can_be_streamed(
    lvm: Callable[..., Any], small_file: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    planned: list[list[str]] = []
    monkeypatch.setattr(
        "mlx_lvm.cli.models.train.train_many", lambda recipes, *_: planned.append(list(recipes)) or {}
    )
    ran = lvm("train", "all", "--corpus", small_file, "--memory", "100K")
    assert ran.code == 0 and "ramn: left out" in ran.out
    assert lvm("train", "all", "--corpus", small_file).code == 0
    assert "ramn" not in planned[0] and set(planned[1]) - set(planned[0]) == {"ramn"}


@pytest.mark.parametrize("head", ["predict", "rank"])
def test_emn_trains_on_the_documents_that_the_memory_holds(
    small_file: Path, small: Corpus, tmp_path: Path, head: str
) -> None:
    """It says on how many, resumes to the bit, and serves the whole corpus."""
    sizes = {"head": head, "rank": 8, "hidden_dim": 12, "expert": "yes" if head == "predict" else "no"}
    options = {"corpus": str(small_file), "epochs": 2, "batch_size": 16, "memory": "100K"}
    once, twice = (
        start_run("emn", sizes, TrainConfig.from_dict(options), tmp_path / name) for name in ("once", "twice")
    )
    task: Any = once.task
    assert isinstance(task, EmnTask)
    every = len(windows(small, np.arange(len(small.names)), 5))
    assert 0 < task.train_count + len(task.val_windows) < every / 4
    assert any("what --memory holds" in note for note in once.notes)
    assert once.train()
    assert not twice.train(stop=lambda: True)
    again = resume_run(tmp_path / "twice")
    assert again.state.count == 1 and again.train()
    assert fingerprint(again) == fingerprint(once)
    predicted = np.array(HistoryPredictor("emn", task.model).predict(windows(small, np.arange(4), 5)))
    assert np.isfinite(predicted).all() and np.abs(predicted).max() > 0
