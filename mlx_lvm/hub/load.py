"""Models from files: the Hub layout that `mlx_lvm.hub.export` writes, and every way a model may be named.

    model.safetensors   weights under torch's names; metadata: model type, config, provenance,
                        a golden input and output
    config.json         the model's config and what it was trained with
    README.md           the model card, with measured numbers

The golden pair is checked at every load: a file with the same names and shapes but another architecture's
weights would load without complaint and answer noise.
"""

from __future__ import annotations

import json
from dataclasses import dataclass, field, replace
from pathlib import Path

import numpy as np

from mlx_lvm import weights
from mlx_lvm.core.files.disk import read_json
from mlx_lvm.core.files.safetensors import SafeFile, open_safetensors
from mlx_lvm.core.mlx import mx
from mlx_lvm.core.products import choose
from mlx_lvm.core.result import JsonObject
from mlx_lvm.data.card import EncoderCard
from mlx_lvm.data.corpus import Corpus
from mlx_lvm.data.splits import split_corpus
from mlx_lvm.errors import InvalidFile, LvmError, SetupInvalid, UsageError, nearest
from mlx_lvm.hub.golden import check_golden, read_golden
from mlx_lvm.hub.remote import fetch, is_remote
from mlx_lvm.models import VectorModel, architectures, build, config_from_dict
from mlx_lvm.models.emn import EMN
from mlx_lvm.models.weights import DTYPES, set_weights

PRECISIONS = ("float32", "tf32", "bfloat16")  # that a forward pass runs in
WEIGHTS = "model.safetensors"


@dataclass
class Loaded:
    """A model ready to predict, and what is known about where it comes from."""

    model: VectorModel
    name: str
    context: int = 5
    split_seed: int = 0
    corpus: str = ""
    corpus_sha256: str = ""
    card: EncoderCard | None = None
    folder: Path | None = None
    dtype: str = "float32"  # that the file stores
    train: JsonObject = field(default_factory=dict)
    golden: tuple[np.ndarray, np.ndarray] | None = None
    # where the weights come from if not from a run of ours
    imported: JsonObject = field(default_factory=dict)
    # see `evaluation.ranking`; empty where none came with the file
    ranking: JsonObject = field(default_factory=dict)
    notes: list[str] = field(default_factory=list)

    def compute_in(self, precision: str) -> Loaded:
        """This model, its weights in float32 or bfloat16, or its float32 products rounded to TF32.

        Raises UsageError for another precision, SetupInvalid where the device does not multiply so.
        """
        if precision not in PRECISIONS:
            raise UsageError(f"--precision {precision}: expected one of {', '.join(PRECISIONS)}")
        choose(precision)
        if precision == "tf32":
            self.notes.append(
                f"{self.name} computes in tf32: float32, whose matrix products round their inputs to 10 bits."
            )
        elif precision == "bfloat16":
            self.model.set_dtype(DTYPES[precision])
            self.notes.append(
                f"{self.name} computes in {precision}: weights, contexts, forward pass; scores are float32."
            )
        return self


def load_model(reference: str | Path, which: str = "BEST", revision: str | None = None) -> Loaded:
    """A model by architecture (released weights), run folder, exported folder, .safetensors file or its name
    on the Hub, `user/repo`, at `revision`.

    Raises UsageError where nothing has that name, InvalidFile where what has it does not fit or fails its
    golden pair, and as `remote.fetch` for a name of the Hub.
    """
    path = locate(reference, revision)
    if path.is_dir() and (path / "checkpoints").is_dir():
        return _load_run(path, which)
    return load_weights_file(path / WEIGHTS if path.is_dir() else path)


def corpus_of(loaded: Loaded) -> str:
    """The corpus that a model says it was trained on, by shipped name or path: what commands take where none
    is named.

    A model for every encoder gets the shipped `sotu`. Raises UsageError where the model does not say, or
    names a corpus that is not shipped; InvalidFile where a run's corpus is no longer there.
    """
    from mlx_lvm.training.own_corpus import own_corpus
    from mlx_lvm.training.run import read_config

    if loaded.folder is not None and (loaded.folder / "checkpoints").is_dir():
        return own_corpus(loaded.folder, read_config(loaded.folder))
    if not loaded.model.config.dim:
        return "sotu"
    shipped = weights.corpora()
    if loaded.corpus in shipped:
        return loaded.corpus
    said = f"was trained on corpus '{loaded.corpus}', which is not shipped" if loaded.corpus else ""
    raise UsageError(
        f"{loaded.name} {said or 'does not say which corpus it was trained on'}. "
        f"Name the corpus to use: --corpus FILE, or one of those shipped ({', '.join(shipped)})"
    )


def for_corpus(loaded: Loaded, corpus: Corpus) -> Loaded:
    """The model as it serves a corpus: one for every encoder is given the corpus's statistics (seconds)."""
    if loaded.model.config.dim:
        return loaded
    from mlx_lvm.training.emn.bind import bind

    assert isinstance(loaded.model, EMN)
    documents = split_corpus(corpus, loaded.split_seed).train
    note = (
        f"{loaded.name} serves any encoder: of {corpus.name} it was given the statistics of {len(documents)} "
        "training documents. " + trained_on(loaded)
    )
    # Of short documents the statistics are of what they have: one chunk that follows another.
    longest = int(corpus.lengths[documents].max(initial=0))
    model = bind(loaded.model, corpus, documents, max(1, min(loaded.context, longest - 1)))
    return replace(loaded, model=model, card=corpus.card, notes=[*loaded.notes, note])


def trained_on(loaded: Loaded) -> str:
    """A sentence on what the network of a model for every encoder learned from."""
    known = loaded.imported.get("trained_on")
    if not known:
        return "Its file does not say what it was trained on."
    names = ", ".join(f"{name} ({about['documents']} documents)" for name, about in known.items())
    return f"Its network was trained on {names}."


