"""Tables on terminals of every width: what does not fit goes on below, and no number is cut off."""

import re
from collections.abc import Callable
from io import StringIO

import pytest

from mlx_lvm.cli.shared.common import Output, panels

from ..conftest import Ran

COLUMNS = ["test", "cosine", "95% interval", "Δ best baseline", "centred", "R@1", "MRR (same document)"]
ROWS = [
    [
        "lag-filter-centroid",
        "0.6800",
        "0.6628 0.6934",
        "-0.0020 [-0.0080 +0.0035]",
        "0.4461",
        "0.077",
        "0.3218",
    ],
    ["random", "-0.0001", "-0.0019 0.0015", "", "-0.0040", "0.000", "0.0597"],
]


def shown(width: int, columns: list[str], rows: list[list[str]], left: int = 1) -> str:
    out = Output(as_json=False)
    out.terminal, out.console.width, out.console.file = True, width, StringIO()
    out.table("title", columns, rows, left=left)
    return out.console.file.getvalue()


@pytest.mark.parametrize("width", [60, 80, 100, 120, 200])
def test_every_number_is_there_at_every_width(width: int) -> None:
    text = shown(width, COLUMNS, ROWS)
    assert "…" not in text and max(map(len, text.splitlines())) <= width
    assert text.count("title") == 1
    for column, cell in zip(COLUMNS, ROWS[0], strict=True):
        assert column in text and cell in text
    parts = panels(COLUMNS, ROWS, 1, width)
    assert [k for part in parts for k in part[1:]] == list(range(1, len(COLUMNS))) and all(
        part[0] == 0 for part in parts
    )
    assert text.count("lag-filter-centroid") == len(parts)


def test_one_table_where_there_is_room() -> None:
    assert len(panels(COLUMNS, ROWS, 1, 200)) == 1 and len(panels(COLUMNS, ROWS, 1, 80)) > 1


def test_text_wraps_and_its_numbers_stay() -> None:
    text = shown(
        80,
        ["", "chunk", "text", "cosine"],
        [["1", "1953_eisenhower_r, 24", "The immediate job " * 8, "0.8130"]],
        left=3,
    )
    assert "0.8130" in text and max(map(len, text.splitlines())) <= 80
    assert len(re.findall("immediate", text)) == 8


def test_brackets_are_no_markup() -> None:
    text = shown(
        100, ["check", "finding [x]"], [["extra embed", "pip install 'mlx-lvm[embed]' adds it"]], left=2
    )
    assert "mlx-lvm[embed]" in text and "finding [x]" in text


def test_what_is_being_done_is_text(capsys: pytest.CaptureFixture[str]) -> None:
    """A run may be named like markup, open or closed where nothing is open."""
    with Output(False).status("[/begin]") as progress:
        progress("scoring [/red]")
        progress("scoring [bold]run")
    assert capsys.readouterr().out == ""


@pytest.mark.parametrize(
    ("reason", "said"), [("Unable to allocate 112. MiB", "memory: Unable"), ("", "memory. ")]
)
def test_no_memory_is_one_line_with_a_remedy(
    lvm: Callable[..., Ran], monkeypatch: pytest.MonkeyPatch, reason: str, said: str
) -> None:
    def full(**_: object) -> None:
        raise MemoryError(reason)

    monkeypatch.setattr("mlx_lvm.cli.main.app", full)
    ran = lvm("train", "amn")
    assert ran.code == 3 and said in ran.err and "ulimit -d" in ran.err and ran.err.count("\n") == 1
    with pytest.raises(MemoryError):
        lvm("train", "amn", "--debug")
