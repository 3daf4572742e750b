"""Processes that end at the worst moment: the earlier checkpoint loads, to the bit, and the next start leaves
nothing lying about.

The short form takes twenty kills; `pytest -m long tests/training/test_crashes.py` takes 500 (about four
minutes).
"""

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

DRIVER = Path(__file__).with_name("crash_driver.py")
pytestmark = pytest.mark.skipif(
    sys.platform != "linux", reason="the victims are forks, which macOS ends where Metal is loaded"
)


def drive(*arguments: object, timeout: float) -> dict[str, Any]:
    out = subprocess.run(
        [sys.executable, DRIVER, *map(str, arguments)], capture_output=True, text=True, timeout=timeout
    )
    assert out.returncode == 0, out.stderr
    return json.loads(out.stdout)


@pytest.mark.slow
@pytest.mark.parametrize("count", [20, pytest.param(500, marks=pytest.mark.long)])
def test_kills_at_random_moments(tmp_path: Path, small_file: Path, count: int) -> None:
    """Every checkpoint that a pointer names is whole and bit for bit that of the undisturbed run at its step,
    at every kill.
    """
    found = drive("kills", tmp_path, small_file, count, timeout=60 + 3 * count)
    assert found["kills"] == count
    assert (found["unreadable"], found["mixed"], found["leaked"], found["behind"]) == (0, 0, 0, 0), found
    assert count < 100 or found["temporaries_made"] > count // 20, (
        "the kills must hit saves, or they prove nothing"
    )


@pytest.mark.slow
def test_a_crash_at_every_call_that_touches_the_disk(tmp_path: Path) -> None:
    found = drive("points", tmp_path, timeout=120)
    assert found["bad"] == []
    assert found["points"] > 60
