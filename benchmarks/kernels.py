"""The tables of docs/mac.md: kernels counted in MLX's graph and step times computed from them. python
benchmarks/kernels.py
"""

import argparse
from functools import partial
from typing import Any

from mlx_lvm.bench.kernels import Counted, as_on_a_gpu, count, forward_pass, training_step
from mlx_lvm.bench.roofline import CHIPS, Chip, Cost
from mlx_lvm.core.mlx import mx, nn, optim, tree_flatten
from mlx_lvm.models import ModelConfig, VectorModel, architecture, build

# seconds to start a kernel in a command buffer that holds many; an assumption, nobody has measured it here
START = 3e-6


def plain_step(config: ModelConfig, batch: int = 32, context: int = 5) -> Counted:
    """Of the loop in MLX's documentation, compiled: `clip_grad_norm`, `AdamW`, nothing looks for NaN."""
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


if __name__ == "__main__":
    argparse.ArgumentParser(description=__doc__).parse_args()
    print(markdown())
