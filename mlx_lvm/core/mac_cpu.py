"""A Mac's CPU, which `--device cpu` chooses: MLX compiles its kernels with Apple's Command Line Tools."""

from __future__ import annotations

import subprocess
import sys

from mlx_lvm.core.mlx import mx

REMEDY = "xcode-select --install"


def has_tools() -> bool:
    """Whether `g++` is a compiler there. Not asked of it: without the tools it opens a window to get them."""
    try:
        return subprocess.run(["xcode-select", "-p"], capture_output=True).returncode == 0
    except OSError:
        return False


def use_mac_cpu() -> str:
    """Before a model runs on a Mac's CPU: compile nothing where nothing can be, and say so with the remedy.

    The results are the same, later. Elsewhere, and with the tools, nothing happens and nothing is said.
    """
    if sys.platform != "darwin" or has_tools():
        return ""
    mx.disable_compile()
    return (
        "MLX compiles no kernels on this Mac's CPU, which is slower; Apple's Command Line Tools let it: "
        f"{REMEDY}"
    )
