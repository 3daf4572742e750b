"""Every option of a training run, declared once: field, flag, TOML key and entry of `config.json`."""

from __future__ import annotations

import re
from dataclasses import dataclass, fields
from functools import partial
from typing import ClassVar

from mlx_lvm.config import Config, Options, Range, option, parse_size
from mlx_lvm.errors import Problems, UsageError, nearest
from mlx_lvm.models import ModelConfig, architecture, architectures

SCRATCH = "scratch"  # a value of --from: weights drawn anew
LOSSES = ("mse", "cosine", "infonce", "moment", "variance")

# Options by the panel of a command's help that they stand in.
data_option = partial(option, group="Data")
training_option = partial(option, group="Training")
loss_option = partial(option, group="Losses")
checkpoint_option = partial(option, group="Checkpoints")


@dataclass(frozen=True)
class TrainConfig(Config):
    title: ClassVar[str] = "training options"

    corpus: str = data_option("sotu", "shipped corpus by name (sotu, moby) or a corpus file")
    context: int = data_option(5, "chunks that a window reads", low=1, high=100)
    split_seed: int = data_option(0, "seed of the split of documents into train, val and test", low=0)
    memory: str = data_option(
        "auto",
        "for the corpus's vectors (4G): a larger one is streamed in blocks that fit, and a quarter of it may "
        "be kept of freed arrays; auto is half the machine's",
    )

    epochs: int = training_option(20, "passes over the training windows", low=1)
    batch_size: int = training_option(32, "windows in a step", low=1)
    seed: int = training_option(
        0, "seed of the weights, the order of batches and dropout", low=0, high=2**31 - 1
    )
    lr: float = training_option(5e-4, "learning rate", above=0, high=10)
    weight_decay: float = training_option(0.01, "decoupled weight decay", low=0, below=1e3)
    clip: float = training_option(1.0, "largest norm of the gradient; 0 switches clipping off", low=0)
    plateau_factor: float = training_option(
        0.5, "what a plateau multiplies the learning rate by", above=0, below=1
    )
    plateau_patience: int = training_option(3, "epochs without a better validation loss before that", low=0)
    early_stop: int = training_option(
        0, "stop after this many epochs without a better validation cosine; 0 never stops", low=0
    )
    precision: str = training_option(
        "float32",
        "forward and backward pass in float32, in tf32 (float32 whose products round their inputs to 10 "
        "bits, on an M5 or an NVIDIA GPU) or in bfloat16; weights, loss and optimiser stay float32",
        choices=("float32", "tf32", "bfloat16"),
    )
    start_from: str = training_option(
        "",
        "weights to begin from: a released model, a run or a file of the same architecture; scratch draws "
        "them anew. emn begins with its released network unless told otherwise, any other is drawn",
    )
    residual_init: str = training_option(
        "zero",
        "AMN's last layer: zero starts the model at its own baseline, torch draws it",
        choices=("zero", "torch"),
    )

    loss_mse: float = loss_option(1.0, "weight of the mean squared error of the raw prediction", low=0)
    loss_cosine: float = loss_option(0.0, "weight of 1 - cosine", low=0)
    loss_infonce: float = loss_option(
        0.0, "weight of InfoNCE, symmetric, against the other targets of the batch", low=0
    )
    loss_moment: float = loss_option(0.0, "weight of matching the batch's mean and variance", low=0)
    loss_variance: float = loss_option(0.0, "weight of the hinge that keeps the batch's spread", low=0)
    temperature: float = loss_option(0.07, "temperature of InfoNCE", above=0)

    checkpoint_every: str = checkpoint_option(
        "0", "also write a checkpoint every so many steps (200) or so often (30s, 5m, 1h)"
    )
    keep_every: int = checkpoint_option(
        0, "besides the last and the best, keep every k-th epoch's checkpoint; 0 keeps none", low=0
    )

    def check(self, problems: Problems) -> None:
        try:
            Every.parse(self.checkpoint_every)
        except UsageError as error:
            problems.add(str(error))
        try:
            self.memory == "auto" or parse_size(self.memory)
        except UsageError as error:
            problems.add(f"memory: {error}")
        if not any(self.loss_weights().values()):
            named = ", ".join(f"loss_{name}" for name in LOSSES)
            problems.add(f"all loss weights are zero: the model would learn nothing. Set one of {named}")

    def memory_bytes(self) -> int | None:
        """What `memory` names; None for auto."""
        return None if self.memory == "auto" else parse_size(self.memory)

    def loss_weights(self) -> dict[str, float]:
        return {name: getattr(self, f"loss_{name}") for name in LOSSES}


