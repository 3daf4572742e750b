"""Options of EMN, and what follows from them."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from mlx_lvm.config import option
from mlx_lvm.models.base import MAX_CONTEXT, ModelConfig, Objective


@dataclass(frozen=True)
class EMNConfig(ModelConfig):
    model_type: ClassVar[str] = "emn"
    title: ClassVar[str] = "emn"

    dim: int = option(
        768, "width of the embeddings; 0: any, with no corpus's statistics", low=0, high=65536, group="Model"
    )
    head: str = option(
        "predict",
        "what it gives: the next chunk itself (predict) or a direction to rank chunks by (rank)",
        choices=("predict", "rank"),
        group="Model",
    )
    expert: str = option(
        "auto",
        "whether a baseline fitted on the corpus is one more row; auto: where it predicts "
        "validation documents better",
        choices=("auto", "yes", "no"),
        group="Model",
    )
    rank: int = option(
        192, "principal directions that the expert's map reads", low=1, high=65536, group="Model"
    )
    hidden_dim: int = option(48, "width of the network", low=1, high=4096, group="Model")
    dropout: float = option(
        0.1, "share of its hidden units zeroed while training", low=0, below=1, group="Model"
    )

    @property
    def variant(self) -> str:
        return self.model_type if self.head == "predict" else f"{self.model_type}-{self.head}"

    @property
    def objective(self) -> Objective:
        return "predict" if self.head == "predict" else "rank"

    @property
    def history(self) -> int:
        return MAX_CONTEXT

    @property
    def has_expert(self) -> bool:
        """Training settles `auto`; until then there is none."""
        return self.expert == "yes"

    @property
    def width(self) -> int:
        """`rank`, or all directions where there are fewer."""
        return min(self.rank, self.dim)
