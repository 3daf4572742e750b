"""Where the corpus of a run lies: recorded when the run begins, found again after either has moved."""

from __future__ import annotations

import os
from pathlib import Path

from mlx_lvm import weights
from mlx_lvm.core.result import JsonObject
from mlx_lvm.data.storage.reader import find_corpus, open_corpus
from mlx_lvm.errors import InvalidFile, LvmError

PATH, FROM_RUN = "path", "path_from_run"  # keys of a run's "corpus" in config.json


def record(reference: str, folder: Path) -> dict[str, str]:
    """The path of a corpus and the way to it from the run's folder; of a shipped one the name is enough."""
    if reference in weights.corpora():
        return {}
    path = find_corpus(reference).resolve()
    return {PATH: str(path), FROM_RUN: os.path.relpath(path, folder.resolve())}


def own_corpus(folder: Path, config: JsonObject) -> str:
    """The corpus that the run in `folder` was trained on, by shipped name or path; config: its config.json's.

    Looked for from the run's folder (both moved), at the recorded path (the run moved), and as it was named;
    where another corpus has taken one of these places, the next with the run's sha256 wins. Raises
    InvalidFile where none is there.
    """
    about, named = config["corpus"], str(config["train"]["corpus"])
    if named in weights.corpora():
        return named
    places = []
    if {PATH, FROM_RUN} <= set(about):
        places = [(folder / str(about[FROM_RUN])).resolve(), Path(str(about[PATH]))]
    there = [place for place in [*places, Path(named)] if place.exists()]
    if not there:
        listed = " or ".join(dict.fromkeys(str(place) for place in [*places[1:], Path(named)]))
        gone = f"{folder}: its corpus '{about.get('name', named)}' is no longer at {listed}"
        raise InvalidFile(f"{gone}. Say where it lies now: --corpus FILE")
    return str(next((place for place in there if _digest(place) == about.get("sha256")), there[0]))


def _digest(path: Path) -> str:
    """Empty where the file is no corpus any more: whoever opens it says why."""
    try:
        return open_corpus(path).sha256
    except LvmError:
        return ""
