"""The torch twins, one file an architecture, written from the specification. MLX is not loaded here."""

from __future__ import annotations

from typing import TYPE_CHECKING

from mlx_lvm.core.plugins import classes, modules
from mlx_lvm.errors import SetupInvalid, UsageError, nearest

if TYPE_CHECKING:
    from mlx_lvm.parity.twins.base import Twin


def twin_class(name: str) -> type[Twin]:
    """The twin of an architecture. Raises UsageError where there is none, SetupInvalid for several."""
    from mlx_lvm.parity.twins.base import Twin

    known = modules(__name__, "twins")
    if name not in known:
        raise UsageError(f"no torch twin of model '{name}'.{nearest(str(name), list(known))}")
    found = [twin for twin in classes(known[name], Twin) if twin.model_type == name]
    if len(found) != 1:
        raise SetupInvalid(f"{known[name]}: {len(found)} twins with model_type '{name}'; expected one")
    return found[0]
