"""The architectures by name: every module of this package, and of `models/` of packages that were added.

An architecture `name` is three files: `models/<name>.py` with its model, `parity/twins/<name>.py` with its
torch twin, `parity/faults/<name>.py` with the faults that parity must find. What a long one keeps in files
alongside (`<name>_config.py`) defines no model, so it is none. Everything else asks the classes.
"""

from __future__ import annotations

from collections.abc import Mapping
from functools import cache
from types import MappingProxyType

from mlx_lvm.config import Options
from mlx_lvm.core.plugins import classes, modules, packages
from mlx_lvm.errors import SetupInvalid, UsageError, nearest
from mlx_lvm.models.base import ModelConfig, VectorModel


def architectures() -> Mapping[str, type[VectorModel]]:
    """Every architecture's class by its model type, in alphabetical order."""
    return _found(packages())


def trained() -> tuple[str, ...]:
    """The architectures that are trained, not fitted."""
    return tuple(name for name, model in architectures().items() if model.task != "fitted")


def architecture(name: str) -> type[VectorModel]:
    """Raises UsageError naming the nearest architecture where there is no `name`."""
    known = architectures()
    if name not in known:
        raise UsageError(f"unknown model '{name}'.{nearest(name, list(known))}")
    return known[name]


def config_from_dict(values: Options) -> ModelConfig:
    """The config that `as_dict` wrote; `model_type` says which."""
    if not isinstance(values, dict):
        raise UsageError(f"model config: 'model' is {values!r}; expected a table with 'model_type'")
    rest = dict(values)
    name = rest.pop("model_type", None)
    if not isinstance(name, str):
        known = ", ".join(architectures())
        raise UsageError(f"model config: 'model_type' is {name!r}; expected one of {known}")
    return architecture(name).config_class.from_dict(rest)


def build(config: ModelConfig) -> VectorModel:
    """A model with torch's initial laws, drawn from `mx.random`'s current state."""
    return architecture(config.model_type)(config)


@cache
def _found(added: tuple[str, ...]) -> Mapping[str, type[VectorModel]]:
    own = __name__.rpartition(".")[0]
    out = {}
    for name, module in sorted(modules(own, "models").items()):
        if module == __name__:
            continue
        named = [model for model in classes(module, VectorModel) if model.config_class.model_type == name]
        if len(named) == 1:
            out[name] = named[0]
        elif not module.startswith(own):
            raise SetupInvalid(f"{module}: defines no model whose config has model_type '{name}'")
    return MappingProxyType(out)
