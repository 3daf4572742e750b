"""Ragged ranges, evenly spaced places and work in blocks, against plain loops."""

import numpy as np
import pytest

from mlx_lvm.core.arrays import blocks, evenly_spaced, in_blocks, not_finite, ranges
from mlx_lvm.core.mlx import mx


def test_ranges_one_after_the_other() -> None:
    starts, lengths = [10, 3, 20, 7], [3, 0, 2, 1]
    expected = [
        row for start, length in zip(starts, lengths, strict=True) for row in range(start, start + length)
    ]
    assert ranges(np.array(starts), np.array(lengths)).tolist() == expected
    assert ranges(np.array([4]), np.array([0])).tolist() == []


@pytest.mark.parametrize(("count", "limit"), [(7, 7), (7, 20), (100, 9), (17_595, 2_000)])
def test_evenly_spaced_places_differ_by_at_most_one_step(count: int, limit: int) -> None:
    places = evenly_spaced(count, limit)
    assert len(places) == min(count, limit)
    assert (places[0], places[-1]) == (0, count - 1)
    steps = np.diff(places)
    assert steps.min() >= 1 and steps.max() - steps.min() <= 1


def test_blocks_cover_every_place_once() -> None:
    assert [(b.start, b.stop) for b in blocks(7, 3)] == [(0, 3), (3, 6), (6, 7)]
    seen: list[slice] = []

    def squares(block: slice) -> mx.array:
        seen.append(block)
        return mx.arange(7)[block] ** 2

    assert np.array(in_blocks(7, 3, squares)).tolist() == [0, 1, 4, 9, 16, 25, 36]
    assert seen == list(blocks(7, 3))
    assert np.array(in_blocks(3, 3, squares)).tolist() == [0, 1, 4]


def test_what_is_not_finite_is_named_and_the_device_asked_once(monkeypatch: pytest.MonkeyPatch) -> None:
    arrays = {
        "good": mx.ones(3),
        "nan": mx.array([1.0, np.nan]),
        "whole": mx.array([1, 2]),
        "half": mx.array([np.inf]).astype(mx.bfloat16),
        "minus": mx.array([[0.0], [-np.inf]]),
    }
    asked: list[int] = []
    real = np.array
    monkeypatch.setattr("mlx_lvm.core.arrays.np.array", lambda x: asked.append(1) or real(x))
    assert not_finite(arrays) == ["nan", "half", "minus"]
    assert len(asked) == 1
    assert not_finite({"whole": mx.array([1])}) == not_finite({}) == []
