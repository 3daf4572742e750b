"""K full training steps on both sides: loss, clipping, AdamW, and the schedule replayed on recorded metrics.

The float64 run goes first and chooses the batches: one on which a relu input is zero to within rounding would
send two correct runs different ways. Weights are compared without the hundredth of their elements that lies
farthest off: AdamW divides by |g|, so an element whose gradient is rounding noise moves by lr in a direction
that nothing determines.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Any

import numpy as np
import torch

from mlx_lvm.core.mlx import mx
from mlx_lvm.data.card import EncoderCard
from mlx_lvm.data.corpus import Corpus
from mlx_lvm.data.windows import windows
from mlx_lvm.models import build
from mlx_lvm.parity.arbiter import UNIT, UNOBSERVABLE, Around, Check, failed, judge, rms, slack_of_sum
from mlx_lvm.parity.checks.model import split_gates
from mlx_lvm.parity.sides import bridge
from mlx_lvm.parity.sides.inputs import random_case
from mlx_lvm.parity.sides.kinks import NULL, near_kinks
from mlx_lvm.parity.sides.sides import Outputs, Subject, shake, twin_outputs
from mlx_lvm.parity.sides.trace import ask
from mlx_lvm.parity.twins.base import Twin
from mlx_lvm.parity.twins.losses import total
from mlx_lvm.training.config import TrainConfig
from mlx_lvm.training.schedule import Plateau
from mlx_lvm.training.step import TrainStep

BATCH, PROBE = 8, 16  # windows
TRIM = 0.01  # share of the elements of a tensor whose steps may be undetermined
KINK = 32.0  # roundings from its kink within which a relu input makes a batch unfit
ALL_LOSSES = {
    "loss_mse": 1.0,
    "loss_cosine": 0.5,
    "loss_infonce": 0.3,
    "loss_moment": 0.7,
    "loss_variance": 0.9,
}


@dataclass(frozen=True)
class Trained:
    """What a run of K steps leaves: weights, both moments, losses and the trained function on the probe
    windows.
    """

    weights: Outputs
    first: Outputs
    second: Outputs
    losses: np.ndarray
    probe: Outputs


def training_checks(
    subject: Subject, corpus: Corpus, steps: int, dtype: str = "float32", seed: int = 0, **options: Any
) -> Iterator[Check]:
    """Every quantity of K steps. `options` are fields of TrainConfig; clipping is set so that it acts."""
    if dtype != "float32":
        yield Check(
            f"{subject.name}/training/{subject.parameters}/{steps} steps/all",
            UNOBSERVABLE,
            True,
            note="models train in float32 only",
        )
        return
    found = list(train_both(subject, corpus, steps, seed, **options))
    if all(check.passed for check in found):
        yield from found
        return
    where = part_to_blame(found if steps == 1 else list(train_both(subject, corpus, 1, seed, **options)))
    yield from (check if check.passed else replace(check, first_divergence=where) for check in found)


def part_to_blame(first_step: list[Check]) -> str:
    """Which part of a training step parts first, from what one step leaves behind."""
    failures = [check.name.split("/")[4] for check in first_step if not check.passed]
    for part, name in (
        ("losses", "loss"),
        ("first", "gradient or clipping"),
        ("second", "optimiser"),
        ("weights", "optimiser"),
    ):
        if part in failures:
            return name
    if failures and set(failures) <= {"probe"}:
        return "average of the weights"
    return "optimiser" if failures else "schedule, or state between steps"


def train_both(subject: Subject, corpus: Corpus, steps: int, seed: int, **options: Any) -> Iterator[Check]:
    head = f"{subject.name}/training/{subject.parameters}/{steps} step{'s' if steps > 1 else ''}"
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

    def pair(draw: int) -> tuple[Trained, Trained]:
        near = replace(subject, weights=shaken(subject.weights, draw))
        return tuple(run_of(near, corpus, config, batches, kind) for kind in ("float32", "float64"))  # type: ignore[return-value]

    yield from compare_runs(
        head,
        mlx_run(subject, corpus, config, batches),
        run_of(subject, corpus, config, batches, "float32"),
        truth,
        null,
        config.lr * steps,
        Neighbours(pair),
    )


class Neighbours:
    """What torch errs on runs that begin a few roundings away from the one compared; computed once, when
    first asked.

    pair(number): the float32 and the float64 run of draw 0, 1, ...
    """

    def __init__(self, pair: Callable[[int], tuple[Trained, Trained]], draws: int = 3) -> None:
        self.pair, self.draws = pair, draws

    def around(self, part: str, name: str = "") -> Callable[[], Around]:
        """For `judge`: the largest error of torch in a field of `Trained`, or in one entry of it."""

        def error(pair: tuple[Trained, Trained]) -> float:
            torch, truth = (
                getattr(side, part)[name] if name else np.asarray(getattr(side, part)) for side in pair
            )
            if part == "weights":
                _, torch, truth = trimmed(torch, torch, truth)
            return rms(torch - truth)

        return lambda: Around(0.0, max(error(pair) for pair in self.runs))

    @cached_property
    def runs(self) -> list[tuple[Trained, Trained]]:
        """(float32, float64) of every draw."""
        return [self.pair(draw) for draw in range(self.draws)]


def shaken(weights: Mapping[str, mx.array], draw: int) -> dict[str, mx.array]:
    """The weights, each moved by some roundings."""
    generator, size = torch.Generator().manual_seed(draw), 4 * UNIT["float32"]
    return {
        name: bridge.to_mlx(shake(bridge.to_torch(value).double(), size, generator).float())
        for name, value in weights.items()
    }


def run_of(
    subject: Subject, corpus: Corpus, config: TrainConfig, batches: list[np.ndarray], dtype: str
) -> Trained:
    """Torch's run of these batches."""
    run = Torch(subject, corpus, config, dtype)
    for number, batch in enumerate(batches):
        run.step(batch, number)
    return run.result()


