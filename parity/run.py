"""A parity run: which subjects, which checks on which inputs, and everything they found.

The model as given meets real windows, random and adversarial inputs at its full size; a small model of the
same architecture meets every adversarial input, every context length, eager and compiled, as it is and
randomised.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field, fields, replace
from pathlib import Path

from mlx_lvm import weights
from mlx_lvm.core.mlx import mx
from mlx_lvm.data.corpus import Corpus, load_corpus
from mlx_lvm.errors import UsageError, nearest
from mlx_lvm.hub.load import Loaded, load_model
from mlx_lvm.models import MAX_CONTEXT, ModelConfig, architecture, architectures
from mlx_lvm.parity.arbiter import LIMIT
from mlx_lvm.parity.checks.model import forward_checks, gradient_checks
from mlx_lvm.parity.checks.replay import replay_checks
from mlx_lvm.parity.checks.training import ALL_LOSSES, training_checks
from mlx_lvm.parity.checks.weights import weights_checks
from mlx_lvm.parity.sides.inputs import Case, adversarial_cases, random_case, random_cases, real_cases
from mlx_lvm.parity.sides.setup import require_valid
from mlx_lvm.parity.sides.sides import Sides, Subject
from mlx_lvm.parity.sides.taps import taps_checks
from mlx_lvm.parity.verdict import Check, verdict_of

CHECKS = ("weights", "forward", "taps", "gradients", "training")
QUICK = ("weights", "forward", "gradients")
SMALL = {"dim": 64, "attention_dim": 32, "hidden_dim": 48, "ffn_dim": 96, "rank": 24}
CORPORA = ("sotu", "moby")


@dataclass(frozen=True)
class Plan:
    """What to compare. `thorough` adds small models of more seeds, every context length, every device."""

    checks: tuple[str, ...] = QUICK
    dtype: str = "float32"
    steps: int = 3
    seeds: int = 3
    seed: int = 0
    thorough: bool = False

    def __post_init__(self) -> None:
        if self.dtype not in LIMIT:
            raise UsageError(f"dtype '{self.dtype}': expected one of {', '.join(LIMIT)}")
        if self.steps < 1:
            raise UsageError(f"steps = {self.steps}: must be at least 1")


def parse_checks(text: str) -> tuple[str, ...]:
    """`all`, one check or several with commas. Raises UsageError naming the nearest."""
    names = [name.strip() for name in text.split(",") if name.strip()]
    for name in names:
        if name not in (*CHECKS, "all"):
            raise UsageError(f"unknown check '{name}'.{nearest(name, [*CHECKS, 'all'])}")
    if not names:
        raise UsageError(f"no check named; expected one of {', '.join(CHECKS)}, all")
    return CHECKS if "all" in names else tuple(name for name in CHECKS if name in names)


UNIVERSAL_DIM = 384  # width at which a model that serves any is compared


def find_subjects(reference: str, seed: int = 0) -> list[Subject]:
    """`all`, an architecture (released weights, else drawn by seed), a run, an exported folder or a file."""
    if reference == "all":
        # a released head of an architecture is a subject of its own
        names = dict.fromkeys([*architectures(), *weights.released()])
        return [subject for name in names for subject in find_subjects(name, seed)]
    if reference in architectures() and reference not in weights.released() and not Path(reference).exists():
        return [Subject.drawn(architecture(reference).config_class(), seed)]
    return [replace(subject_of(load_model(reference)), origin=str(reference))]


def subject_of(loaded: Loaded) -> Subject:
    """A loaded model's weights; one that serves any encoder is given the mean of two drawn windows."""
    model = loaded.model
    if not model.config.dim:
        model = model.serving(mx.random.normal((2, 5, UNIVERSAL_DIM), key=mx.random.key(0)))
    return Subject(loaded.name, model.config, model.weights(), origin=loaded.name)


