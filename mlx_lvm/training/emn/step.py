"""EMN's compiled step: windows of a corpus to an update, with a running average of the weights that is what
gets validated.

The corpus is an input of the step, so that one network learns from several of any width: each shape is
compiled once.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any, Protocol

import numpy as np

from mlx_lvm.core.mlx import mx, nn, tree_unflatten
from mlx_lvm.models.emn import EMN
from mlx_lvm.training.config import TrainConfig
from mlx_lvm.training.distributed import SINGLE, Group
from mlx_lvm.training.emn.losses import predict_loss, rank_loss
from mlx_lvm.training.emn.reading import Reading
from mlx_lvm.training.emn.statistics import Statistics
from mlx_lvm.training.optimizer import adamw, clip_gradients, coefficients, gradient_norm, skip_if_nonfinite
from mlx_lvm.training.ramn.documents import TARGETS
from mlx_lvm.training.step import NEVER, StepState, added

AVERAGE = 0.98  # of the running average of the weights


class Material(Protocol):
    """What a step learns from: its arrays on the device, and what it says of the targets that a batch
    names.
    """

    @property
    def arrays(self) -> dict[str, mx.array]: ...

    def table(self, targets: np.ndarray) -> np.ndarray: ...

    def count_of(self, table: np.ndarray) -> int: ...


@dataclass(frozen=True, eq=False)
class Ranked:
    """Segments of documents to rank for, and the statistics of their corpus."""

    read: Reading
    statistics: Statistics

    @property
    def arrays(self) -> dict[str, mx.array]:
        assert self.statistics.whiten is not None
        return {**self.read.arrays, "whiten": mx.array(self.statistics.whiten.astype(np.float32))}

    def __len__(self) -> int:
        return self.read.parts.windows

    def table(self, targets: np.ndarray) -> np.ndarray:
        """[n, 3] of the segments with these first targets."""
        return self.read.parts.table(targets)

    def count_of(self, table: np.ndarray) -> int:
        """Targets of these segments."""
        return int(np.minimum(table[:, 2] - table[:, 0], TARGETS).sum())


class EmnStep(StepState):
    """Calls train `live` on the targets of the material `chosen`; `model` is the running average of its
    weights.

    Of a group of processes each takes its share of a batch; losses are sums over targets, so the gradients
    add up.
    """

    def __init__(
        self,
        model: EMN,
        materials: Sequence[Material],
        config: TrainConfig,
        group: Group = SINGLE,
        centred: Sequence[float] = (0.0,),
        documents: int = 0,
    ) -> None:
        # Weight of the centred cosine in the loss of head predict, one for each source of the material.
        self.centred = tuple(centred)
        # An input of the step: a kernel serves every corpus.
        weight = mx.array(self.centred, dtype=mx.float32)
        # What validation documents said before the first step. A checkpoint holds it, for epochs are measured
        # from there.
        self.at_start = mx.zeros((documents,))
        self.model, self.materials, self.config, self.group = model, materials, config, group
        self.chosen = 0
        self.live = EMN(model.config.replace(dim=0, expert="no"))
        own = model.weights()
        self.live.load_weights([(name, own[name] + 0) for name in self.live.weights()])
        super().__init__(self.live)
        self._arrays = [{**material.arrays, "weight": weight} for material in materials]
        self._step = self._compile()

    def __call__(self, batch: np.ndarray, lr: float, key: int) -> None:
        self.count = number = self.count + 1
        mx.random.seed(key)
        material = self.materials[self.chosen]
        table = material.table(batch)
        size, mine = mx.array(float(material.count_of(table))), 1.0
        if not self.group.single:
            start, stop, _ = self.group.shard(len(table))
            table, mine = (table[start:stop], 1.0) if stop > start else (table[:1], 0.0)
        keep = mx.array(min(AVERAGE, number / (number + 10)), dtype=mx.float32)
        rates = coefficients(lr, self.config.weight_decay, number)
        arrays = self._arrays[self.chosen]
        self._step(mx.array(table), size, mx.array(mine), rates, keep, mx.array(number), arrays)

    def arrays(self) -> list[Any]:
        return [self.live.parameters(), self.model.parameters(), self.state["moments"], self.state["sums"]]

    def state_dict(self) -> dict[str, mx.array]:
        live = {f"live.{name}": value for name, value in self.live.weights().items()}
        return {**super().state_dict(), **live, "at_start": self.at_start}

    def load_state_dict(self, saved: dict[str, mx.array], count: int) -> None:
        super().load_state_dict(saved, count)
        live = [(k.removeprefix("live."), v) for k, v in saved.items() if k.startswith("live.")]
        self.live.load_weights(live)
        self.at_start = saved["at_start"]

    def _compile(self) -> Callable[..., None]:
        live, average, config, group, state = self.live, self.model, self.config, self.group, self.state
        loss_of = rank_loss if live.config.head == "rank" else predict_loss
        names = list(live.weights())
        live.train()

        def mean_loss(table: mx.array, size: mx.array, mine: mx.array, arrays: dict[str, mx.array]) -> Any:
            loss, cosine = loss_of(live, table, arrays)
            return mine * loss / size, mine * cosine

        value_and_grad: Callable[..., Any] = nn.value_and_grad(live, mean_loss)
        captured: list[Any] = [live.state, average.state, state, mx.random.state]

        @partial(mx.compile, inputs=captured, outputs=captured)
        def step(
            table: mx.array,
            size: mx.array,
            mine: mx.array,
            rates: mx.array,
            keep: mx.array,
            number: mx.array,
            arrays: dict[str, mx.array],
        ) -> None:
            (loss, cosine), gradients = value_and_grad(table, size, mine, arrays)
            if not group.single:
                shared = group.all_reduce({"gradients": gradients, "loss": loss, "cosine": cosine})
                gradients, loss, cosine = shared["gradients"], shared["loss"], shared["cosine"]
            norm = gradient_norm(gradients)
            if config.clip:
                gradients = clip_gradients(gradients, norm, config.clip)
            state["sums"] = added(state["sums"], number, loss, cosine, norm, size.astype(mx.int32))
            finite = state["sums"]["broken"] == NEVER
            gradients, rates = skip_if_nonfinite(finite, gradients, rates)
            weights, state["moments"] = adamw(live.trainable_parameters(), gradients, state["moments"], rates)
            live.update(weights)
            new, old = live.weights(), average.weights()
            moved = [(k, mx.where(finite, old[k] + (1 - keep) * (new[k] - old[k]), old[k])) for k in names]
            average.update(tree_unflatten(moved))

        return step
