"""Four corpora that no network was trained on, manuals and a dictionary, two of them not in English: from
Debian packages, to be embedded by MiniLM.

    apt-get download python3.11-doc dict-foldoc debian-handbook manpages-de
    for package in *.deb; do dpkg -x $package root; done
    python benchmarks/manuals.py root texts     # needs groff for the German pages
    lvm embed texts/pydoc --out pydoc.safetensors --encoder all-MiniLM-L6-v2 --source ... --licence ...
    python benchmarks/emn.py pydoc.safetensors foldoc.safetensors manuel.safetensors handbuch.safetensors

pydoc     Python's documentation, reStructuredText as it is (python3.11-doc; PSF licence)
foldoc    the Free On-line Dictionary of Computing, what begins with the same two letters as a document
          (dict-foldoc; GFDL)
manuel    the Debian Administrator's Handbook in French, a section a document (debian-handbook; GPL-2+ or
          CC BY-SA 3.0)
handbuch  German manual pages, one a document (manpages-de; GPL-3+ and the pages' own)

Texts of 7 to 80 KB where a package has more than enough, drawn by seed 0 up to three or four million
characters.
"""

from __future__ import annotations

import argparse
import gzip
import random
import re
import subprocess
from collections.abc import Iterable, Iterator
from html.parser import HTMLParser
from pathlib import Path

PARTS = ("tutorial", "howto", "reference", "c-api", "faq", "library", "extending", "using")
Text = tuple[str, str]  # name, text


class Prose(HTMLParser):
    """The text of a page, a blank line between its blocks."""

    BLOCKS = frozenset(
        "p div h1 h2 h3 h4 h5 li tr td dd dt pre br ul ol table blockquote".split()  # noqa: SIM905
    )
    PASSED_OVER = frozenset(("script", "style", "head", "nav"))

    def __init__(self, page: str) -> None:
        super().__init__()
        self.parts: list[str] = []
        self.inside = 0
        self.feed(page)
        paragraphs = re.split(r"\n\s*\n", "".join(self.parts))
        self.text = "\n\n".join(" ".join(one.split()) for one in paragraphs if one.strip())

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.inside += tag in self.PASSED_OVER
        if tag in self.BLOCKS:
            self.parts.append("\n" if tag == "br" else "\n\n")

    def handle_endtag(self, tag: str) -> None:
        self.inside = max(0, self.inside - (tag in self.PASSED_OVER))
        if tag in self.BLOCKS:
            self.parts.append("\n\n")

    def handle_data(self, data: str) -> None:
        if not self.inside:
            self.parts.append(data)


def drawn(texts: Iterable[Text], characters: int, most: int | None = None) -> Iterator[Text]:
    """Until so many characters, or `most` texts, are there."""
    for number, (name, text) in enumerate(texts):
        if characters < 0 or number == most:
            return
        characters -= len(text)
        yield name, text


def shuffled(items: list) -> list:
    random.Random(0).shuffle(items)
    return items


def pydoc(root: Path) -> Iterator[Text]:
    sources = root / "usr/share/doc/python3.11/html/_sources"
    files = [file for part in PARTS for file in sorted((sources / part).rglob("*.txt"))]
    chosen = shuffled([file for file in files if 8_000 <= file.stat().st_size <= 80_000])
    names = (
        file.relative_to(sources).as_posix().replace("/", "-").removesuffix(".rst.txt") for file in chosen
    )
    return drawn(zip(names, (file.read_text("utf-8") for file in chosen), strict=True), 3_900_000)


def foldoc(root: Path) -> Iterator[Text]:
    with gzip.open(root / "usr/share/dictd/foldoc.dict.dz") as file:
        entries = re.split(r"\n(?=\S)", file.read().decode("utf-8", "replace"))  # a headword is at the margin
    groups: dict[str, list[str]] = {}
    for entry in entries:
        letters = re.sub(r"[^a-z]", "", entry[:12].lower())[:2]
        if len(letters) == 2 and letters != "zz":
            plain = re.sub(r"[{}]", "", entry.replace("\n   ", "\n")).strip()
            groups.setdefault(letters, []).append(plain)
    texts = {letters: "\n\n".join(group) for letters, group in sorted(groups.items())}
    kept = shuffled([one for one in texts.items() if 7_000 <= len(one[1]) <= 80_000])
    return drawn(kept, 3_700_000)


def manuel(root: Path) -> Iterator[Text]:
    for file in sorted((root / "usr/share/doc/debian-handbook/html/fr-FR").glob("*.html")):
        text = re.sub(r"^.*?Suivant\n\n", "", Prose(file.read_text("utf-8")).text, count=1, flags=re.S)
        links = r"\n\nPrécédent[^\n]*(\n\n(Niveau supérieur|Sommaire|Suivant)[^\n]*)*\s*$"
        text = re.sub(links, "", text)
        if file.stem != "index" and len(text) > 3000:
            yield file.stem, text


def handbuch(root: Path) -> Iterator[Text]:
    files = sorted((root / "usr/share/man/de").glob("man*/*.gz"))
    chosen = shuffled([file for file in files if file.stat().st_size >= 5200 and not file.is_symlink()])
    pages = ((file.name.removesuffix(".gz"), page(gzip.decompress(file.read_bytes()))) for file in chosen)
    return drawn((one for one in pages if len(one[1]) >= 8000), 3_000_000, most=150)


def page(source: bytes) -> str:
    """A manual page as text, its lines not broken; empty where it only names another."""
    if b"\n.so " in source[:300]:
        return ""
    command = "preconv -e utf8 | tbl | groff -Tutf8 -man -P-c -P-b -P-u -rLL=4000n -rHY=0"
    found = subprocess.run(command, shell=True, input=b".ad l\n.nh\n" + source, capture_output=True).stdout
    lines = (" ".join(line.split()) for line in found.decode("utf-8", "replace").splitlines())
    return re.sub(r"\n{3,}", "\n\n", "\n".join(lines)).strip().replace("\N{HYPHEN}", "-")


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("root", type=Path, help="where the packages were unpacked")
    parser.add_argument("out", type=Path, help="a folder of text files a corpus is made in it")
    given = parser.parse_args()
    for corpus in (pydoc, foldoc, manuel, handbuch):
        folder, texts = given.out / corpus.__name__, dict(corpus(given.root))
        folder.mkdir(parents=True, exist_ok=True)
        for name, text in texts.items():
            (folder / f"{name}.txt").write_text(text, "utf-8")
        print(f"{folder}: {len(texts)} documents, {sum(map(len, texts.values())):,} characters")


if __name__ == "__main__":
    main()
