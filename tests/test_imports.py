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


def test_help_loads_no_framework_and_is_quick() -> None:
    code = (
        "import sys, time\n"
        "sys.argv = ['lvm', '--help']\n"
        "from mlx_lvm.cli.main import main\n"
        "try: main()\n"
        "except SystemExit: pass\n"
        "loaded = {name.split('.')[0] for name in sys.modules}\n"
        "print('loaded', sorted(loaded & {'mlx', 'torch', 'numpy', 'matplotlib'}), 'cpu', time.process_time())"
    )
    out = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, env=os.environ | {"COLUMNS": "100"})
    last = out.stdout.strip().splitlines()[-1]
    assert last.startswith("loaded [] "), last
    assert float(last.split()[-1]) < 0.5
    assert "train" in out.stdout and "parity" in out.stdout


def test_importing_the_package_imports_nothing_else() -> None:
    code = "import sys, mlx_lvm; print(sorted({n.split('.')[0] for n in sys.modules} & {'mlx', 'numpy', 'torch'}))"
    out = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert out.stdout.strip() == "[]"
