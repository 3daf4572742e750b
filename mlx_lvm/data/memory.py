"""How much memory there is, so that what does not fit is streamed or sampled instead of ending the process."""

from __future__ import annotations

import os
from pathlib import Path

from mlx_lvm.core.mlx import mx

CONTAINER = (
    "/sys/fs/cgroup/memory.max",
    "/sys/fs/cgroup/memory/memory.limit_in_bytes",
)  # of control groups, version 2 and 1


def machine_memory() -> int:
    """Bytes that the machine has, or that its container or its GPU allows, whichever is least."""
    found = [os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")]
    for path in CONTAINER:
        try:
            found.append(int(Path(path).read_text()))
        except (OSError, ValueError):  # no such limit, or "max"
            continue
    size = mx.device_info().get("memory_size")
    if isinstance(size, int) and size > 0:
        found.append(size)
    return min(found)


def roomy() -> int:
    """Bytes that one corpus may take where nobody says: half of the machine's, for it is copied and worked with."""
    return machine_memory() // 2
