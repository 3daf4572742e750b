"""The workflows of .github: valid by GitHub's own schema, and running the README's commands word for word."""

import re
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
WORKFLOWS = sorted((ROOT / ".github" / "workflows").glob("*.yml"))


@pytest.mark.parametrize("path", WORKFLOWS, ids=lambda path: path.name)
def test_it_fits_the_schema(path: Path) -> None:
    command = [
        sys.executable,
        "-m",
        "check_jsonschema",
        "--builtin-schema",
        "vendor.github-workflows",
        str(path),
    ]
    ran = subprocess.run(command, capture_output=True, text=True)
    assert ran.returncode == 0, ran.stdout + ran.stderr


def test_the_readme_s_commands_run_on_hosted_machines() -> None:
    readme = (ROOT / "README.md").read_text("utf-8")
    workflow = (ROOT / ".github" / "workflows" / "tests.yml").read_text("utf-8")
    commands = re.findall(r"<!-- (?:train|tests), (?:mac|linux) -->\n```bash\n(.*?)\n```", readme, re.S)
    assert len(commands) == 4, "README marks four commands: train and tests, on a Mac and on Linux"
    for command in commands:
        assert f"run: {command}\n" in workflow, f"no step of tests.yml runs: {command}"


def test_every_job_has_a_time_limit() -> None:
    for path in WORKFLOWS:
        text = path.read_text("utf-8")
        assert len(re.findall(r"^    runs-on:", text, re.M)) == len(
            re.findall(r"^    timeout-minutes:", text, re.M)
        )
