"""Penalties chosen by folds: against fitting again without each fold, on any scale, and down to nothing where
nothing is to learn.
"""

import numpy as np
import pytest

from mlx_lvm.training.ramn.folds import (
    PENALTIES,
    TOWARDS_ONE,
    MapSums,
    choose_towards_one,
    filter_error,
    folds_of,
    solve_bands,
)


def mixtures(
    noise: float, scale: float = 1.0, n: int = 120, dim: int = 8
) -> list[tuple[np.ndarray, np.ndarray]]:
    """Four folds of (mixtures [n, 3, dim], targets [n, dim]); every band of directions has a filter of its
    own.
    """
    draw = np.random.default_rng(0)
    own = draw.standard_normal((3, dim))
    out = []
    for _ in range(4):
        f = draw.standard_normal((n, 3, dim))
        out.append((scale * f, scale * ((own * f).sum(axis=1) + noise * draw.standard_normal((n, dim)))))
    return out


def gram(f: np.ndarray, y: np.ndarray) -> np.ndarray:
    every = np.concatenate([y[:, None], f], axis=1)
    return np.einsum("nad,nbd->dab", every, every)


def maps(noise: float, scale: float = 1.0, n: int = 60, width: int = 6, dim: int = 5) -> MapSums:
    draw = np.random.default_rng(1)
    true = draw.standard_normal((width, dim))
    parts = []
    for _ in range(4):
        x = draw.standard_normal((n, width))
        y = scale * ((x @ true) * (noise < 10) + noise * draw.standard_normal((n, dim)))
        parts.append((scale * x, y))
    grams = [np.stack([x.T @ x for x, _ in parts]), np.stack([x.T @ y for x, y in parts])]
    return MapSums(*grams, np.array([(y**2).sum() for _, y in parts]), np.ones(width))


def test_folds_hold_every_document_once() -> None:
    documents = np.array([3, 5, 8, 9, 11])
    parts = folds_of(documents)
    assert len(parts) == 4 and sorted(np.concatenate(parts).tolist()) == documents.tolist()
    assert [part.tolist() for part in folds_of(documents[:1])] == [[3]]


def test_error_of_a_filter_is_its_squared_error() -> None:
    (f, y), *_ = mixtures(0.5)
    filters = np.random.default_rng(2).standard_normal((3, 8)).astype(np.float32)
    assert filter_error(gram(f, y), filters) == pytest.approx(((y - (filters * f).sum(axis=1)) ** 2).sum())


@pytest.mark.parametrize("scale", [1.0, 1e-4, 1e3])
def test_bands_are_held_to_one_filter_as_the_folds_say(scale: float) -> None:
    parts = mixtures(1.0, scale)
    grams = np.stack([gram(f, y) for f, y in parts])
    errors = {
        share: sum(
            ((y - (solve_bands(grams.sum(axis=0) - own, share) * f).sum(axis=1)) ** 2).sum()
            for (f, y), own in zip(parts, grams, strict=True)
        )
        for share in TOWARDS_ONE
    }
    assert choose_towards_one(grams) == min(errors, key=lambda share: errors[share]) == TOWARDS_ONE[0]


def test_directions_that_do_not_differ_share_one_filter() -> None:
    draw, same = np.random.default_rng(3), np.array([0.5, 0.2, -0.1])[:, None]
    grams = []
    for _ in range(4):
        f = draw.standard_normal((40, 3, 8))
        grams.append(gram(f, (same * f).sum(axis=1) + 3 * draw.standard_normal((40, 8))))
    assert choose_towards_one(np.stack(grams)) in TOWARDS_ONE[-2:]
    found = solve_bands(np.stack(grams).sum(axis=0), TOWARDS_ONE[-1])
    assert found.std(axis=1).max() < 0.02


@pytest.mark.parametrize("scale", [1.0, 1e-4, 1e3])
def test_penalty_of_the_map_has_the_least_error_left_out(scale: float) -> None:
    sums = maps(4.0, scale)
    errors = {}
    for penalty in (*PENALTIES, np.inf):
        solved = []
        for fold in range(4):
            kept = [k for k in range(4) if k != fold]
            share = penalty * np.trace(sums.gram.sum(axis=0)) / 6
            one = np.zeros((6, 5))
            if np.isfinite(penalty):
                one = np.linalg.solve(sums.gram[kept].sum(0) + share * np.eye(6), sums.cross[kept].sum(0))
            solved.append(
                sums.left[fold] - 2 * (one * sums.cross[fold]).sum() + (one * (sums.gram[fold] @ one)).sum()
            )
        errors[penalty] = sum(solved)
    chosen, without = sums.choose()
    assert chosen == min(errors, key=lambda penalty: errors[penalty]) == PENALTIES[0]
    assert len(without) == 4 and np.abs(without[0] - without[1]).max() > 0


def test_where_documents_disagree_there_is_no_map() -> None:
    sums = maps(0.5)
    signs = np.array([1, 1, -1, -1])[:, None, None]
    sums = MapSums(sums.gram, sums.cross * signs, sums.left, sums.scale)
    penalty, without = sums.choose()
    assert penalty == np.inf
    assert not np.any(sums.layout(sums.solve(penalty))) and not any(np.any(one) for one in without)
    assert maps(0.5).choose()[0] == PENALTIES[0]
