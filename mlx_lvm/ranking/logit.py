"""A multinomial logit: the weights under which the truth is most likely among all candidates.

Convex, solved by Newton's method with backtracking; the same input gives the same weights.
"""

from __future__ import annotations

import numpy as np

from mlx_lvm.core.mlx import mx

# on the weights: decides between terms that say the same, bounds those that no window contradicts
RIDGE = 1e-5
NEWTON_STEPS = 50
CONVERGED = 1e-5  # nats a step may still promise


def fit_logit(features: mx.array, offsets: mx.array, start: np.ndarray | None = None) -> np.ndarray:
    """Weights w [k] that maximise mean log softmax(w . features + offsets) at the last column, less RIDGE / 2
    |w|^2.

    features [n, k, m], offsets [n, m]; start [k]: where Newton's method begins, zeros by default.
    """
    n, k, _ = features.shape
    weights = np.zeros(k) if start is None else start.astype(np.float64)
    value = likelihood(features, offsets, weights)
    for _ in range(NEWTON_STEPS):
        probability = mx.softmax(logits(features, offsets, weights), axis=1)
        weighted = features * probability[:, None]
        expected = np.array(weighted.sum(axis=2), dtype=np.float64)
        second = np.array((weighted @ features.swapaxes(1, 2)).sum(axis=0), dtype=np.float64)
        gradient = (np.array(features[:, :, -1], dtype=np.float64) - expected).mean(axis=0) - RIDGE * weights
        step = np.linalg.solve((second - expected.T @ expected) / n + RIDGE * np.eye(k), gradient)
        promised = float(gradient @ step)
        if promised < CONVERGED:
            break
        length, reached = 1.0, likelihood(features, offsets, weights + step)
        while reached < value + 1e-4 * length * promised and length > 1e-6:
            length /= 2
            reached = likelihood(features, offsets, weights + length * step)
        weights, value = weights + length * step, reached
    return weights


def logits(features: mx.array, offsets: mx.array, weights: np.ndarray) -> mx.array:
    """w . features + offsets, [n, m]."""
    return (mx.array(weights.astype(np.float32))[None, None] @ features)[:, 0] + offsets


def likelihood(features: mx.array, offsets: mx.array, weights: np.ndarray) -> float:
    """What `fit_logit` maximises."""
    scores = logits(features, offsets, weights)
    mean = float((scores[:, -1] - mx.logsumexp(scores, axis=1)).mean())
    return mean - RIDGE / 2 * float(weights @ weights)
