"""Turns, refusals and rooflines of `lvm bench`, against counts made another way."""

import os
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path

import pytest

from mlx_lvm.bench.roofline import CHIPS, Cost, Work
from mlx_lvm.bench.timing import FEWEST, Bench, Row, Times, require_same_device, rows
from mlx_lvm.bench.workers import About, Failed, Options, Worker, turn
from mlx_lvm.core.mlx import mx
from mlx_lvm.errors import SetupInvalid, UsageError
from mlx_lvm.models import architecture, build

TORCH = ("mlx_lvm.parity.speed", "Torch")
MLX = ("mlx_lvm.bench.speed", "Mlx")


def test_a_turn_warms_up_and_fills_its_time() -> None:
    calls = []
    times = turn(lambda: calls.append(time.sleep(0.01)), 0.1)
    assert len(calls) == len(times) + 1 and 5 <= len(times) <= 10 and min(times) >= 0.01


def test_a_long_call_is_made_once() -> None:
    calls = []
    assert len(turn(lambda: calls.append(time.sleep(0.21)), 0.0)) == len(calls) == 1


@pytest.fixture
def options(tmp_path: Path, small_file: Path) -> Options:
    return Options("amn", str(tmp_path), corpus=str(small_file), device="cpu", threads=1)


@pytest.mark.slow
def test_both_sides_run_every_task_on_the_same_weights(options: Options) -> None:
    notes: list[str] = []
    with Bench({"mlx": MLX, "torch": TORCH}, options) as bench:
        for task, hows in {
            "forward": ["compiled", "eager"],
            "train": ["compiled"],
            "epoch": ["compiled"],
            "load": ["compiled"],
        }.items():
            found = bench.cell(task, 4, {"mlx": hows, "torch": ["eager"]}, 0.01, notes.append)
            assert [*found["mlx"], *found["torch"]] == [*hows, "eager"] and not notes
            assert all(
                times.calls >= FEWEST and 0 < times.median <= times.p99
                for side in found.values()
                for times in side.values()
            )
        assert all(peak > 1e6 for peak in bench.peaks.values())
        assert all(values["resident"] > 1e7 for values in bench.memory().values())
        found = bench.cell("train", 4, {"mlx": ["eager"]}, 0.01, notes.append)
    assert found == {"mlx": {}} and "train at batch 4" in notes[0], "what a side cannot do is said, not timed"


@pytest.mark.slow
def test_bfloat16_trains_on_both_sides_and_an_epoch_of_ramn_is_not_compared(options: Options) -> None:
    notes: list[str] = []
    with Bench({"mlx": MLX, "torch": TORCH}, replace(options, model="ramn", dtype="bfloat16")) as bench:
        found = list(
            rows(bench, [("train", [4]), ("epoch", [4])], 0.01, False, notes.append, lambda text: None)
        )
    assert [row.task for row in found] == ["train"] and found[0].ratio > 0 and "no epoch" in notes[0]


def test_the_torch_side_computes_in_the_precision_that_was_asked_for(options: Options) -> None:
    torch = pytest.importorskip("torch", reason="torch is the reference: pip install 'mlx-lvm[parity]'")
    from mlx_lvm.parity.speed import Torch

    Worker(*MLX, options).close()  # leaves weights and vectors
    threads, losses = torch.get_num_threads(), {}
    try:
        for dtype in ("float32", "bfloat16"):
            side = Torch(replace(options, dtype=dtype))
            twin = side.twin().train()
            losses[dtype] = side.loss(twin, *side.contexts(side.targets[:64]))
            losses[dtype].backward()
            assert losses[dtype].dtype == torch.float32 and all(
                p.grad.dtype == torch.float32 for p in twin.parameters()
            )
    finally:
        torch.set_num_threads(threads)
    wide, narrow = (value.item() for value in losses.values())
    assert wide != narrow and wide == pytest.approx(narrow, rel=0.02)


BUSY = "import os, threading, time; from mlx_lvm.bench.workers import end_with; "
BUSY += (
    "threading.Thread(target=end_with, args=(os.getppid(),), daemon=True).start(); print(os.getpid(), "
    "flush=True); time.sleep(60)"
)


def test_a_side_ends_with_a_killed_parent() -> None:
    """Else it would time an epoch for nobody, for minutes, beside whatever is timed next."""
    command = f"import subprocess, sys; subprocess.run([sys.executable, '-c', {BUSY!r}])"
    parent = subprocess.Popen([sys.executable, "-c", command], stdout=subprocess.PIPE, text=True)
    assert parent.stdout is not None
    child = int(parent.stdout.readline())
    parent.kill()
    parent.wait()
    for _ in range(100):
        time.sleep(0.1)
        try:
            os.kill(child, 0)
        except ProcessLookupError:
            break
    else:
        pytest.fail("the side outlived its parent by ten seconds")
    parent.stdout.close()


