"""RAMN's own training step against torch, window by window in float64; and each planted fault is caught and
blamed.
"""

from typing import Any

import pytest

pytest.importorskip("torch", reason="torch is the reference: pip install 'mlx-lvm[parity]'")

from mlx_lvm.models.ramn_config import RAMNConfig
from mlx_lvm.parity.checks.training import synthetic_corpus, training_checks
from mlx_lvm.parity.faults.documents import REGRESS, RETRIEVE
from mlx_lvm.parity.faults.planting import Fault
from mlx_lvm.parity.sides.sides import Subject

SIZES: dict[str, Any] = {"dim": 48, "rank": 20, "hidden_dim": 32}
STEPS = 3


@pytest.mark.parametrize("randomised", [False, True])
@pytest.mark.parametrize(
    "options", [{"head": "regress", "horizons": 2, "queries": 0.5}, {"head": "retrieve"}]
)
def test_the_steps_are_torch_s(options: dict[str, Any], randomised: bool) -> None:
    subject = Subject.drawn(RAMNConfig(**SIZES, **options), 0)
    subject = subject.randomised(1) if randomised else subject
    checks = list(training_checks(subject, synthetic_corpus(48), STEPS))
    assert [check.name for check in checks if not check.passed] == []
    compared = {check.what.case for check in checks}
    assert compared == {"losses", "first", "second", "weights", "trajectory", "probe"}


@pytest.mark.slow
@pytest.mark.parametrize("fault", [*RETRIEVE, *REGRESS], ids=lambda fault: fault.name)
def test_a_fault_is_caught_and_blamed(fault: Fault) -> None:
    head = "retrieve" if fault in RETRIEVE else "regress"
    subject = Subject.drawn(RAMNConfig(**SIZES, head=head), 0).randomised(1)
    with fault.plant(subject.model()):
        failures = [c for c in training_checks(subject, synthetic_corpus(48), STEPS) if not c.passed]
    assert failures
    assert any(failures[0].first_divergence.startswith(place) for place in fault.expect)
