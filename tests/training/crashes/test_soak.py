"""A long training keeps its memory and its open files. `pytest -m long tests/training/test_soak.py`: 10,000
steps, 1,000 saves.

Small batches, so that steps and saves are many and epochs few: each epoch adds a record to the history, about
3 kB that a training keeps on purpose. With 1,666 epochs in 10,000 steps that alone is 4% of this small
process.
"""

import json
import subprocess
import sys
from pathlib import Path

import pytest

SOAK = """
import json, os, sys
from pathlib import Path
from mlx_lvm.core.linux_cpu import tune; tune()
from mlx_lvm.training.config import TrainConfig
from mlx_lvm.training.session import start_run

corpus, folder, steps = sys.argv[1], Path(sys.argv[2]), int(sys.argv[3])
options = TrainConfig(corpus=corpus, epochs=10**6, batch_size=4, checkpoint_every="10")
trainer = start_run("amn", {"attention_dim": 8, "hidden_dim": 16}, options, folder)
saves, seen, save = 0, [], trainer.save

def counted(pointers):
    global saves
    saves += 1
    save(pointers)

def stop():
    count = trainer.state.count
    if count % (steps // 10) == 0:
        pages = int(Path("/proc/self/statm").read_text().split()[1])
        seen.append([count, pages * os.sysconf("SC_PAGE_SIZE"), len(os.listdir("/proc/self/fd"))])
    return count >= steps

trainer.save = counted
trainer.train(stop=stop)
print(json.dumps({"saves": saves, "seen": seen, "left": len(list((folder / "checkpoints").iterdir()))}))
"""


@pytest.mark.skipif(not Path("/proc/self/statm").exists(), reason="reads /proc")
@pytest.mark.parametrize("steps", [300, pytest.param(10_000, marks=pytest.mark.long)])
def test_memory_and_files_do_not_grow(tmp_path: Path, small_file: Path, steps: int) -> None:
    command = [sys.executable, "-c", SOAK, str(small_file), str(tmp_path / "run"), str(steps)]
    out = subprocess.run(command, capture_output=True, text=True, timeout=1800)
    assert out.returncode == 0, out.stderr
    found = json.loads(out.stdout)
    assert found["saves"] >= steps / 10 and found["left"] <= 4
    early, late = found["seen"][1], found["seen"][-1]
    allowed = 1.02 if steps > 1000 else 1.10  # a short run is still filling its caches
    assert late[1] <= allowed * early[1] and late[2] <= early[2], found["seen"]
