"""A multinomial logit: the weights under which the truth is most likely among all candidates.

Convex, solved by Newton's method with backtracking; the same input gives the same weights. A look at the
candidates gives likelihood, gradient and curvature at once, so a step costs one look.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from mlx_lvm.core.mlx import mx

# on the weights: decides between terms that say the same, bounds those that no window contradicts
RIDGE = 1e-5
NEWTON_STEPS = 50
CONVERGED = 1e-5  # nats a step may still promise


@dataclass(frozen=True, eq=False)
class Likelihood:
    """Log likelihood of the truth at some weights w [k], window by window, in float64.

    value [n], gradient [n, k], curvature [n, k, k] (of the negative log likelihood).
    """

    weights: np.ndarray
    value: np.ndarray
    gradient: np.ndarray
    curvature: np.ndarray

    def mean(self) -> float:
        """What `fit_logit` maximises."""
        return float(self.value.mean()) - RIDGE / 2 * float(self.weights @ self.weights)

    def step(self, windows: np.ndarray | slice = slice(None)) -> tuple[np.ndarray, float]:
        """Newton's step [k] for the chosen windows alone, and the nats that it promises."""
        gradient = self.gradient[windows].mean(axis=0) - RIDGE * self.weights
        curvature = self.curvature[windows].mean(axis=0) + RIDGE * np.eye(len(gradient))
        step = np.linalg.solve(curvature, gradient)
        return step, float(gradient @ step)


def fit_logit(features: mx.array, offsets: mx.array, start: np.ndarray | None = None) -> np.ndarray:
    """Weights w [k] that maximise mean log softmax(w . features + offsets)[last] - RIDGE / 2 |w|^2.

    features [n, k, m], offsets [n, m]; start [k]: where Newton's method begins, zeros by default.
    """
    return maximise(features, offsets, np.zeros(features.shape[1]) if start is None else start).weights


def maximise(features: mx.array, offsets: mx.array, start: np.ndarray) -> Likelihood:
    """`fit_logit`, with the likelihood at its weights."""
    at = likelihood(features, offsets, start.astype(np.float64))
    for _ in range(NEWTON_STEPS):
        step, promised = at.step()
        if promised < CONVERGED:
            break
        length, reached = 1.0, likelihood(features, offsets, at.weights + step)
        while reached.mean() < at.mean() + 1e-4 * length * promised and length > 1e-6:
            length /= 2
            reached = likelihood(features, offsets, at.weights + length * step)
        at = reached
    return at


def likelihood(features: mx.array, offsets: mx.array, weights: np.ndarray) -> Likelihood:
    """Shapes as for `fit_logit`."""
    scores = (mx.array(weights.astype(np.float32))[None, None] @ features)[:, 0] + offsets
    total = mx.logsumexp(scores, axis=1, keepdims=True)
    weighted = features * mx.exp(scores - total)[:, None]
    found = [
        scores[:, -1] - total[:, 0],
        features[:, :, -1],
        weighted.sum(axis=2),
        weighted @ features.swapaxes(1, 2),
    ]
    mx.eval(found)
    value, truth, expected, second = (np.array(one, dtype=np.float64) for one in found)
    return Likelihood(weights, value, truth - expected, second - expected[:, :, None] * expected[:, None])
