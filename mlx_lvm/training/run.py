"""A run folder: everything needed to use, judge, resume and repeat a training run.

config.json    options, model, corpus, split and versions
config.toml    the same options, for `lvm train --config`
history.jsonl  one line an epoch
checkpoints/   step-<n>/, LATEST, BEST
broken.json    where the loss became NaN: epoch, step and the batch's rows; only if it did
summary.json   what `lvm train --json` printed, once the run has ended
"""

from __future__ import annotations

import json
import os
from pathlib import Path

from mlx_lvm import __version__
from mlx_lvm.config import Options
from mlx_lvm.core.files.disk import read_json, sha256, write_atomic, write_json
from mlx_lvm.core.files.safetensors import to_bytes
from mlx_lvm.core.linux_cpu import tuning
from mlx_lvm.core.mlx import mx
from mlx_lvm.core.products import tf32_active
from mlx_lvm.core.result import JsonObject
from mlx_lvm.data.corpus import Corpus
from mlx_lvm.data.storage.mapped import MappedCorpus
from mlx_lvm.errors import InvalidFile, IOFailed
from mlx_lvm.models import ModelConfig, VectorModel, as_dict
from mlx_lvm.training.config import TrainConfig
from mlx_lvm.training.own_corpus import record

CONFIG = "config.json"
TRAINING = 4  # raised when the same options and the same seed would no longer train the same weights


def claim(model: str, corpus: str) -> Path:
    """Make runs/<model>-<corpus>-<n>, the first n that is free; processes that begin together get two."""
    n = 1
    while True:
        folder = Path("runs") / f"{model}-{corpus}-{n}"
        try:
            folder.mkdir(parents=True)
            return folder
        except FileExistsError:
            n += 1
        except OSError as error:
            raise IOFailed(f"{folder}: cannot be written ({error.strerror}); name another --out") from error


def create(
    folder: Path,
    model: ModelConfig,
    train: TrainConfig,
    corpus: Corpus | MappedCorpus,
    start: VectorModel | None = None,
) -> None:
    """Write the configuration of a new run, and which weights it begins with.

    Raises IOFailed where the folder holds a run already or cannot be written.
    """
    if folder.exists() and not folder.is_dir():
        raise IOFailed(f"{folder}: is a file; --out names a folder")
    with Lock(folder):  # of two processes with one --out, the second finds the first one's run
        if (folder / CONFIG).exists():
            remedy = f"Resume it with `lvm train --resume {folder}`, or name another --out."
            raise IOFailed(f"{folder}: already holds a run. {remedy}")
        begun = {} if start is None else {"start": {"from": train.start_from, "sha256": digest(start)}}
        write_config(folder, {**describe(model, train, corpus, folder), **begun}, model, train)


def digest(model: VectorModel) -> str:
    """sha256 of a model's weights, wherever they lie."""
    return sha256(to_bytes(model.weights(), {}))


def write_config(folder: Path, described: JsonObject, model: ModelConfig, train: TrainConfig) -> None:
    write_atomic(folder / "config.toml", to_toml(model, train).encode())
    write_json(folder / CONFIG, described)


def describe(model: ModelConfig, train: TrainConfig, corpus: Corpus | MappedCorpus, folder: Path) -> Options:
    return {
        "model": as_dict(model),
        "train": train.to_dict(),
        "corpus": {
            "name": corpus.name,
            "sha256": corpus.sha256,
            "documents": len(corpus.names),
            "vectors": len(corpus),
            **corpus.provenance,
            **record(train.corpus, folder),
        },
        "encoder_card": corpus.card.to_dict(),
        "versions": versions(),
        "conditions": conditions(),
    }


def conditions() -> dict[str, str]:
    """What must be as it was for a resumed run to continue to the bit, besides its options and its corpus."""
    from importlib.metadata import version

    return {
        "training code": str(TRAINING),
        "mlx": version("mlx"),
        "numpy": version("numpy"),
        "blas": tuning().blas.name,
        "products": "tf32" if tf32_active() else "float32",
        "device": str(mx.default_device().type).removeprefix("DeviceType."),
    }


def versions() -> dict[str, str]:
    import platform
    from importlib.metadata import version

    return {
        "mlx_lvm": __version__,
        "mlx": version("mlx"),
        "numpy": version("numpy"),
        "python": platform.python_version(),
        "platform": platform.platform(),
    }


def to_toml(model: ModelConfig, train: TrainConfig) -> str:
    """The options as TOML: training keys on top, the model's in a table of their own."""

    def lines(values: JsonObject) -> list[str]:
        return [f"{key} = {json.dumps(value, ensure_ascii=False)}" for key, value in values.items()]

    return "\n".join([*lines(train.to_dict()), "", "[model]", *lines(as_dict(model)), ""])


def read_config(folder: Path) -> JsonObject:
    """Raises InvalidFile where `folder` is no run."""
    if not (folder / CONFIG).exists():
        raise InvalidFile(f"{folder}: no run here (there is no {CONFIG})")
    config = read_json(folder / CONFIG)
    if not isinstance(config, dict) or not {"model", "train", "corpus"} <= set(config):
        raise InvalidFile(f"{folder / CONFIG}: not the configuration of a run")
    return config


def read_history(folder: Path) -> list[JsonObject]:
    """One record an epoch; empty where nothing was recorded.

    Raises InvalidFile for a line that does not parse.
    """
    path = folder / "history.jsonl"
    if not path.exists():
        return []
    try:
        return [json.loads(line) for line in path.read_text("utf-8").splitlines()]
    except ValueError as error:
        raise InvalidFile(f"{path}: not one JSON object a line ({error})") from None


def write_history(folder: Path, records: list[JsonObject]) -> None:
    lines = [json.dumps(record, sort_keys=True) + "\n" for record in records]
    write_atomic(folder / "history.jsonl", "".join(lines).encode())


class Lock:
    """One training process a folder. Raises IOFailed naming the other's process id."""

    def __init__(self, folder: Path) -> None:
        self.path = folder / ".lock"

    def __enter__(self) -> Lock:
        import fcntl

        try:
            self.path.parent.mkdir(parents=True, exist_ok=True)
            self.file = open(self.path, "a+")
        except OSError as error:
            raise IOFailed(f"{self.path.parent}: cannot be written ({error.strerror})") from error
        try:
            fcntl.flock(self.file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            self.file.seek(0)
            owner = self.file.read(20).strip() or "unknown"
            self.file.close()
            taken = f"another process (pid {owner}) is training into this folder"
            raise IOFailed(f"{self.path.parent}: {taken}") from None
        except OSError as error:
            self.file.close()
            lacking = f"its file system has no locks ({error.strerror}); name an --out on a local disk"
            raise IOFailed(f"{self.path.parent}: {lacking}") from error
        self.file.truncate(0)
        self.file.write(str(os.getpid()))
        self.file.flush()
        return self

    def __exit__(self, *_: object) -> None:
        # closing releases the lock; the empty file stays, so that nobody locks a removed one
        self.file.close()
