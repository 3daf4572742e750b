"""Small text files of ids and names, as other programs write them: with a byte order mark, Windows' line
ends, UTF-16, blanks at the ends of lines and empty lines behind the last.
"""

from __future__ import annotations

import codecs
from pathlib import Path

from mlx_lvm.errors import InvalidFile, IOFailed, reason

LARGEST = 1 << 28  # bytes
MARKS = {codecs.BOM_UTF8: "utf-8-sig", codecs.BOM_UTF16_LE: "utf-16", codecs.BOM_UTF16_BE: "utf-16"}


def read_text(path: Path) -> str:
    """The text of a small file. Raises InvalidFile for a large one or no text, IOFailed if unreadable."""
    try:
        if path.is_file() and path.stat().st_size > LARGEST:
            raise InvalidFile(f"{path}: too large for a list ({path.stat().st_size:,} bytes)")
        data = path.read_bytes()
    except FileNotFoundError:
        raise InvalidFile(f"{path}: no such file") from None
    except (OSError, ValueError) as error:
        raise IOFailed(f"{path}: cannot be read ({reason(error)})") from None
    encoding = next((name for mark, name in MARKS.items() if data.startswith(mark)), "utf-8")
    try:
        return data.decode(encoding)
    except UnicodeDecodeError as error:
        raise InvalidFile(f"{path}: is not text in UTF-8 (byte {error.start}: {error.reason})") from None


def read_lines(path: Path) -> list[str]:
    """Its lines without blanks at their ends, or empty ones at the end of the file. Raises as `read_text`."""
    text = read_text(path).rstrip().replace("\r\n", "\n").replace("\r", "\n")
    return [line.strip() for line in text.split("\n")] if text else []
