"""Two processes on the loopback ring do what one does with the same batches, and neither hangs when the other
is gone.
"""

import json
import os
import shutil
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest

from mlx_lvm.core.files.safetensors import open_safetensors
from mlx_lvm.core.mlx import mx
from mlx_lvm.errors import IOFailed
from mlx_lvm.hub.load import load_model
from mlx_lvm.models.amn import AMNConfig
from mlx_lvm.training import distributed
from mlx_lvm.training.config import TrainConfig, preset
from mlx_lvm.training.distributed import SINGLE, Group
from mlx_lvm.training.session import start_run
from mlx_lvm.training.state import step_key

# Homebrew's folder is not on every PATH.
MPIRUN = shutil.which("mpirun") or shutil.which("/opt/homebrew/bin/mpirun")
DRIVER = Path(__file__).with_name("distributed_driver.py")


def free_ports(count: int) -> list[int]:
    sockets = [socket.create_server(("127.0.0.1", 0)) for _ in range(count)]
    ports = [s.getsockname()[1] for s in sockets]
    for s in sockets:
        s.close()
    return ports


def launch(
    folder: Path, *arguments: object, ranks: int = 2, patience: float = 20
) -> list["subprocess.Popen[str]"]:
    """The processes of a group as `mlx.launch` starts them, but on ports of our own."""
    hosts = folder / "hosts.json"
    hosts.write_text(json.dumps([[f"127.0.0.1:{port}"] for port in free_ports(ranks)]))
    out = []
    for rank in range(ranks):
        environment = {
            **os.environ,
            "MLX_RANK": str(rank),
            "MLX_HOSTFILE": str(hosts),
            "MLX_LVM_PEER_TIMEOUT": str(patience),
            "OMP_NUM_THREADS": "1",
        }
        command = [sys.executable, str(DRIVER), *map(str, arguments)]
        out.append(
            subprocess.Popen(
                command, env=environment, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
            )
        )
    return out


def finish(processes: list["subprocess.Popen[str]"], timeout: float = 60) -> list[tuple[int, str, str]]:
    try:
        return [(*process.communicate(timeout=timeout), process.returncode)[::-1] for process in processes]  # type: ignore[misc]
    finally:
        for process in processes:
            process.kill()


def alone(*arguments: object) -> None:
    subprocess.run(
        [sys.executable, str(DRIVER), *map(str, arguments)], check=True, capture_output=True, timeout=60
    )


def largest_difference(one: Path, two: Path) -> float:
    a, b = open_safetensors(one), open_safetensors(two)
    assert set(a.tensors) == set(b.tensors)
    names = [
        name for name in a.tensors if name not in ("sums.broken", "context_encoder.bias")
    ]  # the latter's gradient is rounding noise
    return max(float(np.abs(a.numpy(name) - b.numpy(name)).max()) for name in names)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("name", "losses", "limit"),
    [("amn", "mse,infonce,moment,variance", 1e-5), ("lstm", "cosine", 1e-5), ("emn", "cosine", 5e-5)],
)
def test_two_ranks_equal_one(tmp_path: Path, small_file: Path, name: str, losses: str, limit: float) -> None:
    """Fifty steps, batches of 32, 7 and 1 windows, losses that look across the batch included. emn begins
    with the released network, near a minimum, where Adam makes steps of small gradients' roundings.
    """
    alone("train", name, losses, small_file, tmp_path / "one")
    ended = finish(launch(tmp_path, "train", name, losses, small_file, tmp_path / "two"))
    assert [code for code, _, _ in ended] == [0, 0], ended
    assert largest_difference(tmp_path / "one", tmp_path / "two") < limit
    said = [out.split(" ", 2) for _, _, out in sorted(ended, key=lambda e: e[2])]
    assert [line[:2] for line in said] == [["0", "2"], ["1", "2"]]
    assert said[0][2].split("] ")[1] == said[1][2].split("] ")[1], (
        "the ranks' weights must be the same to the bit"
    )


