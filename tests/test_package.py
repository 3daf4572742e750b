"""The wheel: one import namespace, all that the first command needs, nothing else."""

import ast
import re
import shutil
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> zipfile.ZipFile:
    source = tmp_path_factory.mktemp("source")
    for name in ("mlx_lvm", "parity", "cli", "weights", "tests"):
        shutil.copytree(ROOT / name, source / name, ignore=shutil.ignore_patterns("__pycache__"))
    for name in ("pyproject.toml", "README.md", "LICENSE"):
        shutil.copy(ROOT / name, source / name)
    built = subprocess.run(
        [sys.executable, "-m", "build", "--wheel", "-o", str(source / "dist"), str(source)],
        capture_output=True,
        text=True,
    )
    assert built.returncode == 0, built.stdout + built.stderr
    return zipfile.ZipFile(next((source / "dist").glob("*.whl")))


@pytest.mark.slow
def test_it_installs_nothing_but_mlx_lvm(wheel: zipfile.ZipFile) -> None:
    tops = {name.split("/")[0] for name in wheel.namelist()}
    assert {top for top in tops if not top.endswith(".dist-info")} == {"mlx_lvm"}


def test_it_brings_every_module_and_every_shipped_file(wheel: zipfile.ZipFile) -> None:
    names = set(wheel.namelist())
    expected = {
        f"mlx_lvm/{path.relative_to(ROOT / 'mlx_lvm').as_posix()}"
        for path in (ROOT / "mlx_lvm").rglob("*.py")
    }
    for part in ("parity", "cli", "weights"):
        expected |= {f"mlx_lvm/{path.relative_to(ROOT).as_posix()}" for path in (ROOT / part).rglob("*.py")}
    for path in (ROOT / "weights").rglob("*"):
        if path.suffix in (".safetensors", ".gz", ".json", ".md"):
            expected.add(f"mlx_lvm/{path.relative_to(ROOT).as_posix()}")
    expected |= {
        "mlx_lvm/py.typed",
        "mlx_lvm/weights/sotu.safetensors",
        "mlx_lvm/weights/amn/model.safetensors",
    }
    assert expected - names == set()
    assert wheel.getinfo("mlx_lvm/core/compiler/g++").external_attr >> 16 & 0o111, (
        "a compiler must be executable"
    )


def test_the_command_and_the_licence(wheel: zipfile.ZipFile) -> None:
    info = next(name for name in wheel.namelist() if name.endswith("entry_points.txt"))
    assert "lvm = mlx_lvm.cli.main:main" in wheel.read(info).decode()
    metadata = wheel.read(info.replace("entry_points.txt", "METADATA")).decode()
    assert "License-Expression: MIT" in metadata and "Requires-Python: >=3.10" in metadata


def test_the_map_is_whole() -> None:
    """Every package has its line in docs/map.md with the first sentence of its docstring; every module says
    what it is.
    """
    given = (ROOT / "docs" / "map.md").read_text("utf-8")
    packages = set()
    for top in ("mlx_lvm", "parity", "cli", "weights"):
        for path in sorted((ROOT / top).rglob("*.py")):
            docstring = ast.get_docstring(ast.parse(path.read_text("utf-8")))
            assert docstring, f"{path} says nothing of itself"
            if path.name == "__init__.py":
                packages.add(path.parent.relative_to(ROOT).as_posix())
                said = " ".join(docstring.split("\n\n")[0].split())
                line = f"| `{path.parent.relative_to(ROOT).as_posix()}/` | {said} |"
                assert line in given, f"docs/map.md lacks: {line}"
    assert packages == set(re.findall(r"^\| `([\w/]+)/`", given, re.M))
