import json
import re
import sys
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest

from mlx_lvm.bench import doctor
from mlx_lvm.core import linux_cpu
from mlx_lvm.core.kernel_store import Store
from mlx_lvm.core.mlx import mx
from mlx_lvm.ranking import decode

if sys.version_info >= (3, 11):
    import tomllib
else:
    import tomli as tomllib

ROOT = Path(__file__).parent.parent.parent
BACKENDS = ("cpu", "cuda12", "cuda13", "dev")


def test_doctor_says_what_runs(lvm: Callable) -> None:
    out = lvm("doctor", "--json")
    assert out.code == 0
    checks = json.loads(out.out)["checks"]
    assert {"versions", "device", "memory", "blas", "tf32", "compiler"} <= set(checks)
    assert checks["blas"]["value"]["gflops"] > 0.5 and checks["versions"]["value"]["mlx"] == mx.__version__
    assert "GFLOP/s" in lvm("doctor").out


def tuned(monkeypatch: pytest.MonkeyPatch, **changes: object) -> None:
    monkeypatch.setattr(doctor, "tuning", lambda: replace(linux_cpu.tuning(), **changes))


def test_doctor_says_what_becomes_of_freed_memory(lvm: Callable, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(doctor.sys, "platform", "linux")
    monkeypatch.setattr(mx, "default_device", lambda: mx.Device(mx.cpu))
    tuned(monkeypatch, kept=0)
    assert "unset MALLOC_TRIM_THRESHOLD_" in lvm("doctor").out
    tuned(monkeypatch, kept=1 << 30)
    assert "1,024 MB are kept" in lvm("doctor").out


def test_doctor_shows_where_kernels_lie(
    lvm: Callable, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setattr(doctor.sys, "platform", "linux")
    monkeypatch.setattr(doctor.shutil, "which", lambda name, path: f"/there/{name}")
    (tmp_path / "mlx").mkdir()
    (tmp_path / "mlx" / "kernel.so").write_bytes(bytes(2_000_000))
    tuned(monkeypatch, kernels=Store(str(tmp_path)))
    out = lvm("doctor").out.replace("\n", " ")
    assert "1 in" in out and "2.0 MB, of this user alone" in out
    tuned(monkeypatch, kernels=Store(note="/home is read-only; set XDG_CACHE_HOME"))
    out = lvm("doctor").out
    assert "none are compiled" in out and "! kernels: /home is read-only; set XDG_CACHE_HOME" in out
    tuned(monkeypatch, kernels=Store())
    assert "tune()" in lvm("doctor").out


def promised(extra: str, extras: dict[str, list[str]]) -> set[str]:
    """The modules that an extra of pyproject.toml brings, those of extras that it names included."""
    found = set()
    for requirement in extras[extra]:
        name, inner = re.match(r"([\w.-]+)(?:\[([\w,-]+)\])?", requirement).groups()  # type: ignore[union-attr]
        if name == "mlx-lvm":
            found |= {module for one in inner.split(",") for module in promised(one, extras)}
        else:
            found.add({"faiss-cpu": "faiss"}.get(name, name.replace("-", "_")))
    return found


def test_doctor_knows_every_extra_by_what_it_brings() -> None:
    """But those of a backend, which device and BLAS tell of, and the developers' own."""
    project = tomllib.loads((ROOT / "pyproject.toml").read_text("utf-8"))["project"]
    extras = project["optional-dependencies"]
    known = {extra: set(modules) for extra, modules in doctor.EXTRAS.items()}
    assert known == {extra: promised(extra, extras) for extra in extras if extra not in BACKENDS}


def test_doctor_says_what_an_extra_lacks(lvm: Callable, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(doctor, "_installed", lambda module: module in ("tokenizers", "matplotlib"))
    checks = json.loads(lvm("doctor", "--json").out)["checks"]
    assert checks["extra report"]["finding"] == "installed"
    assert checks["extra embed"]["finding"] == ("lacks huggingface_hub; pip install 'mlx-lvm[embed]' adds it")
    assert checks["extra faiss"]["finding"].startswith("not installed; pip install")


def test_doctor_says_that_transformers_are_too_new_for_decode(
    lvm: Callable, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(doctor, "_installed", lambda module: True)
    monkeypatch.setattr(decode.importlib.util, "find_spec", lambda name: name)
    for found, finding in (
        ("5.1.0", "with transformers 4.50 at most; here is 5.1.0"),
        ("4.50.3", "installed"),
    ):
        monkeypatch.setattr(decode, "version", lambda name, found=found: found)
        check = json.loads(lvm("doctor", "--json").out)["checks"]["extra decode"]
        assert finding in check["finding"] and check["value"] == (finding == "installed")
