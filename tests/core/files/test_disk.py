"""Writing files whole or not at all; and what Darwin and its volumes refuse, emulated."""

import errno
import fcntl
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from mlx_lvm.core.files import disk
from mlx_lvm.core.files.disk import read_at, sync, write_all, write_at, write_atomic
from mlx_lvm.core.mlx import mx
from mlx_lvm.errors import IOFailed
from mlx_lvm.training import checkpoint as checkpoints

FULL = 51  # F_FULLFSYNC in Darwin's <sys/fcntl.h>


def test_a_failed_write_leaves_the_old_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "x"
    path.write_bytes(b"old")

    def fail(*_: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("os.replace", fail)
    with pytest.raises(IOFailed, match="No space left"):
        write_atomic(path, b"new")
    assert path.read_bytes() == b"old" and [p.name for p in tmp_path.iterdir()] == ["x"]


def test_writing_below_a_file_says_why(tmp_path: Path) -> None:
    (tmp_path / "file").write_bytes(b"")
    with pytest.raises(IOFailed, match="cannot be written"):
        write_atomic(tmp_path / "file" / "x", b"new")


class Darwin:
    """fcntl and fsync of a Mac whose volume knows the flushes `known` and refuses the others with
    `refusal`.
    """

    def __init__(self, patch: pytest.MonkeyPatch, known: set[int], refusal: int = errno.ENOTSUP) -> None:
        self.known, self.refusal, self.calls = known, refusal, []
        self.fsync = os.fsync
        patch.setattr(fcntl, "F_FULLFSYNC", FULL, raising=False)
        patch.setattr(fcntl, "fcntl", self.command)
        patch.setattr(os, "fsync", lambda descriptor: (self.calls.append("fsync"), self.fsync(descriptor)))

    def command(self, descriptor: int, command: int) -> int:
        self.calls.append({FULL: "full", disk.F_BARRIERFSYNC: "barrier"}[command])
        if command not in self.known:
            raise OSError(self.refusal, os.strerror(self.refusal))
        return 0


@pytest.mark.parametrize("refusal", [errno.ENOTSUP, errno.EINVAL, errno.ENOTTY])
@pytest.mark.parametrize(
    ("known", "calls"),
    [
        ({FULL, disk.F_BARRIERFSYNC}, ["full"]),
        ({disk.F_BARRIERFSYNC}, ["full", "barrier"]),
        (set(), ["full", "barrier", "fsync"]),
    ],
)
def test_a_volume_without_a_full_flush(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, known: set[int], calls: list[str], refusal: int
) -> None:
    darwin = Darwin(monkeypatch, known, refusal)
    with open(tmp_path / "x", "wb") as file:
        sync(file.fileno())
    assert darwin.calls == calls


def test_a_failing_flush_is_an_error(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A disk that reports an error is not a volume that lacks the call."""
    Darwin(monkeypatch, set(), errno.EIO)
    with pytest.raises(IOFailed, match="Input/output error"):
        write_atomic(tmp_path / "x", b"data")
    assert list(tmp_path.iterdir()) == []


def test_a_checkpoint_flushes_the_disk_itself_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """After every file's own flush, before the rename."""
    darwin, replace = Darwin(monkeypatch, {FULL}), os.replace
    monkeypatch.setattr(os, "replace", lambda *paths: (darwin.calls.append("rename"), replace(*paths)))
    made = checkpoints.Checkpoint({"w": mx.ones(3)}, {"m": mx.ones(3)}, {})
    checkpoints.save(tmp_path, made, "step-00000001", ("LATEST", "BEST"))
    before, after = darwin.calls[: darwin.calls.index("rename")], darwin.calls[darwin.calls.index("rename") :]
    assert before[:4] == ["fsync", "fsync", "fsync", "full"] and darwin.calls.count("full") == 1
    assert after.count("rename") == 3


LIMIT = 1000


def refuse_large(call):  # type: ignore[no-untyped-def]
    """pwrite or preadv as Darwin has it, with LIMIT in the place of 2^31 - 1."""

    def refusing(descriptor, data, position):  # type: ignore[no-untyped-def]
        if (sum(map(len, data)) if isinstance(data, list) else len(data)) > LIMIT:
            raise OSError(errno.EINVAL, "Invalid argument")
        return call(descriptor, data, position)

    return refusing


def test_large_reads_and_writes_go_in_slices(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert disk.SLICE < 2**31
    monkeypatch.setattr(disk, "SLICE", LIMIT)
    monkeypatch.setattr(os, "pwrite", refuse_large(os.pwrite))
    monkeypatch.setattr(os, "preadv", refuse_large(os.preadv))
    data, back = np.arange(2500, dtype=np.uint16), np.zeros(2500, np.uint16)
    with open(tmp_path / "x", "w+b") as file:
        write_at(file.fileno(), data, 7)
        assert read_at(file.fileno(), back, 7) == 5000
        np.testing.assert_array_equal(back, data)
        assert read_at(file.fileno(), back, 5) == 5000 and read_at(file.fileno(), back, 4007) == 1000
    sizes: list[int] = []

    class Recorded:
        def write(self, part: memoryview) -> int:
            sizes.append(len(part))
            return len(part)

    write_all(Recorded(), data.tobytes())  # type: ignore[arg-type]
    assert sizes == [LIMIT] * 5


def test_more_open_files_are_allowed_where_they_may_be() -> None:
    code = (
        "import resource as r",
        "from mlx_lvm.core.files.disk import allow_open_files",
        "from mlx_lvm.errors import SetupInvalid",
        "r.setrlimit(r.RLIMIT_NOFILE, (256, 2000))",
        "allow_open_files(10, 'x')",
        "print(r.getrlimit(r.RLIMIT_NOFILE)[0])",
        "allow_open_files(1000, 'x')",
        "print(r.getrlimit(r.RLIMIT_NOFILE)[0])",
        "try: allow_open_files(5000, 'corpus c')",
        "except SetupInvalid as error: print(error)",
    )
    out = subprocess.run([sys.executable, "-c", "\n".join(code)], capture_output=True, text=True, check=True)
    low, high, refused = out.stdout.splitlines()
    assert int(low) == 256 and int(high) >= 1000 and "corpus c: needs" in refused and "ulimit" in refused
