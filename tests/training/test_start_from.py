"""`--from`: a training that begins with the weights of another model of the same architecture."""

import json
import shutil
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from mlx_lvm import weights
from mlx_lvm.api.training import beginning, recipe
from mlx_lvm.data.corpus import Corpus
from mlx_lvm.data.splits import split_corpus
from mlx_lvm.errors import UsageError
from mlx_lvm.hub.export import write_model
from mlx_lvm.hub.load import Loaded, load_model
from mlx_lvm.models import build, config_from_dict
from mlx_lvm.models.emn import EMN
from mlx_lvm.models.emn_config import EMNConfig
from mlx_lvm.training import run as runs
from mlx_lvm.training.config import TrainConfig
from mlx_lvm.training.emn import balance
from mlx_lvm.training.emn.universal import Recipe, train_network
from mlx_lvm.training.session import start_run
from mlx_lvm.training.trainer import Trainer

AMN = {"attention_dim": 4, "hidden_dim": 8}


@pytest.fixture
def as_it_is(monkeypatch: pytest.MonkeyPatch) -> None:
    """A network's corrections go as far as they did where it comes from."""
    monkeypatch.setattr(balance, "best_balance", lambda *given: (1.0, 0.0))


@pytest.mark.usefixtures("as_it_is")
@pytest.mark.parametrize("head", ["predict", "rank"])
@pytest.mark.parametrize("expert", ["no", "yes"])
def test_emn_takes_over_the_network_and_fits_the_rest_anew(
    small: Corpus, small_file: Path, tmp_path: Path, head: str, expert: str
) -> None:
    network = train_network(head, [(small, split_corpus(small).train)], Recipe(5, 4, 1e-2))
    config = TrainConfig(corpus=str(small_file), epochs=1, start_from="emn")
    sizes = {"head": head, "expert": expert, "rank": 8}
    model = start_run("emn", sizes, config, tmp_path / "run", start=network).task.model
    assert isinstance(model, EMN)
    for name, value in network.weights().items():
        assert np.array_equal(np.array(model.weights()[name]), np.array(value)), name
    assert np.abs(np.array(model.mean)).max() > 0
    assert ("expert.map.weight" in model.weights()) == (expert == "yes")


def test_other_weights_are_refused(small_file: Path, tmp_path: Path) -> None:
    config = TrainConfig(corpus=str(small_file), epochs=1)
    other = build(config_from_dict({"model_type": "amn", "dim": 32, **AMN}))
    with pytest.raises(
        UsageError, match="a emn of hidden_dim 12 cannot begin with the weights of a emn of hidden_dim 48"
    ):
        start_run("emn", {"hidden_dim": 12}, config, tmp_path / "a", start=EMN(EMNConfig(dim=0)))
    with pytest.raises(UsageError, match="weights of a amn"):
        start_run("lstm", {"hidden_dim": 8}, config, tmp_path / "b", start=other)
    with pytest.raises(UsageError, match="of other sizes"):
        start_run("amn", {**AMN, "hidden_dim": 16}, config, tmp_path / "c", start=other)


@pytest.mark.parametrize(
    ("name", "sizes"),
    [
        ("amn", AMN),
        ("ramn", {"rank": 8, "hidden_dim": 16}),
        ("ramn", {"rank": 8, "hidden_dim": 16, "head": "retrieve", "fallback": "last"}),
    ],
)
def test_a_run_goes_on_from_another_runs_weights(
    lvm: Callable, small_file: Path, tmp_path: Path, name: str, sizes: dict
) -> None:
    flags = [part for key, value in sizes.items() for part in (f"--{key.replace('_', '-')}", value)]
    first = lvm(
        "train", name, "--corpus", small_file, "--epochs", 1, "--out", tmp_path / "first", *flags, "--json"
    )
    assert first.code == 0, first.err
    again = lvm(
        "train", name, "--corpus", small_file, "--epochs", 1, "--lr", 1e-9, "--from", tmp_path / "first",
        "--out", tmp_path / "again", *(("--head", sizes["head"]) if "head" in sizes else ()), "--json",
    )  # fmt: skip
    assert again.code == 0, again.err
    reached = [json.loads(ran.out)["val_cosine"] for ran in (first, again)]
    assert reached[0] == pytest.approx(reached[1], abs=2e-3)
    assert json.loads((tmp_path / "again/config.json").read_text())["train"]["start_from"].endswith("first")
    wrong = lvm(
        "train", "gru", "--corpus", small_file, "--from", tmp_path / "first", "--out", tmp_path / "no"
    )
    assert wrong.code == 2 and f"is a {name}, not a gru" in wrong.err


