"""Training in bfloat16: gradients as torch's, float32 weights that keep small updates, the option itself."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from mlx_lvm.core.mlx import mx, nn, tree_flatten
from mlx_lvm.data.corpus import Corpus
from mlx_lvm.data.windows import windows
from mlx_lvm.hub.load import Loaded
from mlx_lvm.models import architecture, build, normalize
from mlx_lvm.predictors.history import predictor_of
from mlx_lvm.training.config import TrainConfig
from mlx_lvm.training.losses import cosine, mse
from mlx_lvm.training.step import in_bfloat16

torch: Any = pytest.importorskip("torch", reason="torch is the reference: pip install 'mlx-lvm[parity]'")

# times torch's own rms error; 2.4 measured for AMN's query, whose scores we take from a product rounded once
# more
LIMIT = 3

SMALL = {
    "amn": {"dim": 32, "attention_dim": 16, "hidden_dim": 32},
    "lstm": {"dim": 32, "hidden_dim": 32, "dropout": 0.0},
    "gru": {"dim": 32, "hidden_dim": 32},
    "transformer": {"dim": 32, "hidden_dim": 32, "heads": 4, "ffn_dim": 64, "dropout": 0.0},
}


def torch_gradients(
    name: str,
    sizes: dict[str, Any],
    weights: dict[str, np.ndarray],
    x: np.ndarray,
    y: np.ndarray,
    rounded: bool,
) -> Any:
    """Gradients of mse + cosine by torch, of everything in float64 or with weights and context rounded to
    bfloat16 on the way in.
    """
    from mlx_lvm.parity.twins import twin_class

    wide = torch.float32 if rounded else torch.float64
    twin = twin_class(name)(sizes).to(torch.bfloat16 if rounded else wide)
    masters = {k: torch.tensor(v, dtype=wide, requires_grad=True) for k, v in weights.items()}
    narrow = {k: v.bfloat16() if rounded else v.to(torch.bfloat16).to(wide) for k, v in masters.items()}
    context = torch.tensor(x).bfloat16()
    raw = torch.func.functional_call(twin, narrow, (context if rounded else context.to(wide),)).raw.to(wide)
    goal = torch.tensor(y, dtype=wide)
    loss = (raw - goal).square().mean() + (1 - torch.nn.functional.cosine_similarity(raw, goal)).mean()
    loss.backward()
    return {k: v.grad.double().numpy() for k, v in masters.items()}


@pytest.mark.parametrize("name", SMALL)
def test_gradients_are_as_near_to_the_truth_as_torchs(name: str) -> None:
    mx.random.seed(3)
    model = build(architecture(name).config_class.from_dict(SMALL[name]))
    rng = np.random.default_rng(3)
    x, y = (rng.standard_normal(shape).astype(np.float32) for shape in ((16, 5, 32), (16, 32)))

    def loss(context: mx.array, target: mx.array) -> mx.array:
        prediction = in_bfloat16(model, context)
        return mse(prediction, target, 1.0) + cosine(prediction, target, 1.0)

    before = {k: np.array(v) for k, v in model.weights().items()}
    _, gradients = nn.value_and_grad(model, loss)(mx.array(x), mx.array(y))
    ours: Any = dict(tree_flatten(gradients))
    assert all(value.dtype == mx.float32 for value in (*ours.values(), *model.weights().values()))
    assert all(np.array_equal(before[k], np.array(v)) for k, v in model.weights().items()), (
        "the weights are left as they were"
    )
    truth, theirs = (torch_gradients(name, SMALL[name], before, x, y, rounded) for rounded in (False, True))
    size = np.sqrt(np.mean(np.concatenate([v.ravel() for v in truth.values()]) ** 2))
    for key, value in truth.items():
        our_error = np.sqrt(np.mean((np.array(ours[key]) - value) ** 2))
        their_error = np.sqrt(np.mean((theirs[key] - value) ** 2))
        floor = 2.0**-9 * max(np.sqrt(np.mean(value**2)), 0.01 * size)
        assert our_error <= LIMIT * max(their_error, floor), (
            f"{key}: {our_error:.2e}, torch {their_error:.2e}"
        )


def test_float32_would_not_have_rounded() -> None:
    """The context and the weights do pass through bfloat16: numbers that differ below its last digit give the
    same.
    """
    mx.random.seed(0)
    model = build(architecture("lstm").config_class.from_dict(SMALL["lstm"]))
    x = mx.ones((2, 5, 32))
    assert mx.array_equal(in_bfloat16(model, x).raw, in_bfloat16(model, x + 1e-3).raw)
    assert not mx.array_equal(model(x).raw, model(x + 1e-3).raw)


def test_training_keeps_updates_smaller_than_a_bfloat16_digit(small_file: Path) -> None:
    from mlx_lvm.data.corpus import load_corpus
    from mlx_lvm.training.store import Checkpoints
    from mlx_lvm.training.tasks.windows import WindowTask
    from mlx_lvm.training.trainer import Trainer

    corpus = load_corpus(str(small_file))
    found = {}
    for precision in ("float32", "bfloat16"):
        mx.random.seed(1)
        model = build(
            architecture("amn").config_class.from_dict(
                {"dim": corpus.dim, "attention_dim": 16, "hidden_dim": 32}
            )
        )
        start = {k: np.array(v) for k, v in model.weights().items()}
        config = TrainConfig.from_dict(
            {"corpus": str(small_file), "epochs": 1, "lr": 1e-5, "loss_cosine": 1.0, "precision": precision}
        )
        Trainer(WindowTask(model, corpus, config), Checkpoints()).train()
        found[precision] = np.concatenate(
            [(np.array(v) - start[k]).ravel() for k, v in model.weights().items()]
        )
    moved, exact = found["bfloat16"], found["float32"]
    assert 0 < np.abs(moved).max() < 1e-3
    assert not np.array_equal(moved, exact)
    assert np.corrcoef(moved, exact)[0, 1] > 0.9


@pytest.mark.parametrize("name", ["amn", "lstm", "ramn"])
def test_predictions_in_bfloat16_are_the_model_s_and_close_to_float32(name: str, small: Corpus) -> None:
    sizes = {
        "amn": {"attention_dim": 16, "hidden_dim": 32},
        "lstm": {"hidden_dim": 32},
        "ramn": {"rank": 8, "hidden_dim": 16},
    }[name]
    mx.random.seed(1)
    loaded = Loaded(build(architecture(name).config_class.from_dict({"dim": small.dim, **sizes})), name)
    read = windows(small, np.arange(4), 5)
    wide = predictor_of(name, loaded.model).predict(read)
    narrow = predictor_of(name, loaded.compute_in("bfloat16").model).predict(read)
    assert (
        loaded.model.dtype == mx.bfloat16
        and narrow.dtype == mx.float32
        and "computes in bfloat16" in loaded.notes[0]
    )
    assert not np.array_equal(np.array(wide), np.array(narrow)), "rounded weights must show"
    assert float((normalize(wide) * normalize(narrow)).sum(axis=-1).min()) > 0.999
    # As the model itself gives it for a context in bfloat16; one in float32 would be multiplied in float32,
    # and differ.
    loaded.model.eval()
    starts = read.starts if name == "ramn" else read.targets - 5
    for number in (0, 1, 7):
        context = small.take(mx.arange(int(starts[number]), int(read.targets[number])))[None]
        raw, wider = (
            loaded.model(context.astype(dtype)).raw.astype(mx.float32) for dtype in (mx.bfloat16, mx.float32)
        )
        off = [float(mx.abs(narrow[number] - one[0]).max()) for one in (raw, wider)]
        assert off[0] < 0.25 * off[1], off


def test_other_precisions_and_baselines_are_refused(lvm: Callable) -> None:
    for command in (
        ["eval", "amn", "--precision", "float8"],
        ["predict", "amn", "-d", "0", "--precision", "float8"],
    ):
        ran = lvm(*command)
        assert ran.code == 2 and "expected one of float32, tf32, bfloat16" in ran.err
    ran = lvm("eval", "ridge", "--precision", "bfloat16")
    assert ran.code == 2 and "ridge is a baseline" in ran.err
