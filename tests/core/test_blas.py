"""The fast BLAS: found, opened, completed, switched off, and never a reason to fail."""

import ctypes
import os
import subprocess
import sys
from pathlib import Path

import pytest

from mlx_lvm.bench import doctor
from mlx_lvm.core import blas
from mlx_lvm.core.blas import Blas
from mlx_lvm.core.linux_cpu import Tuning

linux = pytest.mark.skipif(sys.platform != "linux", reason="macOS has Accelerate")
WHEEL = [path for name, path in blas.candidates() if "cmeel" in path] if sys.platform == "linux" else []


def blas_of(before: str = "", **environment: str) -> list[str]:
    """Name, path and note in a process of its own, in which a product of MLX is right."""
    code = f"""
import ctypes, sys
from mlx_lvm.core import blas, linux_cpu
{before}
found = linux_cpu.tune().blas
from mlx_lvm.core.mlx import mx
print(found.name, found.path or '-', found.note or '-', sep='|')
print((mx.ones((64, 64)) @ mx.ones((64, 64)))[3, 5].item())
"""
    out = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, env=os.environ | environment
    )
    assert out.returncode == 0, out.stderr
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
@pytest.mark.skipif(not blas.candidates(), reason="no BLAS here: pip install 'mlx-lvm[cpu]' brings two")
def test_the_first_candidate_that_opens_is_taken(tmp_path: Path) -> None:
    """One that cannot be opened is passed over and named; of the rest each comes before those behind it."""
    broken = tmp_path / "libopenblas.so.0"
    broken.write_bytes(b"no library")
    prepended = f"real = blas.candidates; blas.candidates = lambda: [('openblas', {str(broken)!r}), *real()]"
    name, path, note = blas_of(prepended)
    assert str(broken) in note
    opened = [found for found in blas.candidates() if found == (name, path)]
    assert opened, (name, path)
    passed_over = blas.candidates()[: blas.candidates().index(opened[0])]
    assert all(file in note for _, file in passed_over)


@linux
@pytest.mark.skipif(
    not WHEEL,
    reason="no OpenBLAS from pip here (pip install cmeel-openblas), or no AVX-512, for which it is built",
)
def test_openblas_of_pip_needs_nothing_of_the_system() -> None:
    """Also where the system has no Fortran library: MLX's own is lent to it. Where that fails too, another
    BLAS serves.
    """
    without = f"""
real, lent = ctypes.CDLL, []
def open_without(path=None, *rest, **options):
    if path == {WHEEL[0]!r} and not lent:
        raise OSError("libgfortran.so.5: cannot open shared object file")
    if "/proc/self/fd/" in str(path):
        library = real(path, *rest, **options)
        lent.append(open("/proc/self/maps").read())
        return library
    return real(path, *rest, **options)
ctypes.CDLL = open_without
blas.candidates = lambda: [("openblas", {WHEEL[0]!r})]
"""
    check = (
        "\nimport atexit; atexit.register(lambda: sys.exit(0) if 'memfd:libgfortran.so.5' in lent[0] else "
        "print('not lent'))"
    )
    assert blas_of(without + check) == ["openblas", WHEEL[0], "-"]
    name, _, note = blas_of(without + "\nblas.find_spec = lambda name: None")
    assert name == "mlx" and "libgfortran.so.5" in note


@linux
@pytest.mark.parametrize(("threads", "said"), [("4", "its buffers take 640 MB"), ("3", "cannot open shared")])
def test_openblas_is_passed_over_where_it_would_end_the_process(threads: str, said: str) -> None:
    """It does so where a limit leaves it no room for its buffers, 128 MB for each thread and the caller."""
    limited = (
        "import resource; resource.setrlimit(resource.RLIMIT_DATA, (1 << 30, 1 << 30))\n"
        "blas.candidates = lambda: [('openblas', '/there/libopenblas.so.0')]"
    )
    name, _, note = blas_of(limited, OPENBLAS_NUM_THREADS=threads)
    assert name == "mlx" and said in note


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
    monkeypatch.setattr(blas, "_of_pip", lambda name, *rest: [(name, f"/there/{name}")])
    assert blas.candidates()[0][0] == first
    monkeypatch.setattr(blas, "_of_pip", lambda name, *rest: [])
    monkeypatch.setattr(blas.glob, "glob", lambda pattern: [])
    monkeypatch.setattr(blas.ctypes.util, "find_library", lambda name: f"lib{name}.so")
    assert blas.candidates()[0][0] == first  # of the system


