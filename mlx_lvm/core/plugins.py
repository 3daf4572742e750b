"""Packages that bring architectures of their own, and the modules found in them by name.

A package that takes part lies as this library does: `<package>/models/<type>.py`, and for parity
`<package>/twins/<type>.py` and `<package>/faults/<type>.py`. It is found by an entry point of its
distribution,

    [project.entry-points."mlx_lvm.architectures"]
    anything = "package"

or by `add_package("package")` in a program. Neither MLX nor torch is loaded here.
"""

from __future__ import annotations

import pkgutil
from contextlib import suppress
from functools import cache
from importlib import import_module, util
from importlib.metadata import entry_points
from types import ModuleType
from typing import TypeVar

from mlx_lvm.errors import SetupInvalid

T = TypeVar("T")

GROUP = "mlx_lvm.architectures"

_added: list[str] = []


def add_package(name: str) -> None:
    """Look for architectures in the package `name` too. Raises SetupInvalid where Python does not find it."""
    _require(name)
    if name not in _added:
        _added.append(name)


def remove_package(name: str) -> None:
    """Forget a package that `add_package` named; one named by an entry point stays."""
    if name in _added:
        _added.remove(name)


def packages() -> tuple[str, ...]:
    """The packages besides this library, each once: those of entry points, then those of `add_package`."""
    return tuple(dict.fromkeys([*_installed(), *_added]))


def modules(own: str, room: str) -> dict[str, str]:
    """Full module names by their last part: of the package `own`, and of each other's folder `room`.

    A name that `own` has stays its own. Nothing is imported but the packages themselves.
    """
    found: dict[str, str] = {}
    for place in [own, *(f"{package}.{room}" for package in packages())]:
        if util.find_spec(place) is None:
            continue
        for module in pkgutil.iter_modules(import_module(place).__path__):
            found.setdefault(module.name, f"{place}.{module.name}")
    return found


def classes(module: str, kind: type[T]) -> list[type[T]]:
    """The classes derived from `kind` that `module` defines. Raises SetupInvalid where it does not import."""
    found = [value for value in vars(load_module(module)).values() if isinstance(value, type)]
    return [c for c in found if issubclass(c, kind) and c is not kind and c.__module__ == module]


def load_module(module: str) -> ModuleType:
    """The module, imported. Raises SetupInvalid naming it where a package from elsewhere does not import."""
    if module.partition(".")[0] not in packages():
        return import_module(module)
    try:
        return import_module(module)
    except Exception as error:  # somebody else's code: whatever it raises, the user learns whose it was
        raise SetupInvalid(f"{module}: does not import ({type(error).__name__}: {error})") from error


def _require(name: str) -> None:
    with suppress(ModuleNotFoundError):
        if util.find_spec(name) is not None:
            return
    raise SetupInvalid(f"no package '{name}' where Python looks; install it, or put its folder on PYTHONPATH")


@cache
def _installed() -> tuple[str, ...]:
    names = tuple(point.value for point in entry_points(group=GROUP))
    for name in names:
        _require(name)
    return names
