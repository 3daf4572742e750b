"""What is found stands in frozen dataclasses: their JSON form, and tables in plain text."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, fields
from typing import Any, ClassVar

JsonObject = dict[str, Any]  # an object of JSON, as files hold it and `--json` prints it


@dataclass(frozen=True)
class Interval:
    """A mean with its interval, and the two-sided p-value of being zero."""

    value: float
    low: float
    high: float
    p: float

    def ends(self) -> list[float | None]:
        """[low, high] for JSON; None where the interval is the whole line."""
        return [end if math.isfinite(end) else None for end in (self.low, self.high)]

    @property
    def outcome(self) -> str:
        """better, worse or not distinguishable: on which side of zero the whole interval lies."""
        if not math.isfinite(self.low):
            return "not distinguishable"
        return "better" if self.low > 0 else "worse" if self.high < 0 else "not distinguishable"

    def span(self, form: str = ".4f", between: str = " to ", empty: str = "-") -> str:
        """Both ends as text, with `between` between them; `empty` where the interval is the whole line."""
        return f"{self.low:{form}}{between}{self.high:{form}}" if math.isfinite(self.low) else empty

    def text(self, form: str = ".4f", between: str = " ") -> str:
        """The value, and both ends in brackets where there are any."""
        ends = self.span(form, between, "")
        return f"{self.value:{form}}" + (f" [{ends}]" if ends else "")


class Result:
    """A frozen dataclass with a JSON form: its fields by name, those that are None left out, and the
    properties that `derived` names. A mean with its interval stands as `name` and `name_ci`.
    """

    derived: ClassVar[tuple[str, ...]] = ()

    def to_dict(self) -> JsonObject:
        """For JSON."""
        out: JsonObject = {}
        for one in fields(self):  # type: ignore[arg-type]  # every subclass is a dataclass
            value = getattr(self, one.name)
            if one.metadata.get("inlined") and value is not None:
                out |= as_json(value)
            else:
                out |= entry(one.metadata.get("key", one.name), value)
        for name in self.derived:
            out |= entry(name, getattr(self, name))
        return out


# Metadata of a field of a Result. INLINED: its own keys stand among those of the whole.
INLINED = {"inlined": True}


def key(name: str) -> dict[str, str]:
    """Metadata of a field of a Result that JSON calls otherwise."""
    return {"key": name}


def entry(name: str, value: Any) -> JsonObject:
    """What stands in JSON for a value of that name."""
    if type(value) is Interval:
        return {name: value.value, f"{name}_ci": value.ends()}
    return {} if value is None else {name: as_json(value)}


def as_json(value: Any) -> Any:
    """Results by their JSON form, in lists and dicts too; all else as it is."""
    if isinstance(value, Result):
        return value.to_dict()
    if isinstance(value, dict):
        return {str(name): as_json(one) for name, one in value.items()}
    return [as_json(one) for one in value] if isinstance(value, (list, tuple)) else value


def markdown_table(columns: Sequence[str], rows: Iterable[Sequence[str]], numbers: bool = False) -> list[str]:
    """Lines of a table in Markdown; with `numbers` all columns but the first are set right."""
    rule = "---:|" if numbers else "---|"
    head = f"|---|{rule * (len(columns) - 1)}"
    return ["| " + " | ".join(columns) + " |", head, *("| " + " | ".join(row) + " |" for row in rows)]


def plain_table(
    title: str, columns: Sequence[str], rows: Sequence[Sequence[str]], left: int = 1
) -> list[str]:
    """Lines of a table whose first `left` columns are set left, the others right."""
    cells = [list(columns), *[list(row) for row in rows]]
    widths = [max(len(row[k]) for row in cells) for k in range(len(columns))]

    def line(row: list[str]) -> str:
        pairs = enumerate(zip(row, widths, strict=True))
        return "  ".join(c.ljust(w) if k < left else c.rjust(w) for k, (c, w) in pairs).rstrip()

    return [*([title] if title else []), *map(line, cells)]
