"""What a forward pass and a training step cost on Metal, counted in MLX's own graph, without a Mac.

Every node of the graph that computes is one kernel; what only looks at an array otherwise (a transpose, a
slice) is none. The graph is built as for a GPU and never evaluated. It is MLX's graph on this machine: where
Metal has one kernel for a LayerNorm or a softmax the graph of a CPU has the few that it is made of, so a
count is a little above what Metal starts.
"""

from __future__ import annotations

import re
import tempfile
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from mlx_lvm.bench.roofline import CHIPS, Chip, Cost
from mlx_lvm.core.mlx import mx, nn, optim, tree_flatten
from mlx_lvm.data.card import EncoderCard
from mlx_lvm.data.corpus import Corpus
from mlx_lvm.models import ModelConfig, VectorModel, architecture, build
from mlx_lvm.training.config import TrainConfig
from mlx_lvm.training.ramn.documents import segments
from mlx_lvm.training.ramn.step import DocumentStep
from mlx_lvm.training.step import TrainStep

MOST_BUFFERS = 31  # arguments of a Metal kernel
# seconds to start a kernel in a command buffer that holds many; an assumption, nobody has measured it here
START = 3e-6
# Primitives that start no kernel: they describe the same memory otherwise, or are there for differentiation
# alone.
VIEWS = (
    "AsStrided", "Broadcast", "BroadcastAxes", "CustomTransforms", "Depends", "ExpandDims", "Flatten",
    "NumberOfElements", "Reshape", "Slice", "Split", "Squeeze", "StopGradient", "Transpose", "Unflatten",
    "View",
)  # fmt: skip
NODE = re.compile(r'\{ (\d+) \[label ="([^"]*)"')
INTO = re.compile(r'^"(\w+)" -> (\d+)$')
OUT = re.compile(r'^(\d+) -> "(\w+)"$')


@dataclass(frozen=True)
class Counted:
    """kernels: by primitive, fused ones under `fused`; buffers: arrays that the widest fused kernel reads and
    writes.
    """

    kernels: dict[str, int]
    buffers: int

    @property
    def total(self) -> int:
        return sum(self.kernels.values())


@contextmanager
def as_on_a_gpu() -> Iterator[None]:
    """The branches of a GPU are taken while it lasts. Nothing may be evaluated meanwhile that is not
    there.
    """
    real = mx.default_device
    mx.default_device = lambda: mx.Device(mx.gpu)
    try:
        yield
    finally:
        mx.default_device = real


def count(arrays: list[mx.array]) -> Counted:
    """The kernels that computing these arrays takes."""
    with tempfile.TemporaryDirectory() as folder:
        path = str(Path(folder) / "graph.dot")
        mx.export_to_dot(path, *arrays)
        return read_dot(Path(path).read_text())


def read_dot(text: str) -> Counted:
    """What `mx.export_to_dot` wrote, counted."""
    names = dict(NODE.findall(text))
    touched: dict[str, set[str]] = {node: set() for node in names}
    for line in text.splitlines():
        if found := INTO.match(line):
            touched[found[2]].add(found[1])
        elif found := OUT.match(line):
            touched[found[1]].add(found[2])
    fused = [node for node, name in names.items() if name.startswith("Compiled")]
    kernels = Counter(
        "fused" if name.startswith("Compiled") else name for name in names.values() if name not in VIEWS
    )
    return Counted(dict(sorted(kernels.items())), max((len(touched[node]) for node in fused), default=0))


def forward_pass(config: ModelConfig, batch: int, context: int = 5) -> Counted:
    """Of a compiled forward pass: raw and unit prediction."""
    with as_on_a_gpu():
        model = build(config)
        model.eval()
        inputs = mx.zeros((batch, context, config.dim))
        mx.eval(model.parameters(), inputs)
        found = mx.compile(lambda x: model(x)[:2])(inputs)
        return count(list(found))


