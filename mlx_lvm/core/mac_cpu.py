"""A Mac's CPU, which `--device cpu` chooses: MLX compiles its kernels with Apple's Command Line Tools, where
they are installed.
"""

from __future__ import annotations

import subprocess
import sys

from mlx_lvm.core.mlx import mx

REMEDY = "xcode-select --install"


def has_tools() -> bool:
    """Whether `g++` is a compiler there. Without the tools it opens a window that asks to install them, so
    this asks otherwise.
    """
    try:
        return subprocess.run(["xcode-select", "-p"], capture_output=True).returncode == 0
    except OSError:
        return False


def use_mac_cpu() -> str:
    """Before a model runs on the CPU of a Mac: compiles nothing where nothing can be compiled, and says so
    with the remedy.

    The results are the same, later. Elsewhere, and where the tools are installed, nothing happens and nothing
    is said.
    """
    if sys.platform != "darwin" or has_tools():
        return ""
    mx.disable_compile()
    return (
        "MLX compiles no kernels on this Mac's CPU, which is slower; Apple's Command Line Tools let it: "
        f"{REMEDY}"
    )
