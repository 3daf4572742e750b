"""Text to chunks: sentences, packed greedily to `low` characters, never across documents, without overlap.

Two rules find the sentences. `simple` made the shipped corpora and is kept to the character so that they can
be made again: it ends a sentence after . ! ? before an English capital, quote or bracket, and loses the
quotes and brackets that close it. `careful` is for new corpora: it loses nothing but white space, knows
initials, more abbreviations, ellipses and other scripts, and cuts sentences longer than `high` at a space.
"""

# ruff: noqa: RUF001  (the quotes and dashes that texts have)

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import ClassVar

from mlx_lvm.config import Config, option
from mlx_lvm.errors import Problems

SPACE = re.compile(r"\s+")

SIMPLE_END = re.compile(r"""(?<=[.!?])["')\]]*\s+(?=[A-Z"'(\[])""")
SIMPLE_ABBREVIATION = re.compile(r"\b(Mr|Mrs|Ms|Dr|St|Gen|Col|Hon|Gov|Sen|Rep|No|U\.S|vs|etc|Jr|Sr)\.$")

CAREFUL_END = re.compile(
    r"""[.!?…]["'”’»)\]]*\s+(?=["'“‘„«(\[¿¡—–-]*\w)|"""
    r"""[。！？]["'”’」』）]*\s*"""
)
OPENING = "\"'“‘„«([¿¡—–-"
PARAGRAPH = re.compile(r"\n[^\S\n]*\n\s*")
# A name or a number follows these, so no sentence ends there; after the second kind only before a word that
# often begins one.
TITLE = re.compile(
    r"Mr|Mrs|Ms|Messrs|Mme|Mlle|Drs?|Prof|Sts?|Gen|Col|Capt|Lt|Sgt|Maj|Cmdr|Adm|Hon|Gov|Sen|Rep|Rev|"
    r"Pres|Fr|Nos|Vol|Fig|Sec|Ch|Mt|pp?|vs|cf|ca|approx"
)
ABBREVIATION = re.compile(
    r"([A-HJ-Z]|No|Art|al|e\.g|i\.e|etc|Jr|Sr|Inc|Ltd|Co|Corp|Bros|Ph\.D|"
    r"Jan|Feb|Mar|Apr|Aug|Sept|Oct|Nov|Dec|([A-Za-z]\.)+[A-Za-z])"
)
STARTER = re.compile(
    r"(The|An?|He|She|It|We|They|You|I|This|That|These|Those|There|In|On|At|But|And|So|If|When|For|"
    r"As|His|Her|Our|My|No|Yes|What|Why|How)\b"
)


@dataclass(frozen=True)
class Chunking(Config):
    """How documents become chunks. `describe()` is what a corpus records."""

    title: ClassVar[str] = "chunking"

    low: int = option(500, "Close a chunk once it has this many characters.", low=1, group="Chunks")
    high: int = option(
        1000, "Close a chunk before a sentence that would take it past this many.", low=1, group="Chunks"
    )
    rule: str = option("careful", "How sentences are found.", choices=("careful", "simple"), group="Chunks")

    def check(self, problems: Problems) -> None:
        if self.low > self.high:
            problems.add(f"low = {self.low} is above high = {self.high}")

    def describe(self) -> str:
        sizes = f"{self.low} to {self.high}"
        return f"{self.rule} sentences, packed greedily into chunks of {sizes} characters, no overlap"

    def chunks(self, text: str) -> list[str]:
        """The chunks of one document in order, none of a blank one; the last may be shorter than `low`."""
        if self.rule == "simple":
            return list(self._pack(simple_sentences(text)))
        return list(self._pack(part for piece in careful_sentences(text) for part in self._cut(piece)))

    def _pack(self, pieces: Iterable[str]) -> Iterator[str]:
        current = ""
        for piece in pieces:
            if current and len(current) + len(piece) > self.high:
                yield current
                current = ""
            current = f"{current} {piece}" if current else piece
            if len(current) >= self.low:
                yield current
                current = ""
        if current:
            yield current

    def _cut(self, piece: str) -> Iterator[str]:
        while len(piece) > self.high:
            at = piece.rfind(" ", 1, self.high + 1)
            at = at if at > 0 else self.high
            yield piece[:at].rstrip()
            piece = piece[at:].lstrip()
        if piece:
            yield piece


def simple_sentences(text: str) -> list[str]:
    """Sentences as in the shipped corpora. Closing quotes and brackets before a boundary are lost."""
    text = SPACE.sub(" ", text).strip()
    out: list[str] = []
    position, open_end = 0, False
    for start, end in [*(match.span() for match in SIMPLE_END.finditer(text)), (len(text), len(text))]:
        piece = text[position:start]
        position = end
        if open_end:
            out[-1] += f" {piece}"
        elif piece:
            out.append(piece)
        open_end = bool(out and SIMPLE_ABBREVIATION.search(out[-1]))
    return out


def careful_sentences(text: str) -> list[str]:
    """Sentences: joined by spaces they hold all characters but white space. A blank line ends a sentence."""
    out = []
    for paragraph in PARAGRAPH.split(text):
        paragraph = SPACE.sub(" ", paragraph).strip()
        start = 0
        for match in CAREFUL_END.finditer(paragraph):
            if _ends(paragraph, match):
                out.append(paragraph[start : match.end()].rstrip())
                start = match.end()
        out.append(paragraph[start:])
    return [sentence for sentence in out if sentence]


def _ends(text: str, match: re.Match[str]) -> bool:
    """Whether the mark at `match` closes a sentence, by the word before it and the word after."""
    mark = text[match.start()]
    if mark in "。！？":
        return True
    after = text[match.end() : match.end() + 40].lstrip(OPENING)
    if not after or after[0].islower():
        return False
    if mark != ".":
        return True
    before = text[max(0, match.start() - 24) : match.start()].rsplit(" ", 1)[-1].lstrip(OPENING)
    if TITLE.fullmatch(before):
        return False
    return bool(STARTER.match(after)) if ABBREVIATION.fullmatch(before) else True