def training_step(config: ModelConfig, batch: int = 32, context: int = 5) -> Counted:
    """Of the project's own step: gather, forward, loss, backward, norm, clip, AdamW, sums, the look for NaN.

    `batch` windows, or for a model that trains on documents one segment of 32 targets.
    """
    with as_on_a_gpu():
        model: Any = build(config)
        corpus, options = _corpus(config.dim), TrainConfig(context=context, loss_cosine=1.0)
        if model.task == "documents":
            parts = segments(corpus, np.arange(1), context)
            step: Any = DocumentStep(model, parts, options)
            targets = parts.targets[:1]
        else:
            step, targets = TrainStep(model, corpus, options), np.arange(context, context + batch)
        mx.eval(model.parameters(), step.arrays())
        step(targets, 1e-3, 1)
        leaves: Any = tree_flatten(step.arrays())
        return count([value for _, value in leaves])


def plain_step(config: ModelConfig, batch: int = 32, context: int = 5) -> Counted:
    """Of the loop that MLX's documentation shows: `value_and_grad`, `clip_grad_norm`, `optim.AdamW`,
    compiled; nothing looks for NaN.
    """
    with as_on_a_gpu():
        model, optimizer = build(config), optim.AdamW(1e-3)
        optimizer.init(model.trainable_parameters())
        inputs = mx.zeros((batch, context, config.dim)), mx.zeros((batch, config.dim))
        state = [model.state, optimizer.state, mx.random.state]
        mx.eval(state, inputs)

        def loss(x: mx.array, y: mx.array) -> mx.array:
            raw, unit = model(x)[:2]
            return mx.square(raw - y).mean() + (1 - (unit * y).sum(axis=-1)).mean()

        @partial(mx.compile, inputs=state, outputs=state)
        def step(x: mx.array, y: mx.array) -> mx.array:
            value, gradients = nn.value_and_grad(model, loss)(x, y)
            gradients, _ = optim.clip_grad_norm(gradients, 1.0)
            optimizer.update(model, gradients)
            return value

        value = step(*inputs)
        leaves: Any = tree_flatten([model.parameters(), optimizer.state])
        return count([value, *(leaf for _, leaf in leaves)])


def predicted(chip: Chip, flops: float, moved: float, kernels: int) -> float:
    """Seconds, computed: the roofline, and the start of every kernel. Not measured on any Mac."""
    return max(flops / chip.flops, moved / chip.bandwidth) + kernels * START


def _corpus(dim: int, rows: int = 64) -> Corpus:
    return Corpus("zeros", mx.zeros((rows, dim)), None, np.array([0, rows]), ("zeros",), EncoderCard(dim=dim))


def markdown(names: tuple[str, ...] = ("amn", "lstm", "gru", "transformer"), batch: int = 32) -> str:
    """Tables of counts and of predicted step times."""
    chips = [chip for chip in CHIPS if chip.name in ("M1", "M2", "M3", "M4", "M5")]
    counts = ["| model | forward | training step | plain MLX loop | widest kernel |", "|---|---|---|---|---|"]
    times = [
        f"| step of {batch} | {' | '.join(chip.name for chip in chips)} |",
        "|---" * (len(chips) + 1) + "|",
    ]
    for name in names:
        config: ModelConfig = architecture(name).config_class()
        model: VectorModel = build(config)
        forward, step, plain = (make(config, batch) for make in (forward_pass, training_step, plain_step))
        counts.append(f"| {name} | {forward.total} | {step.total} | {plain.total} | {step.buffers} |")
        work = Cost.of(model, context=5).step(batch)
        cells = [f"{1e3 * predicted(chip, work.flops, work.bytes, step.total):.2f}" for chip in chips]
        times.append(f"| {name} | {' | '.join(cells)} |")
    for head in ("regress", "retrieve"):  # whose step is their own: a segment of 32 targets
        config = architecture("ramn").config_class.from_dict({"head": head})
        forward, step = forward_pass(config, batch), training_step(config)
        counts.append(f"| {config.variant} | {forward.total} | {step.total} | | {step.buffers} |")
    return "\n".join([*counts, "", *times, ""])
