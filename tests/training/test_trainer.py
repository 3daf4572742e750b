"""The loop: it learns, resumes to the bit, and stops where the numbers break."""

import json
from pathlib import Path

import numpy as np
import pytest

from mlx_lvm.core.files.disk import sha256
from mlx_lvm.core.mlx import mx, nn
from mlx_lvm.data.splits import split_corpus
from mlx_lvm.errors import InvalidFile, IOFailed, NonFiniteError
from mlx_lvm.training import checkpoint as checkpoints
from mlx_lvm.training.config import TrainConfig
from mlx_lvm.training.session import resume_run, start_run
from mlx_lvm.training.state import epoch_order, step_key
from mlx_lvm.training.trainer import Trainer

SIZES = {"attention_dim": 8, "hidden_dim": 16}


def new(folder: Path, corpus: Path, **options: object) -> Trainer:
    return start_run(
        "amn",
        SIZES,
        TrainConfig.from_dict({"corpus": str(corpus), "epochs": 3, "lr": 3e-3, **options}),
        folder,
    )


def fingerprint(trainer: Trainer) -> dict[str, str]:
    arrays = {**trainer.task.model.weights(), **trainer.task.step.state_dict()}
    return {name: sha256(np.array(value)) for name, value in arrays.items()} | {
        "history": json.dumps(trainer.state.history, sort_keys=True)
    }


def test_training_lowers_the_loss_and_starts_at_the_mean(tmp_path: Path, small_file: Path) -> None:
    trainer = new(tmp_path / "run", small_file, epochs=6, lr=1e-3, loss_mse=0.0, loss_cosine=1.0)
    start = trainer.validate()["val_cosine"]
    assert start == pytest.approx(trainer.task.baselines["mean"], abs=1e-5)
    assert trainer.train()
    history = trainer.state.history
    assert history[-1]["train_loss"] < 0.97 * history[0]["train_loss"]
    assert trainer.state.best_score > start + 0.02
    assert [record["epoch"] for record in history] == [1, 2, 3, 4, 5, 6]


def test_one_step_equals_torch(tmp_path: Path, small_file: Path) -> None:
    """Gather, loss, clip and AdamW as one compiled step, against the same written with torch modules."""
    torch = pytest.importorskip("torch", reason="torch is the reference: pip install 'mlx-lvm[parity]'")
    trainer = new(tmp_path / "run", small_file, residual_init="torch", clip=0.01, weight_decay=0.3)
    corpus, targets = trainer.task.corpus, trainer.task.train_windows.targets[:9]
    weights = {
        name: torch.nn.Parameter(torch.tensor(np.array(value), dtype=torch.float64))
        for name, value in trainer.task.model.weights().items()
    }
    x = torch.tensor(corpus.numpy(targets[:, None] + np.arange(-5, 0)), dtype=torch.float64)
    y = torch.tensor(corpus.numpy(targets), dtype=torch.float64)
    linear, norm = torch.nn.functional.linear, torch.nn.functional.layer_norm
    base = x.mean(1)
    query = linear(base, weights["query_encoder.weight"], weights["query_encoder.bias"])
    keys = linear(x, weights["context_encoder.weight"], weights["context_encoder.bias"])
    attention = torch.softmax(torch.einsum("ba,bla->bl", query, keys) / 8**0.5, dim=-1)
    h = torch.cat([base, torch.einsum("bl,bld->bd", attention, x)], dim=-1)
    for number in (0, 3):
        h = torch.nn.functional.gelu(
            linear(h, weights[f"residual_net.{number}.weight"], weights[f"residual_net.{number}.bias"])
        )
        h = norm(
            h,
            h.shape[-1:],
            weights[f"residual_net.{number + 2}.weight"],
            weights[f"residual_net.{number + 2}.bias"],
        )
    raw = base + linear(h, weights["residual_net.6.weight"], weights["residual_net.6.bias"])
    loss = torch.nn.functional.mse_loss(raw, y)
    loss.backward()
    torch.nn.utils.clip_grad_norm_(weights.values(), 0.01)
    torch.optim.AdamW(weights.values(), lr=3e-3, weight_decay=0.3).step()

    trainer.task.step(targets, 3e-3, 0)
    assert trainer.task.step.read_sums()["loss"] == pytest.approx(loss.item(), rel=1e-5)
    for name, value in trainer.task.model.weights().items():
        if (
            name != "context_encoder.bias"
        ):  # its gradient is zero by algebra; torch's rounding noise becomes a step
            np.testing.assert_allclose(
                np.array(value), weights[name].detach().numpy(), rtol=1e-5, atol=2e-6, err_msg=name
            )


