"""Kernels of a step and of a forward pass, counted as on Metal: no more than they were, and none too wide for
it.
"""

import pytest

from mlx_lvm.bench.kernels import MOST_BUFFERS, as_on_a_gpu, count, forward_pass, read_dot, training_step
from mlx_lvm.bench.roofline import CHIPS
from mlx_lvm.core.activations import on_cpu
from mlx_lvm.core.mlx import mx
from mlx_lvm.models import architecture

from ..helpers import fuses, script

table = script("kernels")

# Forward pass and training step of a batch of 32 at the default sizes; lower them when they fall.
KERNELS = {"amn": (29, 143), "lstm": (39, 259), "gru": (76, 548), "transformer": (161, 796)}
FORWARD = {"ramn": 42, "filter": 14}
DOCUMENTS = {"regress": 173, "retrieve": 199}  # of RAMN's own step, by head


@fuses
@pytest.mark.parametrize("name", KERNELS)
def test_a_step_starts_no_more_kernels_than_it_did(name: str) -> None:
    config = architecture(name).config_class()
    forward, step = forward_pass(config, 32), training_step(config)
    most_forward, most_step = KERNELS[name]
    assert 0.8 * most_forward < forward.total <= most_forward, forward
    assert 0.8 * most_step < step.total <= most_step, step
    assert 2 < step.buffers <= MOST_BUFFERS
    assert step.total < 1.06 * table.plain_step(config).total, "looking for NaN and summing must stay cheap"


@fuses
@pytest.mark.parametrize("name", FORWARD)
def test_a_forward_pass_starts_no_more_kernels_than_it_did(name: str) -> None:
    found = forward_pass(architecture(name).config_class(), 32)
    assert 0.8 * FORWARD[name] < found.total <= FORWARD[name], found
    assert found.buffers <= MOST_BUFFERS


@fuses
@pytest.mark.parametrize("head", DOCUMENTS)
def test_a_step_on_documents_starts_no_more_kernels_than_it_did(head: str) -> None:
    step = training_step(architecture("ramn").config_class(head=head))
    assert 0.8 * DOCUMENTS[head] < step.total <= DOCUMENTS[head], step
    assert 2 < step.buffers <= MOST_BUFFERS


@fuses
def test_views_are_no_kernels_and_fused_operations_are_one() -> None:
    x, y = mx.ones((4, 8)), mx.ones((8, 4))
    mx.eval(x, y)
    plain = count([(x.T + y).reshape(2, 16)])
    assert plain.kernels == {"Add": 1} and plain.buffers == 0
    (fused,) = mx.compile(lambda a, b: [(mx.exp(a) * b - 1).sum(axis=0)])(x.T, y)
    found = count([fused @ y.T[:, :4]])
    assert found.kernels["fused"] == 1 and found.kernels["Sum"] == 1
    assert 3 <= found.buffers <= 4


def test_reading_a_graph() -> None:
    text = """digraph {
{ rank=source; "A"; }
{ 11 [label ="CompiledAddExp", shape=rectangle]; }
"A" -> 11
"B" -> 11
{ "C"; }
11 -> "C"
11 -> "D"
{ 12 [label ="Transpose", shape=rectangle]; }
"C" -> 12
12 -> "E"
}"""
    found = read_dot(text)
    assert found.kernels == {"fused": 1} and found.buffers == 4


def test_the_branches_of_a_gpu_are_counted() -> None:
    with as_on_a_gpu():
        assert not on_cpu()
    assert on_cpu() == (mx.default_device() == mx.Device(mx.cpu))


def test_a_predicted_time_is_the_roofline_and_the_starts() -> None:
    chip = CHIPS[0]
    assert table.predicted(chip, chip.flops, 0, 0) == pytest.approx(1)
    assert table.predicted(chip, 0, 2 * chip.bandwidth, 1000) == pytest.approx(2.003)
