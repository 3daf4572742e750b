"""Each mend for Metal and macOS, and the code as it was without it: what the strict run must find."""

from __future__ import annotations

import fcntl
import os
import sys
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, ExitStack, contextmanager
from typing import Any, NamedTuple
from unittest.mock import patch


class Mend(NamedTuple):
    """out: takes the mend out while it lasts. steps: of `work.py`, the last of which fails then."""

    out: Callable[[], AbstractContextManager[None]]
    steps: tuple[str, ...]


MENDS: dict[str, Mend] = {}


def before_mlx(names: list[str]) -> None:
    """What must be taken out before MLX is loaded, for as long as the process lives."""
    if "tf32" in names:
        os.environ["MLX_ENABLE_TF32"] = "1"  # as MLX has it where nobody says otherwise


def found_in(*steps: str) -> Callable[[Callable[[], Iterator[None]]], None]:
    def add(function: Callable[[], Iterator[None]]) -> None:
        MENDS[function.__name__.replace("_", "-")] = Mend(contextmanager(function), steps)

    return add


@found_in("parity")
def subnormals() -> Iterator[None]:
    """A chunk is there unless all is exactly zero; the verdict takes every number for one."""
    from mlx_lvm.core.mlx import mx
    from mlx_lvm.models import filter, ramn
    from mlx_lvm.parity import arbiter
    from mlx_lvm.parity.sides import sides
    from mlx_lvm.parity.twins import filter as twin_filter
    from mlx_lvm.parity.twins import ramn as twin_ramn

    def is_chunk(x: mx.array, keepdims: bool = False) -> mx.array:
        return mx.abs(x).max(axis=-1, keepdims=keepdims) != 0

    with ExitStack() as stack:
        for model, twin in ((filter, twin_filter), (ramn, twin_ramn)):
            stack.enter_context(patch.object(model, "is_chunk", is_chunk))
            stack.enter_context(patch.object(twin, "is_chunk", lambda x: (x != 0).any(dim=-1)))
        stack.enter_context(patch.object(arbiter, "SMALLEST_NORMAL", 5e-324))
        stack.enter_context(patch.object(sides, "flushes_subnormals", lambda device: False))
        yield


@found_in("corpora", "train")
def tf32() -> Iterator[None]:
    """Nobody looks whether products are float32; see `before_mlx`."""
    from mlx_lvm.core import products
    from mlx_lvm.hub import load

    with patch.object(products, "choose", nothing), patch.object(load, "choose", nothing):
        yield


@found_in("corpora")
def full_flush() -> Iterator[None]:
    from mlx_lvm.core.files import disk
    from mlx_lvm.data.storage import writer

    def sync(descriptor: int) -> None:
        fcntl.fcntl(descriptor, fcntl.F_FULLFSYNC)  # type: ignore[attr-defined]

    with patch.object(disk, "sync", sync), patch.object(writer, "sync", sync):
        yield


@found_in("corpora")
def sliced_input_and_output() -> Iterator[None]:
    from mlx_lvm.core.files import disk

    with patch.object(disk, "SLICE", 1 << 60):
        yield


@found_in("corpora", "shards")
def open_files() -> Iterator[None]:
    from mlx_lvm.data.storage import reader, writer

    with patch.object(reader, "allow_open_files", nothing), patch.object(writer, "allow_open_files", nothing):
        yield


@found_in("corpora", "names")
def one_form_of_names() -> Iterator[None]:
    from mlx_lvm.data import names

    with ExitStack() as stack:
        for module in list(sys.modules.values()):
            if getattr(module, "normal", None) is names.normal and module is not names:
                stack.enter_context(patch.object(module, "normal", lambda name: name))
        stack.enter_context(patch.object(names, "normal", lambda name: name))
        yield


def nothing(*_: Any) -> None:
    pass
