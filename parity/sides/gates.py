"""Stacked parameters by their gates, each compared for itself."""

from __future__ import annotations

import numpy as np

from mlx_lvm.parity.sides.trace import Outputs

GATES = {"lstm": ("i", "f", "g", "o"), "gru": ("r", "z", "n"), "in_proj": ("q", "k", "v")}


def split_gates(values: Outputs) -> Outputs:
    """Stacked parameters by their parts: `weight_ih_l0[f]`, `in_proj_bias[k]`."""
    out: Outputs = {}
    for name, value in values.items():
        gates = gates_of(name)
        parts = np.split(value, len(gates)) if gates else []
        out |= {f"{name}[{gate}]": part for gate, part in zip(gates, parts, strict=True)} or {name: value}
    return out


def gates_of(name: str) -> tuple[str, ...]:
    """The gates stacked in a parameter, in torch's order; none for any other parameter."""
    layer, _, last = name.rpartition(".")
    if last.startswith("in_proj"):
        return GATES["in_proj"]
    if last.startswith(("weight_ih", "weight_hh", "bias_ih", "bias_hh")):
        return GATES["gru" if layer.endswith("gru") else "lstm"]
    return ()
