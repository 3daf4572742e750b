"""Configs: frozen dataclasses that check themselves.

One declaration per option. A field made with `option` is the dataclass field, the command-line flag, the TOML
key and the entry in `config.json`, with its help and its limits in one place.
"""

from __future__ import annotations

import dataclasses
import math
import typing
from dataclasses import dataclass, fields
from functools import partial
from typing import Any, ClassVar, TypeVar

from mlx_lvm.errors import Problems, UsageError, nearest

C = TypeVar("C", bound="Config")
Options = dict[str, Any]  # values of options by field, as flags, files and presets give them


def option(
    default: Any,
    help: str,
    *,
    low: float | None = None,
    high: float | None = None,
    above: float | None = None,
    below: float | None = None,
    choices: tuple[str, ...] | None = None,
    group: str = "Options",
) -> Any:
    """A config field: default, help, and the limits `low <= x <= high`, `above < x < below` or `choices`."""
    limits = {"low": low, "high": high, "above": above, "below": below, "choices": choices}
    return dataclasses.field(default=default, metadata={"help": help, "group": group, **limits})


model_option = partial(option, group="Model")  # a field of a model's config


@dataclass(frozen=True)
class Config:
    """Base of every config: checks types and limits on construction, rejects unknown keys naming the
    nearest.
    """

    title: ClassVar[str] = "configuration"

    def __post_init__(self) -> None:
        problems = Problems(self.title)
        types = field_types(type(self))
        for field in fields(self):
            value = getattr(self, field.name)
            problem = _problem(value, types[field.name], field.metadata)
            if problem:
                problems.add(f"{field.name} = {value!r}: {problem}")
            elif types[field.name] is float and isinstance(value, int):
                object.__setattr__(self, field.name, float(value))
        if not problems.found:
            self.check(problems)
        problems.raise_if_any(UsageError)

    def check(self, problems: Problems) -> None:
        """What single limits cannot say; subclasses add to `problems`."""

    @classmethod
    def from_dict(cls: type[C], values: Options) -> C:
        """Raises UsageError naming every unknown key and the nearest known one."""
        known = [field.name for field in fields(cls)]
        problems = Problems(cls.title)
        for key in values:
            if key not in known:
                problems.add(f"unknown key '{key}'.{nearest(str(key), known)}")
        problems.raise_if_any(UsageError)
        return cls(**values)

    def to_dict(self) -> Options:
        return {field.name: getattr(self, field.name) for field in fields(self)}

    def replace(self: C, **changes: Any) -> C:
        return self.from_dict({**self.to_dict(), **changes})


@dataclass(frozen=True)
class Range:
    """What a search may choose for an option: a number from low to high, or one of `choices`.

    log: whether it is drawn evenly in its logarithm.
    """

    low: float = 0.0
    high: float = 0.0
    log: bool = False
    choices: tuple[Any, ...] = ()


def field_types(config: type[Config]) -> dict[str, Any]:
    """The plain type of each field, `X | None` reduced to X."""
    out = {}
    for name, hint in typing.get_type_hints(config).items():
        plain = [t for t in typing.get_args(hint) if t is not type(None)]
        out[name] = plain[0] if plain and type(None) in typing.get_args(hint) else hint
    return out


def _problem(value: Any, kind: Any, limits: Any) -> str:
    """What is wrong with one value, in words; empty where nothing is."""
    if value is None or kind not in (bool, int, float, str):
        return ""
    if kind is bool and not isinstance(value, bool):
        return "must be true or false"
    if kind is str and not isinstance(value, str):
        return "must be text"
    if kind in (int, float):
        if (
            isinstance(value, bool)
            or not isinstance(value, (int, float))
            or (kind is int and not isinstance(value, int))
        ):
            return "must be a whole number" if kind is int else "must be a number"
        if not math.isfinite(value):
            return "must be finite"
    choices = limits.get("choices")
    if choices and value not in choices:
        return f"must be one of {', '.join(choices)}"
    for name, fails, words in (
        ("low", lambda a, b: a < b, "at least"),
        ("high", lambda a, b: a > b, "at most"),
        ("above", lambda a, b: a <= b, "above"),
        ("below", lambda a, b: a >= b, "below"),
    ):
        bound = limits.get(name)
        if bound is not None and fails(value, bound):
            return f"must be {words} {bound:g}"
    return ""


def parse_size(text: str) -> int:
    """Bytes of '512M', '4G' or a plain number. Raises UsageError for anything else."""
    units = {"": 1, "K": 1 << 10, "M": 1 << 20, "G": 1 << 30, "T": 1 << 40}
    digits = text.strip().upper().removesuffix("B").removesuffix("I")
    unit = digits[-1:] if digits[-1:].isalpha() else ""
    try:
        size = float(digits.removesuffix(unit)) * units[unit]
    except (ValueError, KeyError):
        raise UsageError(f"'{text}' is not a size; write it as 512M or 4G") from None
    if not 1 <= size < 1 << 60:
        raise UsageError(f"'{text}' is not a size; write it as 512M or 4G")
    return int(size)
