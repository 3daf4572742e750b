"""The checks pass on the models as they are and fail, with the right blame, on broken ones."""

import re
from collections.abc import Callable
from dataclasses import replace

import numpy as np
import pytest

from mlx_lvm.core.mlx import mx, nn
from mlx_lvm.errors import SetupInvalid, UsageError
from mlx_lvm.models import architecture, architectures
from mlx_lvm.parity.arbiter import judge
from mlx_lvm.parity.checks.model import forward_checks, gradient_checks
from mlx_lvm.parity.checks.training import ALL_LOSSES, synthetic_corpus, training_checks
from mlx_lvm.parity.checks.weights import weights_checks
from mlx_lvm.parity.run import Plan, find_subjects, parse_checks, run, small
from mlx_lvm.parity.sides import setup, taps
from mlx_lvm.parity.sides.inputs import adversarial_cases, random_case, real_cases
from mlx_lvm.parity.sides.kinks import near_kinks
from mlx_lvm.parity.sides.sides import Sides, Subject, twin_outputs
from mlx_lvm.parity.sides.taps import tap_case, taps_checks
from mlx_lvm.parity.verdict import first_divergence, verdict_of


def subject(name: str, seed: int = 0) -> Subject:
    return Subject.drawn(small(architecture(name).config_class()), seed).randomised(seed)


def failures(checks) -> list:  # type: ignore[no-untyped-def]
    return [check for check in checks if not check.passed]


@pytest.mark.slow
@pytest.mark.parametrize("dtype", ["float32", "bfloat16", "float16"])
@pytest.mark.parametrize("name", architectures())
def test_forward_in_every_precision(name: str, dtype: str) -> None:
    """In half precision the adversarial cases whose numbers are extreme; order and shape are float32's."""
    sides = Sides(subject(name), dtype)
    numbers = "zeros|constant|cancelling|large|norm|denormal|offset|nan|infinity|length-100"
    wanted = "" if dtype == "float32" else numbers
    extreme = [case for case in adversarial_cases(64, dtype) if re.search(wanted, case.name)]
    assert len(extreme) >= 15
    cases = [random_case(64, 3, 5, 0), *extreme]
    checks = list(forward_checks(sides, cases, ("eager", "compiled")))
    assert not failures(checks)
    assert verdict_of(checks)
    assert len({check.name for check in checks}) == len(checks)


@pytest.mark.parametrize("name", architectures())
def test_gradients_of_every_parameter(name: str) -> None:
    sides = Sides(subject(name))
    checks = list(
        gradient_checks(sides, [random_case(64, 2, 5, 0), random_case(64, 3, 1, 1)], ("eager", "compiled"))
    )
    assert not failures(checks)
    seen = {check.what.value.partition("[")[0] for check in checks}
    assert seen == {*sides.mlx.weights(), "input"}


def test_null_gradients_are_labelled() -> None:
    checks = list(gradient_checks(Sides(subject("amn")), [random_case(64, 3, 5, 0)]))
    assert [c.what.value for c in checks if c.verdict == "unobservable"] == ["context_encoder.bias"]
    checks = list(gradient_checks(Sides(subject("transformer")), [random_case(64, 3, 5, 0)]))
    null = {c.what.value for c in checks if c.verdict == "unobservable"}
    assert len(null) == 8 and all(name.endswith("in_proj_bias[k]") for name in null)


@pytest.mark.parametrize("name", architectures())
def test_taps_and_weights(name: str) -> None:
    sides = Sides(subject(name))
    assert not failures(weights_checks(sides))
    checks = list(taps_checks(sides, [random_case(64, 2, 5, 0)]))
    assert not failures(checks)
    taps = {check.what.value for check in checks}
    expected = {
        "amn": {"context_encoder", "attention", "residual_net.0 <-", "residual_net.6"},
        "lstm": {"lstm.l1.t4.f", "lstm.l0.t0.c", "output_proj <-"},
        "gru": {"blocks.3.gru.l0.t4.n_hidden", "blocks.0.norm <-"},
        "transformer": {
            "transformer_decoder.layers.3.multihead_attn",
            "transformer_decoder.layers.0.linear2 <-",
            "pos_encoder",
        },
        "ramn": {"basis", "map", "net.0 <-", "net.7"},
        "emn": {"every_in <-", "each_in", "each_out", "residual"},
        "filter": {"raw", "unit"},  # no modules inside
    }
    assert expected[name] <= taps


