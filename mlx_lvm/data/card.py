"""The encoder card: which space the vectors of a corpus live in.

Two encoders of one name can be different spaces, so cards are compared by the vectors of sixteen probe
sentences wherever both sides have them, and by their fields otherwise.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import ClassVar

import numpy as np

from mlx_lvm.config import Config
from mlx_lvm.errors import InvalidFile

PROBE_SENTENCES = (
    "The harbour was empty when the first boats came home.",
    "Interest rates rose by a quarter of a percentage point in March.",
    "She tuned the old piano before anyone else was awake.",
    "Whales breathe air and must return to the surface.",
    "The committee rejected the amendment by eleven votes to nine.",
    "A matrix is invertible exactly when its determinant is not zero.",
    "Boil the lentils for twenty minutes, then add salt.",
    "Why did nobody answer the letter?",
    "The glacier has retreated four hundred metres since 1950.",
    "Our army crossed the river at dawn and met no resistance.",
    "def add(a, b): return a + b",
    "Le train de nuit part à vingt-deux heures.",
    "The patient was given two doses of the vaccine.",
    "In the beginning there was only dust and a little light.",
    "1, 2, 3, 5, 8, 13, 21",
    "He laughed, closed the book and said nothing more about it.",
)

SAME_SPACE = 0.999  # cosine of every probe above which two encoders count as one


@dataclass(frozen=True)
class EncoderCard(Config):
    """What made the vectors. An empty field means that nobody recorded it.

    Fields are text so that a card reads the same in every file; `dim` is the width of the vectors.
    """

    title: ClassVar[str] = "encoder card"

    model: str = ""
    revision: str = ""
    pooling: str = ""
    dense: str = ""
    normalised: str = ""
    max_tokens: str = ""
    prompt: str = ""
    dtype: str = ""
    dim: int = 0
    probes: np.ndarray | None = field(default=None, compare=False, repr=False)

    def to_dict(self) -> dict:
        """The card without its probe vectors, which files hold as a tensor."""
        return {key: value for key, value in super().to_dict().items() if key != "probes"}

    def differences(self, other: EncoderCard) -> list[str]:
        """Why vectors of `other` must not be mixed with ours; empty where they may.

        Probe vectors decide where both cards have them: fields are only what somebody wrote down. A model's
        name does not count beside one checksum of the weights: a local folder may be called anything.
        """
        if self.dim != other.dim:
            return [f"dim {self.dim} against {other.dim}"]
        if self.probes is not None and other.probes is not None:
            a, b = (p / np.linalg.norm(p, axis=1, keepdims=True) for p in (self.probes, other.probes))
            lowest = float((a * b).sum(axis=1).min())
            told = f"probe sentences differ: lowest cosine {lowest:.4f}, {SAME_SPACE} asked"
            return [] if lowest > SAME_SPACE else [told]
        mine, theirs = self.to_dict(), other.to_dict()
        same_weights = "sha256" in self.revision and self.revision == other.revision
        fields = ([] if same_weights else ["model"]) + ["pooling", "dense", "normalised", "prompt"]
        named = [key for key in fields if mine[key] and theirs[key]]
        return [f"{key} '{mine[key]}' against '{theirs[key]}'" for key in named if mine[key] != theirs[key]]

    def unknown(self, other: EncoderCard) -> str:
        """Why nothing tells whether `other` is of our space; empty where probe vectors or names tell."""
        if self.probes is not None and other.probes is not None:
            return ""
        if not (self.model and other.model):
            return "no encoder is recorded" if not (self.model or other.model) else "one records no encoder"
        return "" if (self.probes is None) == (other.probes is None) else "one has no probe vectors"

    def require_same(self, other: EncoderCard, what: str) -> None:
        """Raises InvalidFile where vectors of the two cards must not be combined."""
        if found := self.differences(other):
            raise InvalidFile(
                f"{what}: vectors of two different encoders ({'; '.join(found)}). "
                "Embed both with the same encoder, or evaluate each corpus with a model trained on it."
            )
