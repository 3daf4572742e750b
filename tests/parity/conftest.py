"""TF32 goes off before MLX's first operation, as `lvm parity` does it."""

from collections.abc import Iterator

import pytest

from mlx_lvm.parity.sides.setup import prepare

prepare()


@pytest.fixture(scope="session")
def corpora() -> Iterator[list]:
    from mlx_lvm.data.corpus import load_corpus

    yield [load_corpus(name) for name in ("sotu", "moby")]
