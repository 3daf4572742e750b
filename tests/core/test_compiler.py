"""Kernels for a CPU: the same numbers to the bit from wider vectors, and a compiler that is the real one for
everything else.
"""

import os
import platform
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from mlx_lvm.core.blas import vectors
from mlx_lvm.core.linux_cpu import COMPILER, compile_wide
from mlx_lvm.core.mlx import mx

REAL = os.pathsep.join(folder for folder in os.environ["PATH"].split(os.pathsep) if folder != COMPILER)
pytestmark = pytest.mark.skipif(
    sys.platform != "linux" or shutil.which("g++", path=REAL) is None,
    reason="kernels are made with g++ on Linux alone (Debian: apt-get install g++)",
)
AS_MLX = ["-std=c++17", "-O3", "-Wall", "-fPIC", "-shared"]

# A kernel whose results take their operands' memory, with a root, a choice, and a product and a sum that must
# not become one rounding.
CODE = """
import hashlib
import numpy as np
from mlx_lvm.core.linux_cpu import tune; tune()
from mlx_lvm.core.mlx import mx

mx.set_default_device(mx.cpu)

@mx.compile
def step(p, g):
    return p * 0.9371 - g / (mx.sqrt(mx.abs(p)) + 1e-3), mx.where(g < 0, p * 0.3 + g, g * 1.01)

p, g = (mx.array(np.random.default_rng(k).standard_normal(1003).astype(np.float32)) for k in range(2))
for _ in range(20):
    p, g = step(p, g)
    mx.eval(p, g)
print(hashlib.sha256(np.array(p).tobytes() + np.array(g).tobytes()).hexdigest())
"""


def made(folder: Path, **environment: str) -> tuple[str, list[bytes]]:
    """What the code prints with an empty store of kernels, and the kernels."""
    folder.mkdir()
    told = os.environ | {"XDG_CACHE_HOME": str(folder)} | environment
    out = subprocess.run([sys.executable, "-c", CODE], capture_output=True, text=True, check=True, env=told)
    return out.stdout.strip(), [path.read_bytes() for path in folder.rglob("*.so")]


@pytest.mark.slow
def test_wide_kernels_give_the_same_bits(tmp_path: Path) -> None:
    plain, wide = made(tmp_path / "plain", MLX_LVM_KERNELS="off", PATH=REAL), made(tmp_path / "wide")
    assert len(plain[0]) == 64 and plain[0] == wide[0]
    assert len(plain[1]) == len(wide[1]) > 0
    (store,) = (tmp_path / "wide").glob("mlx-lvm/kernels/*")
    assert store.name == f"{platform.machine()}-{vectors()}"
    if vectors() != "basic":
        assert not set(plain[1]) & set(wide[1])


@pytest.mark.parametrize(
    ("store", "width"), [("x86_64-avx512f", "avx512f"), ("x86_64-avx2", "avx2"), ("x86_64-basic", "")]
)
def test_a_kernel_is_as_wide_as_its_store_says(store: str, width: str, tmp_path: Path) -> None:
    folder = tmp_path / store / "mlx"
    folder.mkdir(parents=True)
    (tmp_path / "g++").write_text(
        f'#!/bin/sh\ncase "$*" in *"c++ -"*) cat >{tmp_path}/read;; esac\n'
        'for word; do [ "$before" = -o ] && : >"$word"; before=$word; done\n'
    )
    (tmp_path / "g++").chmod(0o755)
    (folder / "a.cpp").write_text("void f(float* x) {\n  for (size_t i = 0; i < 8; ++i) { x[i] += 1; }\n}\n")
    out = gxx([*AS_MLX, str(folder / "a.cpp"), "-o", str(folder / "a.so")], f"{COMPILER}:{tmp_path}:{REAL}")
    assert out.returncode == 0, out.stderr
    attribute = f'__attribute__((target("{width}"))) ' if width else ""
    first, second, *_ = (tmp_path / "read").read_text().splitlines()
    assert first == f"{attribute}void f(float* x) {{" and second == "#pragma GCC ivdep"


def kernels(folder: Path, count: int, flags: list[str], path: str = f"{COMPILER}:{REAL}") -> None:
    """`count` kernels, made one after the other as MLX has them made."""
    for k in range(count):
        source = folder / f"k{k}.cpp"
        source.write_text(
            '#include "mlx/backend/cpu/compiled_preamble.h"\nusing namespace mlx::core::detail;\n'
            'extern "C" {\n'
            f"void f{k}(float* x, size_t n) {{\n"
            "  for (size_t i = 0; i < n; ++i) { x[i] = Sin()(x[i]); }\n}\n}\n"
        )
        out = gxx([*AS_MLX, *flags, str(source), "-o", str(source.with_suffix(".so"))], path)
        assert out.returncode == 0, out.stderr


@pytest.mark.slow
def test_the_first_kernel_of_a_store_makes_the_header(tmp_path: Path) -> None:
    """Kernels are the same bytes with and without it, one of another compiler harms nothing."""
    flags = ["-I", f"{os.path.dirname(mx.__file__)}/include"]
    kernels(tmp_path, 1, flags)
    (header,) = tmp_path.rglob("*.gch")
    with_it = (tmp_path / "k0.so").read_bytes()
    header.write_bytes(b"of another g++")
    kernels(tmp_path, 1, flags)
    assert (tmp_path / "k0.so").read_bytes() == with_it
    assert header.read_bytes() == b"of another g++"


