"""How much memory there is, so that what does not fit is streamed or sampled, and no process ends."""

from __future__ import annotations

from mlx_lvm.core.memory import host_memory
from mlx_lvm.core.mlx import mx

KEPT_PART = 4  # one part in so many of the allowed memory may hold freed arrays


def machine_memory() -> int:
    """Bytes that the machine has, or that its container or its GPU allows, whichever is least."""
    size = mx.device_info().get("memory_size")
    return min(host_memory(), size) if isinstance(size, int) and size > 0 else host_memory()


def roomy() -> int:
    """Bytes that one corpus may take where nobody says: half of the machine's, in one array of its device."""
    return min(machine_memory() // 2, largest_array())


def largest_array() -> int:
    """Bytes of the largest array that the device holds: a part of its memory, 3.8 GB on a small Mac."""
    found = mx.device_info().get("max_buffer_length")
    return found if isinstance(found, int) and found > 0 else 1 << 60


def bound_cache(allowed: int | None = None) -> int:
    """Let MLX keep at most so many bytes of freed arrays for the next ones; the limit is returned.

    Metal would keep nearly all of the machine's memory. A quarter of what may be used, be that `allowed`
    (`--memory`) or a half of the machine's, is many times the arrays of a step. What is in use has no bound.
    """
    limit = (machine_memory() // 2 if allowed is None else allowed) // KEPT_PART
    mx.set_cache_limit(limit)
    return limit
