"""One process of a group, or one alone, that trains a fixed batch order; run by test_distributed.py.

    python distributed_driver.py MODE MODEL LOSSES CORPUS OUT

MODE train: fifty steps with batches of odd sizes, weights to OUT.  die: rank 1 kills itself at step 10.
stop: it stops itself.
"""

import os
import signal
import sys

import numpy as np

from mlx_lvm.core.linux_cpu import tune

tune()

from mlx_lvm.cli.main import main
from mlx_lvm.core.files.disk import write_atomic
from mlx_lvm.core.files.safetensors import to_bytes
from mlx_lvm.core.mlx import mx
from mlx_lvm.data.corpus import load_corpus
from mlx_lvm.data.windows import windows
from mlx_lvm.errors import LvmError
from mlx_lvm.hub.load import load_model
from mlx_lvm.models import config_from_dict
from mlx_lvm.training.config import TrainConfig
from mlx_lvm.training.distributed import init
from mlx_lvm.training.state import step_key
from mlx_lvm.training.step import TrainStep
from mlx_lvm.training.tasks.choose import initial_model, make_task

EMN = {"model_type": "emn", "rank": 8, "dropout": 0.0, "expert": "yes"}
SIZES = {
    "amn": {"attention_dim": 8, "hidden_dim": 16},
    "lstm": {"hidden_dim": 8, "dropout": 0.0},
    "emn": EMN,
    "emn-rank": {**EMN, "hidden_dim": 8, "head": "rank"},
}
BATCHES = (32, 7, 1)  # even, odd, fewer windows than ranks


def train(mode: str, name: str, losses: str, corpus_file: str, out: str) -> None:
    group = init()
    corpus = load_corpus(corpus_file)
    config = TrainConfig.from_dict(
        {"loss_mse": 0.0, **{f"loss_{loss}": 1.0 for loss in losses.split(",")}, "residual_init": "torch"}
    )
    sizes = config_from_dict({"model_type": name, **SIZES[name], "dim": corpus.dim})
    if sizes.model_type == "emn":
        start = load_model("emn").model if name == "emn" else None  # as `lvm train emn` begins
        task = make_task(sizes, corpus, config, group, start=start)
        model, step, targets = task.model, task.step, np.concatenate(list(task.batches(0, 0)))
    else:
        model = initial_model(sizes, config)
        step = TrainStep(model, corpus, config, group)
        targets = windows(corpus, np.arange(len(corpus.names)), config.context).targets
    rng = np.random.default_rng(0)
    for number in range(50):
        rows = rng.choice(targets, size=BATCHES[number % len(BATCHES)], replace=False)
        if group.rank == 1 and number == 10 and mode != "train":
            os.kill(os.getpid(), signal.SIGKILL if mode == "die" else signal.SIGSTOP)
        with group.waiting():
            step(rows, 1e-3, step_key(0, 0, number, group.rank))
            mx.eval(step.arrays())
    sums = {name: np.float32(value) for name, value in step.read_sums().items()}
    if group.rank == 0:
        write_atomic(
            out, to_bytes({**model.weights(), **{f"sums.{k}": mx.array(v) for k, v in sums.items()}}, {})
        )
    shares = [group.shard(size)[:2] for size in BATCHES]
    print(
        group.rank,
        group.size,
        shares,
        sum(value.sum() for value in model.weights().values()).item(),
        flush=True,
    )


if __name__ == "__main__":
    if sys.argv[1] == "lvm":
        sys.argv = sys.argv[1:]
        main()
    try:
        train(*sys.argv[1:])
    except LvmError as error:
        print(f"error: {error}", file=sys.stderr)
        sys.exit(error.exit_code)
