"""Completion in a shell: commands by name, their options once a command is named, and no word on a
mistake.
"""

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

BASH = shutil.which("bash")


# What bash would offer for the last word of each line, by the script that `--show-completion` prints.
SCRIPT = """
source <(lvm --show-completion bash)
for line; do
    read -ra COMP_WORDS <<<"$line"
    COMP_CWORD=$((${#COMP_WORDS[@]} - 1)) COMPREPLY=()
    _lvm_completion lvm
    echo "${COMPREPLY[*]}"
done
"""
OFFERED = {
    "lvm tr": {"train"},
    "lvm data ch": {"check"},
    "lvm train amn --pres": {"--preset"},
    "lvm no-such-command --pres": set(),
}


@pytest.mark.skipif(BASH is None, reason="no bash here")
@pytest.mark.slow
def test_bash_offers() -> None:
    path = f"{Path(sys.executable).parent}:{os.environ['PATH']}"
    command, environment = [str(BASH), "-c", SCRIPT, "bash", *OFFERED], {**os.environ, "PATH": path}
    ran = subprocess.run(command, capture_output=True, text=True, env=environment)
    assert ran.returncode == 0 and not ran.stderr, ran.stderr
    offered = [set(line.split()) for line in ran.stdout.splitlines()]
    assert dict(zip(OFFERED, offered, strict=True)) == OFFERED


def test_names_are_offered_without_loading_a_command() -> None:
    code = (
        "import sys\n"
        "sys.argv = ['lvm']\n"
        "from mlx_lvm.cli.main import main\n"
        "try: main()\n"
        "except SystemExit: pass\n"
        "print('loaded', *[name for name in sys.modules if name.split('.')[0] in ('mlx', 'numpy')])"
    )
    asked = {"_LVM_COMPLETE": "complete_bash", "COMP_WORDS": "lvm ", "COMP_CWORD": "1"}
    out = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True, env={**os.environ, **asked}
    ).stdout
    assert {"train", "eval", "doctor"} < set(out.split()) and out.strip().endswith("loaded")
