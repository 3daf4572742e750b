"""Latent vector models: predict the embedding of a document's next chunk from the chunks before it.

>>> import mlx_lvm as lvm
>>> corpus = lvm.load_corpus("sotu")
>>> model = lvm.load("emn-rank")
>>> hits = model.rank(corpus["2016_barack_obama_d"].vectors[:30], corpus, top=3)

Importing this package costs nothing and changes nothing of the process; MLX loads with the first name that
needs it. On a Linux CPU a program is many times faster if it begins with `from mlx_lvm.core.linux_cpu import
tune; tune()`, as `lvm` does.
"""

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from mlx_lvm.api.corpus import Corpus, load_corpus
    from mlx_lvm.api.embedding import embed
    from mlx_lvm.api.handing_over import export
    from mlx_lvm.api.judging import compare, evaluate
    from mlx_lvm.api.model import Model, load
    from mlx_lvm.api.training import train

__version__ = "0.1.0"
__all__ = ["Corpus", "Model", "compare", "embed", "evaluate", "export", "load", "load_corpus", "train"]

_HOMES = {
    "Corpus": "corpus",
    "Model": "model",
    "compare": "judging",
    "embed": "embedding",
    "evaluate": "judging",
    "export": "handing_over",
    "load": "model",
    "load_corpus": "corpus",
    "train": "training",
}


def __getattr__(name: str) -> object:
    if name not in _HOMES:
        raise AttributeError(f"module '{__name__}' has no attribute '{name}'")
    from importlib import import_module

    return getattr(import_module(f"{__name__}.api.{_HOMES[name]}"), name)


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
