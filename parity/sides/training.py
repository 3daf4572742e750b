"""The sides of K training steps: torch's own optimiser and schedule, and the project's compiled step."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch

from mlx_lvm.core.mlx import mx
from mlx_lvm.data.corpus import Corpus
from mlx_lvm.data.windows import windows
from mlx_lvm.parity.arbiter import UNIT, rms
from mlx_lvm.parity.sides import bridge
from mlx_lvm.parity.sides.gates import split_gates
from mlx_lvm.parity.sides.kinks import NULL, near_kinks
from mlx_lvm.parity.sides.sides import Outputs, Subject, twin_outputs
from mlx_lvm.parity.sides.trace import ask
from mlx_lvm.parity.twins.base import Twin
from mlx_lvm.parity.twins.losses import total
from mlx_lvm.training.config import TrainConfig
from mlx_lvm.training.schedule import Plateau
from mlx_lvm.training.step import TrainStep

BATCH, PROBE = 8, 16  # windows
KINK = 32.0  # roundings from its kink within which a relu input makes a batch unfit


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


def batch_of(corpus: Corpus, config: TrainConfig, targets: np.ndarray) -> tuple[mx.array, mx.array]:
    rows = mx.array(targets)
    return corpus.take(rows[:, None] + mx.arange(-config.context, 0)), corpus.take(rows)


def probe_of(corpus: Corpus, config: TrainConfig) -> mx.array:
    """Windows that no step of so short a run is likely to have seen, evenly spaced."""
    found = windows(corpus, np.arange(len(corpus.names)), config.context)
    at = np.linspace(0, len(found) - 1, PROBE + 2).astype(int)[1:-1]
    return found.contexts(at)
