"""Errors a user can meet, each with the exit code the command line gives it.

An error names the thing, the value and the remedy. Problems found together are raised together: see
`Problems`.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path


class LvmError(Exception):
    """A mistake we expect: shown as one message, never as a traceback."""

    exit_code = 1


class CheckFailed(LvmError):
    """A check ran and said no."""

    exit_code = 1


class UsageError(LvmError):
    """An unknown name, an unknown key or a value out of range."""

    exit_code = 2


class InvalidFile(LvmError):
    """A file that cannot be read as what it should be, or that does not fit."""

    exit_code = 3


class SetupInvalid(LvmError):
    """A set-up in which a check would be worthless."""

    exit_code = 3


class IOFailed(LvmError):
    """Reading or writing failed: disk full, permission, lock."""

    exit_code = 4


class NonFiniteError(LvmError):
    """NaN or Inf in a loss, a gradient or a weight."""

    exit_code = 5


class Problems:
    """Collects every problem of one thing, so that a user fixes them in one go.

    >>> problems = Problems("corpus x.safetensors")
    >>> problems.add("row 3 is all zero")
    >>> problems.raise_if_any(InvalidFile)
    """

    LIMIT = 20

    def __init__(self, subject: str, found: Iterable[str] = ()) -> None:
        self.subject, self.found = subject, list(found)

    def add(self, problem: str) -> None:
        self.found.append(problem)

    def raise_if_any(self, kind: type[LvmError]) -> None:
        if not self.found:
            return
        if len(self.found) == 1:
            raise kind(f"{self.subject}: {self.found[0]}")
        shown = [f"  - {problem}" for problem in self.found[: self.LIMIT]]
        if len(self.found) > self.LIMIT:
            shown.append(f"  ... and {len(self.found) - self.LIMIT} more")
        raise kind("\n".join([f"{self.subject}: {len(self.found)} problems", *shown]))


@contextmanager
def writing(path: str | Path) -> Iterator[None]:
    """Turns the system's refusals into IOFailed, naming what was to be written."""
    try:
        yield
    except OSError as error:
        raise IOFailed(f"{path}: cannot be written ({reason(error)})") from error


@contextmanager
def needing(extra: str, what: str) -> Iterator[None]:
    """Imports of what an extra brings; what: who needs which library, in words.

    Raises SetupInvalid with the command that installs it where they fail.
    """
    try:
        yield
    except ImportError as error:
        raise SetupInvalid(f"{what} ({error}): pip install 'mlx-lvm[{extra}]'") from None


def one_line(error: Exception) -> str:
    """An exception of somebody else's in one line: its kind and the first line of what it says."""
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    return f"{type(error).__name__}: {lines[0][:200] if lines else ''}"


def reason(error: Exception) -> str:
    """Why the system refused, in its own words where it has some."""
    return getattr(error, "strerror", None) or str(error)


def nearest(word: str, known: list[str]) -> str:
    """` Did you mean 'amn'?` where a known name is close to `word`, else the names themselves."""
    import difflib

    close = difflib.get_close_matches(word, known, n=1, cutoff=0.5)
    return f" Did you mean '{close[0]}'?" if close else f" Known: {', '.join(sorted(known))}."