@pytest.fixture
def released(small: Corpus, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Networks in the place of the released `emn` and `emn-rank`, trained on the small corpus."""
    shipped = weights.released()
    for head, name in (("predict", "emn"), ("rank", "emn-rank")):
        network = train_network(head, [(small, split_corpus(small).train)], Recipe(5, 4, 1e-2))
        imported = {"trained_on": {small.name: {"documents": len(split_corpus(small).train)}}}
        write_model(Loaded(network, name, imported=imported), tmp_path / "released" / name)
        shipped[name] = tmp_path / "released" / name
    monkeypatch.setattr(weights, "released", lambda: shipped)
    return tmp_path / "released"


@pytest.mark.usefixtures("as_it_is")
@pytest.mark.parametrize(("head", "name"), [("predict", "emn"), ("rank", "emn-rank")])
def test_emn_begins_with_the_released_network_of_its_head(
    lvm: Callable, small_file: Path, tmp_path: Path, released: Path, head: str, name: str
) -> None:
    """Its weights, the corpus's statistics; the run's config names and hashes them."""
    out, flags = tmp_path / "run", ("--corpus", small_file, "--head", head, "--rank", 8)
    ran = lvm("train", "emn", *flags, "--epochs", 1, "--lr", 1e-9, "--out", out)
    assert ran.code == 0, ran.err
    assert f"begins with {name}" in ran.out
    network, config = load_model(released / name).model, json.loads((out / "config.json").read_text())
    assert config["train"]["start_from"] == name
    assert config["start"] == {"from": name, "sha256": runs.digest(network)}
    trained = load_model(out).model.weights()
    for key, value in network.weights().items():
        np.testing.assert_allclose(np.array(trained[key]), np.array(value), atol=1e-6, err_msg=key)
    assert np.abs(np.array(trained["mean"])).max() > 0
    scratch = lvm("train", "emn", *flags, "--epochs", 1, "--from", "scratch", "--out", tmp_path / "scratch")
    assert scratch.code == 0 and "begins with" not in scratch.out
    config = json.loads((tmp_path / "scratch/config.json").read_text())
    assert config["train"]["start_from"] == "scratch" and "start" not in config


@pytest.mark.usefixtures("as_it_is")
def test_the_start_is_kept_where_no_epoch_is_better(
    lvm: Callable, small_file: Path, tmp_path: Path, released: Path
) -> None:
    out, flags = tmp_path / "run", ("--corpus", small_file, "--rank", 8, "--epochs", 2)
    ran = lvm("train", "emn", *flags, "--lr", 5, "--clip", 0, "--out", out)
    assert ran.code == 0, ran.err
    assert "before the first step" in ran.out and "better than emn with this" in " ".join(ran.out.split())
    records = runs.read_history(out)
    assert [one["epoch"] for one in records] == [0, 1, 2] and records[0]["train_loss"] is None
    assert records[0]["val_score"] > max(one["val_score"] for one in records[1:])
    summary = json.loads((out / "summary.json").read_text())
    assert summary["best_epoch"] == 0 and summary["val_cosine"] == records[0]["val_cosine"]
    kept, network = load_model(out).model.weights(), load_model(released / "emn").model.weights()
    assert all(np.array_equal(np.array(kept[key]), np.array(value)) for key, value in network.items())


@pytest.mark.parametrize("moment", ["before any checkpoint", "after epoch 0", "within epoch 1"])
def test_a_run_from_the_released_network_resumes_to_the_bit(
    lvm: Callable, small_file: Path, tmp_path: Path, released: Path, moment: str
) -> None:
    def begun(folder: Path) -> Trainer:
        chosen = recipe("emn", {"corpus": str(small_file), "rank": 8, "epochs": 2, "checkpoint_every": "1"})
        (name, sizes, train), start, _ = beginning(chosen, ("rank",))
        return start_run(name, sizes, train, folder, start=start)

    whole, broken = begun(tmp_path / "whole"), begun(tmp_path / "broken")
    whole.train()
    steps = {"before any checkpoint": 0, "after epoch 0": 1, "within epoch 1": 3}[moment]
    seen = iter(range(100))
    if steps:
        broken.train(stop=lambda: next(seen) + 1 >= steps)
    if moment == "after epoch 0":
        shutil.rmtree(tmp_path / "broken/checkpoints" / "step-00000001")
        (tmp_path / "broken/checkpoints/LATEST").write_text("step-00000000\n")
    ran = lvm("train", "--resume", tmp_path / "broken")
    assert ran.code == 0, ran.err
    files = [load_model(tmp_path / name).model.weights() for name in ("whole", "broken")]
    assert all(np.array_equal(np.array(files[0][key]), np.array(files[1][key])) for key in files[0])
    again = [runs.read_history(tmp_path / name) for name in ("whole", "broken")]
    assert again[0] == again[1]


def test_a_run_whose_start_has_changed_before_its_first_checkpoint_is_begun_again(
    lvm: Callable, small: Corpus, small_file: Path, tmp_path: Path, released: Path
) -> None:
    (name, sizes, train), start, _ = beginning(
        recipe("emn", {"corpus": str(small_file), "rank": 8}), ("rank",)
    )
    start_run(name, sizes, train, tmp_path / "run", start=start)
    other = train_network("predict", [(small, split_corpus(small).train)], Recipe(3, 4, 1e-2), seed=1)
    write_model(Loaded(other, "emn"), released / "emn")
    ran = lvm("train", "--resume", tmp_path / "run")
    assert ran.code == 2 and "start it again" in ran.err


@pytest.mark.parametrize(
    ("flags", "reason"),
    [
        (("--hidden-dim", 24), "has hidden_dim 48"),
        (("--split-seed", 1), "documents of small that split seed 1 tests"),
        (("damaged",), "cannot be read"),
    ],
)
def test_what_does_not_fit_begins_from_scratch_and_says_so(
    lvm: Callable, small_file: Path, tmp_path: Path, released: Path, flags: tuple, reason: str
) -> None:
    if flags == ("damaged",):
        (released / "emn/model.safetensors").write_bytes(b"no weights")
        flags = ()
    ran = lvm(
        "train", "emn", "--corpus", small_file, "--rank", 8, "--epochs", 1, "--out", tmp_path / "run", *flags
    )
    assert ran.code == 0, ran.err
    assert "begins from scratch" in ran.out and reason in ran.out
    config = json.loads((tmp_path / "run/config.json").read_text())
    assert config["train"]["start_from"] == "scratch" and "start" not in config
