"""Ends trainings where it hurts and looks at what is left; prints one JSON object. Run by test_crashes.py.

    python crash_driver.py kills FOLDER CORPUS COUNT     SIGKILL at random moments of trainings that save
                                                         after every step
    python crash_driver.py points FOLDER                 os._exit before, in the middle of and after every
                                                         call that touches the disk

Imports load once here and every victim is a fork. This process itself never evaluates an array, because MLX's
threads would not live on in a fork.
"""

import builtins
import hashlib
import json
import os
import random
import shutil
import signal
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from mlx_lvm.core.linux_cpu import tune

tune()

from mlx_lvm.core.files import disk
from mlx_lvm.core.mlx import mx
from mlx_lvm.training import checkpoint as checkpoints
from mlx_lvm.training import run as runs
from mlx_lvm.training.checkpoint import Checkpoint
from mlx_lvm.training.config import TrainConfig
from mlx_lvm.training.session import resume_run, start_run

SIZES: dict[str, dict[str, Any]] = {
    "amn": {"attention_dim": 8, "hidden_dim": 16},
    "lstm": {"hidden_dim": 8},
    "gru": {"hidden_dim": 8, "layers": 2},
    "transformer": {"hidden_dim": 8, "layers": 2, "heads": 2, "ffn_dim": 16},
}
LONGEST = 0.25  # seconds that a victim trains


def forked(work: Callable[[Callable[[Any], None]], None]) -> tuple[int, Any]:
    """Start `work(tell)` in a fork: (its process id, an open file of the lines that it tells)."""
    reader, writer = os.pipe()
    child = os.fork()
    if child == 0:
        os.close(reader)
        try:
            work(lambda value: os.write(writer, (json.dumps(value) + "\n").encode()))
            os._exit(0)
        except BaseException as error:
            os.write(writer, (json.dumps({"error": repr(error)}) + "\n").encode())
            os._exit(1)
    os.close(writer)
    return child, os.fdopen(reader)


def wait(child: int) -> int:
    return os.waitpid(child, 0)[1]


def done(work: Callable[[Callable[[Any], None]], None]) -> Any:
    """What a fork tells, once it has ended well."""
    child, told = forked(work)
    lines = [json.loads(line) for line in told]
    told.close()
    assert wait(child) == 0, lines
    return lines[-1] if lines else None


def digests(folder: Path) -> dict[str, str]:
    """sha256 of the tensors' files in a checkpoint, read without the code under test."""
    return {name: hashlib.sha256((folder / name).read_bytes()).hexdigest() for name in checkpoints.FILES[:2]}


def whole(folder: Path) -> bool:
    """Whether a checkpoint's files are those that its manifest vouches for, by hand."""
    manifest = json.loads((folder / "manifest.json").read_text())
    return manifest["name"] == folder.name and all(
        hashlib.sha256((folder / name).read_bytes()).hexdigest() == digest
        for name, digest in manifest["sha256"].items()
    )


def temporaries(run: Path) -> list[str]:
    return [
        path.name for path in run.rglob("*") if path.name.startswith(".tmp-") or path.name.endswith(".tmp")
    ]


def config(corpus: Path) -> TrainConfig:
    return TrainConfig(corpus=str(corpus), epochs=2, batch_size=64, lr=3e-3, keep_every=1)


def truth_of(name: str, folder: Path, corpus: Path) -> dict[str, dict[str, str]]:
    """The tensors' digests at every step of an undisturbed run."""

    def work(tell: Callable[[Any], None]) -> None:
        trainer = start_run(name, SIZES[name], config(corpus), folder)
        found, save = {}, trainer.save

        def saved(pointers: tuple[str, ...]) -> None:
            save(pointers)
            step = checkpoints.pointed(trainer.checkpoints.folder, "LATEST")
            assert step is not None
            found[step] = digests(trainer.checkpoints.folder / step)

        trainer.save = saved  # type: ignore[method-assign]
        trainer.task.config = trainer.task.config.replace(checkpoint_every="1")
        trainer.train()
        tell(found | {"history": (folder / "history.jsonl").read_text()})

    return done(work)


def train(run: Path, name: str, corpus: Path, tell: Callable[[Any], None]) -> None:
    """Start the run or go on with it, and say what was found."""
    trainer = (
        resume_run(run) if (run / runs.CONFIG).exists() else start_run(name, SIZES[name], config(corpus), run)
    )
    with runs.Lock(run):
        trainer.prepare()
        bad = [note for note in trainer.notes if "damaged" in note or "lost" in note]
        tell({"count": trainer.state.count, "damaged": bad, "temporaries": temporaries(run)})
        trainer.task.config = trainer.task.config.replace(checkpoint_every="1")
        trainer.train()


