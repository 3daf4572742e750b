"""How much memory there is on this machine, its container or this process."""

from __future__ import annotations

import os
import resource
from pathlib import Path

# of control groups, version 2 and 1
CONTAINER = ("/sys/fs/cgroup/memory.max", "/sys/fs/cgroup/memory/memory.limit_in_bytes")


def host_memory() -> int:
    """Bytes that the machine has, or that its container or a limit of this process allows: the least."""
    found = [os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES"), *process_limits()]
    for path in CONTAINER:
        try:
            found.append(int(Path(path).read_text()))
        except (OSError, ValueError):  # no such limit, or "max"
            continue
    return min(found)


def process_limits() -> list[int]:
    """Bytes that `ulimit -v` and `ulimit -d` leave this process, of those that are set."""
    limits = [resource.getrlimit(kind)[0] for kind in (resource.RLIMIT_AS, resource.RLIMIT_DATA)]
    return [limit for limit in limits if limit > 0]
