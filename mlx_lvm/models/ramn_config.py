"""Options of RAMN, and what follows from them."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from mlx_lvm.config import option
from mlx_lvm.errors import Problems
from mlx_lvm.models.base import MAX_CONTEXT, ModelConfig, Objective


@dataclass(frozen=True)
class RAMNConfig(ModelConfig):
    model_type: ClassVar[str] = "ramn"
    title: ClassVar[str] = "ramn"

    head: str = option(
        "regress",
        "what it predicts: the chunk itself (regress) or a direction to rank chunks by (retrieve)",
        choices=("regress", "retrieve"),
        group="Model",
    )
    rank: int = option(
        192,
        "principal directions that the map reads and the network reads and moves",
        low=1,
        high=65536,
        group="Model",
    )
    hidden_dim: int = option(768, "width of the network", low=1, high=65536, group="Model")
    input_dropout: float = option(
        0.4, "share of the network's input zeroed while training", low=0, below=1, group="Model"
    )
    dropout: float = option(
        0.6, "share of its hidden units zeroed while training", low=0, below=1, group="Model"
    )
    horizons: int = option(
        1, "chunks ahead that it predicts, each directly (regress)", low=1, high=16, group="Model"
    )
    queries: float = option(
        0.0,
        "share of training windows given a query, one of the 5 chunks after the target; 0: it takes "
        "none (regress)",
        low=0,
        high=1,
        group="Model",
    )

    def check(self, problems: Problems) -> None:
        for name in ("horizons", "queries"):
            if (
                self.head != "regress"
                and getattr(self, name) != type(self).__dataclass_fields__[name].default
            ):
                problems.add(
                    f"{name} = {getattr(self, name)}: head {self.head} has none; leave it away, or choose "
                    "head regress"
                )

    @property
    def variant(self) -> str:
        return self.model_type if self.head == "regress" else f"{self.model_type}-{self.head}"

    @property
    def objective(self) -> Objective:
        return "predict" if self.head == "regress" else "rank"

    @property
    def history(self) -> int:
        return MAX_CONTEXT

    @property
    def takes_queries(self) -> bool:
        return self.queries > 0

    @property
    def width(self) -> int:
        """`rank`, or all directions where there are fewer."""
        return min(self.rank, self.dim)
