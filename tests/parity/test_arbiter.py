"""The verdict on hand-made errors."""

import math

import numpy as np
import pytest

from mlx_lvm.parity import arbiter
from mlx_lvm.parity.arbiter import NeighbourErrors, gamma, judge, rms
from mlx_lvm.parity.verdict import Check, Compared, exact, verdict_of

U = arbiter.UNIT["float32"]
TRUTH = np.linspace(1, 2, 1000)
X = Compared(value="x")


def off(units: float, seed: int = 0) -> np.ndarray:
    """The truth with random errors of so many units of roundoff of its rms."""
    size = float(np.sqrt(np.mean(TRUTH**2)))
    return TRUTH + units * U * size * np.random.default_rng(seed).choice([-1, 1], TRUTH.shape)


@pytest.mark.parametrize(
    ("mlx", "torch", "verdict"),
    [(2, 2, "equivalent"), (7, 1, "equivalent"), (9, 1, "MLX inaccurate"), (70, 10, "equivalent")],
)
def test_ratio_rule(mlx: float, torch: float, verdict: str) -> None:
    check = judge(X, off(mlx), off(torch, 1), TRUTH, "float32")
    assert check.verdict == verdict
    assert check.passed == (verdict == "equivalent")
    assert check.ratio == pytest.approx(mlx / max(torch, 1), rel=1e-6)


def test_a_lucky_torch_does_not_fail_mlx() -> None:
    assert judge(X, off(7), TRUTH, TRUTH, "float32").passed
    assert not judge(X, off(9), TRUTH, TRUTH, "float32").passed


@pytest.mark.parametrize(("dtype", "ratio"), [("float32", 7.9), ("bfloat16", 1.9), ("float16", 1.9)])
def test_limits_by_dtype(dtype: str, ratio: float) -> None:
    unit = arbiter.UNIT[dtype]
    size = rms(TRUTH)
    signs = np.where(np.arange(1000) % 2, 1, -1)
    torch = TRUTH + 2 * unit * size * signs
    assert judge(X, TRUTH + 2 * ratio * unit * size * signs, torch, TRUTH, dtype).passed
    assert not judge(X, TRUTH + 2.2 * ratio * unit * size * signs, torch, TRUTH, dtype).passed


def test_unit_roundoff_is_half_the_spacing_after_one() -> None:
    assert np.spacing(np.float32(1)) / 2 == U
    assert np.spacing(np.float16(1)) / 2 == arbiter.UNIT["float16"]


def test_bitwise() -> None:
    assert judge(X, off(5), off(5), TRUTH, "float32").verdict == "bitwise"


def test_what_torch_alone_loses_is_torchs_fault() -> None:
    lost = off(1, 1)
    lost[3] = np.nan
    check = judge(X, off(3), lost, TRUTH, "float32", must_observe=True)
    assert check.passed and check.verdict == "torch inaccurate" and check.compared == 1000
    assert not judge(X, off(9), lost, TRUTH, "float32", must_observe=True).passed


def test_nan_never_passes() -> None:
    broken = off(1)
    broken[3] = np.nan
    check = judge(X, broken, off(1, 1), TRUTH, "float32", must_observe=True)
    assert not check.passed and "1 of 1000 values are not finite" in check.note
    assert not judge(X, broken, broken, TRUTH, "float32", must_observe=True).passed
    nothing = np.full_like(TRUTH, np.nan)
    assert not judge(X, nothing, nothing, TRUTH, "float32", must_observe=True).passed


def test_nan_must_propagate() -> None:
    """Where the truth is NaN both sides must be, and the rest is compared."""
    true, torch = TRUTH.copy(), off(1, 1)
    true[:10] = torch[:10] = np.nan
    good, bad = off(1), off(1)
    good[:10] = np.nan
    assert judge(X, good, torch, true, "float32").verdict == "equivalent"
    assert not judge(X, bad, torch, true, "float32").passed


def test_overflow_of_torch_itself_is_unobservable_but_not_on_real_inputs() -> None:
    torch = np.full_like(TRUTH, np.inf)
    assert judge(X, TRUTH, torch, TRUTH, "float32").verdict == "unobservable"
    assert judge(X, TRUTH, torch, TRUTH, "float32", must_observe=True).verdict == "torch inaccurate"
    assert not judge(X, torch, torch, TRUTH, "float32", must_observe=True).passed


def test_comparison_of_nothing_fails() -> None:
    empty = np.zeros((0, 3))
    assert judge(X, empty, empty, empty, "float32").verdict == "setup invalid"
    assert not verdict_of([])
    assert not verdict_of([Check(X, "unobservable", True)])


def test_shapes_must_agree() -> None:
    assert not judge(X, TRUTH[:-1], TRUTH, TRUTH, "float32").passed


