"""Documents to embed: .txt and .md files, .jsonl files of {"id", "text"}, and folders of them.

A document is named by its path below the folder that was given, without the ending, or by its id in a .jsonl.
"""

from __future__ import annotations

import json
import os
import re
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path

from mlx_lvm.data.names import normal
from mlx_lvm.errors import InvalidFile, reason

TEXT, MARKDOWN, LINES = (".txt", ".text"), (".md", ".markdown"), (".jsonl", ".ndjson")
ENDINGS = TEXT + MARKDOWN + LINES
MAX_DOCUMENT = 256 << 20  # bytes of one document
FRONT_MATTER = re.compile(r"\A---\n.*?\n---\n", re.DOTALL)
IMAGE = re.compile(r"!\[([^\]]*)\]\([^)]*\)")
LINK = re.compile(r"\[([^\]]+)\]\([^)]*\)")
HEADING = re.compile(r"^#{1,6}\s+(.*?)\s*#*$", re.MULTILINE)


@dataclass
class Listing:
    """Files to read, (name, path) in order of names, and what folders hold besides, counted by ending."""

    files: list[tuple[str, Path]] = field(default_factory=list)
    left_out: Counter[str] = field(default_factory=Counter)


def list_documents(paths: list[Path]) -> Listing:
    """Raises InvalidFile where a path is missing, of an unknown ending, or holds no document."""
    listing = Listing()
    for path in paths:
        if path.is_dir():
            _walk(path, listing)
        elif not path.is_file():
            what = "no regular file" if os.path.lexists(path) else "no such file or folder"
            raise InvalidFile(f"{path}: {what}")
        elif path.suffix.lower() not in ENDINGS:
            raise InvalidFile(f"{path}: ending '{path.suffix}' is not one of {', '.join(ENDINGS)}")
        else:
            listing.files.append((path.stem, path))
    if not listing.files:
        raise InvalidFile(f"{', '.join(map(str, paths))}: no {', '.join(ENDINGS)} file in it")
    return listing


def _walk(folder: Path, listing: Listing) -> None:
    """Files below a folder, by name. Links are followed, but a folder is entered once: loops of links end."""
    entered: set[tuple[int, int]] = set()
    found = []
    for current, folders, files in os.walk(folder, followlinks=True):
        state = os.stat(current)
        identity = state.st_dev, state.st_ino
        if identity in entered:
            folders.clear()
            continue
        entered.add(identity)
        folders[:] = sorted(name for name in folders if not name.startswith("."))
        for name in files:
            path = Path(current, name)
            suffix = path.suffix.lower()
            if name.startswith("."):
                continue
            if suffix in ENDINGS and path.is_file():
                found.append((path.relative_to(folder).with_suffix("").as_posix(), path))
            else:
                listing.left_out[suffix or "no ending"] += 1
    listing.files += sorted(found)


def read_documents(files: list[tuple[str, Path]]) -> Iterator[tuple[str, str]]:
    """(name, text) of every document in order, blank ones too. Raises InvalidFile naming file and line."""
    for name, path in files:
        if path.suffix.lower() in LINES:
            yield from ((normal(found), text) for found, text in _lines(path))
        else:
            text = _decode(path, _read(path))
            yield normal(name), plain(text) if path.suffix.lower() in MARKDOWN else text


def _read(path: Path) -> bytes:
    try:
        size = path.stat().st_size
        if size > MAX_DOCUMENT:
            raise InvalidFile(f"{path}: {size:,} bytes in one document, at most {MAX_DOCUMENT:,}; split it")
        return path.read_bytes()
    except OSError as error:
        raise InvalidFile(f"{path}: cannot be read ({reason(error)})") from None


def _decode(path: Path, data: bytes, line: int = 0) -> str:
    try:
        return data.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        place = f", line {line}" if line else ""
        raise InvalidFile(
            f"{path}{place}: not UTF-8 (byte {error.start} is {data[error.start]:#04x}); convert it, as with "
            "iconv -t UTF-8"
        ) from None


def _lines(path: Path) -> Iterator[tuple[str, str]]:
    try:
        with open(path, "rb") as file:
            for number, line in enumerate(iter(partial(file.readline, MAX_DOCUMENT + 1), b""), 1):
                if len(line) > MAX_DOCUMENT:
                    raise InvalidFile(f"{path}, line {number}: longer than {MAX_DOCUMENT:,} bytes")
                if line.strip():
                    yield _entry(path, number, _decode(path, line, number))
    except OSError as error:
        raise InvalidFile(f"{path}: cannot be read ({reason(error)})") from None


def _entry(path: Path, number: int, line: str) -> tuple[str, str]:
    try:
        values = json.loads(line)
    except (ValueError, RecursionError) as error:
        raise InvalidFile(f"{path}, line {number}: not JSON ({error})") from None
    if not isinstance(values, dict) or not isinstance(values.get("text"), str):
        raise InvalidFile(f'{path}, line {number}: expected {{"id": ..., "text": "..."}}')
    name = values.get("id", f"{path.stem}-{number}")
    if not isinstance(name, (str, int)) or isinstance(name, bool):
        raise InvalidFile(f"{path}, line {number}: id {str(name)[:60]!r} is neither text nor a whole number")
    # a lone surrogate is valid JSON and no text: nothing further on could write it
    return str(name), values["text"].encode("utf-8", "replace").decode("utf-8")


def plain(markdown: str) -> str:
    """Markdown without front matter, link targets and heading marks; every word of the text stays."""
    text = FRONT_MATTER.sub("", markdown.replace("\r\n", "\n"))
    text = LINK.sub(r"\1", IMAGE.sub(r"\1", text))
    return HEADING.sub(r"\n\1\n", text)
