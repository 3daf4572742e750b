"""The Hub by its own client over the loopback: push, fetch, revisions, the cache, and every refusal in
words.
"""

import shutil
from collections.abc import Iterator
from pathlib import Path
from threading import Thread

import numpy as np
import pytest

hub = pytest.importorskip("huggingface_hub", reason="pip install 'mlx-lvm[hub]'")
from huggingface_hub import constants  # noqa: E402

import mlx_lvm as lvm  # noqa: E402
from mlx_lvm.errors import InvalidFile, SetupInvalid, UsageError  # noqa: E402
from mlx_lvm.hub.export import write_model  # noqa: E402
from mlx_lvm.hub.front_matter import Measured, front_matter  # noqa: E402
from mlx_lvm.hub.load import load_model  # noqa: E402
from mlx_lvm.hub.remote import FILES, fetch, is_remote, push  # noqa: E402

from .loopback import TOKEN, Hub  # noqa: E402

pytestmark = pytest.mark.filterwarnings("default")  # of libraries that are not ours


@pytest.fixture
def server(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Hub]:
    with Hub() as running:
        Thread(target=running.serve_forever, args=(0.01,), daemon=True).start()
        monkeypatch.setattr(constants, "ENDPOINT", running.url)
        template = running.url + "/{repo_id}/resolve/{revision}/{filename}"
        monkeypatch.setattr(constants, "HUGGINGFACE_CO_URL_TEMPLATE", template)
        monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path / "cache"))
        monkeypatch.setattr(constants, "HF_HUB_DISABLE_XET", True)
        monkeypatch.setattr(constants, "HF_HUB_OFFLINE", False)
        monkeypatch.setenv("HF_TOKEN", TOKEN)
        monkeypatch.chdir(tmp_path)
        yield running
        running.shutdown()


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    made = tmp_path_factory.mktemp("exported") / "amn"
    write_model(load_model("emn-rank"), made)
    return made


def test_what_is_pushed_is_what_is_loaded(server: Hub, folder: Path) -> None:
    assert push(folder, "me/ranker", private=True) == f"{server.url}/me/ranker"
    (commit,) = server.repos["me/ranker"].values()
    assert commit == {name: (folder / name).read_bytes() for name in FILES} and server.private["me/ranker"]
    ours, theirs = load_model(folder).model.weights(), load_model("me/ranker").model.weights()
    for name, value in ours.items():
        np.testing.assert_array_equal(np.array(theirs[name]), np.array(value))


def test_revisions_and_the_cache(
    server: Hub, folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    push(folder, "me/ranker")
    second = shutil.copytree(folder, tmp_path / "second")
    (second / "README.md").write_text("another card")
    push(second, "me/ranker")
    first, newest = server.repos["me/ranker"]
    assert (fetch("me/ranker") / "README.md").read_text() == "another card"
    assert fetch("me/ranker", first).name == first != newest
    with pytest.raises(UsageError, match="no revision 'v9'"):
        fetch("me/ranker", "v9")
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)
    before = len(server.seen)
    assert fetch("me/ranker").name == newest and len(server.seen) == before
    with pytest.raises(SetupInvalid, match="HF_HUB_OFFLINE is set"):
        fetch("me/other")


def test_a_local_path_asks_nobody(server: Hub, folder: Path, tmp_path: Path) -> None:
    shutil.copytree(folder, tmp_path / "me" / "ranker")
    load_model("me/ranker")
    with pytest.raises(InvalidFile, match="no such file"):
        load_model("me/rankre")  # `me` is a folder here
    with pytest.raises(UsageError, match="revision 'main'"):
        load_model("me/ranker", revision="main")
    assert server.seen == []
    names = ("amn", "a/b/c", "./a", "../a", "/a/b", "~/a", "a/b.safetensors", "a/", "a b/c")
    assert not any(map(is_remote, names)) and is_remote("user/repo-1.0")


def test_refusals_say_what_to_do(
    server: Hub, folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with pytest.raises(UsageError, match="no model of the Hub is named 'you/none'"):
        load_model("you/none")
    server.repos["you/text"] = {"0" * 40: {"README.md": b"no weights"}}
    with pytest.raises(InvalidFile, match="holds no model"):
        load_model("you/text")
    with pytest.raises(UsageError, match="expected user/repo"):
        push(folder, "ranker")
    with pytest.raises(InvalidFile, match=r"lvm export. writes"):
        push(tmp_path, "me/ranker")
    monkeypatch.setenv("HF_TOKEN", "hf_wrong")
    with pytest.raises(SetupInvalid, match=r"refuses .401.*hf auth login"):
        push(folder, "me/ranker")
    monkeypatch.delenv("HF_TOKEN")
    monkeypatch.setattr(hub, "get_token", lambda: None)
    with pytest.raises(SetupInvalid, match="not logged in"):
        push(folder, "me/ranker")
    monkeypatch.setattr(constants, "ENDPOINT", "http://127.0.0.1:9")  # nobody listens
    with pytest.raises(SetupInvalid, match="cannot be reached"):
        fetch("me/ranker")
    monkeypatch.setitem(__import__("sys").modules, "huggingface_hub", None)
    with pytest.raises(SetupInvalid, match=r"mlx-lvm\[hub\]"):
        fetch("me/ranker")


def test_the_card_is_found_by_what_it_says(folder: Path) -> None:
    card = hub.ModelCard.load(folder / "README.md").data
    assert card.library_name == "mlx-lvm" and "mlx" in card.tags
    assert card.pipeline_tag == "feature-extraction"
    loaded = load_model("emn-rank")
    values = {result.dataset_name: result.metric_value for result in card.eval_results}
    expected = {row["corpus"]: row["centred.mrr"]["value"] for row in loaded.imported["held_out"]}
    assert values == pytest.approx(expected, abs=5e-5)
    measured = Measured("c", "test", {"cosine": 0.5, "MRR": 0.25})
    lines = front_matter(load_model("amn"), measured)
    assert 'base_model: "sentence-transformers/all-mpnet-base-v2"' in lines
    assert '{"type": "MRR", "name": "MRR", "value": 0.25}' in lines


def test_a_model_goes_there_and_back_from_python(server: Hub) -> None:
    model, read = lvm.load("emn"), np.random.default_rng(0).normal(size=(6, 24))
    assert "me/mine" in model.push_to_hub("me/mine")
    assert np.array_equal(lvm.load("me/mine").predict(read), model.predict(read))