# Options that change how far a run goes and what it keeps, but no number that it computes: a run may be
# resumed with others.
CHANGEABLE = ("epochs", "early_stop", "checkpoint_every", "keep_every")


@dataclass(frozen=True)
class Every:
    """When a checkpoint is due besides at an epoch's end: every so many steps, or seconds; zero is never."""

    steps: int = 0
    seconds: int = 0

    @classmethod
    def parse(cls, text: str) -> Every:
        """Raises UsageError for anything but "200", "30s", "5m" or "1h"."""
        match = re.fullmatch(r"([0-9]{1,9})([smh]?)", text.strip())
        if match is None:
            raise UsageError(
                f"checkpoint_every = '{text}': expected steps (200) or a time (30s, 5m, 1h); 0 is each "
                "epoch's end only"
            )
        number, unit = int(match.group(1)), match.group(2)
        return cls(seconds=number * {"s": 1, "m": 60, "h": 3600}[unit]) if unit else cls(steps=number)


# The search of `lvm tune` over training options; a model's own options are `VectorModel.search`. Not
# `context`: it decides which windows validation has, so that results with two contexts do not compare.
SEARCH: dict[str, Range] = {
    "lr": Range(1e-5, 3e-3, log=True),
    "weight_decay": Range(1e-3, 1.0, log=True),
    "batch_size": Range(choices=(16, 32, 64, 128)),
    "loss_cosine": Range(choices=(0.0, 0.1, 1.0, 10.0)),
    "loss_infonce": Range(choices=(0.0, 0.01, 0.1)),
}

# What a preset sets against the defaults above, which are those of the research project these models come
# from: `seed` is that recipe. `best`, the default, is the one that measured best on validation documents
# (docs/results.md); what it sets besides for one architecture stands in that model's `recipes`.
PRESETS: dict[str, Options] = {
    "best": {"loss_cosine": 1.0, "early_stop": 5},
    "seed": {"residual_init": "torch"},
}


def preset(name: str, config: ModelConfig) -> tuple[Options, Options]:
    """(training options, options of the model) that a preset sets for a model.

    Raises UsageError naming the nearest preset, or where the preset is not a recipe of that architecture.
    """
    if name not in PRESETS:
        raise UsageError(f"unknown preset '{name}'.{nearest(name, list(PRESETS))}")
    model = architecture(config.model_type)
    if name not in model.presets:
        known = f"which has {', '.join(model.presets)}; omit --preset"
        raise UsageError(f"preset '{name}' is not a recipe of {config.variant}, {known}")
    values = {**PRESETS[name], **(model.recipes.get(config.variant, {}) if name == "best" else {})}
    train = {key: values.pop(key) for key in [field.name for field in fields(TrainConfig)] if key in values}
    return train, values


def presets_of(option: str) -> str:
    """What the presets set an option to, for its help: "; best: 5, ramn 0"."""
    out = ""
    for name, changed in PRESETS.items():
        values = [str(changed[option])] if option in changed else []
        if name == "best":
            recipes = [recipe for model in architectures().values() for recipe in model.recipes.items()]
            values += [f"{variant} {own[option]}" for variant, own in recipes if option in own]
        out += f"; {name}: {', '.join(values)}" if values else ""
    return out
