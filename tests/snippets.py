"""The commands and programs that documents show: found, told apart, and held against what they print.

A fenced block runs as its language says: `python` as a program, `bash` line by line, `text` where its lines
begin with `$ ` (what stands below a command is what it prints). A comment above a block changes that:

    <!-- output of: COMMAND -->   the block is what COMMAND prints, or `the program below`
    <!-- shorter: OPTIONS -->     its trainings get these options besides, to be quick
    <!-- not run: REASON -->      it needs what no test has
    <!-- train, linux -->         (and the like) the workflows and .ci/run run it word for word
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path

FENCE = re.compile(r"^( *)```(\w*)\n(.*?)^\1```$", re.S | re.M)
COMMENT = re.compile(r"<!-- ([^>]*) -->\n *$")
NUMBER = re.compile(r"[-+]?\d[\d,]*(?:\.\d+)?(?:e[-+]?\d+)?%?")
SECONDS = re.compile(r"\b[\d.]+ s\b")


@dataclass(frozen=True)
class Snippet:
    """A fenced block. line: of its fence in the page. mark: the comment above it."""

    page: Path
    line: int
    language: str
    text: str
    mark: str

    def __str__(self) -> str:
        return f"{self.page.name}:{self.line}"

    def marked(self, word: str) -> str:
        """What follows `word` and a colon in the comment; empty where it does not begin so."""
        return self.mark[len(word) + 2 :] if self.mark.startswith(f"{word}: ") else ""

    @property
    def sessions(self) -> list[tuple[str, list[str]]]:
        """(command, lines that it prints) of a terminal's session or of the command named above the block."""
        if command := self.marked("output of"):
            return [(command, self.text.splitlines())]
        found: list[tuple[str, list[str]]] = []
        for line in self.text.splitlines() if self.language in ("text", "") else []:
            if line.startswith("$ "):
                found.append((line[2:], []))
            elif found and line.strip():
                found[-1][1].append(line)
        return found

    @property
    def commands(self) -> list[str]:
        """Every command that the block shows, without its comment."""
        if self.language == "bash":
            lines = self.text.replace("\\\n", " ").splitlines()
            return [bare for line in lines if (bare := re.sub(r"(^|\s)# .*$", "", line).strip())]
        return [command for command, _ in self.sessions]


def snippets(page: Path) -> list[Snippet]:
    """All fenced blocks of a page, in order."""
    text, out = page.read_text("utf-8"), []
    for match in FENCE.finditer(text):
        indent, language, body = match.groups()
        body = re.sub(rf"^{indent}", "", body, flags=re.M)
        mark = COMMENT.search(text[: match.start()])
        line = text.count("\n", 0, match.start()) + 1
        out.append(Snippet(page, line, language, body, mark[1] if mark else ""))
    return out


def inline_commands(page: Path) -> list[str]:
    """Commands of `lvm` in the running text, and alone in a table's cell."""
    text = FENCE.sub("", page.read_text("utf-8"))
    return [" ".join(found.split()) for found in re.findall(r"`(lvm [^`]+)`", text)]


def missing(shown: list[str], printed: str) -> list[str]:
    """The shown lines that were not printed, in this order. Words count exactly, numbers to a tenth of their
    size or two hundredths, seconds not at all; ` ...` stands for the rest of a line.
    """
    lines = [" ".join(line.split()) for line in printed.splitlines()]
    out, at = [], 0
    for line in shown:
        wanted = " ".join(line.split())
        place = next((k for k in range(at, len(lines)) if agrees(wanted, lines[k])), None)
        if place is None:
            out.append(line)
        else:
            at = place + 1
    return out


def agrees(wanted: str, line: str) -> bool:
    """Whether a printed line is what a document shows."""
    wanted, line = (SECONDS.sub("# s", text) for text in (wanted, line))
    if wanted.endswith(" ..."):
        words = NUMBER.sub("#", wanted[:-4])
        if not NUMBER.sub("#", line).startswith(words):
            return False
        line = line[: len(wanted) - 4]
    elif NUMBER.sub("#", wanted) != NUMBER.sub("#", line):
        return False
    values = [[value(n) for n in NUMBER.findall(text)] for text in (wanted.removesuffix(" ..."), line)]
    return all(abs(a - b) <= max(0.02, 0.1 * abs(a)) for a, b in zip(*values, strict=False))


def value(number: str) -> float:
    return float(number.rstrip("%").replace(",", "").rstrip(",")) / (100 if number.endswith("%") else 1)
