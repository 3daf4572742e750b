import json
from collections.abc import Callable
from importlib.metadata import version
from pathlib import Path

import pytest

import mlx_lvm.bench.doctor
from mlx_lvm.core.mlx import mx


def test_doctor_says_what_runs(lvm: Callable) -> None:
    out = lvm("doctor", "--json")
    assert out.code == 0
    checks = json.loads(out.out)["checks"]
    assert {"versions", "device", "memory", "blas", "tf32", "compiler"} <= set(checks)
    assert checks["blas"]["value"]["gflops"] > 0.5 and checks["versions"]["value"]["mlx"] == mx.__version__
    assert "GFLOP/s" in lvm("doctor").out


def test_doctor_says_what_becomes_of_freed_memory(lvm: Callable, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(mlx_lvm.bench.doctor, "FREED_IS_KEPT", False)
    monkeypatch.setattr(mlx_lvm.bench.doctor.sys, "platform", "linux")
    monkeypatch.setattr(mx, "default_device", lambda: mx.Device(mx.cpu))
    assert "unset MALLOC_TRIM_THRESHOLD_" in lvm("doctor").out
    monkeypatch.setattr(mlx_lvm.bench.doctor, "FREED_IS_KEPT", True)
    assert "1,024 MB are kept" in lvm("doctor").out


def test_doctor_counts_kernels_that_were_made_narrow(
    lvm: Callable, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setattr(mlx_lvm.bench.doctor, "KERNELS_ARE_WIDE", True)
    monkeypatch.setattr(mlx_lvm.bench.doctor.sys, "platform", "linux")
    monkeypatch.setattr(mlx_lvm.bench.doctor.platform, "machine", lambda: "x86_64")
    monkeypatch.setattr(mlx_lvm.bench.doctor.shutil, "which", lambda name, path: f"/there/{name}")
    monkeypatch.setattr(mlx_lvm.bench.doctor.tempfile, "gettempdir", lambda: str(tmp_path))
    assert "kernels" not in json.loads(lvm("doctor", "--json").out)["checks"]
    store = tmp_path / "mlx" / version("mlx") / "cpu"
    store.mkdir(parents=True)
    (store / "new.so").write_bytes(b"\x7fELF f.avx512f.0")
    assert json.loads(lvm("doctor", "--json").out)["checks"]["kernels"]["value"] == {
        "kernels": 1,
        "narrow": 0,
    }
    assert "rm -r" not in lvm("doctor").out
    (store / "old.so").write_bytes(b"\x7fELF f")
    out = lvm("doctor").out
    assert "1 wide, 1 narrow" in out and f"rm -r {store}" in out.replace("\n", " ")
    monkeypatch.setattr(mlx_lvm.bench.doctor, "KERNELS_ARE_WIDE", False)
    out = lvm("doctor").out
    assert "as MLX asks for it" in out and "narrow" not in out
