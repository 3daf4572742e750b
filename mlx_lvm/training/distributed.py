"""Several processes that train one model: each computes its rows of every batch, all apply the same step.

MLX's own engine carries the data (ring, MPI, JACCL, NCCL); `mlx.launch` starts the processes. A process on
its own, the usual case, never touches it: `SINGLE` leaves every array as it is.

A process waits for its peers in every step. If one dies, MLX reports the broken connection; if one merely
falls silent (power, cable, a stopped process), a thread ends this process after PATIENCE seconds.
"""

from __future__ import annotations

import os
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import numpy as np

from mlx_lvm.core.mlx import mx, tree_flatten, tree_map
from mlx_lvm.errors import IOFailed, UsageError

PATIENCE = 25.0  # seconds of silence after which a peer counts as lost; MLX_LVM_PEER_TIMEOUT sets another
# what launchers set in the environment of a process
LAUNCHED = ("MLX_RANK", "OMPI_COMM_WORLD_RANK", "PMI_RANK", "PMIX_RANK")


class Group:
    """The processes of a training, and which of them this is. Rank 0 saves and speaks."""

    def __init__(self, group: Any = None) -> None:
        self.group = group
        self.rank, self.size = (0, 1) if group is None else (int(group.rank()), int(group.size()))
        self.watchdog = PeerWatchdog(self.rank)
        self.stepped = False  # whether every rank has made a step

    @property
    def single(self) -> bool:
        return self.size == 1

    def shard(self, batch: int) -> tuple[int, int, int]:
        """(start, stop, rows): this rank's windows of a batch, and to how many rows every rank fills up.

        Consecutive shares without overlap; the last ranks may have fewer windows, or none.
        """
        rows = -(-batch // self.size)
        return min(self.rank * rows, batch), min((self.rank + 1) * rows, batch), rows

    def all_gather(self, own: mx.array, batch: int) -> mx.array:
        """Every rank's rows in the batch's order, [rows, dim] -> [batch, dim]; gradients reach its own alone.

        So a loss over the result is the loss of the whole batch, also one that looks across it, and its
        gradients summed over the ranks are those of one process, however unequal the shares are.
        """
        start, stop, _ = self.shard(batch)
        others = mx.distributed.all_gather(mx.stop_gradient(own), group=self.group)
        return mx.concatenate([others[:start], own[: stop - start], others[stop:batch]])

    def all_reduce(self, tree: Any) -> Any:
        """The tree's arrays summed over the ranks, in one message.

        (`mlx.nn.average_gradients` drops the parts of a tree that hold no array, such as a dropout layer's.)
        """
        named: Any = tree_flatten(tree)
        leaves = [leaf for _, leaf in named]
        own = mx.concatenate([leaf.reshape(-1) for leaf in leaves])
        joined = mx.distributed.all_sum(own, group=self.group)
        ends = np.cumsum([leaf.size for leaf in leaves]).tolist()
        parts = iter(mx.split(joined, ends[:-1]))
        return tree_map(lambda leaf: next(parts).reshape(leaf.shape), tree)

    def any(self, flag: bool) -> bool:
        """Whether any rank says true. Every rank must ask."""
        return flag if self.single else bool(self._gather(np.array([flag], np.int32)).any())

    def broadcast(self, values: np.ndarray) -> np.ndarray:
        """Rank 0's values, to the bit."""
        if self.single:
            return values
        bits = np.ascontiguousarray(values).reshape(-1).view(np.int32)
        return self._gather(bits)[0].copy().view(values.dtype).reshape(values.shape)

    def broadcast_text(self, text: str | None) -> str:
        """Rank 0's text; the others need not know it."""
        if self.single:
            return text or ""
        data = (text or "").encode()
        length = int(self.broadcast(np.array([len(data)], np.int64))[0])
        padded = data[:length].ljust(-(-length // 4) * 4, b"\0")
        return self.broadcast(np.frombuffer(padded, np.int32)).tobytes()[:length].decode()

    def broadcast_arrays(self, arrays: dict[str, mx.array]) -> dict[str, mx.array]:
        """Rank 0's arrays by name; the others bring arrays of the same names, shapes and dtypes."""
        if self.single:
            return arrays
        mine = arrays if self.rank == 0 else tree_map(mx.zeros_like, arrays)
        shared = {name: mx.distributed.all_sum(mine[name], group=self.group) for name in sorted(mine)}
        with self.waiting(patience=10 * self.patience):
            mx.eval(shared)
        return shared

    def require_same(self, what: str, text: str) -> None:
        """Raises UsageError on every rank where `text` is not the same on all."""
        if self.single:
            return
        if self.any(self.broadcast_text(text) != text):
            remedy = "every machine needs the same files and options"
            raise UsageError(f"{what} differs between the processes; {remedy}")

    def _gather(self, values: np.ndarray) -> np.ndarray:
        """[n] int32 -> [ranks, n]. Waits longer than a step does: peers may still be loading."""
        with self.waiting(patience=10 * self.patience):
            gathered = mx.distributed.all_gather(mx.array(values), group=self.group)
            return np.array(gathered).reshape(self.size, -1)

    @property
    def patience(self) -> float:
        return float(os.environ.get("MLX_LVM_PEER_TIMEOUT", PATIENCE))

    @contextmanager
    def waiting(self, patience: float | None = None) -> Iterator[None]:
        """Around all that needs the peers. The first step waits longer: a peer may compile its kernels.

        Raises IOFailed where one is lost; a silent one ends this process.
        """
        if self.single:
            yield
            return
        usual = self.patience * (1 if self.stepped else 10)
        self.watchdog.deadline = time.monotonic() + (usual if patience is None else patience)
        try:
            yield
            self.stepped |= patience is None
        except RuntimeError as error:
            lost = f"rank {self.rank}: lost another process of this training"
            raise IOFailed(f"{lost} ({error}). {REMEDY}") from None
        finally:
            self.watchdog.deadline = 0.0


class PeerWatchdog:
    """Ends the process when a wait is too long; nothing in Python can interrupt one.

    Its thread must not hold the group: MPI is finalised when nothing does any more, or complains.
    """

    def __init__(self, rank: int) -> None:
        self.rank = rank
        self.deadline = 0.0  # when the wait that is on now has lasted too long; 0: none is on

    def run(self) -> None:
        while True:
            time.sleep(0.5)
            if self.deadline and time.monotonic() > self.deadline:
                silent = "another process of this training has been silent for too long"
                said = f"error: rank {self.rank}: {silent}. {REMEDY}"
                print(said, file=sys.stderr, flush=True)
                os._exit(IOFailed.exit_code)


REMEDY = (
    "The last checkpoint is intact: start all processes again with --resume. MLX_LVM_PEER_TIMEOUT=60 allows "
    "slower steps."
)
SINGLE = Group()


def init() -> Group:
    """The group that a launcher put this process in, else SINGLE.

    Raises IOFailed where the peers cannot be reached.
    """
    if not any(name in os.environ for name in LAUNCHED):
        return SINGLE
    try:
        group = Group(mx.distributed.init())
    except RuntimeError as error:
        raise IOFailed(f"the other processes cannot be reached ({error})") from None
    if group.single:
        return SINGLE
    threading.Thread(target=group.watchdog.run, daemon=True).start()
    return group
