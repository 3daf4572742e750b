"""Document names: one normal form wherever they enter, since they decide the split, and fit to be shown.

macOS hands over file names with accents decomposed (NFD), most other systems composed (NFC): the same name in
both forms would be two documents, in two parts of the split.
"""

from __future__ import annotations

import unicodedata
from collections import Counter
from collections.abc import Sequence

from mlx_lvm.errors import Problems

MAX_NAME = 1000  # characters of one name
SHOWN = 5  # names told in a message; the others are counted
# Control characters, halves of characters, and what ends a line. Joiners, soft hyphens and every kind of
# space are ordinary text in somebody's language.
UNFIT = {
    "Cc": "a control character",
    "Cs": "half of a character (a surrogate)",
    "Zl": "a line separator",
    "Zp": "a paragraph separator",
}


def normal(name: str) -> str:
    """The name in normal form C."""
    return name if name.isascii() else unicodedata.normalize("NFC", name)


def check_names(names: Sequence[str], problems: Problems, label: str = "") -> None:
    """Names are unique, as they decide the split, not empty, at most MAX_NAME long, and fit to be shown."""
    if len(set(names)) != len(names):
        twice = sorted(name for name, count in Counter(names).items() if count > 1)
        more = f" and {len(twice) - SHOWN:,} more" if len(twice) > SHOWN else ""
        problems.add(
            f"{label}document names must be unique, they decide the split; used twice: "
            f"{', '.join(map(repr, twice[:SHOWN]))}{more}"
        )
    unfit = [(k, why) for k, name in enumerate(names) if (why := _unfit(name))]
    for k, why in unfit[:SHOWN]:
        problems.add(f"{label}document {k}: name {names[k][:60]!a} {why}")
    if len(unfit) > SHOWN:
        problems.add(
            f"{label}{len(unfit):,} of {len(names):,} document names are unfit, those above among them"
        )


def _unfit(name: str) -> str:
    """What is wrong with a name; empty where nothing is."""
    if not name or len(name) > MAX_NAME:
        return f"is longer than {MAX_NAME} characters" if name else "is empty"
    if name.isprintable():
        return ""
    for at, character in enumerate(name):
        if kind := UNFIT.get(unicodedata.category(character)):
            return f"holds {kind}, U+{ord(character):04X}, as character {at + 1}"
    return ""
