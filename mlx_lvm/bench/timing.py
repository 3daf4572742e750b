"""Two programs timed in turn: each side runs in a process of its own, and one waits while the other works.

Turns are short and many, so that whatever else the machine does falls on both. Imports neither framework.
"""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, field, replace
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np

from mlx_lvm.bench.roofline import Cost
from mlx_lvm.bench.workers import CONFIG, Cell, Options, Worker
from mlx_lvm.errors import LvmError, SetupInvalid

ROUNDS = 12  # turns of each program in a cell
FEWEST = 3  # where one call outlasts a turn
PATIENCE = 4.0  # times the seconds wished for, after which FEWEST turns must do


@dataclass
class Timed:
    """Seconds of the calls of one program in one cell."""

    times: list[float] = field(default_factory=list)

    def summary(self) -> dict[str, float]:
        """Milliseconds."""
        median, p95, p99 = np.percentile(self.times, [50, 95, 99]) * 1e3
        return {"median": float(median), "p95": float(p95), "p99": float(p99), "calls": len(self.times)}


class Bench:
    """Sides by name on one model. Use as a context: the processes end with it. Raises SetupInvalid where they
    do not compare.
    """

    def __init__(self, sides: dict[str, tuple[str, str]], options: Options) -> None:
        self.sides, self.options = sides, options
        self.workers: dict[str, Worker] = {}
        self.about: dict[str, dict[str, Any]] = {}

    def __enter__(self) -> Bench:
        self._stack = ExitStack()
        try:
            options = self.options
            for name, (module, kind) in self.sides.items():
                self.workers[name] = Worker(module, kind, options)
                self._stack.callback(self.workers[name].close)
                self.about[name] = self.workers[name].ask("about")
                options = replace(options, device=self.about[name]["device"])
            require_same_device(self.about)
        except BaseException:
            self._stack.close()
            raise
        return self

    def __exit__(self, *_: object) -> None:
        self._stack.close()

    @cached_property
    def peaks(self) -> dict[str, float]:
        """FLOPs and bytes per second: the best that any side reached."""
        found = [worker.ask("peaks") for worker in self.workers.values()]
        return {name: max(peak[name] for peak in found) for name in found[0]}

    def memory(self) -> dict[str, dict[str, int]]:
        return {name: worker.ask("memory") for name, worker in self.workers.items()}

    def cell(
        self,
        task: str,
        batch: int,
        hows: dict[str, Sequence[str]],
        seconds: float,
        note: Callable[[str], None],
    ) -> dict[str, dict[str, dict[str, float]]]:
        """side -> how -> milliseconds, every program in turn. A `how` that a side cannot do is noted and left
        out.
        """
        programs: list[tuple[str, Cell]] = []
        for side, names in hows.items():
            for how in names:
                try:
                    self.workers[side].ask("prepare", Cell(task, batch, how))
                    programs.append((side, Cell(task, batch, how)))
                except LvmError as error:
                    note(f"{side}, {how}: {task} at batch {batch} does not run: {error}")
        timed = {program: Timed() for program in programs}
        began, rounds = time.perf_counter(), 0
        while rounds < FEWEST or (
            rounds < ROUNDS and time.perf_counter() - began < PATIENCE * seconds * len(programs)
        ):
            for side, cell in programs if rounds % 2 == 0 else reversed(programs):
                timed[side, cell].times += self.workers[side].ask("turn", cell, seconds / ROUNDS)
            rounds += 1
        for worker in self.workers.values():
            worker.ask("forget")
        out: dict[str, dict[str, dict[str, float]]] = {side: {} for side in hows}
        for (side, cell), found in timed.items():
            out[side][cell.how] = found.summary()
        return out


SAME = {"metal": "mps"}  # MLX's name of a device and torch's


def require_same_device(about: dict[str, dict[str, Any]]) -> None:
    """Raises SetupInvalid for sides on different kinds of device or, on a CPU, with different numbers of
    threads.
    """
    devices = {name: SAME.get(found["device"], found["device"]) for name, found in about.items()}
    threads = (
        {name: found["threads"] for name, found in about.items()} if set(devices.values()) == {"cpu"} else {}
    )
    for what, values in (("device", devices), ("threads", threads)):
        if len(set(values.values())) > 1:
            shown = ", ".join(f"{name} {value}" for name, value in values.items())
            raise SetupInvalid(
                f"not the same {what} on both sides ({shown}): such times do not compare. Choose with "
                "--device or --threads"
            )


def row(
    model: str, task: str, batch: int, found: dict[str, dict[str, dict[str, float]]], floor_ms: float
) -> dict[str, Any]:
    """A row of the report. ratio: MLX compiled to torch as people run it, eager; best_ratio: the faster
    program of each side.
    """
    mlx, other = found.get("mlx", {}), found.get("torch", {})
    mine = (mlx.get("compiled") or mlx.get("eager") or {}).get("median")
    theirs = (other.get("eager") or other.get("compiled") or {}).get("median")
    best = [min((times["median"] for times in side.values()), default=None) for side in (mlx, other)]
    return {
        "model": model,
        "task": task,
        "batch": batch,
        "mlx_ms": mine,
        "torch_ms": theirs,
        "ratio": mine / theirs if mine and theirs else None,
        "best_ratio": best[0] / best[1] if best[0] and best[1] else None,
        "floor_ms": floor_ms,
        "mlx": mlx,
        "torch": other,
    }


def rows(
    timing: Bench,
    tasks: Sequence[tuple[str, Sequence[int]]],
    seconds: float,
    torch_compile: bool,
    note: Callable[[str], None],
    say: Callable[[str], None],
) -> Iterator[dict[str, Any]]:
    """The rows of a model, each when it is measured. tasks: (task, batch sizes); note hears what does not
    run, say what comes next.
    """
    shared = json.loads((Path(timing.options.folder) / CONFIG).read_text())
    cost, name = Cost(**shared["cost"]), timing.options.model
    for task, batches in tasks:
        if task == "epoch" and not shared["learns_from_windows"]:
            note(
                f"{name} learns from whole documents, its torch twin from windows: no epoch of the same work"
            )
            continue
        hows: dict[str, Sequence[str]] = {"mlx": ["compiled", "eager"] if task == "forward" else ["compiled"]}
        if "torch" in timing.workers:
            hows["torch"] = (
                ["eager", "compiled"] if torch_compile and task in ("forward", "train") else ["eager"]
            )
        for batch in batches:
            say(f"{name}: {task} at batch {batch}")
            times = timing.cell(task, batch, hows, seconds, note)
            least = cost.work(task, batch, shared["windows"])
            yield row(
                name, task, batch, times, least.floor(timing.peaks["flops"], timing.peaks["bytes"]) * 1e3
            )
