"""All that `lvm eval` finds: the evaluation; if asked, a closer look, another corpus, the arrow of time."""

from __future__ import annotations

from dataclasses import dataclass

from mlx_lvm.core.result import JsonObject, Result
from mlx_lvm.evaluation.evaluate import Evaluation
from mlx_lvm.evaluation.study.arrow import Arrow
from mlx_lvm.evaluation.study.study import Study
from mlx_lvm.evaluation.transfer import Transfer


@dataclass(frozen=True)
class Findings(Result):
    """None for what was not asked for."""

    evaluation: Evaluation
    study: Study | None = None
    ood: Transfer | None = None
    arrow_of_time: Arrow | None = None

    def to_dict(self) -> JsonObject:
        """As `lvm eval --json` prints it."""
        out = super().to_dict()
        return {**out.pop("evaluation"), **out.pop("study", {}), **out}
