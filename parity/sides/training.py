"""The sides of K training steps: torch's own optimiser and schedule, and the project's compiled step."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass

import numpy as np
import torch

from mlx_lvm.core.mlx import mx
from mlx_lvm.data.corpus import Corpus
from mlx_lvm.data.windows import windows
from mlx_lvm.models import VectorModel
from mlx_lvm.parity.arbiter import UNIT, rms
from mlx_lvm.parity.sides import bridge
from mlx_lvm.parity.sides.gates import split_gates
from mlx_lvm.parity.sides.kinks import NULL, near_kinks
from mlx_lvm.parity.sides.sides import Subject, twin_outputs
from mlx_lvm.parity.sides.trace import Outputs, ask
from mlx_lvm.parity.twins.base import Twin
from mlx_lvm.parity.twins.losses import total
from mlx_lvm.training.config import TrainConfig
from mlx_lvm.training.schedule import Plateau
from mlx_lvm.training.step import StepState, TrainStep

BATCH, PROBE = 8, 16  # windows
KINK = 32.0  # roundings from its kink within which a relu input makes a batch unfit


@dataclass(frozen=True)
class Trained:
    """What a run of K steps leaves; `probe` is what the trained function gives for windows of its own."""

    weights: Outputs
    first: Outputs
    second: Outputs
    losses: np.ndarray
    probe: Outputs


def recorded_metric(step: int) -> float:
    """A validation loss as a run might have it: falling, then stuck, so that the schedule cuts and keeps."""
    return 1.0 / (1 + step // 3)


class Torch:
    """One side of the training in torch's own AdamW, clip_grad_norm_ and ReduceLROnPlateau."""

    def __init__(self, subject: Subject, corpus: Corpus, config: TrainConfig, dtype: str) -> None:
        self.corpus, self.config, self.dtype = corpus, config, bridge.TORCH[dtype]
        self.model: Twin = subject.twin("float32", held=dtype)
        parameters, decay = self.model.parameters(), config.weight_decay
        self.optimizer = torch.optim.AdamW(parameters, lr=config.lr, weight_decay=decay)
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
        # what a batch does not use has a gradient of zero in MLX, and none in torch
        for parameter in self.model.parameters():
            if parameter.grad is None:
                parameter.grad = torch.zeros_like(parameter)
        if number == 0 and self.dtype == torch.float64:
            self._first_step()
        torch.nn.utils.clip_grad_norm_(self.model.parameters(), self.config.clip)
        self.optimizer.step()
        self.schedule.step(recorded_metric(number))
        self.losses.append(float(loss.detach()))

    def _first_step(self) -> None:
        """Set the clip to half of the first norm, so that it acts; note which gradients are noise."""
        named = self.model.named_parameters()
        gradients = {name: bridge.to_float64(p.grad) for name, p in named if p.grad is not None}
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

    def train(self, batches: list[np.ndarray]) -> Trained:
        for number, batch in enumerate(batches):
            self.step(batch, number)
        return self.result()

    def result(self) -> Trained:
        probe = bridge.to_torch(probe_of(self.corpus, self.config)).to(self.dtype)
        held = dict(self.model.named_parameters())
        return torch_result(held, self.optimizer, self.losses, twin_outputs(self.model, probe))


def torch_result(
    trained: Mapping[str, torch.Tensor], optimizer: torch.optim.Optimizer, losses: list[float], probe: Outputs
) -> Trained:
    """What torch's run has left in the parameters that it trained, and in its AdamW."""
    weights = {name: bridge.to_float64(value) for name, value in trained.items()}
    first, second = (
        {name: bridge.to_float64(optimizer.state[value][key]) for name, value in trained.items()}
        for key in ("exp_avg", "exp_avg_sq")
    )
    return Trained(split_gates(weights), split_gates(first), split_gates(second), np.array(losses), probe)


def mlx_run(subject: Subject, corpus: Corpus, config: TrainConfig, batches: list[np.ndarray]) -> Trained:
    """The same steps by the project's own compiled training step and schedule."""
    model = subject.model()
    schedule = Plateau(config.lr, config.plateau_factor, config.plateau_patience)

    def rates() -> Iterator[float]:
        for number in range(len(batches)):
            yield schedule.lr
            schedule.observe(recorded_metric(number))

    return mlx_result(model, TrainStep(model, corpus, config), batches, rates(), probe_of(corpus, config))


def mlx_result(
    model: VectorModel, step: StepState, batches: list[np.ndarray], rates: Iterable[float], probe: mx.array
) -> Trained:
    """Runs the steps; what is left of them. Weights are the live ones where `model` holds their average."""
    losses = []
    for number, (batch, rate) in enumerate(zip(batches, rates, strict=True)):
        step(batch, rate, key=number)
        mx.eval(step.arrays())
        losses.append(step.read_sums()["loss"])
        step.clear_sums()
    saved = {name: bridge.to_float64(value) for name, value in step.state_dict().items()}
    live, first, second = (
        {name.removeprefix(part): value for name, value in saved.items() if name.startswith(part)}
        for part in ("live.", "first.", "second.")
    )
    weights = live or {name: bridge.to_float64(value) for name, value in model.weights().items()}
    model.eval()
    out = {name: bridge.to_float64(value) for name, value in ask(model, probe).items()}
    return Trained(split_gates(weights), split_gates(first), split_gates(second), np.array(losses), out)


def batch_of(corpus: Corpus, config: TrainConfig, targets: np.ndarray) -> tuple[mx.array, mx.array]:
    rows = mx.array(targets)
    return corpus.take(rows[:, None] + mx.arange(-config.context, 0)), corpus.take(rows)


def probe_of(corpus: Corpus, config: TrainConfig) -> mx.array:
    """Windows that no step of so short a run is likely to have seen, evenly spaced."""
    found = windows(corpus, np.arange(len(corpus.names)), config.context)
    at = np.linspace(0, len(found) - 1, PROBE + 2).astype(int)[1:-1]
    return found.contexts(at)
