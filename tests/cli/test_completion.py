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


def complete(*words: str) -> list[str]:
    """What bash would offer for the last of the words, by the script that `--show-completion` prints."""
    script = (
        'source <(lvm --show-completion bash); COMP_WORDS=("$@"); COMP_CWORD=$(($# - 1)); '
        '_lvm_completion lvm; printf "%s\\n" "${COMPREPLY[@]}"'
    )
    path = f"{Path(sys.executable).parent}:{os.environ['PATH']}"
    command = [str(BASH), "-c", script, "bash", *words]
    ran = subprocess.run(command, capture_output=True, text=True, env={**os.environ, "PATH": path})
    assert ran.returncode == 0 and not ran.stderr, ran.stderr
    return ran.stdout.split()


@pytest.mark.skipif(BASH is None, reason="no bash here")
@pytest.mark.slow
@pytest.mark.parametrize(
    ("words", "offered"),
    [
        (("lvm", "tr"), {"train"}),
        (("lvm", "data", "ch"), {"check"}),
        (("lvm", "train", "amn", "--pres"), {"--preset"}),
        (("lvm", "no-such-command", "--pres"), set()),
    ],
)
def test_bash_offers(words: tuple[str, ...], offered: set[str]) -> None:
    assert set(complete(*words)) == offered


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
