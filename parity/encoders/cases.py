"""Texts that encoders are compared on: real ones, and those that part implementations."""

from __future__ import annotations

from dataclasses import dataclass

from mlx_lvm.data.card import PROBE_SENTENCES

HOSTILE = (
    "",
    " ",
    "word",
    "a" * 400,
    "👩‍👩‍👧 🏴‍☠️ 😀😀😀",
    "مرحبا بالعالم שלום עולם",
    "\u202eright to left\u202c and\u200bzero width",
    "e\u0301\u0327\u0308 ﬁ Ⅷ ﷺ ½",
    "中文没有空格 日本語も同じ 한국어",
    "null \x00 bell \x07 tab\tnewline\nreturn\r",
    "<pad> [PAD] in a text <pad>",
    "[CLS] <s> [SEP] </s> [MASK] <mask> [UNK]",
    "http://a.b/c?d=e&f=%20#g 1,234.5e-6 $€¥",
    "ALL CAPITALS and MiXeD",
    "\ufffd\ufeff\u00ad",
)


@dataclass(frozen=True)
class Texts:
    """Texts that are encoded in one batch."""

    name: str
    texts: tuple[str, ...]


def cases(chunks: tuple[str, ...] = ()) -> list[Texts]:
    """Every batch. chunks: texts of a corpus, to go with the probe sentences."""
    long = " ".join(PROBE_SENTENCES) + " "
    return [
        Texts("real", (*PROBE_SENTENCES, *chunks)),
        Texts("hostile", HOSTILE),
        Texts("one", ("The harbour was empty.",)),  # no padding
        Texts("empty", ("",)),
        Texts("mixed", ("", "word " * 10_000, "word", long * 3, PROBE_SENTENCES[0])),
    ]


def shipped_chunks(count: int) -> tuple[str, ...]:
    """Chunks of the shipped corpus, evenly spaced."""
    from mlx_lvm.data.corpus import load_corpus

    texts = load_corpus("sotu").texts or []
    return tuple(texts[len(texts) * number // count] for number in range(count) if texts)
