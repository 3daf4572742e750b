"""An export of every model at its full size, loaded into the torch twins, gives the same
answers to 1e-6.
"""

from pathlib import Path

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from safetensors.torch import load_file

from mlx_lvm.core.mlx import mx
from mlx_lvm.data.corpus import Corpus
from mlx_lvm.data.windows import windows
from mlx_lvm.hub.export import write_model
from mlx_lvm.hub.load import Loaded, load_model


@pytest.mark.slow
@pytest.mark.parametrize("name", ["amn", "lstm", "gru", "transformer"])
def test_exports_agree_with_plain_torch(reference, sotu: Corpus, tmp_path: Path, name: str) -> None:
    config = reference.config(name)
    model, _ = reference.pair(config, seed=3)
    write_model(Loaded(model, name), tmp_path / name)

    twin = reference.twin(name, **config.to_dict()).eval()
    twin.load_state_dict(load_file(tmp_path / name / "model.safetensors"), strict=True)
    found = windows(sotu, np.arange(len(sotu.names)), 5)
    context = np.array(found.contexts(np.linspace(0, len(found) - 1, 64).astype(int)))
    ours = np.array(load_model(tmp_path / name).model(mx.array(context)).unit)
    with torch.no_grad():
        theirs = F.normalize(twin(torch.from_numpy(context)).raw, dim=-1).numpy()
    np.testing.assert_allclose(ours, theirs, rtol=0, atol=1e-6)
    assert np.abs(ours - np.roll(ours, 1, axis=0)).max() > 1e-3  # the windows are told apart
