"""kill -9 at random moments, twenty times: the result is byte for byte that of a run nobody disturbed."""

import subprocess
import sys
from pathlib import Path

import pytest


@pytest.mark.skipif(
    sys.platform != "linux", reason="the victims are forks, which macOS ends where Metal is loaded"
)
def test_twenty_kills_leave_no_trace(tmp_path: Path) -> None:
    driver = Path(__file__).with_name("kill_driver.py")
    out = subprocess.run([sys.executable, driver, tmp_path, "7"], capture_output=True, text=True, timeout=120)
    assert out.returncode == 0, out.stderr
    for line in out.stdout.splitlines():
        what, killed, never_partial, same_bytes, accounted, _ = line.split()
        assert int(killed) >= 8, (
            f"{what}: too few of twenty were hit: {line}"
        )  # the others had ended before the signal came
        assert (never_partial, same_bytes, accounted) == ("20", "1", "1"), line
    assert len(out.stdout.splitlines()) == 2
