"""Texts to token ids by a `tokenizer.json`, as transformers reads it."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from mlx_lvm.encoders.base import OTHER_ENGINE
from mlx_lvm.errors import InvalidFile, needing

SLICE = 256  # texts tokenized together: bounds what their encodings hold in memory


class Tokens:
    """A tokenizer that cuts at `longest` tokens, special ones counted, and pads nothing."""

    def __init__(self, path: Path, longest: int, lower_case: bool = False) -> None:
        self.tokenizer: Any = _load(path)
        self.longest = longest
        if lower_case and "Lowercase" not in repr(self.tokenizer.normalizer):
            from tokenizers import normalizers  # type: ignore[import-not-found,unused-ignore]

            own = [] if self.tokenizer.normalizer is None else [self.tokenizer.normalizer]
            self.tokenizer.normalizer = normalizers.Sequence([normalizers.Lowercase(), *own])
        self.tokenizer.no_padding()
        self.tokenizer.no_truncation()
        self.special = len(self.tokenizer.encode("").ids)
        if longest <= self.special:
            raise InvalidFile(f"{path}: at most {longest} tokens, of which {self.special} are special")

    @property
    def size(self) -> int:
        """One more than the largest id."""
        return 1 + max(self.tokenizer.get_vocab(with_added_tokens=True).values())

    def ids(self, texts: Sequence[str]) -> list[list[int]]:
        """The ids of every text, its special tokens included."""
        self.tokenizer.enable_truncation(self.longest)
        return self._encode(texts)

    def lengths(self, texts: Sequence[str]) -> list[int]:
        """How many tokens every text has, uncut."""
        self.tokenizer.no_truncation()
        return [len(ids) for ids in self._encode(texts)]

    def _encode(self, texts: Sequence[str]) -> list[list[int]]:
        out: list[list[int]] = []
        for low in range(0, len(texts), SLICE):
            part = [valid(text) for text in texts[low : low + SLICE]]
            out += [encoding.ids for encoding in self.tokenizer.encode_batch_fast(part)]
        return out


def valid(text: str) -> str:
    """The text with half of a surrogate pair, which no file in UTF-8 can hold, replaced by U+FFFD."""
    try:
        text.encode()
    except UnicodeEncodeError:
        return text.encode("utf-16", "surrogatepass").decode("utf-16", "replace")
    return text


def _load(path: Path) -> Any:
    with needing("embed", "an encoder needs tokenizers"):
        from tokenizers import Tokenizer
    if not path.is_file():
        raise InvalidFile(f"{path}: no such file. A tokenizer in another form: {OTHER_ENGINE}.")
    try:
        return Tokenizer.from_file(str(path))
    except Exception as error:  # whatever the Rust side raises
        raise InvalidFile(f"{path}: not a tokenizer ({error})") from None
