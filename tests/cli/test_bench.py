"""`lvm bench`: its contract, its refusals, and the table of Apple's chips."""

import io
import json
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
from rich.console import Console

from mlx_lvm.bench.timing import Row, Times
from mlx_lvm.cli.shared.common import Output
from mlx_lvm.cli.trust.bench import _Table


@pytest.mark.slow
def test_json(lvm: Callable, small_file: Path) -> None:
    ran = lvm(
        "bench",
        "lstm",
        "-c",
        small_file,
        "--tasks",
        "forward,load",
        "--batches",
        "1,3",
        "--seconds",
        "0.01",
        "--threads",
        1,
        "--json",
    )
    assert ran.code == 0, ran.err
    found = json.loads(ran.out)
    assert [(row["model"], row["task"], row["batch"]) for row in found["rows"]] == [
        ("lstm", "forward", 1),
        ("lstm", "forward", 3),
        ("lstm", "load", 1),
    ]
    for row in found["rows"]:
        assert row["ratio"] == pytest.approx(row["mlx_ms"] / row["torch_ms"]) and row["floor_ms"] > 0
        assert row["mlx"]["compiled"]["calls"] >= 3
    assert found["about"]["mlx"]["device"] == found["about"]["torch"]["device"]
    assert found["peaks"]["flops"] > 1e8 and found["memory"][0]["model"] == "lstm"


@pytest.mark.slow
def test_markdown_alone(lvm: Callable, small_file: Path) -> None:
    ran = lvm(
        "bench",
        "-c",
        small_file,
        "--against",
        "none",
        "--tasks",
        "forward",
        "--batches",
        2,
        "--seconds",
        "0.01",
        "--markdown",
    )
    line = next(line for line in ran.out.splitlines() if line.startswith("| amn | forward | 2 |"))
    assert ran.code == 0 and line.count("|") == 14 and "torch" not in ran.out.split("peaks")[1]


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["amm"], "Did you mean 'amn'"),
        (["--tasks", "forwards"], "Did you mean 'forward'"),
        (["--batches", "1,x"], "whole numbers"),
        (["--dtype", "bfloat16"], "leave load out"),
        (["--dtype", "float16", "--tasks", "forward,train"], "add --tasks forward"),
        (["--device", "tpu"], "cpu, gpu"),
    ],
)
def test_wrong_usage(lvm: Callable, arguments: list[str], said: str) -> None:
    ran = lvm("bench", *arguments)
    assert ran.code == 2 and said in ran.err


@pytest.mark.slow
def test_rows_come_as_they_are_measured(small_file: Path) -> None:
    arguments = [
        "bench",
        "-c",
        str(small_file),
        "--against",
        "none",
        "--tasks",
        "forward",
        "--batches",
        "1,2",
        "--seconds",
        "0.5",
    ]
    with subprocess.Popen(
        [sys.executable, "-m", "mlx_lvm.cli.main", *arguments], stdout=subprocess.PIPE, text=True
    ) as running:
        assert running.stdout is not None
        first = [running.stdout.readline(), running.stdout.readline()]
        assert running.poll() is None, "the first row must not wait for the second"
        rest = running.stdout.read()
    assert first[0].startswith("model") and first[1].split()[:3] == ["amn", "forward", "1"]
    assert rest.split()[:3] == ["amn", "forward", "2"] and running.returncode == 0


def test_a_narrow_terminal_gets_the_columns_that_fit() -> None:
    out = Output(as_json=False)
    out.terminal, out.console = True, Console(width=80, file=io.StringIO())
    ours, theirs = Times(1234.5, 1300.0, 1400.0, 3), Times(2469.0, 2500.0, 2600.0, 3)
    row = Row("transformer", "forward", 1024, {"compiled": ours, "eager": ours}, {"eager": theirs}, 12.5)
    _Table(out, as_markdown=False).add(row)
    head, line = out.console.file.getvalue().splitlines()  # type: ignore[attr-defined]
    assert head.split() == ["model", "task", "batch", "mlx", "ms", "torch", "ms", "mlx/torch", "roofline"]
    assert (
        line.split() == ["transformer", "forward", "1024", "1,234", "2,469", "0.50", "12.5"]
        and len(line) <= 80
    )


def test_expectations_are_computed(lvm: Callable) -> None:
    ran = lvm("bench", "--expect", "--json")
    found = json.loads(ran.out)
    assert found["computed"] is True
    by_chip = {
        row["chip"]: row["floor_ms"]
        for row in found["rows"]
        if (row["model"], row["task"]) == ("amn", "forward")
    }
    # One window of AMN reads 1.51 million float32 weights: 6.06 MB at 68.25 GB/s.
    assert by_chip["M1"] == pytest.approx(6.06e6 / 68.25e9 * 1e3, rel=0.01)