@pytest.mark.slow
def test_two_ranks_learn_to_rank_together(tmp_path: Path, small_file: Path) -> None:
    """Each takes its share of the segments, with the rivals among them, so that the figures are not one
    process's; the weights of both are the same to the bit, and they learn.
    """
    alone("train", "emn-rank", "cosine", small_file, tmp_path / "one")
    ended = finish(launch(tmp_path, "train", "emn-rank", "cosine", small_file, tmp_path / "two"))
    assert [code for code, _, _ in ended] == [0, 0], ended
    said = [out.split("] ")[1] for _, _, out in ended]
    assert said[0] == said[1]
    one, two = (open_safetensors(tmp_path / name) for name in ("one", "two"))
    assert float(two.numpy("sums.windows")) == float(one.numpy("sums.windows"))
    loss = [float(file.numpy("sums.loss").item()) for file in (one, two)]
    assert abs(loss[0] - loss[1]) < 0.2 * loss[0]


@pytest.mark.system
@pytest.mark.skipif(
    MPIRUN is None,
    reason="no Open MPI here (Debian: apt-get install openmpi-bin libopenmpi-dev; macOS: brew install "
    "open-mpi)",
)
def test_two_ranks_under_mpi(tmp_path: Path, small_file: Path) -> None:
    """The same over MPI; mpirun fails where a process leaves without finalising it."""
    alone("train", "amn", "mse", small_file, tmp_path / "one")
    start = [str(MPIRUN), "--allow-run-as-root", "--oversubscribe", "-n", "2"]
    command = [
        *start,
        sys.executable,
        str(DRIVER),
        "train",
        "amn",
        "mse",
        str(small_file),
        str(tmp_path / "two"),
    ]
    done = subprocess.run(
        command, capture_output=True, text=True, timeout=60, env={**os.environ, "OMP_NUM_THREADS": "1"}
    )
    assert done.returncode == 0, done.stderr
    assert sorted(line[:3] for line in done.stdout.splitlines()) == ["0 2", "1 2"]
    assert largest_difference(tmp_path / "one", tmp_path / "two") < 1e-5