def small(config: ModelConfig) -> ModelConfig:
    """The same architecture, depth and heads at widths that let thousands of comparisons run in seconds."""
    widths = {f.name: min(getattr(config, f.name), SMALL[f.name]) for f in fields(config) if f.name in SMALL}
    heads = getattr(config, "heads", 1)
    if widths.get("hidden_dim", heads) % heads:
        widths["hidden_dim"] = heads * max(2, SMALL["hidden_dim"] // heads)
    return config.replace(**widths)


@dataclass
class Report:
    """All checks of a run and the set-up they ran in."""

    plan: Plan
    subjects: list[Subject]
    checks: list[Check] = field(default_factory=list)
    seconds: float = 0.0

    @property
    def passed(self) -> bool:
        return verdict_of(self.checks)

    @property
    def failures(self) -> list[Check]:
        return [check for check in self.checks if not check.passed]


def run(subjects: list[Subject], plan: Plan, progress: Callable[[str], None] = lambda text: None) -> Report:
    """Every check of the plan on every subject. Raises SetupInvalid where a verdict would be worthless."""
    require_valid()
    report = Report(plan, subjects)
    start = time.perf_counter()
    corpora = [load_corpus(name) for name in CORPORA]
    before = mx.default_device()
    try:
        for device in backends() if plan.thorough else [before]:
            mx.set_default_device(device)
            for subject in subjects:
                other = f"{subject.name}@{device.type.name}"
                given = subject if device == before else replace(subject, name=other)
                for name in plan.checks:
                    progress(f"{given.name}: {name}")
                    report.checks.extend(STAGES[name](given, plan, corpora))
                    mx.clear_cache()
    finally:
        mx.set_default_device(before)
    if "training" in plan.checks:
        progress("optimiser, schedule and losses alone")
        report.checks.extend(replay_checks())
    report.seconds = time.perf_counter() - start
    return report


def backends() -> list[mx.Device]:
    """The device that MLX uses by default, then the other kinds that it has here."""
    first = mx.default_device()
    others = [mx.Device(kind) for kind in (mx.gpu, mx.cpu)]
    return [first, *(device for device in others if device != first and mx.is_available(device))]


def _variants(subject: Subject, plan: Plan) -> list[Subject]:
    """The weights as they are, then every parameter randomised."""
    return [subject, subject.randomised(plan.seed + subject.seed)]


def _small(subject: Subject, plan: Plan) -> list[Subject]:
    """Drawn anew at small widths, one a seed."""
    return [
        replace(Subject.drawn(small(subject.config), plan.seed + k), name=f"{subject.name}-small{k}")
        for k in range(plan.seeds)
    ]


def _small_variants(subject: Subject, plan: Plan) -> list[Subject]:
    return [variant for drawn in _small(subject, plan) for variant in _variants(drawn, plan)]


def _weights(subject: Subject, plan: Plan, corpora: list[Corpus]) -> Iterator[Check]:
    for variant in _variants(subject, plan):
        yield from weights_checks(Sides(variant, plan.dtype))


def _forward(subject: Subject, plan: Plan, corpora: list[Corpus]) -> Iterator[Check]:
    dim = subject.config.dim
    usual = [*real_cases(corpora, dim), *random_cases(dim)]
    for variant in _variants(subject, plan):
        sides = Sides(variant, plan.dtype)
        yield from forward_checks(sides, usual, ("eager", "compiled"))
        yield from forward_checks(sides, adversarial_cases(dim, plan.dtype))
    if plan.thorough:
        for variant in _small_variants(subject, plan):
            dim = variant.config.dim
            cases = [*random_cases(dim), *adversarial_cases(dim, plan.dtype)]
            yield from forward_checks(Sides(variant, plan.dtype), cases, ("eager", "compiled"))
        lengths = [random_case(dim, 2, length, 7) for length in range(1, MAX_CONTEXT + 1)]
        yield from forward_checks(Sides(variant, plan.dtype), lengths)


def _gradients(subject: Subject, plan: Plan, corpora: list[Corpus]) -> Iterator[Check]:
    dim = subject.config.dim
    real = list(real_cases(corpora[:1], dim, ((33, 5), (1, 5)))) or [random_case(dim, 33, 5, 0)]
    for variant in _variants(subject, plan):
        sides = Sides(variant, plan.dtype)
        yield from gradient_checks(sides, [*real, random_case(dim, 2, 32, 0)])
        yield from gradient_checks(sides, [random_case(dim, 2, 1, 1)], ("compiled",))
    for variant in _small_variants(subject, plan if plan.thorough else replace(plan, seeds=1)):
        sides, dim = Sides(variant, plan.dtype), variant.config.dim
        yield from gradient_checks(sides, [*random_cases(dim, 1), *adversarial_cases(dim, plan.dtype)])
        yield from gradient_checks(sides, random_cases(dim, 1), ("compiled",))


def _taps(subject: Subject, plan: Plan, corpora: list[Corpus]) -> Iterator[Check]:
    dim = subject.config.dim
    cases = [*real_cases(corpora[:1], dim, ((3, 5),)), random_case(dim, 2, 7, 3)]
    for variant in _variants(subject, plan):
        yield from taps_checks(Sides(variant, plan.dtype), cases)
    for variant in _small_variants(subject, plan):
        cases = [random_case(variant.config.dim, 2, length, 5) for length in (1, 5, 32)]
        yield from taps_checks(Sides(variant, plan.dtype), cases)


def _training(subject: Subject, plan: Plan, corpora: list[Corpus]) -> Iterator[Check]:
    yield from training_checks(subject, corpora[0], plan.steps, plan.dtype, plan.seed)
    for drawn in _small(subject, plan):
        yield from training_checks(drawn, corpora[0], plan.steps, plan.dtype, drawn.seed, **ALL_LOSSES)


def golden_cases(subject: Subject) -> list[Case]:
    """What goldens record: few inputs, of every kind."""
    dim = subject.config.dim
    names = ("zeros", "identical-chunks", "norm-1e-04", "norm-1e+04", "length-1")
    extreme = [case for case in adversarial_cases(dim) if case.name.removeprefix("adversarial-") in names]
    return [*real_cases([load_corpus(CORPORA[0])], dim, ((3, 5),)), random_case(dim, 2, 7, 3), *extreme]


STAGES: dict[str, Callable[[Subject, Plan, list[Corpus]], Iterator[Check]]] = {
    "weights": _weights,
    "forward": _forward,
    "taps": _taps,
    "gradients": _gradients,
    "training": _training,
}
