"""Imports point one way, MLX has one door, and help is free of both frameworks."""

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent


@pytest.fixture(scope="module")
def package_tree(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with mlx_lvm in it as a wheel lays it out: parity, cli and weights are subpackages there
    alone.
    """
    folder = tmp_path_factory.mktemp("tree")
    shutil.copytree(ROOT / "mlx_lvm", folder / "mlx_lvm")
    for part in ("parity", "cli"):
        shutil.copytree(ROOT / part, folder / "mlx_lvm" / part)
    (folder / "mlx_lvm" / "weights").mkdir()
    shutil.copy(ROOT / "weights" / "__init__.py", folder / "mlx_lvm" / "weights")
    return folder


def test_imports_run_one_way(package_tree: Path) -> None:
    """The contracts of pyproject.toml, on the package as users get it; imports inside functions count too."""
    command = [
        sys.executable,
        "-c",
        "from importlinter.cli import lint_imports_command; lint_imports_command()",
    ]
    shutil.copy(ROOT / "pyproject.toml", package_tree)  # where import-linter of every version looks for it
    ran = subprocess.run(
        [*command, "--no-cache"],
        capture_output=True,
        text=True,
        cwd=package_tree,
        env={**os.environ, "PYTHONPATH": str(package_tree)},
    )
    assert ran.returncode == 0, ran.stdout + ran.stderr


# What typer needs to print help; everything else is loaded by the command that works with it.
HELP_NEEDS = {
    "typer",
    "click",
    "rich",
    "pygments",
    "markdown_it",
    "mdurl",
    "shellingham",
    "annotated_doc",
    "typing_extensions",
    "mlx_lvm",
}
HELP_NEEDS |= {"attr"}  # which rich imports where something else has brought it
STARTED_BY_PYTHON = {
    "__main__",
    "sitecustomize",
    "_distutils_hack",
    "cmeel_pth",
    "apport_python_hook",
}  # and editable installs' finders


def test_help_loads_what_it_prints_with_and_nothing_else() -> None:
    """By what is imported, not by the clock: about 0.1 s of CPU where `import mlx_lvm.models` costs as much
    again, torch ten times.
    """
    code = (
        "import sys\n"
        "sys.argv = ['lvm', '--help']\n"
        "from mlx_lvm.cli.main import main\n"
        "try: main()\n"
        "except SystemExit: pass\n"
        "print('loaded', *sorted(sys.modules))"
    )
    out = subprocess.run(
        [sys.executable, "-c", code],
        capture_output=True,
        text=True,
        check=True,
        env=os.environ | {"COLUMNS": "100"},
    )
    names = out.stdout.strip().splitlines()[-1].split()[1:]
    tops = {name.split(".")[0] for name in names if not name.startswith("__editable__")}
    assert tops - set(sys.stdlib_module_names) - HELP_NEEDS - STARTED_BY_PYTHON == set()
    ours = {name for name in names if name.startswith("mlx_lvm")}
    assert ours == {"mlx_lvm", "mlx_lvm.cli", "mlx_lvm.cli.main", "mlx_lvm.errors"}, ours
    assert "train" in out.stdout and "parity" in out.stdout


def test_importing_the_package_imports_nothing_else() -> None:
    code = (
        "import sys, mlx_lvm; print(sorted({n.split('.')[0] for n in sys.modules} & {'mlx', 'numpy', "
        "'torch'}))"
    )
    out = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert out.stdout.strip() == "[]"
