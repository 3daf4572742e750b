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
from pathlib import Path
from typing import Any

import numpy as np

from mlx_lvm.core.mlx import mx, tree_flatten
from mlx_lvm.data.card import EncoderCard
from mlx_lvm.data.corpus import Corpus
from mlx_lvm.models import ModelConfig, build
from mlx_lvm.training.config import TrainConfig
from mlx_lvm.training.ramn.documents import segments
from mlx_lvm.training.ramn.step import DocumentStep
from mlx_lvm.training.step import TrainStep

MOST_BUFFERS = 31  # arguments of a Metal kernel
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
    """kernels: by primitive, fused ones as `fused`; buffers: arrays that the widest fused one touches."""

    kernels: dict[str, int]
    buffers: int

    @property
    def total(self) -> int:
        return sum(self.kernels.values())


@contextmanager
def as_on_a_gpu() -> Iterator[None]:
    """The branches of a GPU are taken while it lasts: nothing that needs one may be evaluated."""
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
    kernels = Counter("fused" if node in fused else name for node, name in names.items() if name not in VIEWS)
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


def _corpus(dim: int, rows: int = 64) -> Corpus:
    return Corpus("zeros", mx.zeros((rows, dim)), None, np.array([0, rows]), ("zeros",), EncoderCard(dim=dim))
