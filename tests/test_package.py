"""The wheel: one import namespace, all that the first command needs, nothing else."""

import ast
import os
import re
import shutil
import subprocess
import sys
import venv
import zipfile
from pathlib import Path
from typing import Any

import pytest

import mlx_lvm

if sys.version_info >= (3, 11):
    import tomllib
else:
    import tomli as tomllib

ROOT = Path(__file__).parent.parent


@pytest.fixture(scope="module")
def built(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with the sdist, and the wheel that was made from it alone."""
    source = tmp_path_factory.mktemp("source")
    for name in ("mlx_lvm", "parity", "cli", "weights", "tests"):
        shutil.copytree(ROOT / name, source / name, ignore=shutil.ignore_patterns("__pycache__"))
    for name in ("pyproject.toml", "README.md", "LICENSE"):
        shutil.copy(ROOT / name, source / name)
    run(sys.executable, "-m", "build", "-o", source / "dist", source)
    return source / "dist"


@pytest.fixture(scope="module")
def wheel(built: Path) -> zipfile.ZipFile:
    return zipfile.ZipFile(next(built.glob("*.whl")))


def run(*command: object, **options: Any) -> str:
    ran = subprocess.run(list(map(str, command)), capture_output=True, text=True, **options)
    assert ran.returncode == 0, ran.stdout + ran.stderr
    return ran.stdout


@pytest.mark.slow
def test_it_installs_nothing_but_mlx_lvm(wheel: zipfile.ZipFile) -> None:
    tops = {name.split("/")[0] for name in wheel.namelist()}
    assert {top for top in tops if not top.endswith(".dist-info")} == {"mlx_lvm"}


@pytest.mark.slow
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


@pytest.mark.slow
def test_the_command_and_the_licence(wheel: zipfile.ZipFile) -> None:
    info = next(name for name in wheel.namelist() if name.endswith("entry_points.txt"))
    assert "lvm = mlx_lvm.cli.main:main" in wheel.read(info).decode()
    metadata = wheel.read(info.replace("entry_points.txt", "METADATA")).decode()
    assert "License-Expression: MIT" in metadata and "Requires-Python: >=3.10" in metadata
    assert f"\nVersion: {mlx_lvm.__version__}\n" in metadata


def test_the_version_is_said_once() -> None:
    """`mlx_lvm.__version__`, which the build reads; the citation says the same."""
    assert "version" not in tomllib.loads((ROOT / "pyproject.toml").read_text("utf-8"))["project"]
    citation = (ROOT / "CITATION.cff").read_text("utf-8")
    assert re.search(r"^version: (.+)$", citation, re.M)[1] == mlx_lvm.__version__  # type: ignore[index]


@pytest.mark.slow
def test_the_wheel_works_without_a_checkout(built: Path, tmp_path: Path) -> None:
    """In an environment of its own, with this one's dependencies: the README's first commands, and its
    import.
    """
    environment = tmp_path / "environment"
    venv.create(environment, with_pip=True)
    python, lvm = environment / "bin" / "python", environment / "bin" / "lvm"
    run(python, "-m", "pip", "install", "--no-deps", "--no-index", next(built.glob("*.whl")))
    site = Path(run(python, "-c", "import sysconfig; print(sysconfig.get_path('purelib'))").strip())
    (site / "others.pth").write_text("".join(f"{path}\n" for path in sys.path if "packages" in path), "utf-8")
    environ = {key: value for key, value in os.environ.items() if key != "PYTHONPATH"}
    where: dict[str, Any] = {"cwd": tmp_path, "env": environ}
    assert run(lvm, "--version", **where) == f"mlx-lvm {mlx_lvm.__version__}\n"
    home = run(python, "-c", "import mlx_lvm; print(mlx_lvm.__file__)", **where)
    assert home.startswith(str(environment)), f"not the wheel's: {home}"
    said = run(lvm, "train", "amn", "--epochs", "1", "--corpus", "moby", **where)
    assert "amn-moby-1 on moby, test: " in said and "next: lvm parity" in said
    said = run(lvm, "predict", "ramn-retrieve", "--document", "2016_barack_obama_d", "--at", "30", **where)
    assert "1974_richard_nixon_r, 35" in said


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
