"""Every fault planted to prove that the checks can fail: what a port gets wrong, each with whom to blame.

An architecture `name` brings its own in `faults/<name>.py`: a function `faults() -> Iterator[Fault]`, END,
its last layer ("output_proj" where it says nothing, "" where it has none), and UNIT, the places to blame for
a wrong unit vector.
"""

from __future__ import annotations

from mlx_lvm.core.plugins import load_module, modules
from mlx_lvm.models import architectures
from mlx_lvm.parity.faults.layers import output_faults, usual_faults
from mlx_lvm.parity.faults.planting import Fault


def all_faults() -> list[Fault]:
    """Every fault, equivalent ones included."""
    return [fault for model in architectures() for fault in faults_of(model)]


def faults_of(model: str) -> list[Fault]:
    """Of one architecture: the usual ones, then its own. Raises SetupInvalid where that file fails."""
    place = modules(__name__.rpartition(".")[0], "faults").get(model)
    own = load_module(place) if place else None
    last, unit = getattr(own, "END", "output_proj"), getattr(own, "UNIT", ("unit",))
    return [*usual_faults(model), *output_faults(model, last, unit), *(own.faults() if own else ())]
