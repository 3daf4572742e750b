"""K full training steps on both sides: loss, clipping, AdamW, and the schedule replayed on recorded metrics.

The float64 run goes first and chooses the batches: one on which a relu input is zero to within rounding would
send two correct runs different ways. Weights are compared without the hundredth of their elements that lies
farthest off: AdamW divides by |g|, so an element whose gradient is rounding noise moves by lr in a direction
that nothing determines.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import replace
from functools import cached_property, partial
from typing import Any

import numpy as np
import torch

from mlx_lvm.config import Options
from mlx_lvm.core.mlx import mx
from mlx_lvm.data.card import EncoderCard
from mlx_lvm.data.corpus import Corpus
from mlx_lvm.models import build
from mlx_lvm.parity.arbiter import UNIT, NeighbourErrors, judge, judge_each, rms, slack_of_sum
from mlx_lvm.parity.sides import bridge
from mlx_lvm.parity.sides.inputs import random_case
from mlx_lvm.parity.sides.sides import Subject, shake
from mlx_lvm.parity.sides.training import BATCH, Torch, Trained, mlx_run
from mlx_lvm.parity.verdict import Check, Compared, blamed, failed, unobservable
from mlx_lvm.training.config import TrainConfig

DRAWS = 8  # neighbouring runs
TRIM = 0.01  # share of the elements of a tensor whose steps may be undetermined
ALL_LOSSES: Options = {
    "loss_mse": 1.0,
    "loss_cosine": 0.5,
    "loss_infonce": 0.3,
    "loss_moment": 0.7,
    "loss_variance": 0.9,
}
# what is to blame where a part of a step's result is the first that differs
PARTS = {"losses": "loss", "first": "gradient or clipping", "second": "optimiser", "weights": "optimiser"}


def training_checks(
    subject: Subject, corpus: Corpus, steps: int, dtype: str = "float32", seed: int = 0, **options: Any
) -> Iterator[Check]:
    """Every quantity of K steps. `options` are fields of TrainConfig; clipping is set so that it acts."""
    if dtype != "float32":
        what = Compared(subject.name, "training", subject.parameters, f"{steps} steps", "all")
        yield unobservable(what, "models train in float32 only")
        return
    found = list(train_both(subject, corpus, steps, seed, **options))
    where = ""
    if not all(check.passed for check in found):
        where = part_to_blame(found if steps == 1 else list(train_both(subject, corpus, 1, seed, **options)))
    yield from blamed(found, where)


def part_to_blame(first_step: list[Check]) -> str:
    """Which part of a training step parts first, from what one step leaves behind."""
    failures = [check.what.case for check in first_step if not check.passed]
    for part, name in PARTS.items():
        if part in failures:
            return name
    if failures and set(failures) <= {"probe"}:
        return "average of the weights"
    return "optimiser" if failures else "schedule, or state between steps"


def train_both(subject: Subject, corpus: Corpus, steps: int, seed: int, **options: Any) -> Iterator[Check]:
    length = f"{steps} step{'s' if steps > 1 else ''}"
    head = Compared(subject.name, "training", subject.parameters, length)
    if type(build(subject.config)).task == "documents":
        from mlx_lvm.parity.checks.document_training import document_checks

        yield from document_checks(head, subject, corpus, steps, seed)
        return
    if "dropout" in subject.config.to_dict():
        subject = replace(subject, config=subject.config.replace(dropout=0.0))
    corpus = corpus if corpus.dim == subject.config.dim else synthetic_corpus(subject.config.dim)
    config = TrainConfig(**{"plateau_patience": 0, "seed": seed, **options})
    truth_run = Torch(subject, corpus, config, "float64")
    batches = truth_run.choose_batches(steps, seed)
    truth, null = truth_run.result(), truth_run.null
    config = truth_run.config  # which has the clip that the truth chose

    def run(near: Subject, dtype: str) -> Trained:
        return Torch(near, corpus, config, dtype).train(batches)

    mine, reach = mlx_run(subject, corpus, config, batches), config.lr * steps
    runs = (mine, run(subject, "float32"), truth)
    yield from compare_runs(head, runs, null, reach, Neighbours(subject, run))


class Neighbours:
    """What torch errs on runs that begin a few roundings away from the subject; computed when first asked.

    run: torch's run of a subject, in float32 or float64
    """

    def __init__(self, subject: Subject, run: Callable[[Subject, str], Trained]) -> None:
        self.subject, self.run = subject, run

    def neighbours(self, part: str, name: str = "") -> Callable[[], NeighbourErrors]:
        """For `judge`: the largest error of torch in a field of `Trained`, or in one entry of it."""

        def error(pair: tuple[Trained, Trained]) -> float:
            fields = (getattr(side, part) for side in pair)
            torch, truth = (field[name] if name else np.asarray(field) for field in fields)
            if part == "weights":
                _, torch, truth = trimmed(torch, torch, truth)
            return rms(torch - truth)

        return lambda: NeighbourErrors(0.0, max(error(pair) for pair in self.runs))

    @cached_property
    def runs(self) -> list[tuple[Trained, Trained]]:
        """(float32, float64) of every draw."""
        draws = (replace(self.subject, weights=shaken(self.subject.weights, draw)) for draw in range(DRAWS))
        return [(self.run(near, "float32"), self.run(near, "float64")) for near in draws]


def shaken(weights: Mapping[str, mx.array], draw: int) -> dict[str, mx.array]:
    """The weights, each moved by some roundings."""
    generator, size = torch.Generator().manual_seed(draw), 4 * UNIT["float32"]
    return {
        name: bridge.to_mlx(shake(bridge.to_torch(value).double(), size, generator).float())
        for name, value in weights.items()
    }


def compare_runs(
    head: Compared, runs: tuple[Trained, Trained, Trained], null: set[str], reach: float, near: Neighbours
) -> Iterator[Check]:
    """runs: of MLX, torch and the truth. reach: the farthest that AdamW can have moved a weight."""
    mlx, torch, truth = runs
    judged = partial(judge, dtype="float32", must_observe=True)
    # Numbers that are added to the loss, and shared out to the elements of a small parameter's gradient.
    terms = mlx.probe["raw"].shape[1] * BATCH
    losses, of = (run.losses for run in runs), near.neighbours("losses")
    yield judged(head._replace(case="losses"), *losses, neighbours=of, slack=slack_of_sum(terms))
    for part in ("first", "second", "weights"):
        sides = [getattr(run, part) for run in runs]
        if set(sides[0]) != set(sides[2]):
            note = f"only one side has: {sorted(set(sides[0]) ^ set(sides[2]))}"
            yield failed(head._replace(case=part), note)
            continue
        for name in sides[2]:
            what, values = head._replace(case=part, value=name), [side[name] for side in sides]
            if name in null:
                passed = part != "weights" or float(np.abs(values[0] - values[2]).max()) <= 2.5 * reach
                note = "gradient zero by mathematics: AdamW turns its rounding noise into steps"
                yield replace(unobservable(what, note), passed=passed)
                continue
            # A square errs twice as much.
            slack = slack_of_sum(terms // values[2].size) * (2 if part == "second" else 1)
            if part == "weights":
                values = trimmed(*values)
            check = judged(what, *values, neighbours=near.neighbours(part, name), slack=slack)
            yield check if check.passed else replace(check, first_divergence=f"{part}/{name}")
    names = [name for name in truth.weights if name not in null]
    whole = [np.concatenate([run.weights[name].ravel() for name in names]) for run in runs]
    yield judged(head._replace(case="trajectory"), *trimmed(*whole))
    probes, around = (mlx.probe, torch.probe, truth.probe), partial(near.neighbours, "probe")
    yield from judge_each(head._replace(case="probe"), *probes, "float32", around, must_observe=True)


def trimmed(mlx: np.ndarray, torch: np.ndarray, truth: np.ndarray) -> list[np.ndarray]:
    """Without the elements farthest off: each side loses its own hundredth, put back as the truth has it."""
    true, out = truth.ravel(), []
    for side in (mlx, torch):
        kept, error = side.ravel().copy(), np.abs(side - truth).ravel()
        drop = int(np.ceil(TRIM * error.size)) if error.size > 1 else 0
        if drop:
            worst = np.argpartition(error, -drop)[-drop:]
            kept[worst] = true[worst]
        out.append(kept)
    return [*out, true]


def synthetic_corpus(dim: int) -> Corpus:
    """Twenty documents of twenty vectors, where no real corpus has this width."""
    vectors = random_case(dim, 20, 20, 55).context.reshape(400, dim)
    names = tuple(f"document {number}" for number in range(20))
    return Corpus("synthetic", mx.array(vectors), None, np.arange(0, 401, 20), names, EncoderCard(dim=dim))
