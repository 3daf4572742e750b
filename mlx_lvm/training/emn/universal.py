"""One network for every encoder: trained on several corpora at once, each with its own statistics, of any
width.

Every step is of one corpus (rank) or of all mixed (predict), corpora chosen by the square root of their size:
a small one would drown, a large one hold more than its share of what there is to learn. Head predict sees
every window twice: with the expert of its corpus, fitted without its document, and with none.

Its loss weighs the centred cosine twice what that of a network for one corpus does: the best baseline in
cosine is another one than in centred cosine, which is harder to pass, and a network that is trained on no
window of a corpus has cosine to spare there.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from mlx_lvm.core.mlx import mx
from mlx_lvm.data.corpus import Corpus
from mlx_lvm.models.emn import EMN
from mlx_lvm.models.emn_config import EMNConfig
from mlx_lvm.training.config import TrainConfig
from mlx_lvm.training.emn.geometry import Geometry, geometry_of, joined
from mlx_lvm.training.emn.scores import centred_weight
from mlx_lvm.training.emn.statistics import read_with_expert, statistics_of
from mlx_lvm.training.emn.step import EmnStep, Ranked
from mlx_lvm.training.ramn.step import learning_rate
from mlx_lvm.training.state import step_key

REPORT_EVERY = 100  # steps


@dataclass(frozen=True)
class Recipe:
    """steps of `batch` windows (predict) or segments of 32 targets (rank); centred: what the centred cosine
    weighs (predict), in units of what each corpus's lag filter lacks, see `scores.centred_weight`.
    """

    steps: int
    batch: int
    lr: float
    weight_decay: float = 0.01
    clip: float = 5.0
    centred: float = 1.0


RECIPES = {"predict": Recipe(2000, 256, 6e-3), "rank": Recipe(600, 16, 5e-3)}


def materials_of(
    head: str, corpus: Corpus, documents: np.ndarray, context: int = 5
) -> list[Ranked | Geometry]:
    """Segments to rank for, or windows with and without an expert. Raises InvalidFile where the documents
    have no window.
    """
    read, fitted = read_with_expert(corpus, documents, context, _config(head))
    if head == "rank":
        return [Ranked(read, statistics_of(read, whiten=True))]
    kinds = [read] if fitted is None else [read, replace(read, expert=mx.zeros((1, corpus.dim)))]
    return [geometry_of(one, statistics_of(one, whiten=False)) for one in kinds]


def train_network(
    head: str,
    corpora: Sequence[tuple[Corpus, np.ndarray]],
    recipe: Recipe | None = None,
    context: int = 5,
    seed: int = 0,
    progress: Callable[[str], None] = lambda line: None,
) -> EMN:
    """An EMN with no corpus's statistics, trained on some documents of each corpus. Raises InvalidFile where
    they have no window.
    """
    materials = [
        one for corpus, documents in corpora for one in materials_of(head, corpus, documents, context)
    ]
    return train_on(head, materials, recipe, seed, progress)


def train_on(
    head: str,
    materials: Sequence[Ranked | Geometry],
    recipe: Recipe | None = None,
    seed: int = 0,
    progress: Callable[[str], None] = lambda line: None,
) -> EMN:
    """The same on what `materials_of` gave for each corpus."""
    chosen = recipe or RECIPES[head]
    mx.random.seed(seed)
    network = EMN(_config(head))
    network.start_at_baseline()
    weights = [len(one) ** 0.5 for one in materials]
    share = np.array(weights) / np.sum(weights)
    options = TrainConfig(
        batch_size=chosen.batch, lr=chosen.lr, weight_decay=chosen.weight_decay, clip=chosen.clip, seed=seed
    )
    mixed, centred = list[Any](materials), [0.0]
    if head == "predict":
        windows = [one for one in materials if isinstance(one, Geometry)]
        mixed, centred = [joined(windows)], [centred_weight(one, chosen.centred) for one in windows]
    step = EmnStep(network, mixed, options, centred=centred)
    draw = np.random.default_rng(seed)
    for number in range(chosen.steps):
        rate = learning_rate(options, number + 1, chosen.steps)
        step(_targets(step, mixed, share, draw, chosen.batch), rate, step_key(seed, 0, number, 0))
        mx.eval(step.arrays())
        if (number + 1) % REPORT_EVERY == 0:
            sums = step.read_sums()
            step.clear_sums()
            progress(f"step {number + 1} of {chosen.steps}: loss {sums['loss']:.4f}")
    network.eval()
    return network


def _config(head: str) -> EMNConfig:
    return EMNConfig(dim=0, head=head, expert="auto" if head == "predict" else "no")


def _targets(
    step: EmnStep, materials: Sequence[Any], share: np.ndarray, draw: np.random.Generator, batch: int
) -> np.ndarray:
    """Of the next step, and the material they are of chosen."""
    if len(materials) == 1 and isinstance(materials[0], Geometry):
        sizes = np.bincount(materials[0].source, minlength=len(share))
        first = np.cumsum(sizes) - sizes
        source = draw.choice(len(share), batch, p=share)
        return (first[source] + draw.integers(0, sizes[source])).astype(np.int32)
    step.chosen = int(draw.choice(len(share), p=share))
    targets = materials[step.chosen].read.parts.targets
    return draw.choice(targets, min(batch, len(targets)), replace=False)
