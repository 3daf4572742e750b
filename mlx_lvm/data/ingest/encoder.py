"""The encoder of a corpus: texts to unit vectors, with the card of what they are.

The card is read from the encoder's folder, not from its name: pooling, dense layers, maximum length and
prompt decide which space the vectors live in. Vectors are always scaled to unit length.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol

import numpy as np

from mlx_lvm.core.files.disk import file_sha256
from mlx_lvm.core.mlx import mx
from mlx_lvm.data.card import PROBE_SENTENCES, EncoderCard
from mlx_lvm.encoders.encoder import TextEncoder
from mlx_lvm.encoders.fetch import find_encoder, hub_id
from mlx_lvm.encoders.weights import weight_files
from mlx_lvm.errors import UsageError

DEFAULT = "sentence-transformers/all-mpnet-base-v2"  # that of the shipped corpora and models
ENGINES = ("mlx", "torch")
DEVICES = {"cpu": mx.cpu, "gpu": mx.gpu}


class Encoder(Protocol):
    """Turns texts into unit vectors [n, dim] float32: the same texts in one call into the same bytes."""

    card: EncoderCard

    @property
    def device(self) -> str: ...

    def encode(self, texts: Sequence[str]) -> np.ndarray: ...

    def too_long(self, texts: Sequence[str]) -> int:
        """How many texts are longer than the encoder reads."""


class MLXEncoder:
    """BERT, MPNet or T5 in MLX, from a local folder or, by its Hub id, from the cache or the network."""

    def __init__(
        self,
        name: str,
        device: str | None = None,
        batch_size: int | None = None,
        revision: str | None = None,
        dtype: str = "float32",
    ) -> None:
        if device is not None:
            if device not in DEVICES:
                raise UsageError(
                    f"--device {device}: expected cpu or gpu, or cuda or mps with --engine torch"
                )
            mx.set_default_device(DEVICES[device])
        folder, commit = find_encoder(name, revision)
        self.text = TextEncoder.load(folder, dtype)
        self.text.batch_size = batch_size or self.text.batch_size
        weights = weight_files(folder)[0]  # whose digest stands for a commit where there is none
        self.card = EncoderCard(
            model=hub_id(name) if commit else folder.resolve().name,
            revision=commit or f"{weights.name} sha256 {file_sha256(weights)}",
            pooling="+".join(self.text.pooling.modes),
            dense=", ".join(dense.describe() for dense in self.text.denses) or "none",
            normalised="L2",
            max_tokens=str(self.text.tokens.longest),
            prompt=self.text.folder.default_prompt or "none",
            dtype=dtype,
            dim=self.text.dim,
            probes=self.text.encode(PROBE_SENTENCES),
        )

    @property
    def device(self) -> str:
        return "gpu" if mx.default_device() == mx.Device(mx.gpu) else "cpu"

    def encode(self, texts: Sequence[str]) -> np.ndarray:
        return self.text.encode(texts)

    def too_long(self, texts: Sequence[str]) -> int:
        return self.text.too_long(texts)


def load_encoder(
    name: str,
    engine: str = "mlx",
    device: str | None = None,
    batch_size: int | None = None,
    revision: str | None = None,
    dtype: str = "float32",
) -> Encoder:
    """An encoder by folder or Hub id. Raises UsageError for an unknown engine, else as each engine says."""
    if engine not in ENGINES:
        raise UsageError(f"--engine {engine}: expected one of {', '.join(ENGINES)}")
    if engine == "mlx":
        return MLXEncoder(name, device, batch_size, revision, dtype)
    from mlx_lvm.data.ingest.torch_encoder import SentenceEncoder

    if dtype != "float32":
        raise UsageError(f"--precision {dtype} belongs with --engine mlx")
    return SentenceEncoder(name, device, batch_size or 32, revision)


def compare_spaces(card: EncoderCard, others: dict[str, EncoderCard]) -> tuple[list[str], dict[str, str]]:
    """Of the cards by name that claim the same encoder: those of the same space, and why the rest are others.

    They claim it by the last part of its name, since a local folder has no more; probe vectors decide then.
    """

    def last(of: EncoderCard) -> str:
        return of.model.rpartition("/")[2].lower()

    alike = {name: other for name, other in others.items() if card.model and last(card) == last(other)}
    found = {name: card.differences(other) for name, other in alike.items()}
    same = [name for name, differences in found.items() if not differences]
    return same, {name: "; ".join(differences) for name, differences in found.items() if differences}
