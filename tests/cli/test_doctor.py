import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest

from mlx_lvm.bench import doctor
from mlx_lvm.core import linux_cpu
from mlx_lvm.core.kernel_store import Store
from mlx_lvm.core.mlx import mx


def test_doctor_says_what_runs(lvm: Callable) -> None:
    out = lvm("doctor", "--json")
    assert out.code == 0
    checks = json.loads(out.out)["checks"]
    assert {"versions", "device", "memory", "blas", "tf32", "compiler"} <= set(checks)
    assert checks["blas"]["value"]["gflops"] > 0.5 and checks["versions"]["value"]["mlx"] == mx.__version__
    assert "GFLOP/s" in lvm("doctor").out


def tuned(monkeypatch: pytest.MonkeyPatch, **changes: object) -> None:
    monkeypatch.setattr(doctor, "tuning", lambda: replace(linux_cpu.tuning(), **changes))


def test_doctor_says_what_becomes_of_freed_memory(lvm: Callable, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(doctor.sys, "platform", "linux")
    monkeypatch.setattr(mx, "default_device", lambda: mx.Device(mx.cpu))
    tuned(monkeypatch, kept=0)
    assert "unset MALLOC_TRIM_THRESHOLD_" in lvm("doctor").out
    tuned(monkeypatch, kept=1 << 30)
    assert "1,024 MB are kept" in lvm("doctor").out


def test_doctor_shows_where_kernels_lie(
    lvm: Callable, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setattr(doctor.sys, "platform", "linux")
    monkeypatch.setattr(doctor.shutil, "which", lambda name, path: f"/there/{name}")
    (tmp_path / "mlx").mkdir()
    (tmp_path / "mlx" / "kernel.so").write_bytes(bytes(2_000_000))
    tuned(monkeypatch, kernels=Store(str(tmp_path)))
    out = lvm("doctor").out.replace("\n", " ")
    assert "1 in" in out and "2.0 MB, of this user alone" in out
    tuned(monkeypatch, kernels=Store(note="/home is read-only; set XDG_CACHE_HOME"))
    out = lvm("doctor").out
    assert "none are compiled" in out and "! kernels: /home is read-only; set XDG_CACHE_HOME" in out
    tuned(monkeypatch, kernels=Store())
    assert "tune()" in lvm("doctor").out
