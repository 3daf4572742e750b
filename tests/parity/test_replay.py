"""AdamW, clipping, schedule and losses alone, over a shorter replay than `lvm parity` makes."""

import pytest

from mlx_lvm.parity.checks.replay import SHAPES, recorded_gradients, replay_checks


@pytest.mark.slow
def test_replay() -> None:
    checks = list(replay_checks(steps=1000))
    assert [check for check in checks if not check.passed] == []
    assert len(checks) == 3 * len(SHAPES) + 1 + 1 + 3 * 6 * 5 * 2


def test_recorded_gradients_hold_the_extremes() -> None:
    sizes = [max(float(abs(g).max()) for g in step.values()) for step in recorded_gradients(1500)]
    assert min(sizes) == 0 and max(sizes) > 1e15 and any(0 < size < 1e-29 for size in sizes)
