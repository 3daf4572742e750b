"""Every fault that is planted to prove that the checks can fail: what a port gets wrong, each with the place to blame."""

from __future__ import annotations

from mlx_lvm.models import architectures
from mlx_lvm.parity.faults.documents import DOCUMENT_FAULTS
from mlx_lvm.parity.faults.emn import emn_faults
from mlx_lvm.parity.faults.layers import (
    gelu_faults,
    linear_faults,
    norm_faults,
    nudges,
    output_faults,
    roundings,
)
from mlx_lvm.parity.faults.models import (
    amn_faults,
    equivalents,
    filter_faults,
    ramn_faults,
    transformer_faults,
)
from mlx_lvm.parity.faults.planting import Fault, anyhow
from mlx_lvm.parity.faults.recurrent import gru_faults, lstm_faults
from mlx_lvm.parity.faults.training import TRAINING_FAULTS


def all_faults() -> list[Fault]:
    """Every fault, equivalent ones included."""
    found: list[Fault] = []
    for model in architectures():
        found += [
            *nudges(model),
            *roundings(model),
            *linear_faults(model),
            *norm_faults(model),
            *output_faults(model),
        ]
    found += [
        *gelu_faults(),
        *amn_faults(),
        *lstm_faults(),
        *gru_faults(),
        *transformer_faults(),
        *ramn_faults(),
        *emn_faults(),
        *filter_faults(),
        *equivalents(),
    ]
    found += [
        Fault(f"training: {name}", "amn", expect, anyhow(patch), "training")
        for name, expect, patch in TRAINING_FAULTS
    ]
    found += [
        Fault(f"training on documents: {fault.name}", "ramn", fault.expect, anyhow(fault.patch), "training")
        for fault in DOCUMENT_FAULTS
        if fault.head == "retrieve"
    ]
    return found
