"""Epoch records to TensorBoard or Weights & Biases, each through its own library; `history.jsonl` is written
in any case.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from importlib.util import find_spec
from pathlib import Path
from uuid import uuid4

from mlx_lvm.core.files.disk import write_atomic
from mlx_lvm.core.result import JsonObject
from mlx_lvm.errors import SetupInvalid, UsageError, nearest

Report = Callable[[JsonObject], None]


@contextmanager
def reporting(name: str | None, folder: Path, config: JsonObject) -> Iterator[Report]:
    """A function that takes an epoch's record."""
    if name is None:
        yield lambda record: None
        return
    require_reporter(name)
    report, close = REPORTERS[name](folder, config)
    try:
        yield report
    finally:
        close()


def require_reporter(name: str | None) -> None:
    """Raises UsageError for an unknown name, SetupInvalid where its library is missing."""
    if name is None:
        return
    if name not in REPORTERS:
        raise UsageError(f"cannot report to '{name}'.{nearest(name, list(REPORTERS))}")
    if find_spec(name) is None:
        raise SetupInvalid(f"--report-to {name} needs its library: pip install 'mlx-lvm[{name}]'")


def scalars(record: JsonObject) -> dict[str, float]:
    """The numbers of a record as `train/loss`, `val/cosine`, ..., without its counters."""
    numbers = {
        key: float(value)
        for key, value in record.items()
        if isinstance(value, (int, float)) and key not in ("epoch", "step", "best")
    }
    return {
        key.replace("train_", "train/", 1).replace("val_", "val/", 1): value for key, value in numbers.items()
    }


def _tensorboard(folder: Path, config: JsonObject) -> tuple[Report, Callable[[], None]]:
    from tensorboard.summary import Writer

    writer = Writer(str(folder / "tensorboard"))

    def report(record: JsonObject) -> None:
        for tag, value in scalars(record).items():
            writer.add_scalar(tag, value, record["step"])
        writer.flush()

    return report, writer.close


def _wandb(folder: Path, config: JsonObject) -> tuple[Report, Callable[[], None]]:
    import wandb

    known = folder / "wandb-id"  # so that a resumed run goes on in its own chart
    if not known.exists():
        write_atomic(known, uuid4().hex.encode())
    run = wandb.init(
        project="mlx-lvm",
        name=folder.name,
        id=known.read_text("ascii"),
        resume="allow",
        dir=str(folder),
        config=config,
    )
    return lambda record: run.log(scalars(record), step=record["step"]), run.finish


REPORTERS: dict[str, Callable[[Path, JsonObject], tuple[Report, Callable[[], None]]]] = {
    "tensorboard": _tensorboard,
    "wandb": _wandb,
}
