"""Options of RAMN, and what follows from them."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from mlx_lvm.config import model_option
from mlx_lvm.errors import Problems
from mlx_lvm.models.base import HeadedConfig


@dataclass(frozen=True)
class RAMNConfig(HeadedConfig):
    model_type: ClassVar[str] = "ramn"
    title: ClassVar[str] = "ramn"

    head: str = model_option(
        "regress",
        "what it predicts: the chunk itself (regress) or a direction to rank chunks by (retrieve)",
        choices=("regress", "retrieve"),
    )
    rank: int = model_option(
        192, "principal directions that the map reads and the network reads and moves", low=1, high=65536
    )
    hidden_dim: int = model_option(768, "width of the network", low=1, high=65536)
    input_dropout: float = model_option(
        0.4, "share of the network's input zeroed while training", low=0, below=1
    )
    dropout: float = model_option(0.6, "share of its hidden units zeroed while training", low=0, below=1)
    horizons: int = model_option(1, "chunks ahead that it predicts, each directly (regress)", low=1, high=16)
    queries: float = model_option(
        0.0,
        "share of training windows given a query, one of the 5 chunks after the target; 0: it takes "
        "none (regress)",
        low=0,
        high=1,
    )

    fallback: str = model_option(
        "last",
        "what its direction is blended with, and what ranks where that is not trusted: the last chunk, or "
        "emn-rank with the statistics of the corpus (retrieve)",
        choices=("last", "emn"),
    )

    def check(self, problems: Problems) -> None:
        if self.head == "regress":
            if self.fallback != "last":
                problems.add(f"fallback = {self.fallback}: head regress has none; choose head retrieve")
            return
        for name, none in (("horizons", 1), ("queries", 0)):
            if (value := getattr(self, name)) != none:
                remedy = "leave it away, or choose head regress"
                problems.add(f"{name} = {value}: head {self.head} has none; {remedy}")

    @property
    def takes_queries(self) -> bool:
        return self.queries > 0

    @property
    def width(self) -> int:
        """`rank`, or all directions where there are fewer."""
        return min(self.rank, self.dim)