def recorded_metric(step: int) -> float:
    """A validation loss as a run might have it: falling, then stuck, so that the schedule cuts and keeps."""
    return 1.0 / (1 + step // 3)


class Torch:
    """One side of the training in torch's own AdamW, clip_grad_norm_ and ReduceLROnPlateau."""

    def __init__(self, subject: Subject, corpus: Corpus, config: TrainConfig, dtype: str) -> None:
        self.corpus, self.config, self.dtype = corpus, config, bridge.TORCH[dtype]
        self.model: Twin = subject.twin("float32", held=dtype)
        self.optimizer = torch.optim.AdamW(
            self.model.parameters(), lr=config.lr, weight_decay=config.weight_decay
        )
        self.schedule = torch.optim.lr_scheduler.ReduceLROnPlateau(
            self.optimizer, factor=config.plateau_factor, patience=config.plateau_patience
        )
        self.losses: list[float] = []
        self.null: set[str] = set()

    def tensors(self, targets: np.ndarray) -> tuple[torch.Tensor, torch.Tensor]:
        context, target = batch_of(self.corpus, self.config, targets)
        return bridge.to_torch(context).to(self.dtype), bridge.to_torch(target).to(self.dtype)

    def step(self, targets: np.ndarray, number: int) -> None:
        context, target = self.tensors(targets)
        self.optimizer.zero_grad()
        loss = total(self.config.loss_weights(), self.model(context), target, self.config.temperature)
        loss.backward()
        for parameter in (
            self.model.parameters()
        ):  # what a batch does not use has a gradient of zero in MLX, and none in torch
            if parameter.grad is None:
                parameter.grad = torch.zeros_like(parameter)
        if number == 0 and self.dtype == torch.float64:
            self._first_step()
        torch.nn.utils.clip_grad_norm_(self.model.parameters(), self.config.clip)
        self.optimizer.step()
        self.schedule.step(recorded_metric(number))
        self.losses.append(float(loss.detach()))

    def _first_step(self) -> None:
        """Set the clip to half of the first norm, so that it acts; note which gradients are rounding
        noise.
        """
        gradients = {
            name: bridge.to_float64(p.grad) for name, p in self.model.named_parameters() if p.grad is not None
        }
        norm = float(np.sqrt(sum(np.square(g).sum() for g in gradients.values())))
        self.config = self.config.replace(clip=norm / 2)
        sizes = {name: rms(g) for name, g in split_gates(gradients).items()}
        self.null = {name for name, size in sizes.items() if size <= NULL * 1e-3 * max(sizes.values())}

    def choose_batches(self, steps: int, seed: int) -> list[np.ndarray]:
        found = windows(self.corpus, np.arange(len(self.corpus.names)), self.config.context)
        draw = np.random.default_rng([seed, 77])
        batches = []
        for number in range(steps):
            for _ in range(20):
                batch = draw.choice(found.targets, BATCH, replace=False)
                if not near_kinks(self.model, self.tensors(batch)[0], KINK * UNIT["float32"]):
                    break
            batches.append(batch)
            self.step(batch, number)
        return batches

    def result(self) -> Trained:
        states = {name: self.optimizer.state[p] for name, p in self.model.named_parameters()}
        weights = {name: bridge.to_float64(p) for name, p in self.model.named_parameters()}
        moments = [
            {name: bridge.to_float64(state[key]) for name, state in states.items()}
            for key in ("exp_avg", "exp_avg_sq")
        ]
        probe = twin_outputs(self.model, bridge.to_torch(probe_of(self.corpus, self.config)).to(self.dtype))
        return Trained(
            split_gates(weights),
            split_gates(moments[0]),
            split_gates(moments[1]),
            np.array(self.losses),
            probe,
        )


def mlx_run(subject: Subject, corpus: Corpus, config: TrainConfig, batches: list[np.ndarray]) -> Trained:
    """The same steps by the project's own compiled training step and schedule."""
    model = subject.model()
    step, schedule = (
        TrainStep(model, corpus, config),
        Plateau(config.lr, config.plateau_factor, config.plateau_patience),
    )
    losses = []
    for number, batch in enumerate(batches):
        step(batch, schedule.lr, key=number)
        mx.eval(step.arrays())
        losses.append(step.read_sums()["loss"])
        step.clear_sums()
        schedule.observe(recorded_metric(number))
    saved = step.state_dict()
    moments = [
        {
            name.removeprefix(f"{part}."): bridge.to_float64(v)
            for name, v in saved.items()
            if name.startswith(f"{part}.")
        }
        for part in ("first", "second")
    ]
    weights = {name: bridge.to_float64(value) for name, value in model.weights().items()}
    out = ask(model, probe_of(corpus, config))._asdict()
    probe = {name: bridge.to_float64(value) for name, value in out.items() if value is not None}
    return Trained(
        split_gates(weights), split_gates(moments[0]), split_gates(moments[1]), np.array(losses), probe
    )


def compare_runs(
    head: str,
    mlx: Trained,
    torch: Trained,
    truth: Trained,
    null: set[str],
    reach: float,
    near: Neighbours,
) -> Iterator[Check]:
    """reach: the farthest that AdamW can have moved a weight, lr times steps."""
    # Numbers that are added to the loss, and shared out to the elements of a small parameter's gradient.
    terms = mlx.probe["raw"].shape[1] * BATCH
    yield judge(
        f"{head}/losses",
        mlx.losses,
        torch.losses,
        truth.losses,
        "float32",
        around=near.around("losses"),
        must_observe=True,
        slack=slack_of_sum(terms),
    )
    for part in ("first", "second", "weights"):
        sides = [getattr(side, part) for side in (mlx, torch, truth)]
        if set(sides[0]) != set(sides[2]):
            yield failed(f"{head}/{part}", f"only one side has: {sorted(set(sides[0]) ^ set(sides[2]))}")
            continue
        for name in sides[2]:
            mine, other, true = (side[name] for side in sides)
            if name in null:
                passed = part != "weights" or float(np.abs(mine - true).max()) <= 2.5 * reach
                note = "gradient zero by mathematics: AdamW turns its rounding noise into steps"
                yield replace(
                    failed(f"{head}/{part}/{name}", note, name),
                    verdict=UNOBSERVABLE,
                    passed=passed,
                    ratio=0.0,
                    mlx_error=0.0,
                )
            else:
                if part == "weights":
                    mine, other, true = trimmed(mine, other, true)
                # A square errs twice as much.
                slack = slack_of_sum(terms // true.size) * (2 if part == "second" else 1)
                check = judge(
                    f"{head}/{part}/{name}",
                    mine,
                    other,
                    true,
                    "float32",
                    around=near.around(part, name),
                    must_observe=True,
                    slack=slack,
                )
                yield check if check.passed else replace(check, first_divergence=f"{part}/{name}")
    names = [name for name in truth.weights if name not in null]
    whole = [np.concatenate([side.weights[name].ravel() for name in names]) for side in (mlx, torch, truth)]
    yield judge(f"{head}/trajectory", *trimmed(*whole), "float32", must_observe=True)
    for name, value in truth.probe.items():
        yield judge(
            f"{head}/probe/{name}",
            mlx.probe[name],
            torch.probe[name],
            value,
            "float32",
            around=near.around("probe", name),
            must_observe=True,
        )


def trimmed(
    mlx: np.ndarray, torch: np.ndarray, truth: np.ndarray
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Without the elements farthest off: each side loses its own hundredth, which is then put back as
    true.
    """
    out = []
    for side in (mlx, torch):
        error = np.abs(side - truth).ravel()
        drop = int(np.ceil(TRIM * error.size)) if error.size > 1 else 0
        kept = side.ravel().copy()
        if drop:
            worst = np.argpartition(error, -drop)[-drop:]
            kept[worst] = truth.ravel()[worst]
        out.append(kept)
    return out[0], out[1], truth.ravel()


def batch_of(corpus: Corpus, config: TrainConfig, targets: np.ndarray) -> tuple[mx.array, mx.array]:
    rows = mx.array(targets)
    return corpus.take(rows[:, None] + mx.arange(-config.context, 0)), corpus.take(rows)


def probe_of(corpus: Corpus, config: TrainConfig) -> mx.array:
    """Windows that no step of so short a run is likely to have seen, evenly spaced."""
    found = windows(corpus, np.arange(len(corpus.names)), config.context)
    at = np.linspace(0, len(found) - 1, PROBE + 2).astype(int)[1:-1]
    return found.contexts(at)


def synthetic_corpus(dim: int) -> Corpus:
    """Twenty documents of twenty vectors, where no real corpus has this width."""
    vectors = random_case(dim, 20, 20, 55).context.reshape(400, dim)
    names = tuple(f"document {number}" for number in range(20))
    return Corpus("synthetic", mx.array(vectors), None, np.arange(0, 401, 20), names, EncoderCard(dim=dim))
