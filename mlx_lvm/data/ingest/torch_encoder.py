"""Any sentence encoder through sentence-transformers and torch; its card is read from the model's modules."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from mlx_lvm.core.files.disk import file_sha256
from mlx_lvm.data.card import PROBE_SENTENCES, EncoderCard
from mlx_lvm.encoders.fetch import local_folder
from mlx_lvm.errors import InvalidFile, NonFiniteError, SetupInvalid, needing, one_line

WEIGHTS = ("model.safetensors", "pytorch_model.bin")


class SentenceEncoder:
    """A sentence-transformers model from a local folder or, by its Hub id, from the cache or the network."""

    def __init__(
        self, name: str, device: str | None = None, batch_size: int = 32, revision: str | None = None
    ) -> None:
        self.batch_size = batch_size
        self.model: Any = _load(name, device, revision)
        self.card = self._card(name, self.encode(PROBE_SENTENCES))

    @property
    def device(self) -> str:
        return str(self.model.device)

    def encode(self, texts: Sequence[str]) -> np.ndarray:
        vectors = self.model.encode(
            list(texts),
            batch_size=self.batch_size,
            normalize_embeddings=True,
            show_progress_bar=False,
            convert_to_numpy=True,
        )
        vectors = np.ascontiguousarray(vectors, dtype=np.float32)
        if not np.isfinite(vectors).all():
            raise NonFiniteError("the encoder gave NaN or Inf; try --device cpu")
        return vectors

    def too_long(self, texts: Sequence[str]) -> int:
        if not self.model.max_seq_length or not texts:
            return 0
        found = self.model.tokenizer(list(texts), truncation=False, verbose=False)["input_ids"]
        return sum(len(tokens) > self.model.max_seq_length for tokens in found)

    def _card(self, name: str, probes: np.ndarray) -> EncoderCard:
        kinds = {type(module).__name__: module for module in self.model}
        dense = [module for module in self.model if type(module).__name__ == "Dense"]
        prompts, default = self.model.prompts or {}, self.model.default_prompt_name
        local = Path(name).expanduser()
        return EncoderCard(
            model=local.resolve().name if local.is_dir() else name,
            revision=_revision(self.model, local),
            pooling=_pooling(kinds.get("Pooling")),
            dense=", ".join(map(_dense, dense)) or "none",
            normalised="L2",
            max_tokens=str(self.model.max_seq_length or ""),
            prompt=(prompts.get(default) if default else "") or "none",
            dtype=str(next(self.model.parameters()).dtype).removeprefix("torch."),
            dim=int(probes.shape[1]),
            probes=probes,
        )


def _load(name: str, device: str | None, revision: str | None) -> Any:
    """Local files first, so that nothing needs a network that has no need of it."""
    local = local_folder(name)
    with needing("embed-torch", "--engine torch needs sentence-transformers"):
        from sentence_transformers import SentenceTransformer

        # type: ignore[import-not-found,unused-ignore]
        from transformers.utils import logging as transformers_logging
    transformers_logging.disable_progress_bar()
    logging.getLogger("sentence_transformers").setLevel(logging.ERROR)
    try:
        where = str(local or name)
        return SentenceTransformer(where, device=device, revision=revision, local_files_only=True)
    except Exception as first:  # whatever its many loaders raise
        if local is not None:
            why = f"no model that sentence-transformers can load ({one_line(first)})"
            raise InvalidFile(f"encoder {name}: {why}") from None
    try:
        return SentenceTransformer(name, device=device, revision=revision)
    except Exception as error:
        raise SetupInvalid(
            f"encoder '{name}' is not on this machine and cannot be fetched ({one_line(error)}). "
            "With a network it is downloaded once; without one, pass --encoder FOLDER of a model."
        ) from None


def _pooling(module: Any) -> str:
    """The pooling mode in a word; old versions answer by a method, new ones by an attribute."""
    if module is None:
        return "none"
    mode = getattr(module, "pooling_mode", None) or module.get_pooling_mode_str()
    return "+".join(mode) if isinstance(mode, (list, tuple)) else str(mode)


def _dense(module: Any) -> str:
    activation = type(module.activation_function).__name__
    return f"{module.in_features}->{module.out_features} {activation}{'' if module.bias else ', no bias'}"


def _revision(model: Any, folder: Path) -> str:
    """The Hub's commit where the model came from there, else the digest of its weights."""
    config = getattr(getattr(model[0], "auto_model", None), "config", None)
    if commit := getattr(config, "_commit_hash", None):
        return str(commit)
    file = next((folder / name for name in WEIGHTS if (folder / name).is_file()), None)
    return f"{file.name} sha256 {file_sha256(file)}" if file else ""
