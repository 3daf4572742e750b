"""`--from`: a training that begins with the weights of another model of the same architecture."""

import json
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from mlx_lvm.data.corpus import Corpus
from mlx_lvm.data.splits import split_corpus
from mlx_lvm.errors import UsageError
from mlx_lvm.models import build, config_from_dict
from mlx_lvm.models.emn import EMN
from mlx_lvm.models.emn_config import EMNConfig
from mlx_lvm.training.config import TrainConfig
from mlx_lvm.training.emn.universal import Recipe, train_network
from mlx_lvm.training.session import start_run

AMN = {"attention_dim": 4, "hidden_dim": 8}


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


@pytest.mark.parametrize(("name", "sizes"), [("amn", AMN), ("ramn", {"rank": 8, "hidden_dim": 16})])
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
        "--out", tmp_path / "again", "--json",
    )  # fmt: skip
    assert again.code == 0, again.err
    reached = [json.loads(ran.out)["val_cosine"] for ran in (first, again)]
    assert reached[0] == pytest.approx(reached[1], abs=2e-3)
    assert json.loads((tmp_path / "again/config.json").read_text())["train"]["start_from"].endswith("first")
    wrong = lvm(
        "train", "gru", "--corpus", small_file, "--from", tmp_path / "first", "--out", tmp_path / "no"
    )
    assert wrong.code == 2 and f"is a {name}, not a gru" in wrong.err