def locate(reference: str | Path, revision: str | None = None) -> Path:
    """The folder or file that a model's name stands for; released architectures come before files."""
    text, released = str(reference), weights.released()
    if text not in released and is_remote(reference):
        try:
            return fetch(text, revision)
        except SetupInvalid as error:
            raise SetupInvalid(f"{text}: no such file or folder; of the Hub: {error}") from None
    if revision is not None:
        raise UsageError(f"revision '{revision}': only a model of the Hub has one, and '{text}' is none")
    if text in released:
        return released[text]
    path = Path(reference)
    whole = (path / "checkpoints").is_dir() or (path / WEIGHTS).exists() or path.suffix == ".safetensors"
    runs = [one for one in list(path.parents)[:3] if (one / "checkpoints").is_dir()]
    if runs and path.exists() and not whole:
        raise UsageError(f"{path}: a part of the run {runs[0]}. Name the run itself")
    if path.is_dir() and not (path / WEIGHTS).exists() and not (path / "checkpoints").is_dir():
        raise InvalidFile(f"{path}: neither a run (checkpoints/) nor an exported model ({WEIGHTS})")
    if path.exists():
        return path
    if text in architectures():
        raise UsageError(
            f"no released weights for '{text}'. Train it: lvm train {text}, then name the run folder."
        )
    if path.name == text and path.suffix == "":
        raise UsageError(
            f"unknown model '{text}'.{nearest(text, sorted({*architectures(), *released}))} Or give a run "
            "folder or a .safetensors file."
        )
    raise InvalidFile(f"{path}: no such file or folder")


def _load_run(folder: Path, which: str) -> Loaded:
    from mlx_lvm.training import checkpoint as checkpoints
    from mlx_lvm.training.run import read_config

    config = read_config(folder)
    loaded, name, damaged = checkpoints.load_newest(folder / "checkpoints", which)
    try:
        model = build(config_from_dict(config["model"]))
        card = EncoderCard.from_dict(config.get("encoder_card", {}))
        train = dict(config["train"])
        context, split_seed = int(train["context"]), int(train["split_seed"])
    except (LvmError, KeyError, TypeError, ValueError, OverflowError) as error:
        raise InvalidFile(f"{folder / 'config.json'}: {error}") from None
    set_weights(model, loaded.weights, f"{folder / 'checkpoints' / name}")
    return Loaded(
        model,
        folder.name,
        context,
        split_seed,
        str(config["corpus"].get("name", "")),
        str(config["corpus"].get("sha256", "")),
        card,
        folder=folder,
        train=train,
        notes=damaged,
    )


def load_weights_file(path: Path) -> Loaded:
    """A .safetensors file that this project exported, or one with a config.json next to it."""
    file = open_safetensors(path)
    metadata = _metadata(file)
    config = metadata.get("model") or _config_next_to(path)
    if config is None:
        raise InvalidFile(
            f"{path}: says nothing of its architecture (no metadata 'mlx_lvm', no config.json next to it). "
            "`lvm import` can infer it."
        )
    try:
        corpus = dict(metadata.get("corpus") or {})
        loaded = Loaded(
            model=build(config_from_dict(config)),
            name=path.parent.name if path.name == WEIGHTS else path.stem,
            context=int(metadata.get("context", 5)),
            split_seed=int(metadata.get("split_seed", 0)),
            corpus=str(corpus.get("name", "")),
            corpus_sha256=str(corpus.get("sha256", "")),
            card=EncoderCard.from_dict(metadata["encoder_card"]) if metadata.get("encoder_card") else None,
            folder=path.parent,
            train=dict(metadata.get("train") or {}),
            imported=dict(metadata.get("imported") or {}),
            ranking=dict(metadata.get("ranking") or {}),
        )
    except (LvmError, TypeError, ValueError, OverflowError) as error:
        raise InvalidFile(f"{path}: its description does not parse ({error})") from None
    model, tensors = loaded.model, file.arrays()
    stored = {value.dtype for value in tensors.values()}
    loaded.dtype = next((name for name, kind in DTYPES.items() if stored == {kind}), "float32")
    take_buffers(model, tensors, str(path))
    set_weights(model, tensors, str(path))
    if "golden_input" in file.metadata:
        loaded.golden = read_golden(file, model)
        check_golden(model, loaded.golden, str(path))
    else:
        loaded.notes.append(
            f"{path}: no golden pair recorded; that its weights belong to this architecture is not checked"
        )
    return loaded


def take_buffers(model: VectorModel, tensors: dict[str, mx.array], what: str) -> None:
    """Remove torch's tables from `tensors`. Raises InvalidFile where one is not what the model computes."""
    for name, wanted in model.buffers().items():
        found = tensors.pop(name, wanted).astype(mx.float32)
        if found.shape != wanted.shape or not mx.allclose(found, wanted, rtol=0, atol=5e-3).item():
            raise InvalidFile(f"{what}: table '{name}' is not the one this architecture computes")


def _metadata(file: SafeFile) -> JsonObject:
    try:
        values = json.loads(file.metadata.get("mlx_lvm", "{}"))
    except (ValueError, RecursionError) as error:
        raise InvalidFile(f"{file.path}: metadata 'mlx_lvm' does not parse ({error})") from None
    if not isinstance(values, dict):
        raise InvalidFile(f"{file.path}: metadata 'mlx_lvm' is not an object")
    return values


def _config_next_to(path: Path) -> JsonObject | None:
    neighbour = path.with_name("config.json")
    values = read_json(neighbour) if neighbour.exists() else None
    return values if isinstance(values, dict) and "model_type" in values else None
