"""The scripts under benchmarks/: each starts, and the GPU table says what was met."""

import importlib.util
import json
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType

import pytest

from mlx_lvm.bench.timing import Row, Times
from mlx_lvm.bench.workers import Options
from mlx_lvm.core.mlx import mx

FOLDER = Path(__file__).parent.parent.parent / "benchmarks"
SCRIPTS = sorted(path.name for path in FOLDER.glob("*.py"))


def run(name: str, *arguments: str) -> subprocess.CompletedProcess:
    return subprocess.run(
        [sys.executable, str(FOLDER / name), *arguments], capture_output=True, text=True, timeout=300
    )


@pytest.mark.parametrize("name", SCRIPTS)
def test_every_script_says_what_it_does(name: str) -> None:
    if name == "functions.py":
        pytest.importorskip("scipy", reason="the functions are fitted with scipy: pip install scipy")
    ran = run(name, "--help")
    assert ran.returncode == 0 and f"benchmarks/{name}" in ran.stdout, ran.stderr


def module(name: str) -> ModuleType:
    """A script, in this process."""
    spec = importlib.util.spec_from_file_location(f"benchmark_{name}", FOLDER / f"{name}.py")
    assert spec is not None and spec.loader is not None
    found = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(found)
    return found


@pytest.fixture
def gpu() -> ModuleType:
    return module("gpu")


def row(task: str, batch: int, mine: float, eager: float, compiled: float | None) -> dict:
    torch = {"eager": {"median": eager}, **({"compiled": {"median": compiled}} if compiled else {})}
    return {
        "model": "amn",
        "precision": "tf32",
        "task": task,
        "batch": batch,
        "mlx": {"compiled": {"median": mine}},
        "torch": torch,
    }


def test_the_gpu_table_and_what_it_missed(gpu: ModuleType) -> None:
    about = {side: {"version": "1", "device": "cuda", "name": "a card"} for side in ("mlx", "torch")}
    rows = [
        row("train", 256, 2.0, 1.6, 1.6),
        row("forward", 1, 1.0, 2.0, None),
        row("forward", 8, 9.0, 1.0, 1.0),
    ]
    found = {"about": about, "rows": rows, "notes": ["lost"]}
    lines = gpu.table(found).splitlines()
    assert lines[:2] == ["mlx: 1 cuda a card", "torch: 1 cuda a card"] and lines[-1] == "not run: lost"
    assert lines[5] == "| amn | tf32 | forward | 1 | 1.000 | 2.000 |  | **0.50** |  |"
    assert lines[6].endswith("| 9.00 | 9.00 |"), "not aimed at: never bold"
    assert lines[7].endswith("| 1.25 | **1.25** |")
    assert gpu.aims(found) == ["amn tf32 train 256: 1.25 of torch eager, over 1.0"]


@pytest.mark.slow
def test_gpu_rows_are_kept_and_only_what_is_missing_is_measured(
    gpu: ModuleType, small_file: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The first time both sides run; after it, what they would be asked to time is enough to see."""
    out = tmp_path / "gpu.json"
    command = f"--device cpu --corpus {small_file} --models amn --precisions float32 --no-compile"
    command += f" --seconds 0.01 --train 2 --out {out} --forward"
    first = run("gpu.py", *command.split(), "1")
    assert first.returncode == 0, first.stderr
    held = json.loads(out.read_text())
    assert [(r["task"], r["batch"]) for r in held["rows"]] == [("forward", 1), ("train", 2)]

    class Sides:
        """Those of the first time; they measure at once, and keep what they were asked for."""

        def __init__(self, sides: dict, options: Options) -> None:
            self.about, self.peaks = held["about"], {}

        def __enter__(self) -> "Sides":
            return self

        def __exit__(self, *of: object) -> None: ...

    asked: list[tuple[str, int]] = []

    def rows(timing: Sides, tasks: list, *rest: object) -> Iterator[Row]:
        asked.extend((task, batch) for task, batches in tasks for batch in batches)
        times = {"compiled": Times(1.0, 1.0, 1.0, 3)}
        return (Row("amn", task, batch, times, times, 1.0) for task, batch in asked)

    monkeypatch.setattr(gpu, "Bench", Sides)
    monkeypatch.setattr(gpu, "rows", rows)
    monkeypatch.setattr(sys, "argv", ["gpu.py", *command.split(), "1", "3"])
    gpu.main()
    found = json.loads(out.read_text())
    assert asked == [("forward", 3)] and found["rows"][:2] == held["rows"]
    assert [(r["task"], r["batch"]) for r in found["rows"][2:]] == asked

    found["about"]["torch"]["version"] = "0"
    out.write_text(json.dumps(found))
    monkeypatch.setattr(sys, "argv", ["gpu.py", *command.split(), "5"])
    with pytest.raises(SystemExit, match="choose another --out"):
        gpu.main()
    assert json.loads(out.read_text()) == found


@pytest.mark.skipif(mx.is_available(mx.gpu), reason="here is a GPU")
def test_no_gpu_no_table(tmp_path: Path) -> None:
    ran = run("gpu.py", "--out", str(tmp_path / "gpu.json"))
    assert ran.returncode == 1 and "no GPU" in ran.stderr and not (tmp_path / "gpu.json").exists()


@pytest.mark.slow
def test_the_parts_of_a_step_are_all_timed(
    small_file: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    step = module("step")
    monkeypatch.setattr(step, "CALLS", 9)
    arguments = ["amn", "--corpus", str(small_file), "--epochs", "1", "--batch-size", "64"]
    monkeypatch.setattr(sys, "argv", ["step.py", *arguments])
    step.main()
    first, *parts, epoch = capsys.readouterr().out.splitlines()
    assert first.startswith("amn, batch 64, Device(")
    assert [line[:22].strip() for line in parts] == [
        "gather",
        "forward",
        "forward and backward",
        "norm of the gradient",
        "clip and AdamW",
    ]
    forward, both = (float(line.split()[-1]) for line in parts[1:3])
    assert 0 < forward < both
    clock = float(epoch.split("clock ")[1].split(",")[0])
    assert clock > 0 and "CPU" in epoch and "faults" in epoch


@pytest.mark.skipif(mx.metal.is_available(), reason="here is Metal")
def test_a_capture_needs_a_mac(tmp_path: Path) -> None:
    ran = run("step.py", "amn", "--capture", str(tmp_path / "step.gputrace"))
    assert ran.returncode == 1 and "needs Metal" in ran.stderr