@linux
@pytest.mark.parametrize(
    ("machine", "flags", "taken"),
    [("x86_64", "fpu avx2", False), ("x86_64", "fpu avx512f", True), ("aarch64", "asimd", True)],
)
def test_openblas_of_pip_is_left_alone_where_it_would_be_an_illegal_instruction(
    monkeypatch: pytest.MonkeyPatch, machine: str, flags: str, taken: bool
) -> None:
    """Its wheel for x86-64 is built for AVX-512 and for nothing else."""
    monkeypatch.setattr(blas.platform, "machine", lambda: machine)
    monkeypatch.setattr(blas, "_processor", lambda: f"vendor_id : AuthenticAMD\nflags : {flags}\n")
    monkeypatch.setattr(blas, "_of_pip", lambda name, *rest: [(name, f"/there/{name}")])
    assert (("openblas", "/there/openblas") in blas.candidates()) == taken


@linux
def test_no_room_for_the_temporary_file_that_python_looks_for_libraries_with(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    def full(name: str) -> None:
        raise FileNotFoundError(28, "no usable temporary directory")

    monkeypatch.setattr(blas, "_of_pip", lambda name, *rest: [])
    monkeypatch.setattr(blas.glob, "glob", lambda pattern: [])
    monkeypatch.setattr(blas.ctypes.util, "find_library", full)
    assert blas.candidates() == []


def test_without_proc_mkl_stays_first(monkeypatch: pytest.MonkeyPatch) -> None:
    import builtins

    def missing(path: str, *rest: object) -> None:
        raise FileNotFoundError(path)

    monkeypatch.setattr(builtins, "open", missing)
    assert not blas.mkl_holds_back()


@linux
@pytest.mark.parametrize(
    ("found", "held_back", "remedy"),
    [
        (Blas("mkl", "/there/libmkl_rt.so.3"), True, "pip install cmeel-openblas"),
        (Blas("mkl", "/there/libmkl_rt.so.3"), False, ""),
        (Blas("mkl", "/there/mkl", "/there/libopenblas.so.0: its buffers take 384 MB"), True, ""),
        (
            Blas("mkl", "/there/mkl", "openblas: libgfortran.so.5: no such file"),
            True,
            "apt-get install libgfortran5",
        ),
    ],
)
def test_doctor_names_what_brings_the_faster_library(
    monkeypatch: pytest.MonkeyPatch, found: Blas, held_back: bool, remedy: str
) -> None:
    monkeypatch.setattr(doctor, "tuning", lambda: Tuning(found))
    monkeypatch.setattr(doctor, "mkl_holds_back", lambda: held_back)
    said = doctor._blas().remedy
    assert remedy in said if remedy else not said


def test_ctypes_is_as_it_was() -> None:
    """The tests above replace it in processes of their own."""
    assert isinstance(ctypes.CDLL(None), ctypes.CDLL)


def test_mkl_is_left_alone_without_proc(monkeypatch: pytest.MonkeyPatch) -> None:
    """It ends the process at its first product there: "Cannot load <mkl-loader>"."""
    monkeypatch.setattr(blas, "_of_pip", lambda name, package, start: [(name, f"/{start}")])
    monkeypatch.setattr(blas, "has_avx512", lambda: True)
    exists = os.path.exists
    monkeypatch.setattr(blas.os.path, "exists", lambda path: path != "/proc/self/maps" and exists(path))
    assert set(dict(blas.candidates())) <= {"openblas", "blis"} and "openblas" in dict(blas.candidates())
