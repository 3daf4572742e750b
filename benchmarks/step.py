"""Where the time of a training step goes: its parts alone, then an epoch of the trainer, by clock, CPU and
page faults.

    python benchmarks/step.py amn
    python benchmarks/step.py lstm --batch-size 256
    MTL_CAPTURE_ENABLED=1 python benchmarks/step.py amn --capture step.gputrace   # on a Mac: to open in Xcode

Parts are compiled functions of their own, so they add up to more than the step that fuses them. Where
Python's thread takes as long as the clock, the step waits for Python. Faults are pages that the kernel had to
give: hundreds a step mean that memory is not reused. For stacks of both languages: py-spy record --native --
python benchmarks/step.py amn
"""

from __future__ import annotations

import argparse
import resource
import sys
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from mlx_lvm.core.linux_cpu import tune, tuning

tune()

from mlx_lvm.core.mlx import mx, nn
from mlx_lvm.data.corpus import gather, load_corpus
from mlx_lvm.data.windows import context_rows
from mlx_lvm.models import architecture, architectures, build, normalize
from mlx_lvm.training.config import TrainConfig
from mlx_lvm.training.losses import total_loss
from mlx_lvm.training.optimizer import adamw, clip_gradients, coefficients, gradient_norm, zero_moments
from mlx_lvm.training.store import Checkpoints
from mlx_lvm.training.tasks.windows import WindowTask
from mlx_lvm.training.trainer import Trainer

CALLS, EPOCHS, CAPTURED = 60, 3, 3


def milliseconds(call: Callable[[], Any]) -> float:
    """The median of CALLS calls, each until its result is there."""
    times = []
    for _ in range(CALLS + 5):
        began = time.perf_counter()
        mx.eval(call())
        times.append(time.perf_counter() - began)
    return float(np.median(times[5:])) * 1e3


def parts(task: WindowTask) -> dict[str, float]:
    """Milliseconds of what a step is made of."""
    model, config, corpus = task.model, task.config, task.corpus
    loss_of = total_loss(config.loss_weights(), config.temperature)
    targets = mx.array(task.target_rows(0, 0))
    state: Any = [model.state, mx.random.state]

    def forward(context: mx.array, target: mx.array) -> tuple[mx.array, mx.array]:
        prediction = model(context)
        return loss_of(prediction, target), (prediction.unit * normalize(target)).sum()

    def gathered(vectors: mx.array, scales: mx.array | None, rows: mx.array) -> tuple[mx.array, mx.array]:
        return gather(vectors, scales, context_rows(rows, config.context)), gather(vectors, scales, rows)

    def updated(weights: Any, gradients: Any, moments: Any, coefs: mx.array, norm: mx.array) -> Any:
        return adamw(weights, clip_gradients(gradients, norm, 1.0), moments, coefs)

    take = mx.compile(gathered)
    context, target = take(corpus.vectors, corpus.scales, targets)
    run = partial(mx.compile, inputs=state, outputs=state)
    ahead, back = run(forward), run(nn.value_and_grad(model, forward))
    norm_of, update = mx.compile(gradient_norm), mx.compile(updated)
    _, gradients = back(context, target)
    moments, norm = zero_moments(model.trainable_parameters()), norm_of(gradients)
    coefs = coefficients(1e-4, 0.01, 1)
    mx.eval(context, target, gradients, moments, norm, coefs)
    return {
        "gather": milliseconds(lambda: take(corpus.vectors, corpus.scales, targets)),
        "forward": milliseconds(lambda: ahead(context, target)),
        "forward and backward": milliseconds(lambda: back(context, target)),
        "norm of the gradient": milliseconds(lambda: norm_of(gradients)),
        "clip and AdamW": milliseconds(
            lambda: update(model.trainable_parameters(), gradients, moments, coefs, norm)
        ),
    }


def epoch(trainer: Trainer) -> dict[str, float]:
    """Of an epoch without validation and checkpoint, per step: milliseconds, and page faults."""
    trainer.state.step = 0
    faults, began, cpu, own = faults_now(), time.perf_counter(), time.process_time(), time.thread_time()
    trainer.run_epoch()
    mx.eval(trainer.task.step.arrays())
    spent = time.perf_counter() - began, time.process_time() - cpu, time.thread_time() - own
    clock, cpu, own = (seconds * 1e3 / trainer.task.steps_per_epoch for seconds in spent)
    return {
        "clock": clock,
        "CPU": cpu,
        "Python's thread": own,
        "faults": (faults_now() - faults) / trainer.task.steps_per_epoch,
    }


def faults_now() -> int:
    return resource.getrusage(resource.RUSAGE_SELF).ru_minflt


def capture(task: WindowTask, path: Path) -> None:
    """A few warm steps as Metal ran them, in a file for Xcode."""
    for number in range(CAPTURED + 5):
        if number == 5:
            mx.metal.start_capture(str(path))
        task.step(task.target_rows(0, number), 1e-5, number)
        mx.eval(task.step.arrays())
    mx.metal.stop_capture()


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument(
        "model",
        choices=[name for name, model in architectures().items() if model.task == "windows"],
        help="ramn's step is of documents, not windows",
    )
    parser.add_argument("--batch-size", type=int, default=32)
    parser.add_argument("--corpus", default="sotu")
    parser.add_argument("--epochs", type=int, default=EPOCHS)
    parser.add_argument("--capture", type=Path, metavar="FILE.gputrace")
    options = parser.parse_args()
    if options.capture and not mx.metal.is_available():
        sys.exit("error: --capture needs Metal, and so a Mac")
    corpus = load_corpus(options.corpus)
    model = build(architecture(options.model).config_class.from_dict({"dim": corpus.dim}))
    config = TrainConfig(corpus=options.corpus, loss_cosine=1.0, batch_size=options.batch_size)
    task = WindowTask(model, corpus, config)
    trainer = Trainer(task, Checkpoints())
    if options.capture:
        capture(task, options.capture)
        print(f"written: {options.capture}; open it in Xcode")
        return
    print(
        f"{options.model}, batch {options.batch_size}, {mx.default_device()}, BLAS {tuning().blas.name}; "
        "milliseconds"
    )
    for name, value in parts(task).items():
        print(f"{name:22}{value:9.2f}")
    for number in range(options.epochs):
        found = epoch(trainer)
        print(
            f"a step of epoch {number + 1}: "
            + ", ".join(f"{name} {value:.2f}" for name, value in found.items())
        )


if __name__ == "__main__":
    main()
