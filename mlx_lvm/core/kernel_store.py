"""Where kernels that MLX compiles on a Linux CPU are kept: in a folder that only this user can write to.

MLX keeps them below the temporary directory under a fixed name, and loads what lies there. On a machine of
several users who makes that folder first would decide what code the others run, and they could not compile.
"""

from __future__ import annotations

import os
import platform
import stat
import tempfile
from dataclasses import dataclass
from pathlib import Path

ROOM = 16 << 20  # bytes that must be free; the kernels of all models take some 3 MB
PLACE = "MLX_LVM_TMPDIR"  # tells child processes what TMPDIR was


@dataclass(frozen=True)
class Store:
    """folder: where kernels lie, empty where there can be none. note: why not, with the remedy."""

    folder: str = ""
    note: str = ""


def open_store(kind: str) -> Store:
    """The user's store for kernels of this kind, made if need be: `plain`, or the processor's widest vectors,
    since theirs run nowhere else. Never fails: the note says why there is none.

    It lies in $XDG_CACHE_HOME or ~/.cache, has mode 0700, and no other user could replace a folder above it.
    """
    cache = os.environ.get("XDG_CACHE_HOME", "")
    if not os.path.isabs(cache):
        cache = os.path.join(os.path.expanduser("~"), ".cache")
    if not os.path.isabs(cache):
        return Store(note="this user has no home folder; set XDG_CACHE_HOME to a folder of your own")
    try:
        folder = os.path.realpath(os.path.join(cache, "mlx-lvm", "kernels", f"{platform.machine()}-{kind}"))
        problem = make_private(folder) or unusable(folder)
    except OSError as error:
        problem = f"{error.filename}: {error.strerror}"
    return Store(note=f"{problem}; set XDG_CACHE_HOME to a folder of your own") if problem else Store(folder)


def make_private(folder: str) -> str:
    """Makes `folder` with mode 0700; says who else could put files there, or nothing where nobody can.

    Every folder on the way must belong to this user or the system's owner, and not be open to everybody
    without the sticky bit of a temporary directory. Raises OSError where it cannot be made or looked at.
    """
    me, trusted = os.geteuid(), {os.geteuid(), 0, os.stat("/").st_uid}
    for part in [*reversed(Path(folder).parents), Path(folder)]:
        if not os.path.lexists(part):
            os.mkdir(part, 0o700)
        found = os.lstat(part)
        if not stat.S_ISDIR(found.st_mode):
            return f"{part} is not a folder"
        if found.st_uid not in trusted:
            return f"{part} belongs to another user"
        if found.st_mode & 0o002 and not found.st_mode & stat.S_ISVTX:
            return f"{part} can be written by everybody"
    if found.st_uid != me:
        return f"{folder} belongs to another user"
    if found.st_mode & 0o022:
        return f"{folder} could be written by others; remove it, or"
    if found.st_mode & 0o077:
        os.chmod(folder, 0o700)
    return ""


def unusable(folder: str) -> str:
    """Why nothing can be kept in `folder`, or loaded from it; empty where it can. Raises OSError likewise."""
    disk = os.statvfs(folder)
    if disk.f_flag & os.ST_NOEXEC:
        return f"{folder} is on a file system mounted noexec"
    if disk.f_bavail * disk.f_frsize < ROOM:
        return f"{folder} has less than {ROOM >> 20} MB of room"
    probe = Path(folder, f"probe-{os.getpid()}")
    try:
        probe.write_bytes(bytes(1 << 16))  # statvfs knows of no quota, nor of file systems mounted to be read
    finally:
        probe.unlink(missing_ok=True)
    return ""


def is_cold(store: Store) -> bool:
    """Whether a store holds no kernel yet: what runs first compiles its own, about one a second and core."""
    return bool(store.folder) and next(Path(store.folder).rglob("*.so"), None) is None


def keep_kernels_in(folder: str) -> None:
    """Has MLX keep its kernels in `folder`, by TMPDIR. Python's `tempfile` stays where it was."""
    before = os.environ.get(PLACE) if os.environ.get("TMPDIR") == folder else None
    if before is None:
        try:
            before = tempfile.gettempdir()
        except FileNotFoundError:  # nowhere to write at all
            before = ""
    if before:
        tempfile.tempdir = before
    os.environ |= {PLACE: before, "TMPDIR": folder}
