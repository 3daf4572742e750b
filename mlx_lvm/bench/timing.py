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

import numpy as np

from mlx_lvm.bench.roofline import Cost
from mlx_lvm.bench.workers import CONFIG, About, Cell, Options, Worker
from mlx_lvm.core.result import JsonObject, Result, key
from mlx_lvm.errors import LvmError, SetupInvalid

ROUNDS = 12  # turns of each program in a cell
FEWEST = 3  # where one call outlasts a turn
PATIENCE = 4.0  # times the seconds wished for, after which FEWEST turns must do

Say = Callable[[str], None]
Tasks = Sequence[tuple[str, Sequence[int]]]  # with their batch sizes


@dataclass(frozen=True)
class Times(Result):
    """Milliseconds of the calls of one program in one cell."""

    median: float
    p95: float
    p99: float
    calls: int

    @staticmethod
    def of(seconds: Sequence[float]) -> Times:
        median, p95, p99 = np.percentile(seconds, [50, 95, 99]) * 1e3
        return Times(float(median), float(p95), float(p99), len(seconds))


@dataclass(frozen=True)
class Row(Result):
    """Of a model, task and batch size: times by how a program is run, and the roofline of this machine."""

    model: str
    task: str
    batch: int
    mlx: dict[str, Times]
    torch: dict[str, Times]
    roofline_ms: float = field(metadata=key("floor_ms"))

    @property
    def mlx_ms(self) -> float | None:
        """Median of MLX as the library runs it, compiled."""
        return _median(self.mlx, "compiled", "eager")

    @property
    def torch_ms(self) -> float | None:
        """Median of torch as people run it, eager."""
        return _median(self.torch, "eager", "compiled")

    @property
    def ratio(self) -> float | None:
        """MLX to torch, each as it is usually run."""
        return _ratio(self.mlx_ms, self.torch_ms)

    @property
    def best_ratio(self) -> float | None:
        """The faster program of each side."""
        ours, theirs = (min((t.median for t in s.values()), default=None) for s in (self.mlx, self.torch))
        return _ratio(ours, theirs)

    def to_dict(self) -> JsonObject:
        derived = ("mlx_ms", "torch_ms", "ratio", "best_ratio")
        return {**super().to_dict(), **{name: getattr(self, name) for name in derived}}


def _median(times: dict[str, Times], *hows: str) -> float | None:
    return next((times[how].median for how in hows if how in times), None)


def _ratio(ours: float | None, theirs: float | None) -> float | None:
    return ours / theirs if ours and theirs else None


class Bench:
    """Sides by name on one model, a context that ends them. Raises SetupInvalid where they do not compare."""

    def __init__(self, sides: dict[str, tuple[str, str]], options: Options) -> None:
        self.sides, self.options = sides, options
        self.workers: dict[str, Worker] = {}
        self.about: dict[str, About] = {}

    def __enter__(self) -> Bench:
        self._stack = ExitStack()
        try:
            options = self.options
            for name, (module, kind) in self.sides.items():
                self.workers[name] = Worker(module, kind, options)
                self._stack.callback(self.workers[name].close)
                self.about[name] = self.workers[name].ask("about")
                options = replace(options, device=self.about[name].device)
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
        self, task: str, batch: int, hows: dict[str, Sequence[str]], seconds: float, note: Say
    ) -> dict[str, dict[str, Times]]:
        """side -> how -> milliseconds, every program in turn. What a side cannot do is noted and left out."""
        programs: list[tuple[str, Cell]] = []
        for side, names in hows.items():
            for how in names:
                try:
                    self.workers[side].ask("prepare", Cell(task, batch, how))
                    programs.append((side, Cell(task, batch, how)))
                except LvmError as error:
                    note(f"{side}, {how}: {task} at batch {batch} does not run: {error}")
        timed: dict[tuple[str, Cell], list[float]] = {program: [] for program in programs}
        began, rounds = time.perf_counter(), 0
        while rounds < FEWEST or (
            rounds < ROUNDS and time.perf_counter() - began < PATIENCE * seconds * len(programs)
        ):
            for side, cell in programs if rounds % 2 == 0 else reversed(programs):
                timed[side, cell] += self.workers[side].ask("turn", cell, seconds / ROUNDS)
            rounds += 1
        for worker in self.workers.values():
            worker.ask("forget")
        out: dict[str, dict[str, Times]] = {side: {} for side in hows}
        for (side, cell), found in timed.items():
            out[side][cell.how] = Times.of(found)
        return out


SAME = {"metal": "mps"}  # MLX's name of a device and torch's


def require_same_device(about: dict[str, About]) -> None:
    """Raises SetupInvalid for sides on different devices or, on a CPU, with different numbers of threads."""
    devices = {name: SAME.get(found.device, found.device) for name, found in about.items()}
    on_cpu = set(devices.values()) == {"cpu"}
    threads = {name: found.threads for name, found in about.items() if on_cpu}
    for what, values in (("device", devices), ("threads", threads)):
        if len(set(values.values())) > 1:
            shown = ", ".join(f"{name} {value}" for name, value in values.items())
            raise SetupInvalid(
                f"not the same {what} on both sides ({shown}): such times do not compare. Choose with "
                "--device or --threads"
            )


def rows(
    timing: Bench, tasks: Tasks, seconds: float, torch_compile: bool, note: Say, say: Say
) -> Iterator[Row]:
    """A model's rows as they are measured. `note` hears what does not run, `say` what comes next."""
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
            both = torch_compile and task in ("forward", "train")
            hows["torch"] = ["eager", "compiled"] if both else ["eager"]
        for batch in batches:
            say(f"{name}: {task} at batch {batch}")
            times = timing.cell(task, batch, hows, seconds, note)
            least = cost.work(task, batch, shared["windows"])
            roofline = least.roofline(timing.peaks["flops"], timing.peaks["bytes"]) * 1e3
            yield Row(name, task, batch, times.get("mlx", {}), times.get("torch", {}), roofline)