@pytest.mark.slow
@pytest.mark.parametrize("stop_after", [1, 7, 11, 12, 23])
def test_a_resumed_run_is_the_undisturbed_one_to_the_bit(
    tmp_path: Path, small_file: Path, stop_after: int
) -> None:
    whole = new(tmp_path / "whole", small_file)
    whole.train()
    trainer = new(tmp_path / "cut", small_file)
    asked = iter(range(10**6))
    assert not trainer.train(stop=lambda: next(asked) + 1 == stop_after)
    resumed = resume_run(tmp_path / "cut")
    assert resumed.state.count == stop_after
    assert resumed.train()
    assert fingerprint(resumed) == fingerprint(whole)
    assert (tmp_path / "cut/history.jsonl").read_bytes() == (tmp_path / "whole/history.jsonl").read_bytes()


def test_same_seed_same_run_other_seed_another(tmp_path: Path, small_file: Path) -> None:
    runs = [new(tmp_path / str(n), small_file, epochs=1, seed=seed) for n, seed in enumerate((4, 4, 5))]
    for trainer in runs:
        trainer.train()
    prints = [fingerprint(trainer) for trainer in runs]
    assert prints[0] == prints[1] != prints[2]


def test_broken_numbers_stop_and_name_epoch_and_step(tmp_path: Path, small_file: Path) -> None:
    trainer = new(tmp_path / "run", small_file)
    bad = trainer.task.train_windows.targets[epoch_order(len(trainer.task.train_windows), 0, 1)[5 * 32]]
    real = trainer.task.step

    def poisoned(targets: np.ndarray, lr: float, key: int) -> None:
        if trainer.state.epoch == 1 and trainer.state.step == 5:
            assert bad in targets
            lr = float("nan")
        real(targets, lr, key)

    poisoned.__dict__.update(
        {name: getattr(real, name) for name in ("read_sums", "clear_sums", "arrays", "state_dict", "broken")}
    )
    trainer.task.step = poisoned  # type: ignore[assignment]
    with pytest.raises(
        NonFiniteError, match=r"epoch 2, step 7 "
    ) as error:  # the step after the poisoned update sees it
        trainer.train()
    assert error.value.exit_code == 5 and "step-" in str(error.value)
    kept, name, damaged = checkpoints.load_newest(tmp_path / "run/checkpoints")
    assert name in str(error.value) and not damaged
    assert all(mx.isfinite(value).all().item() for value in kept.weights.values())


def test_a_run_is_not_overwritten(tmp_path: Path, small_file: Path) -> None:
    new(tmp_path / "run", small_file)
    with pytest.raises(IOFailed, match="already holds a run"):
        new(tmp_path / "run", small_file)


def test_resume_refuses_another_corpus(tmp_path: Path, small_file: Path) -> None:
    copy = tmp_path / "c.safetensors"
    copy.write_bytes(small_file.read_bytes())
    trainer = new(tmp_path / "run", copy, epochs=1)
    trainer.train()
    config = json.loads((tmp_path / "run/config.json").read_text())
    config["corpus"]["sha256"] = "0" * 64
    (tmp_path / "run/config.json").write_text(json.dumps(config))
    with pytest.raises(InvalidFile, match="not the one this run began with"):
        resume_run(tmp_path / "run")


def test_learning_rate_reaches_the_compiled_step(tmp_path: Path, small_file: Path) -> None:
    """A schedule that the compiled function does not see would train on at the first rate."""
    trainer = new(tmp_path / "run", small_file)
    targets = trainer.task.train_windows.targets[:8]
    trainer.task.step(targets, 1e-3, 0)
    mx.eval(trainer.task.model.parameters())
    before = {name: np.array(value) for name, value in trainer.task.model.weights().items()}
    trainer.task.step(targets, 0.0, 1)
    for name, value in trainer.task.model.weights().items():
        np.testing.assert_array_equal(np.array(value), before[name])
    trainer.task.step(targets, 1e-3, 2)
    assert any(
        not np.array_equal(np.array(value), before[name])
        for name, value in trainer.task.model.weights().items()
    )


def test_dropout_follows_the_key_alone() -> None:
    layer = nn.Dropout(0.5)
    draws = []
    for key in (step_key(0, 1, 2), step_key(0, 1, 2), step_key(0, 2, 1)):
        mx.random.seed(key)
        draws.append(np.array(layer(mx.ones((64,)))))
    np.testing.assert_array_equal(draws[0], draws[1])
    assert not np.array_equal(draws[0], draws[2])


def test_orders_are_permutations_that_differ_by_epoch() -> None:
    first, second = epoch_order(100, 3, 0), epoch_order(100, 3, 1)
    assert sorted(first) == list(range(100)) and not np.array_equal(first, second)
    np.testing.assert_array_equal(first, epoch_order(100, 3, 0))


def test_windows_of_the_parts_do_not_meet(tmp_path: Path, small_file: Path) -> None:
    trainer = new(tmp_path / "run", small_file)
    split = split_corpus(trainer.task.corpus, 0)
    assert set(trainer.task.train_windows.documents) <= set(split.train) and set(
        trainer.task.val_windows.documents
    ) <= set(split.val)
    assert not set(split.train) & set(split.val) | set(split.val) & set(split.test)
