"""The fast BLAS: found, opened, switched off, and never a reason to fail. And freed memory, kept for the next array."""

import ctypes
import os
import subprocess
import sys
from pathlib import Path

import pytest

import mlx_lvm.core.mlx as backend

linux = pytest.mark.skipif(sys.platform != "linux", reason="macOS has Accelerate")


def blas_of(**environment: str) -> list[str]:
    code = (
        "from mlx_lvm.core.mlx import BLAS, mx\n"
        "print(BLAS.name, BLAS.path or '-', BLAS.note or '-', sep='|')\n"
        "print((mx.ones((64, 64)) @ mx.ones((64, 64)))[3, 5].item())"
    )
    out = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True, env=os.environ | environment
    )
    first, product = out.stdout.strip().splitlines()
    assert product == "64.0"
    return first.split("|")


@linux
def test_off() -> None:
    assert blas_of(MLX_LVM_BLAS="off") == ["mlx", "-", "switched off by MLX_LVM_BLAS"]


@linux
def test_a_wrong_path_is_said_and_not_fatal(tmp_path: Path) -> None:
    name, path, note = blas_of(MLX_LVM_BLAS=str(tmp_path / "none.so"))
    assert (name, path) == ("mlx", "-") and "none.so" in note


@linux
def test_a_library_without_cblas_is_passed_over() -> None:
    name, path, note = blas_of(MLX_LVM_BLAS="libc.so.6")
    assert (name, path) == ("mlx", "-") and "cblas_sgemm" in note


@linux
@pytest.mark.skipif(not backend.candidates(), reason="no MKL, OpenBLAS or BLIS on this machine")
def test_the_best_one_is_opened() -> None:
    name, path, _ = blas_of()
    assert (name, path) == backend.candidates()[0]


@linux
@pytest.mark.parametrize(("processor", "first"), [("AuthenticAMD", "openblas"), ("GenuineIntel", "mkl")])
def test_openblas_comes_first_where_mkl_would_not_use_avx512(
    monkeypatch: pytest.MonkeyPatch, processor: str, first: str
) -> None:
    import builtins
    import io

    real = open
    text = f"vendor_id : {processor}\nflags : fpu avx2 avx512f avx512dq\n"
    monkeypatch.setattr(
        builtins,
        "open",
        lambda path, *rest: io.StringIO(text) if path == "/proc/cpuinfo" else real(path, *rest),
    )
    monkeypatch.setattr(backend.glob, "glob", lambda pattern: ["/there/libmkl_rt.so.3"])
    monkeypatch.setattr(backend.os.path, "exists", lambda path: True)
    monkeypatch.setattr(backend.ctypes.util, "find_library", lambda name: None)
    assert backend.candidates()[0][0] == first


def test_doctor_names_the_faster_library(monkeypatch: pytest.MonkeyPatch) -> None:
    from mlx_lvm.bench import doctor

    monkeypatch.setattr(doctor, "BLAS", backend.Blas("mkl", "/there/libmkl_rt.so.3"))
    for held_back in (True, False):
        monkeypatch.setattr(doctor, "mkl_holds_back", lambda held_back=held_back: held_back)
        assert ("cmeel-openblas" in doctor._blas().remedy) == held_back


def test_nothing_happens_on_macos(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(backend.sys, "platform", "darwin")
    monkeypatch.delenv("MLX_LVM_BLAS", raising=False)
    assert backend.open_blas().name == "accelerate"


def test_without_a_backend_the_message_names_the_extra() -> None:
    code = "import sys\nsys.modules['mlx.core'] = None\nfrom mlx_lvm.cli.main import main\nsys.argv = ['lvm', 'doctor']\nmain()"
    out = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert out.returncode == 3 and "mlx-lvm[cpu]" in out.stderr and "Traceback" not in out.stderr


def page_faults(**environment: str) -> float:
    """Pages that the kernel had to give for each of five LSTM cells over 1,024 windows, whose results have 2 MB each."""
    code = (
        "import resource\n"
        "from mlx_lvm.core.mlx import mx\n"
        "from mlx_lvm.models.layers import lstm_cell\n"
        "mx.set_default_device(mx.cpu)\n"
        "gates = [mx.random.normal((1024, 512)) for _ in range(5)]; mx.eval(gates)\n"
        "def run():\n    for _ in range(5): mx.eval(lstm_cell(*gates))\n"
        "run(); before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt; run()\n"
        "print((resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before) / 5)"
    )
    out = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True, env=os.environ | environment
    )
    return float(out.stdout)


@linux
@pytest.mark.skipif(not hasattr(ctypes.CDLL(None), "mallopt"), reason="this C library has no mallopt")
def test_freed_memory_is_kept_unless_the_user_said_otherwise() -> None:
    pages = (2 << 20) / os.sysconf("SC_PAGESIZE")  # of one result
    assert page_faults() < 0.5 * pages
    assert page_faults(MALLOC_TRIM_THRESHOLD_="131072") > 2 * pages
