"""What is timed of torch, without MLX: the tasks of `mlx_lvm/bench/speed.py` as people write them."""

from __future__ import annotations

import json
from collections.abc import Callable
from functools import partial
from itertools import count
from pathlib import Path
from typing import Any

import numpy as np
import torch
from safetensors.torch import load_file

from mlx_lvm.bench import workers
from mlx_lvm.bench.workers import INPUTS, About, Cell, Options, peaks, resident
from mlx_lvm.errors import SetupInvalid
from mlx_lvm.parity.twins import twin_class
from mlx_lvm.parity.twins.base import Prediction, Twin, normalize
from mlx_lvm.parity.twins.losses import total


class Torch:
    """Torch, a `mlx_lvm.bench.workers.Side`. Raises SetupInvalid where torch lacks the device."""

    def __init__(self, options: Options) -> None:
        self.options, self.folder = options, Path(options.folder)
        self.device = torch.device(device_of(options.device))
        torch.set_num_threads(options.cores)
        torch.backends.cuda.matmul.allow_tf32 = options.tf32
        torch.backends.cudnn.allow_tf32 = options.tf32
        shared = json.loads((self.folder / workers.CONFIG).read_text())
        self.config, self.train_config = shared["model"], shared["train"]
        weights = {name: weight for name, weight in self.train_config.items() if name.startswith("loss_")}
        self.losses = {name.removeprefix("loss_"): weight for name, weight in weights.items()}
        self.vectors = torch.from_numpy(np.load(self.folder / workers.VECTORS)).to(self.device)
        self.targets = np.load(self.folder / workers.TARGETS)
        self.draw = np.random.default_rng(options.seed)

    def twin(self) -> Twin:
        with torch.device("meta"):
            twin = twin_class(self.options.model)(self.config)
        weights = load_file(self.folder / workers.WEIGHTS, device=str(self.device))
        twin.load_state_dict(weights, strict=True, assign=True)
        return twin

    def wait(self) -> None:
        if self.device.type == "cuda":
            torch.cuda.synchronize()
        elif self.device.type == "mps":
            torch.mps.synchronize()

    def about(self) -> About:
        name = torch.cuda.get_device_name() if self.device.type == "cuda" else ""
        return About(self.device.type, name, torch.get_num_threads(), torch.__version__)

    def peaks(self) -> dict[str, float]:
        def multiply(side: int) -> Callable[[], None]:
            a, b = torch.randn(side, side, device=self.device), torch.randn(side, side, device=self.device)
            return self.finished(partial(torch.matmul, a, b))

        def copy(size: int) -> Callable[[], None]:
            x = torch.zeros(size, device=self.device)
            return self.finished(partial(torch.add, x, 1, out=torch.empty_like(x)))

        return peaks(multiply, copy, self.device.type == "cpu")

    def finished(self, call: Callable[[], object]) -> Callable[[], None]:
        """The call, which returns when the device is done."""

        def run() -> None:
            call()
            self.wait()

        return run

    def memory(self) -> dict[str, int]:
        device = torch.cuda.max_memory_allocated() if self.device.type == "cuda" else 0
        return {"resident": resident(), "device": device}

    def call(self, cell: Cell) -> Callable[[], None]:
        tasks = {"forward": self.forward, "train": self.train, "epoch": self.epoch, "load": self.load}
        return tasks[cell.task](cell)

    def contexts(self, targets: np.ndarray) -> tuple[torch.Tensor, torch.Tensor]:
        """Contexts and targets gathered from the vectors on the device."""
        rows = torch.from_numpy(targets).to(self.device, torch.long)
        before = torch.arange(-self.options.context, 0, device=self.device)
        return self.vectors[rows[:, None] + before], self.vectors[rows]

    def forward(self, cell: Cell) -> Callable[[], None]:
        dtype = getattr(torch, self.options.dtype)
        twin = self.twin().to(dtype).eval()
        run = program(twin, cell.how)
        picks = [self.draw.choice(self.targets, cell.batch) for _ in range(INPUTS)]
        inputs = [self.contexts(pick)[0].to(dtype) for pick in picks]
        turn = count()

        def call() -> None:
            with torch.inference_mode():
                run(inputs[next(turn) % INPUTS]).unit  # noqa: B018

        return self.finished(call)

    def optimizer(self, twin: Twin, fused: bool) -> torch.optim.Optimizer:
        lr, decay = self.train_config["lr"], self.train_config["weight_decay"]
        return torch.optim.AdamW(twin.parameters(), lr=lr, weight_decay=decay, fused=fused or None)

    def loss(self, run: Any, context: torch.Tensor, target: torch.Tensor) -> torch.Tensor:
        """In float32, of a prediction in the precision asked for: see `mlx_lvm.training.step.in_bfloat16`."""
        if self.options.dtype == "bfloat16":
            with torch.autocast(self.device.type, torch.bfloat16):
                raw = run(context).raw
            prediction = Prediction(raw.float(), normalize(raw.float(), dim=-1))
        else:
            prediction = run(context)
        return total(self.losses, prediction, target, self.train_config["temperature"])

    def train(self, cell: Cell) -> Callable[[], None]:
        """Contexts gathered by index on the device, no host round trip. Compiled: model and fused AdamW."""
        twin = self.twin().train()
        run = program(twin, cell.how)
        optimizer = self.optimizer(twin, cell.how == "compiled")
        batches = [self.draw.choice(self.targets, cell.batch) for _ in range(INPUTS)]
        turn = count()

        def call() -> None:
            context, target = self.contexts(batches[next(turn) % INPUTS])
            optimizer.zero_grad()
            self.loss(run, context, target).backward()
            torch.nn.utils.clip_grad_norm_(twin.parameters(), self.train_config["clip"])
            optimizer.step()

        return self.finished(call)

    def epoch(self, cell: Cell) -> Callable[[], None]:
        """The plain loop: windows as tensors, DataLoader, `.item()` for the running loss."""
        twin = self.twin().train()
        optimizer = self.optimizer(twin, False)
        data = torch.utils.data.TensorDataset(*(part.cpu() for part in self.contexts(self.targets)))
        loader = torch.utils.data.DataLoader(data, batch_size=cell.batch, shuffle=True)

        def call() -> None:
            running = 0.0
            for context, target in loader:
                optimizer.zero_grad()
                loss = self.loss(twin, context.to(self.device), target.to(self.device))
                loss.backward()
                torch.nn.utils.clip_grad_norm_(twin.parameters(), self.train_config["clip"])
                optimizer.step()
                running += loss.item()

        return self.finished(call)

    def load(self, cell: Cell) -> Callable[[], None]:
        """From the file to the first prediction."""
        context, _ = self.contexts(self.targets[:1])

        def call() -> None:
            with torch.inference_mode():
                self.twin().eval()(context).unit  # noqa: B018

        return self.finished(call)


def program(twin: Twin, how: str) -> Any:
    """The twin, or what `torch.compile` makes of it for the one shape that it will see."""
    if how == "eager":
        return twin
    torch.compiler.reset()  # else the shapes of other cells make it compile for shapes that vary
    return torch.compile(twin, dynamic=False)


def device_of(name: str) -> str:
    """torch's device of the class that MLX runs on: given as cpu, metal or cuda."""
    wanted = {"": "cpu", "cpu": "cpu", "metal": "mps", "cuda": "cuda"}[name]
    there = {"cpu": True, "mps": torch.backends.mps.is_available(), "cuda": torch.cuda.is_available()}[wanted]
    if not there:
        raise SetupInvalid(
            f"MLX runs on {name}, but torch has no {wanted} here: times on two devices do not compare. Pass "
            "--device cpu"
        )
    return wanted
