"""Options of EMN, and what follows from them."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from mlx_lvm.config import model_option
from mlx_lvm.models.base import HeadedConfig


@dataclass(frozen=True)
class EMNConfig(HeadedConfig):
    model_type: ClassVar[str] = "emn"
    title: ClassVar[str] = "emn"

    dim: int = model_option(
        768, "width of the embeddings; 0: any, with no corpus's statistics", low=0, high=65536
    )
    head: str = model_option(
        "predict",
        "what it gives: the next chunk itself (predict) or a direction to rank chunks by (rank)",
        choices=("predict", "rank"),
    )
    expert: str = model_option(
        "auto",
        "whether a baseline fitted on the corpus is one more row; auto: where it predicts "
        "validation documents better",
        choices=("auto", "yes", "no"),
    )
    rank: int = model_option(192, "principal directions that the expert's map reads", low=1, high=65536)
    hidden_dim: int = model_option(48, "width of the network", low=1, high=4096)
    dropout: float = model_option(0.1, "share of its hidden units zeroed while training", low=0, below=1)

    @property
    def has_expert(self) -> bool:
        """Training settles `auto`; until then there is none."""
        return self.expert == "yes"

    @property
    def width(self) -> int:
        """`rank`, or all directions where there are fewer."""
        return min(self.rank, self.dim)
