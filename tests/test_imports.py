"""Imports point one way, MLX has one door, and help is free of both frameworks."""

import ast
import os
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
FORBIDDEN = {
    "mlx_lvm": {"torch", "typer", "rich", "mlx_lvm.parity", "mlx_lvm.cli"},
    "parity": {"typer", "rich", "mlx_lvm.cli"},
    "cli": {"torch"},
    "weights": {"torch", "typer", "rich", "mlx_lvm.cli", "mlx_lvm.parity"},
}


def imports(path: Path) -> set[str]:
    found = set()
    for node in ast.walk(ast.parse(path.read_text("utf-8"))):
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.module:
            found |= {node.module} | {f"{node.module}.{alias.name}" for alias in node.names}
    return found


@pytest.mark.parametrize("package", FORBIDDEN)
def test_imports_point_one_way(package: str) -> None:
    for path in sorted((ROOT / package).rglob("*.py")):
        for name in imports(path):
            wrong = [bad for bad in FORBIDDEN[package] if name == bad or name.startswith(bad + ".")]
            assert not wrong, f"{path.relative_to(ROOT)} imports {name}"


def test_only_the_backend_imports_mlx() -> None:
    for package in FORBIDDEN:
        for path in sorted((ROOT / package).rglob("*.py")):
            if path.name != "backend.py":
                wrong = [name for name in imports(path) if name == "mlx" or name.startswith("mlx.")]
                assert not wrong, f"{path.relative_to(ROOT)} imports {wrong}; take it from mlx_lvm.backend, which opens the BLAS first"


# What typer needs to print help; everything else is loaded by the command that works with it.
HELP_NEEDS = {"typer", "click", "rich", "pygments", "markdown_it", "mdurl", "shellingham", "annotated_doc", "typing_extensions", "mlx_lvm"}
HELP_NEEDS |= {"attr"}  # which rich imports where something else has brought it
STARTED_BY_PYTHON = {"__main__", "sitecustomize", "_distutils_hack", "cmeel_pth", "apport_python_hook"}  # and editable installs' finders


def test_help_loads_what_it_prints_with_and_nothing_else() -> None:
    """By what is imported, not by the clock: about 0.1 s of CPU where `import mlx_lvm.models` costs as much again, torch ten times."""
    code = (
        "import sys\n"
        "sys.argv = ['lvm', '--help']\n"
        "from mlx_lvm.cli.main import main\n"
        "try: main()\n"
        "except SystemExit: pass\n"
        "print('loaded', *sorted(sys.modules))"
    )
    out = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, env=os.environ | {"COLUMNS": "100"})
    names = out.stdout.strip().splitlines()[-1].split()[1:]
    tops = {name.split(".")[0] for name in names if not name.startswith("__editable__")}
    assert tops - set(sys.stdlib_module_names) - HELP_NEEDS - STARTED_BY_PYTHON == set()
    ours = {name for name in names if name.startswith("mlx_lvm")}
    assert ours == {"mlx_lvm", "mlx_lvm.cli", "mlx_lvm.cli.main", "mlx_lvm.errors"}, ours
    assert "train" in out.stdout and "parity" in out.stdout


def test_importing_the_package_imports_nothing_else() -> None:
    code = "import sys, mlx_lvm; print(sorted({n.split('.')[0] for n in sys.modules} & {'mlx', 'numpy', 'torch'}))"
    out = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert out.stdout.strip() == "[]"
