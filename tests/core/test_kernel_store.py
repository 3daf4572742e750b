"""Compiled kernels lie where only their user can write, and where that cannot be nothing is compiled."""

import os
import stat
import subprocess
import sys
from pathlib import Path

import pytest

from mlx_lvm.core import kernel_store
from mlx_lvm.core.kernel_store import Store, is_cold, make_private, open_store

pytestmark = pytest.mark.skipif(
    sys.platform != "linux", reason="MLX calls a compiler at run time on Linux alone"
)

# What a program sees: the notes, where a kernel went, and that the numbers are right.
CODE = """
import os, sys, tempfile
from pathlib import Path
from mlx_lvm.core.linux_cpu import tune
tuned = tune()
from mlx_lvm.core.mlx import mx
mx.set_default_device(mx.cpu)
double = mx.compile(lambda x: mx.exp(x) * 2 + 1)
assert double(mx.zeros((2000,)))[7].item() == 3
made = [str(file) for file in Path(tuned.kernels.folder).rglob("*.so")] if tuned.kernels.folder else []
print(len(made), tuned.kernels.folder or "-", tempfile.gettempdir(), tuned.kernels.note or "-", sep="|")
"""


def program(*command: str, code: str = CODE, **environment: str | None) -> list[str]:
    """Kernels made, their folder, Python's temporary folder, and the note."""
    told = {k: v for k, v in (os.environ | environment).items() if v is not None and k != kernel_store.PLACE}
    if "TMPDIR" not in environment:
        told.pop("TMPDIR", None)
    out = subprocess.run(
        [*command, sys.executable, "-c", code], capture_output=True, text=True, env=told, timeout=120
    )
    assert out.returncode == 0, out.stderr
    return out.stdout.strip().splitlines()[-1].split("|")


@pytest.fixture
def cache(tmp_path: Path) -> Path:
    folder = tmp_path / "a cache of Zoë"
    folder.mkdir()
    return folder


def test_it_is_private_and_used(cache: Path, tmp_path: Path) -> None:
    made, folder, temporary, note = program(XDG_CACHE_HOME=str(cache), TMPDIR=str(tmp_path))
    assert int(made) == (1 if kernel_compiler() else 0)
    assert note == "-" and temporary == str(tmp_path) and folder.startswith(str(cache))
    assert stat.S_IMODE(os.stat(folder).st_mode) == 0o700
    assert program(XDG_CACHE_HOME=str(cache))[:2] == [made, folder]  # a second process finds the kernel


def kernel_compiler() -> bool:
    return any(
        os.access(os.path.join(folder, "g++"), os.X_OK) and "mlx_lvm" not in folder
        for folder in os.get_exec_path()
    )


def test_a_child_keeps_the_user_s_temporary_folder(cache: Path, tmp_path: Path) -> None:
    code = "from mlx_lvm.core.linux_cpu import tune\ntune()\nimport subprocess, sys\n" + (
        f"print(subprocess.run([sys.executable, '-c', {CODE!r}], capture_output=True, text=True).stdout)"
    )
    _, folder, temporary, _ = program(code=code, XDG_CACHE_HOME=str(cache), TMPDIR=str(tmp_path))
    assert folder.startswith(str(cache)) and temporary == str(tmp_path)


def test_xdg_cache_home_must_be_a_whole_path(monkeypatch: pytest.MonkeyPatch, cache: Path) -> None:
    monkeypatch.setenv("HOME", str(cache))
    monkeypatch.setenv("XDG_CACHE_HOME", "here")
    assert open_store("plain").folder.startswith(f"{cache}/.cache/mlx-lvm/kernels/")


def test_a_user_without_a_home_compiles_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("XDG_CACHE_HOME", raising=False)
    monkeypatch.setattr(
        kernel_store.os.path, "expanduser", lambda path: path
    )  # as without HOME and login name
    found = open_store("avx2")
    assert not found.folder and "no home folder" in found.note and "XDG_CACHE_HOME" in found.note


def test_what_others_may_write_to_is_refused(cache: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(cache))
    folder = Path(open_store("avx2").folder)
    folder.chmod(0o770)
    assert "could be written by others" in open_store("avx2").note
    folder.chmod(0o755)
    assert open_store("avx2").folder and stat.S_IMODE(folder.stat().st_mode) == 0o700
    cache.chmod(0o777)
    assert f"{cache} can be written by everybody" in open_store("avx2").note
    cache.chmod(0o1777)  # as /tmp: nobody renames what is another's
    assert open_store("avx2").folder


def test_what_belongs_to_another_is_refused(cache: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    owner = os.stat(cache).st_uid
    monkeypatch.setattr(kernel_store.os, "geteuid", lambda: owner + 4321)
    if owner:  # the first folder of this user's own on the way is refused
        assert "belongs to another user" in make_private(str(cache))
    else:  # a folder of root's is trusted, but is no store of this user's
        assert f"{cache} belongs to another user" in make_private(str(cache))


def test_a_file_or_a_link_in_the_way(cache: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(cache))
    (cache / "mlx-lvm").write_text("")
    found = open_store("avx2")
    assert not found.folder and "mlx-lvm" in found.note


class Disk:
    f_flag, f_bavail, f_frsize = 0, 1 << 20, 4096


@pytest.mark.parametrize(
    ("field", "value", "said"),
    [("f_flag", os.ST_NOEXEC if sys.platform == "linux" else 0, "noexec"), ("f_bavail", 10, "16 MB")],
)
def test_a_file_system_that_is_of_no_use(
    cache: Path, monkeypatch: pytest.MonkeyPatch, field: str, value: int, said: str
) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(cache))
    monkeypatch.setattr(kernel_store.os, "statvfs", lambda folder: type("Odd", (Disk,), {field: value}))
    assert said in open_store("avx2").note


def test_without_a_store_nothing_is_compiled(cache: Path, tmp_path: Path) -> None:
    cache.chmod(0o777)
    made, folder, _, note = program(XDG_CACHE_HOME=str(cache), TMPDIR=str(tmp_path))
    assert (made, folder) == ("0", "-") and "everybody" in note
    assert not list(tmp_path.rglob("*.cpp")), "MLX compiled into its own folder after all"


def test_nowhere_to_write_temporary_files(cache: Path) -> None:
    """MLX's kernels need no room in /tmp."""
    code = (
        "import tempfile\ndef none(): raise FileNotFoundError\ntempfile.gettempdir = none\n"
        + CODE.replace("tempfile.gettempdir()", "'-'")
    )
    assert program(code=code, XDG_CACHE_HOME=str(cache))[3] == "-"


def test_a_store_is_cold_until_it_holds_a_kernel(tmp_path: Path) -> None:
    store = Store(str(tmp_path))
    assert is_cold(store) and not is_cold(Store())
    (tmp_path / "mlx/1/cpu").mkdir(parents=True)
    (tmp_path / "mlx/1/cpu/kernel.cpp").write_text("")
    assert is_cold(store)
    (tmp_path / "mlx/1/cpu/kernel.so").write_text("")
    assert not is_cold(store)