@pytest.mark.skipif(sys.platform == "darwin", reason="torch has MLX's device there")
def test_the_torch_side_refuses_another_device(options: Options) -> None:
    with pytest.raises(SetupInvalid, match="two devices do not compare"):
        Worker(*TORCH, Options(options.model, options.folder, device="metal"))


@pytest.mark.parametrize(("device", "threads"), [("cuda", 2), ("cpu", 1)])
def test_other_devices_or_threads_are_refused(device: str, threads: int) -> None:
    with pytest.raises(SetupInvalid, match="not the same"):
        require_same_device({"mlx": About("cpu", "", 2, "1"), "torch": About(device, "", threads, "2")})
    require_same_device({"mlx": About("metal", "", 8, "1"), "torch": About("mps", "", 4, "2")})


@pytest.mark.skipif(mx.is_available(mx.gpu), reason="here is a GPU")
def test_the_mlx_side_refuses_a_gpu_that_is_not_there(options: Options) -> None:
    with pytest.raises(UsageError, match="no GPU"):
        Worker(*MLX, replace(options, device="gpu"))


def test_a_side_that_breaks_says_how(options: Options) -> None:
    with pytest.raises(Failed, match="No module named"):
        Worker("mlx_lvm.nowhere", "Side", options)


def test_ratios() -> None:
    def took(median: float) -> Times:
        return Times(median, median, median, 3)

    mlx = {"compiled": took(3.0), "eager": took(2.0)}
    made = Row("amn", "forward", 1, mlx, {"eager": took(4.0), "compiled": took(1.0)}, 0.5).to_dict()
    assert (made["mlx_ms"], made["torch_ms"], made["ratio"], made["best_ratio"]) == (3.0, 4.0, 0.75, 2.0)
    alone = Row("amn", "forward", 1, mlx, {}, 0.5).to_dict()
    assert alone["torch_ms"] is None and alone["ratio"] is None and alone["mlx"]["eager"]["calls"] == 3


# How often each matrix of a model meets a vector for one window of `length` chunks.
USES = {
    "lstm": lambda name, length: 1 if name.startswith("output") else length - ("_hh_" in name),
    "gru": lambda name, length: 1 if name.startswith("output") else length - ("_hh_" in name),
    "amn": lambda name, length: 1,
    "ramn": lambda name, length: (
        14 if name.startswith("basis") else 0 if "filter" in name else 1
    ),  # 12 mixtures in, 2 sums out
    "emn": lambda name, length: (
        0
        if name in ("kind", "base")
        else 22
        if name.startswith(("each_in", "each_hidden", "each_out"))
        else 1
    ),
}


@pytest.mark.parametrize("length", [1, 5])
@pytest.mark.parametrize("model", USES)
def test_multiplications_follow_from_the_shapes_of_the_weights(model: str, length: int) -> None:
    config = architecture(model).config_class()
    weights = {name: value for name, value in build(config).weights().items() if value.ndim == 2}
    expected = sum(value.size * USES[model](name, length) for name, value in weights.items())
    expected += (
        {"amn": 2, "ramn": 12, "emn": 20}.get(model, 0) * length * config.dim
    )  # scores and mixture; mixtures by age; rows by age
    if model == "emn":
        expected += (22 * 22 + 2 * 22) * config.dim  # products of rows, and two sums of them
    assert architecture(model).products(config, length).total == expected


def test_multiplications_of_the_transformer_are_torch_s() -> None:
    """At one position nothing is left out, so that torch's own counter must agree."""
    torch = pytest.importorskip("torch", reason="torch is the reference: pip install 'mlx-lvm[parity]'")
    from torch.utils.flop_counter import FlopCounterMode

    from mlx_lvm.parity.twins.transformer import Transformer

    config = architecture("transformer").config_class(dim=24, hidden_dim=16, layers=3, heads=2, ffn_dim=40)
    twin = Transformer(config).eval()
    with FlopCounterMode(display=False) as counter, torch.no_grad():
        twin(torch.randn(2, 1, 24))
    scores = 3 * 2 * 2 * 16  # of one key: torch's counter leaves out what is no product of matrices
    ours = architecture("transformer").products(config, 1).total
    assert counter.get_total_flops() / 2 in (2 * ours, 2 * (ours - scores))


def test_the_roofline_is_the_larger_part() -> None:
    assert Work(10.0, 4.0).roofline(5.0, 4.0) == 2.0 and Work(10.0, 40.0).roofline(5.0, 4.0) == 10.0
    cost = Cost.of(build(architecture("amn").config_class()), context=5)
    assert cost.work("epoch", 32, windows=320).flops == pytest.approx(10 * cost.step(32).flops)
    assert len({chip.name for chip in CHIPS}) == len(CHIPS)