def test_an_inherited_error_is_held_against_torchs_on_neighbours_where_no_own_error_fails(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Of one chunk EMN's residual is what two weights that nearly cancel leave: several times as far off on
    the next input. How far the truth moves excuses nothing.
    """
    near: dict = {}

    def asking(what, *values, neighbours=None, **options):  # type: ignore[no-untyped-def]
        if neighbours:
            near[what.run, what.value] = neighbours(), np.sqrt(np.mean(values[2] ** 2)) * 2.0**-24
        return judge(what, *values, neighbours=neighbours, **options)

    monkeypatch.setattr(taps, "judge", asking)
    sides, case = Sides(subject("emn")), random_case(64, 2, 1, 5)
    assert not failures(tap_case(sides, case))
    assert {run for run, _ in near} == {"inherited"}
    errors, rounding = near["inherited", "residual"]
    assert errors.torch_error > 5 * rounding and errors.moved == 0 and errors.mlx_error == np.inf
    near.clear()
    sides.mlx.each_out.weight = sides.mlx.each_out.weight * 1.01
    assert failures(tap_case(sides, case)) and near == {}


def test_gradients_at_a_zero_output() -> None:
    """A filter of zeros is zero: float32 holds the gradient 1 / eps of its normalisation, float16 does not,
    and says so once.
    """
    one = Subject.drawn(small(architecture("filter").config_class()), 0)
    zeros = [case for case in adversarial_cases(64) if case.name == "adversarial-zeros"]
    checks = list(gradient_checks(Sides(one), zeros))
    assert len(checks) == 4 and not failures(checks) and verdict_of(checks)
    (check,) = gradient_checks(Sides(one, "float16"), zeros)
    assert check.verdict == "unobservable" and "beyond the range of float16" in check.note


def test_training_leaves_the_statistics_of_a_ramn_alone() -> None:
    """Its own step trains the network's layers and nothing that the anchor was fitted from, filters for
    queries among it.
    """
    one = Subject.drawn(small(architecture("ramn").config_class(horizons=2, queries=0.5)), 0).randomised(0)
    checks = list(training_checks(one, synthetic_corpus(64), 2))
    assert checks and not failures(checks)
    trained = {check.what.value for check in checks if check.what.case == "weights"}
    assert trained == {f"net.{k}.{what}" for k in (1, 4, 7) for what in ("weight", "bias")} | {
        "ahead.0.output.weight",
        "ahead.0.output.bias",
    }


def test_ramn_with_horizons_and_queries(corpora: list) -> None:
    """Forward, taps and gradients of every parameter that only horizons or a query bring in; none is left
    unobserved.
    """
    config = small(architecture("ramn").config_class(horizons=3, queries=0.5))
    for one in (Subject.drawn(config, 0), Subject.drawn(config, 0).randomised(1)):
        sides, cases = Sides(one), [random_case(64, 3, 7, 0), random_case(64, 1, 1, 1)]
        checks = [
            *weights_checks(sides),
            *forward_checks(sides, cases, ("eager", "compiled")),
            *gradient_checks(sides, cases),
        ]
        taps = list(taps_checks(sides, cases[:1]))
        assert not failures([*checks, *taps])
        assert {check.what.run for check in taps if check.what.value == "ahead"} == {"own", "inherited"}
        assert {f"ramn/forward/{one.parameters}/eager/{cases[0].name}/ahead"} <= {
            check.name for check in checks
        }
    gradients = {
        c.what.value: c for c in checks if c.what.stage == "gradients" and c.what.case == cases[0].name
    }
    for name in (
        "ahead.1.filter",
        "ahead.0.map.weight",
        "ahead.1.output.weight",
        "query_filter",
        "ahead.0.query_shift_filter",
    ):
        assert gradients[name].verdict in ("bitwise", "equivalent"), gradients[name]
    first, second = sides.mlx.ahead
    first.filter, second.filter = second.filter, first.filter
    assert {check.what.value for check in failures(forward_checks(sides, cases[:1]))} == {"ahead"}


@pytest.mark.parametrize("dtype", ["bfloat16", "float16"])
@pytest.mark.parametrize("name", architectures())
def test_taps_in_half_precision(name: str, dtype: str) -> None:
    assert not failures(taps_checks(Sides(subject(name), dtype), [random_case(64, 2, 5, 0)]))


def test_released_sizes_on_real_windows(corpora: list) -> None:
    """The figure that the README gives: below 8 times torch's own error, and below 1e-6 on unit vectors."""
    sides = Sides(Subject.drawn(architecture("amn").config_class(), 0))
    checks = list(forward_checks(sides, real_cases(corpora, 768)))
    assert len(checks) == 8 * 5 and not failures(checks)
    assert max(check.max_abs_error for check in checks if check.what.value == "unit") < 1e-6


BROKEN: dict[str, tuple[Callable, str]] = {
    "epsilon": (lambda model: setattr(model.residual_net[2], "eps", 1e-6), "residual_net.2"),
    "tanh GELU": (lambda model: model.residual_net.__setitem__(4, nn.GELU(approx="tanh")), "residual_net.4"),
    "no bias": (lambda model: model.query_encoder.pop("bias"), "query_encoder"),
}


@pytest.mark.parametrize("fault", BROKEN)
def test_a_broken_amn_fails_and_is_blamed(fault: str) -> None:
    sides = Sides(subject("amn"))
    change, place = BROKEN[fault]
    change(sides.mlx)
    case = random_case(64, 3, 5, 0)
    assert first_divergence(tap_case(sides, case)) == place
    broken = failures(forward_checks(sides, [case]))
    assert {check.what.value for check in broken} >= {"raw", "unit"}
    assert {check.first_divergence for check in broken} == {place}
    assert broken[0].source == (sides.subject, case)


def test_one_nudged_weight_is_seen_by_the_weights_check_alone() -> None:
    sides = Sides(subject("amn"))
    layer = sides.mlx.residual_net[0]
    flat = np.array(layer.weight)
    flat[3, 5] = np.nextafter(flat[3, 5], np.float32(9))
    layer.weight = mx.array(flat)
    assert [check.first_divergence for check in failures(weights_checks(sides))] == ["residual_net.0.weight"]
    assert not failures(forward_checks(sides, [random_case(64, 3, 5, 0)]))


def test_training_mode_makes_the_verdict_worthless() -> None:
    sides = Sides(subject("lstm"))
    sides.mlx.train()
    with pytest.raises(SetupInvalid, match="training mode"):
        list(forward_checks(sides, [random_case(64, 2, 5, 0)]))


def test_tf32_makes_the_verdict_worthless(monkeypatch: pytest.MonkeyPatch) -> None:
    setup.require_valid()

    class Rounding(type(mx)):  # type: ignore[misc]
        def __getattr__(self, name: str) -> object:
            return getattr(mx, name)

        @staticmethod
        def array(value: np.ndarray) -> mx.array:
            return mx.array(value.astype(np.float16).astype(np.float32))  # 10 bits of fraction, as TF32 has

    import mlx_lvm.core.mlx

    monkeypatch.setattr(mlx_lvm.core.mlx, "mx", Rounding("mx"))
    with pytest.raises(SetupInvalid, match="MLX_ENABLE_TF32=0"):
        setup.require_valid()


@pytest.mark.slow
@pytest.mark.parametrize("name", architectures())
def test_training_steps(name: str) -> None:
    checks = list(training_checks(subject(name), synthetic_corpus(64), 5, **ALL_LOSSES))
    assert not failures(checks)
    parts = {check.what.case for check in checks}
    assert parts == {"losses", "first", "second", "weights", "trajectory", "probe"}


def test_a_relu_kink_is_no_fault() -> None:
    """A relu input of exactly zero in float64, a rounding away in float32: the gradient may take either
    side.
    """
    one = subject("transformer")
    sides = Sides(one)
    case = random_case(64, 2, 3, 4)
    seen: list = []
    layer = sides.truth.transformer_decoder.layers[0].linear1
    handle = layer.register_forward_hook(lambda module, args, out: seen.append(out.detach()))
    sides.on_torch(twin_outputs, case.context)
    handle.remove()
    bias = np.array(one.weights["transformer_decoder.layers.0.linear1.bias"]).astype(np.float64)
    bias[7] -= float(seen[0][1, 2, 7])  # now unit 7 of window 1, step 2 is at its kink
    weights = {**one.weights, "transformer_decoder.layers.0.linear1.bias": mx.array(bias.astype(np.float32))}
    kinked = Sides(replace(one, weights=weights))
    assert near_kinks(kinked.truth, kinked.context(case.context)[2], 16 * 2.0**-24)
    assert not failures(gradient_checks(kinked, [case]))


def test_subjects_and_options() -> None:
    subjects = [subject.config.variant for subject in find_subjects("all")]
    assert subjects[: len(architectures())] == [*architectures()]
    assert {"emn-rank", "ramn-retrieve"} == set(
        subjects[len(architectures()) :]
    )  # released heads are subjects too
    assert parse_checks("taps, weights") == ("weights", "taps")
    with pytest.raises(UsageError, match="Did you mean 'gradients'"):
        parse_checks("gradient")
    with pytest.raises(UsageError, match="dtype 'float8'"):
        Plan(dtype="float8")
    with pytest.raises(UsageError, match="steps"):
        Plan(steps=0)
    drawn = [find_subjects("lstm", seed)[0].weights["output_proj.bias"] for seed in (1, 1, 2)]
    assert mx.array_equal(drawn[0], drawn[1]).item() and not mx.array_equal(drawn[0], drawn[2]).item()


@pytest.mark.slow
def test_run_of_a_small_model_reports() -> None:
    from mlx_lvm.parity.report import report

    one = replace(Subject.drawn(small(architecture("amn").config_class()), 0), name="amn")
    found = run([one], Plan(("weights", "forward", "taps", "gradients")))
    assert found.passed
    page = report.markdown(found)
    assert "**passed**" in page and "| amn/forward/randomised/eager |" in page
    assert report.to_dict(found)["compared"] == len(found.checks)
