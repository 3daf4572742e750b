"""A parity run of encoders: the folder as given, and small random ones of every architecture."""

from __future__ import annotations

import tempfile
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

from mlx_lvm.core.result import JsonObject
from mlx_lvm.encoders import ARCHITECTURES
from mlx_lvm.encoders.encoder import TextEncoder
from mlx_lvm.errors import UsageError
from mlx_lvm.parity.arbiter import LIMIT
from mlx_lvm.parity.encoders.cases import cases, shipped_chunks
from mlx_lvm.parity.encoders.examine import Examination
from mlx_lvm.parity.encoders.faults import FAULTS, Fault
from mlx_lvm.parity.encoders.small import write_small
from mlx_lvm.parity.faults.planting import Outcome
from mlx_lvm.parity.sides.setup import require_valid
from mlx_lvm.parity.verdict import Check, blamed, first_divergence, verdict_of

CHUNKS = 8  # of the shipped corpus, in the batch of real texts
SEEDS = 4  # small encoders of every architecture

Say = Callable[[str], None]


@dataclass(frozen=True)
class Planted(Outcome):
    """Of a fault planted in the encoder of that name."""

    encoder: str

    def to_dict(self) -> JsonObject:
        return {**super().to_dict(), "encoder": self.encoder}


@dataclass
class EncoderReport:
    """Checks of every encoder and the outcomes of planted faults."""

    dtype: str
    checks: list[Check] = field(default_factory=list)
    outcomes: list[Planted] = field(default_factory=list)
    seconds: float = 0.0

    @property
    def failures(self) -> list[Check]:
        return [check for check in self.checks if not check.passed]

    @property
    def passed(self) -> bool:
        return verdict_of(self.checks) and all(outcome.caught and outcome.blamed for outcome in self.outcomes)

    def to_dict(self) -> JsonObject:
        return {
            "passed": self.passed,
            "dtype": self.dtype,
            "compared": len(self.checks),
            "failed": len(self.failures),
            "seconds": round(self.seconds, 2),
            "checks": [check.to_dict() for check in self.checks],
            "faults": [outcome.to_dict() for outcome in self.outcomes],
        }


def run(
    folder: Path | None,
    dtype: str = "float32",
    seeds: int = SEEDS,
    faults: bool = False,
    say: Say = lambda text: None,
) -> EncoderReport:
    """Compare the encoder of `folder`, if any, and `seeds` small ones of each architecture; plant `faults`.

    Raises SetupInvalid without transformers, InvalidFile where the folder cannot be read by either side.
    """
    if dtype not in LIMIT:
        raise UsageError(f"dtype '{dtype}': expected one of {', '.join(LIMIT)}")
    begun, report = time.perf_counter(), EncoderReport(dtype)
    require_valid()
    with tempfile.TemporaryDirectory() as place:
        if folder is not None:
            TextEncoder.load(folder, dtype)  # says what is wrong with it before torch is at work
            say(f"torch on {folder}")
            _examine(report, Examination(folder, cases(shipped_chunks(CHUNKS)), dtype), faults, say)
        for kind in ARCHITECTURES:
            for seed in range(seeds):
                small = write_small(Path(place) / f"{kind}-small{seed}", kind, seed)
                say(small.name)
                _examine(report, Examination(small, cases(), dtype), faults, say)
    report.seconds = time.perf_counter() - begun
    return report


def _examine(report: EncoderReport, examination: Examination, faults: bool, say: Say) -> None:
    encoder = TextEncoder.load(examination.folder, examination.dtype)
    report.checks += examination.checks(encoder)
    for fault in FAULTS if faults else ():
        if fault.fits(encoder):
            say(f"{examination.name}: {fault.name}")
            report.outcomes.append(plant(fault, examination))


def plant(fault: Fault, examination: Examination) -> Planted:
    """The checks with the fault in our side alone, up to the first place that parts from torch by itself."""
    failures: list[Check] = []
    encoder = TextEncoder.load(examination.folder, examination.dtype)
    with fault.plant(encoder):
        for check in examination.checks(encoder):
            failures += [] if check.passed else [check]
            if not check.passed and check.what.run in ("exact", "own"):
                break
    return Planted(fault, tuple(blamed(failures, first_divergence(failures))), examination.name)
