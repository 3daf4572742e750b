"""The proof that the checks can fail: plant every fault, see it caught, and see the right place blamed."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import replace
from functools import cache

from mlx_lvm.core.result import JsonObject
from mlx_lvm.parity.checks.model import forward_checks, gradient_checks
from mlx_lvm.parity.checks.training import ALL_LOSSES, synthetic_corpus, training_checks
from mlx_lvm.parity.checks.weights import weights_checks
from mlx_lvm.parity.faults.every import all_faults
from mlx_lvm.parity.faults.planting import Fault, Outcome, config_of
from mlx_lvm.parity.sides.inputs import Case, random_case
from mlx_lvm.parity.sides.setup import require_valid
from mlx_lvm.parity.sides.sides import Sides, Subject
from mlx_lvm.parity.sides.taps import taps_checks
from mlx_lvm.parity.verdict import Check

STEPS = 4  # training steps with a planted fault: the recorded metrics make the schedule cut within them
# Ten times the recipe's: what an optimiser errs moves a weight by more than the weight itself is rounded.
LEARNING_RATE = 5e-3


class Tested(Outcome):
    """Of a fault of a model or of its training, some of which nothing can notice."""

    @property
    def right(self) -> bool:
        """Caught, or silent where nothing can be noticed."""
        return self.caught != bool(self.fault.equivalent)

    def to_dict(self) -> JsonObject:
        out = {**super().to_dict(), "by": self.failures[0].name if self.failures else ""}
        return {**out, "equivalent": self.fault.equivalent} if self.fault.equivalent else out


def self_test(
    faults: Iterable[Fault] | None = None, progress: Callable[[str], None] = lambda text: None
) -> list[Tested]:
    """Plant each fault alone and examine."""
    require_valid()
    outcomes = []
    for fault in all_faults() if faults is None else faults:
        progress(fault.name)
        outcomes.append(Tested(fault, tuple(examine(fault))))
    return outcomes


def examine(fault: Fault) -> list[Check]:
    """Failures with the fault planted, from the first stage that has any."""
    subject, sides = _honest(fault.model)
    stages: list[Callable[[], Iterable[Check]]] = [
        lambda: weights_checks(sides),
        lambda: taps_checks(sides, _cases(fault.model)),
        lambda: _outputs(sides, fault.model),
    ]
    if fault.stage == "training":
        corpus = synthetic_corpus(subject.config.dim)
        stages = [lambda: training_checks(subject, corpus, STEPS, lr=LEARNING_RATE, **ALL_LOSSES)]
    with fault.plant(sides.mlx):
        for stage in stages:
            failures = [check for check in stage() if not check.passed]
            if failures:
                return failures
    return []


@cache
def _honest(model: str) -> tuple[Subject, Sides]:
    """A small model with every parameter randomised: no zero bias or unit norm hides a dropped term."""
    subject = replace(Subject.drawn(config_of(model), 0).randomised(0), name=model)
    return subject, Sides(subject, keep=True)


def _cases(model: str) -> list[Case]:
    config = config_of(model)
    longer = 9 if config.history else 3  # what lies more than five chunks back is treated differently
    return [random_case(config.dim, 3, 5, 0), random_case(config.dim, 2, longer, 1)]


def _outputs(sides: Sides, model: str) -> Iterable[Check]:
    cases = [*_cases(model), random_case(config_of(model).dim, 1, 1, 2)]
    yield from forward_checks(sides, cases)
    yield from gradient_checks(sides, cases[:2])


def summary(outcomes: list[Tested]) -> dict[str, int]:
    """Counts over the faults that can be noticed; `silent` over those that cannot."""
    real = [outcome for outcome in outcomes if not outcome.fault.equivalent]
    return {
        "planted": len(real),
        "caught": sum(outcome.caught for outcome in real),
        "blamed": sum(outcome.blamed for outcome in real),
        "equivalent": len(outcomes) - len(real),
        "silent": sum(not outcome.caught for outcome in outcomes if outcome.fault.equivalent),
    }
