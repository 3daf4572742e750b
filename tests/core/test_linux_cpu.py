"""Importing changes nothing of the process; `tune()` does, once; and freed memory is kept for the next
array.
"""

import ctypes
import os
import platform
import subprocess
import sys

import pytest

from mlx_lvm.core import linux_cpu, mac_cpu
from mlx_lvm.core.linux_cpu import tune, tuning
from mlx_lvm.core.mlx import mx

linux = pytest.mark.skipif(sys.platform != "linux", reason="for a Linux CPU alone")


def python(code: str, **environment: str) -> str:
    out = subprocess.run(
        [sys.executable, "-c", code],
        capture_output=True,
        text=True,
        env=os.environ | environment,
        timeout=120,
    )
    assert out.returncode == 0, out.stderr
    return out.stdout.strip()


def test_importing_changes_nothing_of_the_process() -> None:
    code = """
import os
os.environ["MLX_ENABLE_TF32"] = "0"
before = dict(os.environ)
from mlx_lvm.core import mlx, linux_cpu, activations
import mlx_lvm.models, mlx_lvm.data.corpus
print(os.environ == before, linux_cpu._tuning)
if os.path.exists("/proc/self/maps"):
    maps = open("/proc/self/maps").read()
    print("libmkl_rt" in maps or "libopenblas" in maps)
"""
    assert python(code).split() == ["True", "None", *(["False"] if os.path.exists("/proc/self/maps") else [])]


@linux
def test_tuning_is_done_once() -> None:
    assert tune() is tune() is tuning()


def test_untuned_says_so(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(linux_cpu, "_tuning", None)
    for name, blas in (("linux", "mlx"), ("darwin", "accelerate"), ("other", "mlx")):
        monkeypatch.setattr(linux_cpu.sys, "platform", name)
        assert tuning().blas.name == blas and not tuning().kept and not tuning().wide


def test_nothing_happens_on_macos(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(linux_cpu, "_tuning", None)
    monkeypatch.setattr(linux_cpu.sys, "platform", "darwin")
    before = dict(os.environ)
    assert tune().blas.name == "accelerate" and os.environ == before


@linux
def test_mlx_that_was_there_first_is_said() -> None:
    said = python("import mlx.core\nfrom mlx_lvm.core.linux_cpu import tune\nprint(tune().blas.note)")
    assert "MLX was imported first" in said


def test_without_a_backend_the_message_names_the_extra() -> None:
    code = (
        "import sys\nsys.modules['mlx.core'] = None\nfrom mlx_lvm.cli.main import main\nsys.argv = ['lvm', "
        "'doctor']\nmain()"
    )
    out = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert out.returncode == 3 and "mlx-lvm[cpu]" in out.stderr and "Traceback" not in out.stderr


def page_faults(**environment: str) -> float:
    """Pages that the kernel had to give for each of five LSTM cells over 1,024 windows, whose results have 2
    MB each.
    """
    code = (
        "import resource\n"
        "from mlx_lvm.core.linux_cpu import tune; tune()\n"
        "from mlx_lvm.core.mlx import mx\n"
        "from mlx_lvm.models.layers import lstm_cell\n"
        "mx.set_default_device(mx.cpu)\n"
        "gates = [mx.random.normal((1024, 512)) for _ in range(5)]; mx.eval(gates)\n"
        "def run():\n    for _ in range(5): mx.eval(lstm_cell(*gates))\n"
        "run(); before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt; run()\n"
        "print((resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before) / 5)"
    )
    return float(python(code, **environment))


@linux
@pytest.mark.skipif(
    not hasattr(ctypes.CDLL(None), "mallopt"), reason="this C library has no mallopt: glibc has"
)
def test_freed_memory_is_kept_unless_the_user_said_otherwise() -> None:
    pages = (2 << 20) / os.sysconf("SC_PAGESIZE")  # of one result
    assert page_faults() < 0.5 * pages
    assert page_faults(MALLOC_TRIM_THRESHOLD_="131072") > 2 * pages


@linux
def test_a_small_machine_keeps_less(monkeypatch: pytest.MonkeyPatch) -> None:
    """A quarter of what a container or a limit of the process allows, where that is less than usual."""
    code = (
        "import resource\nresource.setrlimit(resource.RLIMIT_DATA, (512 << 20, 512 << 20))\n"
        "from mlx_lvm.core.linux_cpu import tune\nprint(tune().kept)"
    )
    assert int(python(code)) == 128 << 20


@pytest.mark.parametrize(("tools", "compiles"), [(True, True), (False, False)])
def test_the_cpu_of_a_mac_without_command_line_tools(
    monkeypatch: pytest.MonkeyPatch, tools: bool, compiles: bool
) -> None:
    disabled = []
    monkeypatch.setattr(mac_cpu.sys, "platform", "darwin")
    monkeypatch.setattr(mac_cpu, "has_tools", lambda: tools)
    monkeypatch.setattr(mx, "disable_compile", lambda: disabled.append(True))
    note = mac_cpu.use_mac_cpu()
    assert bool(disabled) != compiles and ("xcode-select --install" in note) != compiles


def test_asking_for_the_tools_fails_nowhere() -> None:
    if platform.system() == "Linux":
        assert not mac_cpu.has_tools() and mac_cpu.use_mac_cpu() == ""


def test_functions_of_ours_are_for_linux_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    from mlx_lvm.core import activations

    monkeypatch.setattr(activations, "on_cpu", lambda: True)
    many = mx.zeros((activations.MANY,))
    for here in (True, False):
        monkeypatch.setattr(activations, "LINUX", here)
        assert activations.scalar_library(many) == here