def test_torch_inaccurate_and_both() -> None:
    assert judge(X, off(2), off(5000, 1), TRUTH, "float32").verdict == "torch inaccurate"
    assert judge(X, off(9000), off(5000, 1), TRUTH, "float32").verdict == "both inaccurate"


def test_conditioning_explains_only_what_it_moves() -> None:
    moved = NeighbourErrors(200 * U * rms(TRUTH))
    found = judge(X, off(500), off(1, 1), TRUTH, "float32", neighbours=lambda: moved)
    assert found.verdict == "ill-conditioned"
    assert not judge(
        X, off(5000), off(1, 1), TRUTH, "float32", neighbours=lambda: NeighbourErrors(200 * U * rms(TRUTH))
    ).passed
    assert not judge(
        X, off(50), off(1, 1), TRUTH, "float32", neighbours=lambda: NeighbourErrors(20 * U * rms(TRUTH))
    ).passed  # well conditioned


def test_luck_of_torch_is_measured_on_neighbours() -> None:
    assert judge(
        X, off(30), off(1, 1), TRUTH, "float32", neighbours=lambda: NeighbourErrors(0.0, 5 * U * rms(TRUTH))
    ).passed
    assert not judge(
        X, off(50), off(1, 1), TRUTH, "float32", neighbours=lambda: NeighbourErrors(0.0, 5 * U * rms(TRUTH))
    ).passed


def test_luck_is_asked_about_from_half_of_the_limit() -> None:
    asked: list[int] = []

    def neighbours() -> NeighbourErrors:
        asked.append(1)
        return NeighbourErrors(0.0, 3 * U * rms(TRUTH))

    ratios = [
        judge(X, off(units), off(1, 1), TRUTH, "float32", neighbours=neighbours).ratio for units in (3, 7, 20)
    ]
    assert len(asked) == 2  # 3 of 8 asks nobody
    assert ratios == pytest.approx([3, 7 / 3, 20 / 3], rel=0.3)


def test_what_a_device_flushes_is_unobservable() -> None:
    truth = np.full(8, 1e-39)
    assert judge(X, 0 * truth, truth, truth, "float32").verdict == "unobservable"
    assert judge(X, 0 * truth, truth, truth, "float32").passed
    assert not judge(X, truth + 1e-30, truth, truth, "float32").passed  # a number above the range is an error
    assert not judge(
        X, np.full(8, 1e-35), truth * 2e4, truth * 2e4, "float32"
    ).passed  # and so is one within it


def test_bad_luck_of_mlx_is_excused_only_where_neighbours_have_none() -> None:
    usual = 2 * U * rms(TRUTH)
    near = NeighbourErrors(0.0, usual, 3 * usual)
    assert judge(X, off(30), off(1, 1), TRUTH, "float32", neighbours=lambda: near).passed
    assert not judge(
        X, off(30), off(1, 1), TRUTH, "float32", neighbours=lambda: NeighbourErrors(0.0, usual, 9 * usual)
    ).passed
    assert not judge(
        X, off(40), off(1, 1), TRUTH, "float32", neighbours=lambda: NeighbourErrors(0.0, usual, 3 * usual)
    ).passed


def test_zero_by_mathematics_is_measured_against_what_cancelled() -> None:
    noise = np.full(8, 1e-17)
    assert judge(X, np.full(8, 1e-8), noise, noise, "float32", scale=1.0).verdict == "unobservable"
    assert not judge(X, np.full(8, 1e-3), noise, noise, "float32", scale=1.0).passed
    assert not judge(X, np.full(8, 1e-8), noise, noise, "float32").passed


def test_exact() -> None:
    assert exact(X, True).verdict == "bitwise"
    assert not exact(X, False).passed


def test_what_was_compared_is_told_in_words() -> None:
    """Empty parts leave no gap, and small models of several seeds share a row."""
    one = Compared("amn-small3", "forward", "drawn", "eager", "real-0", "unit")
    assert str(one) == "amn-small3/forward/drawn/eager/real-0/unit"
    assert str(Compared(stage="weights", value="net.0.weight")) == "weights/net.0.weight"
    check = exact(one, True)
    assert (check.name, check.group) == (str(one), "amn-small/forward/drawn/eager")
    assert next(iter(check.to_dict().items())) == ("name", check.name)
    assert check.to_dict().keys().isdisjoint({"what", "source"})


def test_gamma() -> None:
    assert gamma(1000, U) == pytest.approx(1000 * U / (1 - 1000 * U))
    assert gamma(300, 2.0**-8) == math.inf


def test_rms_survives_the_range() -> None:
    assert rms(np.array([3e200, 4e200])) == pytest.approx(5e200 / math.sqrt(2))
    assert rms(np.array([3e-200, 4e-200])) == pytest.approx(5e-200 / math.sqrt(2))
