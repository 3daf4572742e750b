"""Epoch records to TensorBoard or Weights & Biases, each through its own library, besides `history.jsonl`."""

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
    return {
        key.replace("train_", "train/", 1).replace("val_", "val/", 1): float(value)
        for key, value in record.items()
        if isinstance(value, (int, float)) and key not in ("epoch", "step", "best")
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
    own = {"name": folder.name, "id": known.read_text("ascii"), "dir": str(folder)}
    run = wandb.init(project="mlx-lvm", resume="allow", config=config, **own)
    return lambda record: run.log(scalars(record), step=record["step"]), run.finish


REPORTERS: dict[str, Callable[[Path, JsonObject], tuple[Report, Callable[[], None]]]] = {
    "tensorboard": _tensorboard,
    "wandb": _wandb,
}
