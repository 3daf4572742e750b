"""Every option of a training run, declared once: field, command-line flag, TOML key and entry of `config.json`."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, ClassVar

from mlx_lvm.config import Config, option
from mlx_lvm.errors import Problems, UsageError, nearest

LOSSES = ("mse", "cosine", "infonce", "moment", "variance")


@dataclass(frozen=True)
class TrainConfig(Config):
    title: ClassVar[str] = "training options"

    corpus: str = option("sotu", "shipped corpus by name (sotu, moby) or a corpus file", group="Data")
    context: int = option(5, "chunks that a window reads", low=1, high=100, group="Data")
    split_seed: int = option(0, "seed of the split of documents into train, val and test", low=0, group="Data")

    epochs: int = option(20, "passes over the training windows", low=1, group="Training")
    batch_size: int = option(32, "windows in a step", low=1, group="Training")
    seed: int = option(0, "seed of the weights, the order of batches and dropout", low=0, high=2**31 - 1, group="Training")
    lr: float = option(5e-4, "learning rate", above=0, high=10, group="Training")
    weight_decay: float = option(0.01, "decoupled weight decay", low=0, below=1e3, group="Training")
    clip: float = option(1.0, "largest norm of the gradient; 0 switches clipping off", low=0, group="Training")
    plateau_factor: float = option(0.5, "what a plateau multiplies the learning rate by", above=0, below=1, group="Training")
    plateau_patience: int = option(3, "epochs without a better validation loss before that", low=0, group="Training")
    early_stop: int = option(0, "stop after this many epochs without a better validation cosine; 0 never stops", low=0, group="Training")
    residual_init: str = option(
        "zero", "AMN's last layer: zero starts the model at its own baseline, torch draws it", choices=("zero", "torch"), group="Training"
    )

    loss_mse: float = option(1.0, "weight of the mean squared error of the raw prediction", low=0, group="Losses")
    loss_cosine: float = option(0.0, "weight of 1 - cosine", low=0, group="Losses")
    loss_infonce: float = option(0.0, "weight of InfoNCE, symmetric, against the other targets of the batch", low=0, group="Losses")
    loss_moment: float = option(0.0, "weight of matching the batch's mean and variance", low=0, group="Losses")
    loss_variance: float = option(0.0, "weight of the hinge that keeps the batch's spread", low=0, group="Losses")
    temperature: float = option(0.07, "temperature of InfoNCE", above=0, group="Losses")

    def check(self, problems: Problems) -> None:
        if not any(self.loss_weights().values()):
            problems.add(f"all loss weights are zero: the model would learn nothing. Set one of {', '.join('loss_' + n for n in LOSSES)}")

    def loss_weights(self) -> dict[str, float]:
        return {name: getattr(self, f"loss_{name}") for name in LOSSES}


# What a preset sets against the defaults above, which are those of the research project these models come from: `seed`
# is that recipe. `best`, the default, is the one that measured best on validation documents (see the README).
PRESETS: dict[str, dict[str, Any]] = {
    "best": {"lr": 3e-5, "loss_cosine": 1.0, "early_stop": 5},
    "seed": {"residual_init": "torch"},
}


def preset(name: str) -> dict[str, Any]:
    """Raises UsageError naming the nearest preset."""
    if name not in PRESETS:
        raise UsageError(f"unknown preset '{name}'.{nearest(name, list(PRESETS))}")
    return PRESETS[name]
