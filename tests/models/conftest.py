"""The torch twins and the checks of parity, as the tests of the models ask for them."""

import math
from typing import Any

import pytest

from mlx_lvm.models import ModelConfig, VectorModel, architecture
from mlx_lvm.parity.checks.model import forward_checks, gradient_checks
from mlx_lvm.parity.sides.inputs import random_case
from mlx_lvm.parity.sides.sides import Sides, Subject
from mlx_lvm.parity.twins import twin_class


class Reference:
    """What tests would import from here, were this a module that they can import."""

    @staticmethod
    def config(name: str, **sizes: Any) -> ModelConfig:
        return architecture(name).config_class(**sizes)

    @staticmethod
    def twin(name: str, **sizes: Any) -> Any:
        """A torch twin with torch's own initial weights."""
        return twin_class(name)(sizes)

    @staticmethod
    def pair(config: ModelConfig, seed: int = 0) -> tuple[VectorModel, Any]:
        """The model and its twin with the same weights, every one of them drawn anew: nothing is zero or
        one.
        """
        subject = Subject.drawn(config, seed).randomised(seed)
        return subject.model(), subject.twin()

    @staticmethod
    def ratios(
        config: ModelConfig, batch: int, length: int, seed: int = 0, compiled: bool = False
    ) -> dict[str, float]:
        """Our error over torch's own, of outputs and of all gradients; infinite where parity fails."""
        sides = Sides(Subject.drawn(config, seed).randomised(seed))
        cases, modes = [random_case(config.dim, batch, length, seed)], ("compiled" if compiled else "eager",)
        checks = [*forward_checks(sides, cases, modes), *gradient_checks(sides, cases, modes)]
        return {check.name: check.ratio if check.passed else math.inf for check in checks}


@pytest.fixture(scope="session")
def reference() -> type[Reference]:
    return Reference
