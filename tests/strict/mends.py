"""Each mend for Metal and macOS, and the code as it was without it: what the strict run must find."""

from __future__ import annotations

import fcntl
import os
from collections.abc import Callable
from typing import Any

MENDS: dict[str, Callable[[], None]] = {}


def before_mlx(name: str) -> None:
    """What must be taken out before MLX is loaded."""
    if name == "tf32":
        os.environ["MLX_ENABLE_TF32"] = "1"  # as MLX has it where nobody says otherwise


def without(function: Callable[[], None]) -> Callable[[], None]:
    MENDS[function.__name__.replace("_", "-")] = function
    return function


@without
def subnormals() -> None:
    """A chunk is there unless all is exactly zero; the verdict takes every number for one."""
    from mlx_lvm.core.mlx import mx
    from mlx_lvm.models import filter, ramn
    from mlx_lvm.parity import arbiter
    from mlx_lvm.parity.sides import sides
    from mlx_lvm.parity.twins import filter as twin_filter
    from mlx_lvm.parity.twins import ramn as twin_ramn

    def is_chunk(x: mx.array, keepdims: bool = False) -> mx.array:
        return mx.abs(x).max(axis=-1, keepdims=keepdims) != 0

    filter.is_chunk = ramn.is_chunk = is_chunk
    twin_filter.is_chunk = twin_ramn.is_chunk = lambda x: (x != 0).any(dim=-1)
    arbiter.SMALLEST_NORMAL = 5e-324
    sides.flushes_subnormals = lambda device: False


@without
def tf32() -> None:
    """Nobody looks whether products are float32; see `before_mlx`."""
    from mlx_lvm.core import products
    from mlx_lvm.hub import load

    products.choose = load.choose = lambda precision: None


@without
def full_flush() -> None:
    from mlx_lvm.core.files import disk
    from mlx_lvm.data.storage import writer

    def sync(descriptor: int) -> None:
        fcntl.fcntl(descriptor, fcntl.F_FULLFSYNC)  # type: ignore[attr-defined]

    disk.sync = writer.sync = sync


@without
def sliced_input_and_output() -> None:
    from mlx_lvm.core.files import disk

    disk.SLICE = 1 << 60


@without
def open_files() -> None:
    from mlx_lvm.data.storage import reader, writer

    def nothing(*_: Any) -> None:
        pass

    reader.allow_open_files = writer.allow_open_files = nothing


@without
def one_form_of_names() -> None:
    import sys

    from mlx_lvm.data import names

    for module in list(sys.modules.values()):
        if getattr(module, "normal", None) is names.normal and module is not names:
            module.normal = lambda name: name  # type: ignore[attr-defined]
    names.normal = lambda name: name
