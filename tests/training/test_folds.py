"""Penalties chosen by folds: against fitting again without each fold, on any scale, and down to nothing where
nothing is to learn.
"""

import numpy as np
import pytest

from mlx_lvm.training.ramn.folds import (
    PENALTIES,
    TOWARDS_ONE,
    MapSums,
    bands,
    choose_penalty,
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
    each = np.einsum("nad,nbd->dab", every, every)
    return np.stack([each[band].sum(axis=0) for band in bands(f.shape[2])])


Data = list[tuple[np.ndarray, np.ndarray]]


def left_out(parts: Data) -> list[tuple[Data, tuple[np.ndarray, np.ndarray]]]:
    return [(parts[:k] + parts[k + 1 :], one) for k, one in enumerate(parts)]


def maps(noise: float, scale: float = 1.0, n: int = 60, width: int = 6, dim: int = 5) -> Data:
    """Four folds of (inputs [n, width], what is left over [n, dim])."""
    draw = np.random.default_rng(1)
    true = draw.standard_normal((width, dim))
    parts = []
    for _ in range(4):
        x = draw.standard_normal((n, width))
        parts.append((scale * x, scale * (x @ true + noise * draw.standard_normal((n, dim)))))
    return parts


def sums_of(parts: Data) -> MapSums:
    x, y = (np.concatenate(values) for values in zip(*parts, strict=True))
    return MapSums(x.T @ x, x.T @ y, float((y**2).sum()), np.ones(x.shape[1]))


def test_folds_hold_every_document_once() -> None:
    documents = np.array([3, 5, 8, 9, 11])
    parts = folds_of(documents)
    assert len(parts) == 4 and sorted(np.concatenate(parts).tolist()) == documents.tolist()
    assert [part.tolist() for part in folds_of(documents[:1])] == [[3]]


def test_error_of_a_filter_is_its_squared_error() -> None:
    (f, y), *_ = mixtures(0.5)
    each = np.random.default_rng(2).standard_normal((3, 4)).astype(np.float32)
    filters = np.repeat(each, [1, 1, 2, 4], axis=1)  # bands of 8 directions
    assert filter_error(gram(f, y), filters) == pytest.approx(((y - (filters * f).sum(axis=1)) ** 2).sum())


@pytest.mark.parametrize("scale", [1.0, 1e-4, 1e3])
def test_bands_are_held_to_one_filter_as_the_folds_say(scale: float) -> None:
    parts = mixtures(1.0, scale)
    pairs = [(sum(gram(*one) for one in others), gram(*own)) for others, own in left_out(parts)]
    errors = {
        share: sum(
            ((y - (solve_bands(others, 8, share) * f).sum(axis=1)) ** 2).sum()
            for (others, _), (f, y) in zip(pairs, parts, strict=True)
        )
        for share in TOWARDS_ONE
    }
    assert choose_towards_one(pairs, 8) == min(errors, key=lambda share: errors[share]) == TOWARDS_ONE[0]
    assert choose_towards_one([], 8) == TOWARDS_ONE[-1]  # a single document


def test_directions_that_do_not_differ_share_one_filter() -> None:
    draw, same = np.random.default_rng(3), np.array([0.5, 0.2, -0.1])[:, None]
    grams = []
    for _ in range(4):
        f = draw.standard_normal((40, 3, 8))
        grams.append(gram(f, (same * f).sum(axis=1) + 3 * draw.standard_normal((40, 8))))
    whole = np.sum(grams, axis=0)
    assert choose_towards_one([(whole - own, own) for own in grams], 8) >= 10
    found = solve_bands(whole, 8, TOWARDS_ONE[-1])
    assert found.std(axis=1).max() < 0.02


@pytest.mark.parametrize("scale", [1.0, 1e-4, 1e3])
def test_penalty_of_the_map_has_the_least_error_left_out(scale: float) -> None:
    parts = maps(4.0, scale)
    errors = {}
    for penalty in (*PENALTIES, np.inf):
        errors[penalty] = 0.0
        for others, (x, y) in left_out(parts):
            a, b = (np.concatenate(values) for values in zip(*others, strict=True))
            one = np.zeros((6, 5))
            if np.isfinite(penalty):
                one = np.linalg.solve(a.T @ a + penalty * np.trace(a.T @ a) / 6 * np.eye(6), a.T @ b)
            errors[penalty] += ((y - x @ one) ** 2).sum()
    pairs = [(sums_of(others), sums_of([own])) for others, own in left_out(parts)]
    chosen, without = choose_penalty(pairs)
    assert chosen == min(errors, key=lambda penalty: errors[penalty]) == PENALTIES[0]
    assert sum(own.error(one) for (_, own), one in zip(pairs, without, strict=True)) == pytest.approx(
        errors[chosen]
    )


def test_where_documents_disagree_there_is_no_map() -> None:
    parts = maps(0.5)
    contrary = [(x, y * sign) for (x, y), sign in zip(parts, (1, 1, -1, -1), strict=True)]
    pairs = [(sums_of(others), sums_of([own])) for others, own in left_out(contrary)]
    penalty, without = choose_penalty(pairs)
    assert penalty == np.inf and not any(np.any(one) for one in without)
    assert not np.any(pairs[0][0].layout(pairs[0][0].solve(penalty)))
    agreeing = [(sums_of(others), sums_of([own])) for others, own in left_out(parts)]
    assert choose_penalty(agreeing)[0] == PENALTIES[0]
    assert choose_penalty([]) == (np.inf, [])  # a single document has no folds, and no map