def kills(root: Path, corpus: Path, count: int) -> dict[str, Any]:
    random.seed(count)
    result: dict[str, Any] = {
        "kills": 0,
        "finished": 0,
        "unreadable": 0,
        "mixed": 0,
        "leaked": 0,
        "behind": 0,
        "temporaries_made": 0,
    }
    for number, name in enumerate(SIZES):
        truth = truth_of(name, root / f"{name}-whole", corpus)
        run, killed, generation, last = root / f"{name}-0", 0, 0, 0
        while killed < count // len(SIZES) + (number < count % len(SIZES)):
            child, told = forked(lambda tell, run=run, name=name: train(run, name, corpus, tell))  # type: ignore[misc]
            line = json.loads(told.readline())
            assert "error" not in line, line
            result["unreadable"] += len(line["damaged"])
            result["leaked"] += len(line["temporaries"])
            result["behind"] += line["count"] < last
            time.sleep(random.uniform(0, LONGEST))
            os.kill(child, signal.SIGKILL)
            rest = told.read()
            told.close()
            assert "error" not in rest, rest
            if os.WIFSIGNALED(wait(child)):
                killed += 1
                result["kills"] += 1
            elif (run / "history.jsonl").read_text() == truth["history"]:
                result["finished"] += 1
            else:
                result["mixed"] += 1
            folder = run / "checkpoints"
            result["temporaries_made"] += bool(temporaries(run))
            latest, best = checkpoints.pointed(folder, "LATEST"), checkpoints.pointed(folder, "BEST")
            for step in {latest, best} - {None}:
                result["unreadable"] += not whole(folder / step)
                result["mixed"] += digests(folder / step) != truth[step]
            last = int(latest[5:]) if latest else 0
            if last == max(int(step[5:]) for step in truth if step.startswith("step-")):
                shutil.rmtree(run)
                generation, last = generation + 1, 0
                run = root / f"{name}-{generation}"
    return result


class Crash:
    """Counts the calls that touch the disk; at the chosen one the process is gone: before it, in its middle
    or after it.
    """

    def __init__(self, at: int, when: str) -> None:
        self.at, self.when, self.seen = at, when, 0

    def around(self, call: Callable[[], Any], half: Callable[[], Any] = lambda: None) -> Any:
        self.seen += 1
        if self.seen == self.at and self.when != "after":
            half() if self.when == "middle" else None
            os._exit(77)
        result = call()
        if self.seen == self.at:
            os._exit(77)
        return result

    def install(self) -> None:
        for name in ("fsync", "replace", "mkdir", "unlink", "rmdir"):
            real = getattr(os, name)
            setattr(os, name, lambda *a, real=real, **k: self.around(lambda: real(*a, **k)))
        checkpoints.open = disk.open = self.open  # type: ignore[attr-defined]

    def open(self, *arguments: Any, **named: Any) -> Any:
        file = builtins.open(*arguments, **named)  # noqa: SIM115
        if "w" in str(arguments[1:2]):
            write = file.write

            def halved(data: bytes) -> None:
                write(data[: len(data) // 2])
                file.flush()

            return Written(
                file, lambda data: self.around(lambda: (write(data), file.flush()), lambda: halved(data))
            )
        return file


class Written:
    """A file whose `write` is another."""

    def __init__(self, file: Any, write: Callable[[bytes], Any]) -> None:
        self.file, self.write = file, write

    def __getattr__(self, name: str) -> Any:
        return getattr(self.file, name)

    def __enter__(self) -> "Written":
        return self

    def __exit__(self, *_: object) -> None:
        self.file.close()


def save(folder: Path, value: int, *pointers: str) -> None:
    tensors = {"w": mx.full((64,), value)}
    state = Checkpoint(tensors, {"first.w": mx.full((64,), value)}, {"epoch": value})
    checkpoints.save(folder / "checkpoints", state, f"step-{value:08d}", pointers)
    runs.write_history(folder, [{"epoch": k + 1} for k in range(value)])
    checkpoints.prune(folder / "checkpoints")


def state_after(folder: Path, tell: Callable[[Any], None]) -> None:
    """What the next start finds, and what it leaves of temporaries."""
    out = {}
    for pointer in ("LATEST", "BEST"):
        loaded, name, damaged = checkpoints.load_newest(folder / "checkpoints", pointer)
        values = {
            int(loaded.weights["w"].min()),
            int(loaded.optimizer["first.w"].max()),
            loaded.state["epoch"],
            int(name[5:]),
        }
        assert len(values) == 1, f"mixed generations: {values}"
        out[pointer] = [values.pop(), len(damaged)]
    checkpoints.sweep(folder)
    checkpoints.sweep(folder / "checkpoints")
    tell({**out, "history": len(runs.read_history(folder)), "temporaries": temporaries(folder)})


def points(root: Path) -> dict[str, Any]:
    template = root / "template"
    template.mkdir()

    def first(tell: Callable[[Any], None]) -> None:
        save(template, 1, "LATEST", "BEST")
        save(template, 2, "LATEST")

    done(first)
    result: dict[str, Any] = {"points": 0, "bad": []}
    for when in ("before", "middle", "after"):
        for at in count_from(1):
            folder = root / f"{when}-{at}"
            shutil.copytree(template, folder)

            def victim(
                tell: Callable[[Any], None], folder: Path = folder, at: int = at, when: str = when
            ) -> None:
                Crash(at, when).install()
                save(folder, 3, "LATEST", "BEST")

            child, told = forked(victim)
            said = told.read()
            told.close()
            if os.waitstatus_to_exitcode(wait(child)) != 77:
                assert not said, said
                break
            result["points"] += 1
            found = done(lambda tell, folder=folder: state_after(folder, tell))  # type: ignore[misc]
            good = (
                found["LATEST"][0] in (2, 3)
                and found["BEST"][0] in (1, 3)
                and found["LATEST"][1] == found["BEST"][1] == 0
            )
            if not good or found["temporaries"] or found["history"] not in (2, 3):
                result["bad"].append([when, at, found])
    return result


def count_from(start: int) -> Iterator[int]:
    while True:
        yield start
        start += 1


if __name__ == "__main__":
    kind, root = sys.argv[1], Path(sys.argv[2])
    print(json.dumps(kills(root, Path(sys.argv[3]), int(sys.argv[4])) if kind == "kills" else points(root)))
