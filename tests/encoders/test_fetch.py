"""An encoder by its name: out of the Hub's cache without a network, at the revision asked for, never half of
one.
"""

import shutil
from collections.abc import Callable
from pathlib import Path

import pytest

from mlx_lvm.encoders.fetch import find_encoder
from mlx_lvm.errors import InvalidFile, SetupInvalid

constants = pytest.importorskip("huggingface_hub.constants")
Small = Callable[[str, int], Path]
MAIN, OLDER = "a" * 40, "b" * 40


@pytest.fixture
def cache(small: Small, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A cache of the Hub's layout with two commits of one model, and no network."""
    repository = tmp_path / "hub" / "models--sentence-transformers--tiny"
    shutil.copytree(small("bert", 0), repository / "snapshots" / MAIN)
    shutil.copytree(small("bert", 1), repository / "snapshots" / OLDER)
    (repository / "refs").mkdir()
    (repository / "refs" / "main").write_text(MAIN)
    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path / "hub"))
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)
    return repository / "snapshots"


def test_the_cache_serves_by_name_and_by_revision(cache: Path) -> None:
    assert find_encoder("sentence-transformers/tiny") == (cache / MAIN, MAIN)
    assert find_encoder("tiny") == (cache / MAIN, MAIN)
    assert find_encoder("tiny", OLDER) == (cache / OLDER, OLDER)


def test_half_of_a_model_in_the_cache_is_not_taken_for_it(cache: Path) -> None:
    (cache / MAIN / "model.safetensors").unlink()
    shutil.rmtree(cache / MAIN / "2_Dense")
    with pytest.raises(SetupInvalid, match="only a part of it is in the cache"):
        find_encoder("tiny")


def test_what_cannot_be_had_is_said(cache: Path, tmp_path: Path) -> None:
    with pytest.raises(
        SetupInvalid, match=r"'nobody/nothing' at v2 is not on this machine.*--encoder FOLDER"
    ):
        find_encoder("nobody/nothing", "v2")
    with pytest.raises(InvalidFile, match="no such folder"):
        find_encoder(str(tmp_path / "nothing"))
    (tmp_path / "file").write_text("")
    with pytest.raises(InvalidFile, match="give the folder"):
        find_encoder(str(tmp_path / "file"))


def test_a_folder_is_taken_as_it_is(small: Small) -> None:
    assert find_encoder(str(small("bert", 0))) == (small("bert", 0), "")