@pytest.mark.slow
def test_a_header_that_cannot_be_made_is_tried_once(tmp_path: Path) -> None:
    (tmp_path / "headers/mlx/backend/cpu").mkdir(parents=True)
    preamble = tmp_path / "headers/mlx/backend/cpu/compiled_preamble.h"
    preamble.write_text(
        "#include <cstddef>\nnamespace mlx::core::detail {\n"
        "struct Sin { float operator()(float x) { return x; } };\n}\n"
    )
    real = shutil.which("g++", path=REAL)
    (tmp_path / "g++").write_text(
        f'#!/bin/sh\ncase "$*" in *c++-header*) echo header >>{tmp_path}/tries; exit 1;;\n'
        f"*errno*) echo adapted >>{tmp_path}/tries;; esac\n"
        f'exec {real} "$@"\n'
    )
    (tmp_path / "g++").chmod(0o755)
    folder = tmp_path / "store"
    folder.mkdir()
    for _ in range(2):
        kernels(folder, 1, ["-I", str(tmp_path / "headers")], path=f"{COMPILER}:{tmp_path}:{REAL}")
    assert (tmp_path / "tries").read_text() == "header\nadapted\nadapted\n"


def gxx(arguments: list[str], path: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [f"{COMPILER}/g++", *arguments], capture_output=True, text=True, env={"PATH": path}, timeout=60
    )


@pytest.mark.parametrize(
    "path", [REAL, f"{COMPILER}:{REAL}", f"{REAL.split(':')[0]}:{COMPILER}:{REAL}:{COMPILER}"]
)
def test_another_call_goes_to_the_real_compiler_as_it_came(path: str) -> None:
    real = subprocess.run(["g++", "--version"], capture_output=True, text=True, env={"PATH": REAL})
    assert gxx(["--version"], path).stdout == real.stdout != ""


def test_arguments_arrive_whole(tmp_path: Path) -> None:
    """Spaces and all; and other flags than MLX's bring none of ours."""
    (tmp_path / "g++").write_text('#!/bin/sh\nfor word; do echo "<$word>"; done\n')
    (tmp_path / "g++").chmod(0o755)
    path = f"{COMPILER}:{tmp_path}:{REAL}"
    other = ["-O2", "a file.cpp", "-o", "b"]
    assert gxx(other, path).stdout.splitlines() == [f"<{word}>" for word in other]


def test_a_kernel_that_does_not_compile_so_compiles_as_it_came(tmp_path: Path) -> None:
    real = shutil.which("g++", path=REAL)
    (tmp_path / "g++").write_text(f'#!/bin/sh\ncase "$*" in *errno*) exit 1;; esac\nexec {real} "$@"\n')
    (tmp_path / "g++").chmod(0o755)
    source, kernel = tmp_path / "a kernel.cpp", tmp_path / "a kernel.so"
    source.write_text(
        'extern "C" {\nvoid f(float* x, unsigned long size) {\n  for (unsigned long i = 0; i < size; ++i) { '
        "x[i] += 1; }\n}\n}\n"
    )
    out = gxx([*AS_MLX, str(source), "-o", str(kernel)], f"{COMPILER}:{tmp_path}:{REAL}")
    assert (out.returncode, kernel.exists()) == (0, True), out.stderr


def test_a_kernel_s_name_may_be_as_long_as_names_can_be(tmp_path: Path) -> None:
    """MLX 0.32.3 names a kernel after all that it computes."""
    source, kernel = tmp_path / "a.cpp", tmp_path / f"lib{'k' * 249}.so"
    source.write_text("void f() {}\n")
    out = gxx([*AS_MLX, str(source), "-o", str(kernel)], f"{COMPILER}:{REAL}")
    assert out.returncode == 0 and kernel.exists(), out.stderr


def test_a_kernel_with_an_error_fails_with_the_compiler_s_words(tmp_path: Path) -> None:
    (tmp_path / "bad.cpp").write_text("void f() { nonsense }\n")
    out = gxx([*AS_MLX, str(tmp_path / "bad.cpp"), "-o", str(tmp_path / "bad.so")], f"{COMPILER}:{REAL}")
    assert out.returncode != 0 and "nonsense" in out.stderr


def test_where_there_is_no_compiler_there_is_none(tmp_path: Path) -> None:
    (tmp_path / "sed").symlink_to(str(shutil.which("sed")))
    assert gxx(["--version"], f"{COMPILER}:{tmp_path}").returncode == 127


def test_it_is_on_path_once_and_can_be_switched_off(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", REAL)
    monkeypatch.delenv("MLX_LVM_KERNELS", raising=False)
    assert compile_wide() and compile_wide()
    assert os.environ["PATH"] == f"{COMPILER}:{REAL}"
    monkeypatch.setenv("PATH", REAL)
    monkeypatch.setenv("MLX_LVM_KERNELS", "off")
    assert not compile_wide() and os.environ["PATH"] == REAL
