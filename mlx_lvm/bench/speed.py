"""What is timed of MLX: forward, step, epoch and load as the library runs them; torch: `parity/speed.py`."""

from __future__ import annotations

import json
import sys
from collections.abc import Callable
from dataclasses import asdict
from importlib.metadata import version
from itertools import count
from pathlib import Path
from typing import Any

import numpy as np

from mlx_lvm.bench import workers
from mlx_lvm.bench.roofline import Cost
from mlx_lvm.bench.workers import INPUTS, About, Cell, Options, peaks, resident
from mlx_lvm.core.linux_cpu import tuning
from mlx_lvm.core.mlx import mx
from mlx_lvm.data.corpus import load_corpus
from mlx_lvm.data.splits import split_corpus
from mlx_lvm.data.windows import windows
from mlx_lvm.errors import UsageError
from mlx_lvm.models import VectorModel, architecture, as_dict, build
from mlx_lvm.models.weights import DTYPES
from mlx_lvm.training.config import TrainConfig
from mlx_lvm.training.step import TrainStep
from mlx_lvm.training.store import Checkpoints
from mlx_lvm.training.tasks.windows import WindowTask
from mlx_lvm.training.trainer import Trainer


class Mlx:
    """MLX, a `mlx_lvm.bench.workers.Side`. Leaves weights, config, vectors and targets in the folder for the
    other side. Raises UsageError where MLX lacks the device.
    """

    def __init__(self, options: Options) -> None:
        if options.device == "gpu" and not mx.is_available(mx.gpu):
            raise UsageError("no GPU that MLX can use here; omit --device or pass --device cpu")
        if options.device:
            mx.set_default_device({"cpu": mx.cpu, "gpu": mx.gpu}[options.device])
        self.options, self.folder = options, Path(options.folder)
        self.corpus = load_corpus(options.corpus)
        self.windows = windows(self.corpus, split_corpus(self.corpus).train, options.context, "train")
        self.config = architecture(options.model).config_class.from_dict({"dim": self.corpus.dim})
        precision = "bfloat16" if options.dtype == "bfloat16" else "float32"
        self.train_config = TrainConfig(
            corpus=options.corpus, context=options.context, loss_cosine=1.0, precision=precision
        )
        self.draw = np.random.default_rng(options.seed)
        model = self.model()
        mx.save_safetensors(str(self.folder / workers.WEIGHTS), {**model.weights(), **model.buffers()})
        shared = {
            "model": as_dict(self.config),
            "train": asdict(self.train_config),
            "cost": asdict(Cost.of(model, options.context)),
            "learns_from_windows": model.task == "windows",
            "windows": len(self.windows),
        }
        (self.folder / workers.CONFIG).write_text(json.dumps(shared))
        np.save(self.folder / workers.VECTORS, self.corpus.numpy())
        np.save(self.folder / workers.TARGETS, self.windows.targets)

    def model(self) -> VectorModel:
        mx.random.seed(self.options.seed)
        model = build(self.config)
        mx.eval(model.parameters())
        return model

    def about(self) -> About:
        device = mx.default_device()
        kind = "cpu" if device == mx.Device(mx.cpu) else "metal" if sys.platform == "darwin" else "cuda"
        name = str(dict(mx.device_info()).get("device_name", ""))
        return About(kind, name, self.options.cores, version("mlx"), tuning().blas.name)

    def peaks(self) -> dict[str, float]:
        def multiply(side: int) -> Callable[[], None]:
            a, b = mx.random.normal((side, side)), mx.random.normal((side, side))
            mx.eval(a, b)
            return lambda: mx.eval(a @ b)

        def copy(size: int) -> Callable[[], None]:
            x = mx.zeros((size,))
            mx.eval(x)
            return lambda: mx.eval(x + 1)

        return peaks(multiply, copy, mx.default_device() == mx.Device(mx.cpu))

    def memory(self) -> dict[str, int]:
        return {"resident": resident(), "device": mx.get_peak_memory()}

    def call(self, cell: Cell) -> Callable[[], None]:
        """Raises UsageError for what this side does not have."""
        kinds = {"forward": self.forward, "train": self.train, "epoch": self.epoch, "load": self.load}
        if cell.how not in (("compiled", "eager") if cell.task == "forward" else ("compiled",)):
            raise UsageError(f"mlx: {cell.task} is not run {cell.how}")
        return kinds[cell.task](cell)

    def forward(self, cell: Cell) -> Callable[[], None]:
        model = self.model()
        model.set_dtype(DTYPES[self.options.dtype])
        model.eval()
        picks = [self.draw.choice(len(self.windows), cell.batch) for _ in range(INPUTS)]
        inputs = [self.windows.contexts(pick).astype(DTYPES[self.options.dtype]) for pick in picks]
        mx.eval(inputs)
        turn = count()

        def run(x: mx.array) -> mx.array:
            return model(x).unit

        program = mx.compile(run, inputs=model.state) if cell.how == "compiled" else run
        return lambda: mx.eval(program(inputs[next(turn) % INPUTS]))

    def train(self, cell: Cell) -> Callable[[], None]:
        model = self.model()
        model.train()
        step = TrainStep(model, self.corpus, self.train_config)
        batches = [self.draw.choice(self.windows.targets, cell.batch) for _ in range(INPUTS)]

        def call() -> None:
            step(batches[step.count % INPUTS], self.train_config.lr, step.count)
            mx.eval(step.arrays())

        return call

    def epoch(self, cell: Cell) -> Callable[[], None]:
        """An epoch of the trainer itself, without validation and checkpoint."""
        config = self.train_config.replace(batch_size=cell.batch)
        task = WindowTask(self.model(), self.corpus, config)
        trainer = Trainer(task, Checkpoints())

        def call() -> None:
            trainer.state.step = 0
            trainer.run_epoch()
            mx.eval(task.step.arrays())

        return call

    def load(self, cell: Cell) -> Callable[[], None]:
        """From the file to the first prediction."""
        context = self.windows.contexts(slice(0, 1))
        mx.eval(context)

        def call() -> None:
            model = build(self.config)
            found: Any = mx.load(str(self.folder / workers.WEIGHTS))
            buffers = model.buffers()
            model.load_weights([(name, value) for name, value in found.items() if name not in buffers])
            model.eval()
            mx.eval(model(context).unit)

        return call
