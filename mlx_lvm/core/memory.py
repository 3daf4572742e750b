"""How much memory there is on this machine, its container or this process."""

from __future__ import annotations

import os
import resource
from pathlib import Path

# of control groups, version 2 and 1
CONTAINER = ("/sys/fs/cgroup/memory.max", "/sys/fs/cgroup/memory/memory.limit_in_bytes")


def host_memory() -> int:
    """Bytes that the machine has, or that its container or a limit of this process allows, whichever is
    least.
    """
    found = [os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")]
    found += [
        limit
        for kind in (resource.RLIMIT_AS, resource.RLIMIT_DATA)
        if (limit := resource.getrlimit(kind)[0]) > 0
    ]
    for path in CONTAINER:
        try:
            found.append(int(Path(path).read_text()))
        except (OSError, ValueError):  # no such limit, or "max"
            continue
    return min(found)