@pytest.mark.parametrize("batch", [1, 2, 3, 7, 32])
@pytest.mark.parametrize("size", [1, 2, 3, 5])
def test_shares_cover_the_batch_without_overlap(batch: int, size: int) -> None:
    rows = []
    for rank in range(size):
        group = Group()
        group.rank, group.size = rank, size
        start, stop, filled = group.shard(batch)
        assert 0 <= stop - start <= filled == -(-batch // size)
        rows += range(start, stop)
    assert rows == list(range(batch))


def test_a_killed_rank_ends_the_other_with_a_message(tmp_path: Path, small_file: Path) -> None:
    """By its broken connection, not by the clock, which would take ten minutes here."""
    processes = launch(tmp_path, "die", "amn", "mse", small_file, tmp_path / "w", patience=600)
    (code, err, _), (killed, _, _) = finish(processes, timeout=120)
    assert killed == -signal.SIGKILL
    assert code == 4 and "lost another process of this training" in err and "--resume" in err


def test_the_first_step_waits_longer(monkeypatch: pytest.MonkeyPatch) -> None:
    """Peers may compile their kernels, minutes on a busy machine; a failed step is no first step."""
    monkeypatch.setenv("MLX_LVM_PEER_TIMEOUT", "7")
    group = Group()
    group.size = 2
    waits = []
    for broken in (True, False, False):
        try:
            with group.waiting():
                waits.append(round(group.watchdog.deadline - time.monotonic()))
                if broken:
                    raise RuntimeError("a connection")
        except IOFailed:
            continue
    assert waits == [70, 70, 7]


@pytest.mark.slow
def test_a_silent_rank_ends_the_other_with_a_message(tmp_path: Path, small_file: Path) -> None:
    """A stopped process keeps its connections: only the clock can tell."""
    processes = launch(tmp_path, "stop", "amn", "mse", small_file, tmp_path / "w", patience=3)
    try:
        code, err, _ = finish(processes[:1], timeout=40)[0]
    finally:
        processes[1].kill()
        processes[1].communicate()
    assert code == 4 and "silent for too long" in err and "MLX_LVM_PEER_TIMEOUT" in err


@pytest.mark.slow
@pytest.mark.parametrize("memory", ["auto", "100K"])
def test_the_command_line_on_two_ranks(tmp_path: Path, small_file: Path, memory: str) -> None:
    """Rank 0 alone speaks and saves; a resumed group goes on; the weights are those of one process.

    Streamed as from memory.
    """
    small = (
        "--corpus",
        small_file,
        "--memory",
        memory,
        "--attention-dim",
        8,
        "--hidden-dim",
        16,
        "--lr",
        1e-3,
    )
    ended = finish(launch(tmp_path, "lvm", "train", "amn", *small, "--epochs", 1, "--out", tmp_path / "two"))
    assert [code for code, _, _ in ended] == [0, 0], ended
    assert "2 processes share every batch" in ended[0][2] and ended[1][2] == ""
    ended = finish(
        launch(tmp_path, "lvm", "train", "--resume", tmp_path / "two", "--epochs", 2, "--force", "--json")
    )
    assert [code for code, _, _ in ended] == [0, 0], ended
    assert json.loads(ended[0][2])["epochs"] == 2 and ended[1][2] == ""
    options = TrainConfig.from_dict(
        {
            **preset("best", AMNConfig())[0],
            "corpus": str(small_file),
            "memory": memory,
            "lr": 1e-3,
            "epochs": 2,
        }
    )
    assert start_run("amn", {"attention_dim": 8, "hidden_dim": 16}, options, tmp_path / "one").train()
    one, two = (load_model(tmp_path / name).model.weights() for name in ("one", "two"))
    assert (
        max(float(mx.abs(one[name] - two[name]).max()) for name in one if name != "context_encoder.bias")
        < 1e-5
    )


@pytest.mark.slow
def test_a_signal_to_one_rank_stops_both(tmp_path: Path, small_file: Path) -> None:
    run = tmp_path / "run"
    small = ("--corpus", small_file, "--attention-dim", 8, "--hidden-dim", 16, "--epochs", 100000)
    processes = launch(tmp_path, "lvm", "train", "amn", *small, "--out", run)
    deadline = time.monotonic() + 60
    while not (run / "checkpoints/LATEST").exists() and time.monotonic() < deadline:
        time.sleep(0.05)
    processes[1].send_signal(signal.SIGTERM)
    ended = finish(processes)
    assert [code for code, _, _ in ended] == [143, 143], ended
    assert f"lvm train --resume {run}" in ended[0][2]


def test_different_options_are_refused(tmp_path: Path, small_file: Path) -> None:
    hosts = tmp_path / "hosts.json"
    hosts.write_text(json.dumps([[f"127.0.0.1:{port}"] for port in free_ports(2)]))
    processes = []
    for rank in range(2):
        command = [
            sys.executable,
            str(DRIVER),
            "lvm",
            "train",
            "amn",
            "--corpus",
            str(small_file),
            "--epochs",
            str(1 + rank),
            "--out",
            str(tmp_path / "run"),
        ]
        environment = {**os.environ, "MLX_RANK": str(rank), "MLX_HOSTFILE": str(hosts)}
        processes.append(
            subprocess.Popen(
                command, env=environment, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
            )
        )
    ended = finish(processes)
    assert [code for code, _, _ in ended] == [2, 2] and all(
        "differs between the processes" in err for _, err, _ in ended
    )
    assert not (tmp_path / "run").exists()


def test_one_process_never_touches_the_engine(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in distributed.LAUNCHED:
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setattr(mx.distributed, "init", lambda: pytest.fail("init was called"))
    assert distributed.init() is SINGLE
    values = np.array([1.5, -0.0])
    assert SINGLE.broadcast(values) is values and SINGLE.any(True) and not SINGLE.any(False)


def test_dropout_differs_by_rank_and_not_for_one_process() -> None:
    assert step_key(3, 1, 2, 0) == step_key(3, 1, 2)
    assert len({step_key(3, 1, 2, rank) for rank in range(8)}) == 8
