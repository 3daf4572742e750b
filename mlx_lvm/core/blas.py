"""The BLAS of a Linux CPU: which library suits the processor, and how it is opened before MLX.

The Linux CPU wheel of MLX links the reference BLAS, tens of times slower than the machine. The dynamic linker
takes the first `cblas_*` it finds in the global scope, so a better library that is opened before MLX wins.
"""

from __future__ import annotations

import ctypes
import ctypes.util
import glob
import os
import platform
import sys
from dataclasses import dataclass
from importlib.metadata import PackageNotFoundError, distribution
from importlib.util import find_spec

from mlx_lvm.core.memory import process_limits

BUFFER = 128 << 20  # bytes that OpenBLAS takes for each of its threads, and for the thread that calls it
FORTRAN = "libgfortran.so.5"  # the one library that OpenBLAS from pip needs and does not bring


@dataclass(frozen=True)
class Blas:
    """Which BLAS serves MLX. path: the file opened, empty for MLX's own. note: why this one, what failed."""

    name: str
    path: str = ""
    note: str = ""


def open_blas() -> Blas:
    """Opens the best CBLAS into the global scope. Never fails: the note says why MLX keeps its own.

    `MLX_LVM_BLAS=off` switches this off, `MLX_LVM_BLAS=/path/to/lib.so` names the library to open.
    """
    wish = os.environ.get("MLX_LVM_BLAS", "")
    if wish.lower() in ("off", "0", "none"):
        return Blas("mlx", note="switched off by MLX_LVM_BLAS")
    if "mlx.core" in sys.modules:
        return Blas("mlx", note="MLX was imported first; call mlx_lvm.core.linux_cpu.tune() before it")
    # A BLAS thread that spins until the next product takes the core from the thread that prepares it.
    os.environ.setdefault("OPENBLAS_THREAD_TIMEOUT", "17")  # 2^17 cycles, tens of microseconds, for 2^26
    os.environ.setdefault("KMP_BLOCKTIME", "0")  # MKL: no milliseconds in place of 200
    failed = []
    for name, path in [(os.path.basename(wish), wish)] if wish else candidates():
        if name == "openblas" and (cramped := _cramped()):
            failed.append(f"{path}: {cramped}")
            continue
        try:
            _open(path).cblas_sgemm  # noqa: B018 (a BLAS without the C interface would change nothing)
        except (OSError, AttributeError) as error:
            failed.append(f"{path}: {error}")
            continue
        return Blas(name, path, "; ".join(failed))
    return Blas("mlx", note="; ".join(failed) or "no other found")


def candidates() -> list[tuple[str, str]]:
    """(name, path) of libraries worth opening, best first: OpenBLAS where `mkl_holds_back`, MKL elsewhere.

    The system's are looked for only where pip has not brought the best: Python does that with a compiler.
    """
    best = "openblas" if mkl_holds_back() else "mkl"
    found = _of_pip("mkl", "mkl", "libmkl_rt.so")
    # On x86-64 pip's is built for AVX-512 alone: on another processor its first product is an illegal
    # instruction.
    if platform.machine() != "x86_64" or has_avx512():
        found += _of_pip("openblas", "cmeel-openblas", "libopenblas.so.0")
    conda = glob.glob(os.path.join(glob.escape(sys.prefix), "lib", "libmkl_rt.so*"))
    found += [("mkl", path) for path in sorted(conda) if ("mkl", path) not in found]
    if best not in dict(found):
        found += [(name, path) for name in ("mkl", "openblas", "blis") if (path := _of_system(name))]
    # MKL finds its own parts there, and ends the process without it
    if not os.path.exists("/proc/self/maps"):
        found = [pair for pair in found if pair[0] != "mkl"]
    return sorted(found, key=lambda pair: pair[0] != best)


def _cramped() -> str:
    """What keeps OpenBLAS from its buffers, empty where nothing does: without one it ends the process."""
    wished = os.environ.get("OPENBLAS_NUM_THREADS", "")
    threads = int(wished) if wished.isdigit() else len(os.sched_getaffinity(0))
    needed, allowed = (threads + 1) * BUFFER, min(process_limits(), default=0)
    if not allowed or 2 * needed <= allowed:
        return ""
    return (
        f"its buffers take {needed >> 20:,} MB, more than half of the {allowed >> 20:,} MB that a limit of "
        "this process allows: raise it (ulimit -d, ulimit -v), or set OPENBLAS_NUM_THREADS=1"
    )


def _of_pip(name: str, package: str, start: str) -> list[tuple[str, str]]:
    """The files of an installed package whose names begin so, wherever pip has put them."""
    try:
        files = distribution(package).files or []
    except PackageNotFoundError:
        return []
    paths = sorted({os.path.normpath(str(file.locate())) for file in files if file.name.startswith(start)})
    return [(name, path) for path in paths[:1] if os.path.exists(path)]


def _of_system(name: str) -> str | None:
    try:
        return ctypes.util.find_library("mkl_rt" if name == "mkl" else name)
    except OSError:  # it writes a temporary file, and there is no room for one
        return None


def mkl_holds_back() -> bool:
    """Whether this processor has AVX-512 and is not Intel's: which MKL does not use there."""
    return has_avx512() and "GenuineIntel" not in _processor()


def has_avx512() -> bool:
    """Whether this processor has it, as /proc says; without /proc nobody says so."""
    return vectors() == "avx512f"


def vectors() -> str:
    """The processor's widest vectors by their name in g++: avx512f, avx2, or `basic` where /proc has none."""
    flags = _processor().split()
    return next((name for name in ("avx512f", "avx2") if name in flags), "basic")


def _processor() -> str:
    try:
        with open("/proc/cpuinfo") as file:
            return file.read(20_000)
    except OSError:
        return ""


def _open(path: str) -> ctypes.CDLL:
    """Raises OSError where the library, or one that it needs, cannot be opened."""
    try:
        return ctypes.CDLL(path, mode=ctypes.RTLD_GLOBAL)
    except OSError as error:
        if FORTRAN not in str(error) or not lend_fortran():
            raise
        return ctypes.CDLL(path, mode=ctypes.RTLD_GLOBAL)


def lend_fortran() -> bool:
    """Opens MLX's own Fortran runtime under the name that OpenBLAS asks for, and says whether that worked.

    The wheel of MLX's CPU backend holds the library under a name of its own. The linker knows an open library
    by the name in it, so a copy in memory gets the usual one, and no machine needs the system's installed.
    """
    package = find_spec("mlx")
    for folder in (package and package.submodule_search_locations) or []:
        libraries = os.path.join(glob.escape(os.path.dirname(folder)), "mlx_cpu.libs")
        for path in glob.glob(os.path.join(libraries, "libgfortran-*.so.5*")):
            try:
                for needed in glob.glob(os.path.join(libraries, "libquadmath-*.so*")):
                    ctypes.CDLL(needed)
                _open_as(path, FORTRAN)
            except OSError:
                continue
            return True
    return False


def _open_as(path: str, name: str) -> None:
    """Raises OSError without /proc, on a kernel without memfd, and where memory may not be executed."""
    with open(path, "rb") as file:
        library = file.read()
    own = os.path.basename(path).encode() + b"\0"
    with os.fdopen(os.memfd_create(name), "wb") as copy:
        copy.write(library.replace(own, name.encode().ljust(len(own), b"\0")))
        copy.flush()
        ctypes.CDLL(f"/proc/self/fd/{copy.fileno()}")
