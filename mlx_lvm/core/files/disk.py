"""Files that a reader sees as they were or as they shall be; and what systems refuse of large or many files.

write_atomic   a whole file under a temporary name, flushed to the disk, then renamed
sync           to the disk itself, as far as the volume allows
read_at, write_at, write_all   any number of bytes: Darwin refuses more than 2^31 - 1 in one call
allow_open_files   a higher soft limit of open files, where a corpus of many shards needs it (256 on macOS)
"""

from __future__ import annotations

import errno
import hashlib
import json
import os
from contextlib import suppress
from pathlib import Path
from typing import IO, Any

import numpy as np

from mlx_lvm.errors import InvalidFile, IOFailed, SetupInvalid, reason

SLICE = 1 << 30  # bytes of one read or write; Darwin answers EINVAL above 2^31 - 1
F_BARRIERFSYNC = 85  # Darwin's <sys/fcntl.h>; Python's fcntl does not name it
NOT_OF_THIS_VOLUME = (errno.ENOTSUP, errno.EOPNOTSUPP, errno.EINVAL, errno.ENOTTY)  # SMB, NTFS, FUSE
SPARE_FILES = 64  # open files that a process has besides those asked for


def sha256(data: bytes | np.ndarray) -> str:
    return hashlib.sha256(data if isinstance(data, bytes) else np.ascontiguousarray(data).data).hexdigest()


def file_sha256(path: Path) -> str:
    """The same of a file, read in blocks."""
    found = hashlib.sha256()
    with open(path, "rb") as file:
        while block := file.read(1 << 22):
            found.update(block)
    return found.hexdigest()


def write_atomic(path: str | Path, data: bytes, *, full: bool = True) -> None:
    """Write a whole file or nothing: a temporary name next to it, flush, `os.replace`, flush of the folder.

    full=False leaves out the flush of the drive's own cache on macOS (see `sync`), for what may be lost in a
    power cut. Raises IOFailed naming the cause; the file that was there before is untouched then.
    """
    path = Path(path)
    temporary = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        write_flushed(temporary, data, full=full)
        os.replace(temporary, path)
        sync_folder(path.parent)
    except OSError as error:
        with suppress(OSError):
            temporary.unlink()
        raise IOFailed(f"{path}: cannot be written ({reason(error)})") from error


def write_flushed(path: Path, data: bytes, *, full: bool = False) -> None:
    """Write a file and flush it: to the drive, with `full` to the disk itself. Raises OSError."""
    with open(path, "wb") as file:
        write_all(file, data)
        file.flush()
        if full:
            sync(file.fileno())
        else:
            os.fsync(file.fileno())


def write_all(file: IO[bytes], data: bytes) -> None:
    """Write any number of bytes to an open file."""
    view = memoryview(data)
    for start in range(0, len(view), SLICE):
        file.write(view[start : start + SLICE])


def write_at(descriptor: int, data: np.ndarray, position: int) -> None:
    """Write an array's bytes at a place of a file. Raises OSError."""
    view = np.ascontiguousarray(data).reshape(-1).view(np.uint8).data
    while len(view):
        written = os.pwrite(descriptor, view[:SLICE], position)
        view, position = view[written:], position + written


def read_at(descriptor: int, into: np.ndarray, position: int) -> int:
    """Fill a contiguous array with a file's bytes from a place on; fewer than it holds where the file ends.

    Returns how many there were. Raises OSError.
    """
    view = into.reshape(-1).view(np.uint8).data
    done = 0
    while done < len(view):
        got = os.preadv(descriptor, [view[done : done + SLICE]], position + done)
        if not got:
            break
        done += got
    return done


def sync(descriptor: int) -> None:
    """To the disk itself: macOS's fsync stops at the drive's cache; F_FULLFSYNC flushes all that was written
    to the drive before it. Volumes that know no such call (SMB, NTFS, FUSE): F_BARRIERFSYNC, then fsync.
    """
    import fcntl

    full = getattr(fcntl, "F_FULLFSYNC", None)
    for command in (full, F_BARRIERFSYNC) if full is not None else ():
        try:
            fcntl.fcntl(descriptor, command)
            return
        except OSError as error:
            if error.errno not in NOT_OF_THIS_VOLUME:
                raise
    os.fsync(descriptor)


def sync_folder(folder: Path) -> None:
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def allow_open_files(count: int, what: str) -> None:
    """Raise the soft limit where it leaves no room for `count` more open files, which `what` needs.

    Raises SetupInvalid naming `what` where the system allows no more.
    """
    import resource

    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    needed = count + SPARE_FILES
    if soft == resource.RLIM_INFINITY or soft >= needed:
        return
    try:
        if hard != resource.RLIM_INFINITY and needed > hard:
            raise ValueError
        resource.setrlimit(resource.RLIMIT_NOFILE, (needed, hard))
    except (ValueError, OSError):  # above the hard limit, or above what the kernel allows
        raise SetupInvalid(
            f"{what}: needs {needed:,} open files, this process may have {soft:,}. "
            f"`ulimit -n {needed}` allows more; or use fewer, larger shards (lvm data subset --shard-size)."
        ) from None


def write_json(path: str | Path, value: Any) -> None:
    write_atomic(path, (json.dumps(value, indent=2, ensure_ascii=False, sort_keys=True) + "\n").encode())


def read_json(path: str | Path) -> Any:
    """Raises InvalidFile where the file is missing or is not JSON."""
    try:
        return json.loads(Path(path).read_text("utf-8"))
    except FileNotFoundError:
        raise InvalidFile(f"{path}: no such file") from None
    except (ValueError, RecursionError) as error:
        raise InvalidFile(f"{path}: not valid JSON ({error})") from None
    except OSError as error:
        raise IOFailed(f"{path}: cannot be read ({reason(error)})") from error
