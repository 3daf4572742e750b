"""What counts as a chunk: the same rows on a device that takes subnormal numbers for zero and on one that
does not.
"""

import numpy as np
import pytest
import torch

from mlx_lvm.core.mlx import mx
from mlx_lvm.models.base import is_chunk
from mlx_lvm.parity.twins.base import is_chunk as twin_is_chunk

SMALLEST = np.finfo(np.float32).tiny
ROWS = np.array(
    [
        [0, 0],
        [-0.0, 0],
        [1e-40, 0],
        [SMALLEST / 2, -SMALLEST / 2],
        [0, -SMALLEST],
        [0, np.nan],
        [np.inf, 0],
        [1, 0],
    ],
    np.float32,
)
THERE = [False, False, False, False, True, True, True, True]


@pytest.mark.parametrize("dtype", [mx.float32, mx.bfloat16])
def test_a_subnormal_row_is_no_chunk(dtype: mx.Dtype) -> None:
    assert np.array(is_chunk(mx.array(ROWS).astype(dtype))).tolist() == THERE
    assert is_chunk(mx.array(ROWS), keepdims=True).shape == (8, 1)


def test_the_twin_agrees() -> None:
    for dtype in (torch.float32, torch.float64):
        assert twin_is_chunk(torch.from_numpy(ROWS).to(dtype)).tolist() == THERE


def test_half_precision_keeps_what_it_can_hold() -> None:
    rows = np.array([[0, 0], [1e-7, 0]], np.float16)
    assert np.array(is_chunk(mx.array(rows))).tolist() == [False, True]
