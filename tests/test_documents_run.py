"""What the documents, cards and examples show is run: each page in a folder of its own, from top to
bottom.
"""

import os
import re
import shlex
import shutil
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pytest

from .snippets import Snippet, missing, snippets

ROOT = Path(__file__).parent.parent
PAGES = [
    ROOT / "README.md",
    *sorted((ROOT / "docs").glob("*.md")),
    *sorted((ROOT / "weights").rglob("*.md")),
    ROOT / "CONTRIBUTING.md",
]
RUN_ELSEWHERE = re.compile("(train|tests), (mac|linux)$")  # word for word: tests/test_workflows.py
NOT_RUN = 6  # blocks that no test has what they need for; each says why
BELOW = "the program below"
TUNE = "from mlx_lvm.core.linux_cpu import tune; tune()\n"
# What a card leaves to its reader: a folder, and the vectors of some chunks.
CONTEXT = """import numpy as np
from mlx_lvm.core.mlx import mx
from mlx_lvm.data.corpus import load_corpus as _load
context = _load("sotu").take(np.arange(10).reshape(2, 5))
"""
# And what docs/parity.md leaves to its reader: a port of some model, and the model.
PORT = """import runpy, numpy as np
made = runpy.run_path("examples/check_a_port.py")
original = made["Original"]()
port = made["ported"](original, made["Port"]())
inputs = np.ones((2, 5, 32), np.float32) + np.arange(32, dtype=np.float32)
"""
pytestmark = pytest.mark.slow


@dataclass(frozen=True)
class Place:
    """A folder in which a page's commands run, and the environment that they see."""

    folder: Path
    environ: dict[str, str]

    def run(self, *command: str) -> str:
        ran = subprocess.run(
            command, cwd=self.folder, env=self.environ, capture_output=True, text=True, timeout=1200
        )
        assert ran.returncode == 0, f"{shlex.join(command)[:300]}\n{ran.stdout[-2000:]}\n{ran.stderr[-2000:]}"
        return ran.stdout + ran.stderr


@pytest.fixture(scope="module")
def hub_cache(minilm_folder: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A cache of the Hub in which somebody has fetched all-MiniLM-L6-v2."""
    home = tmp_path_factory.mktemp("hub")
    repository = home / "hub" / "models--sentence-transformers--all-MiniLM-L6-v2"
    (repository / "snapshots").mkdir(parents=True)
    (repository / "refs").mkdir()
    (repository / "snapshots" / ("0" * 40)).symlink_to(minilm_folder)
    (repository / "refs" / "main").write_text("0" * 40)
    return home


@pytest.fixture
def place(hub_cache: Path, tmp_path: Path) -> Place:
    """What a reader has: notes and a draft, examples, and somebody else's windows.npz."""
    shutil.copytree(ROOT / "examples", tmp_path / "examples")
    shutil.copytree(ROOT / "examples" / "notes", tmp_path / "notes")
    shutil.copy(ROOT / "examples" / "draft.md", tmp_path)
    shutil.copy(ROOT / "weights" / "moby.safetensors", tmp_path / "mine.safetensors")
    draw = np.random.default_rng(0)
    rows, ids = draw.normal(size=(900, 48)), np.repeat(np.arange(30), 30)
    np.savez(tmp_path / "windows.npz", emb=rows.astype(np.float32), docid=ids)
    path = f"{Path(sys.executable).parent}:{os.environ['PATH']}"
    hub = {"HF_HOME": str(hub_cache), "HF_HUB_OFFLINE": "1"}
    return Place(tmp_path, {**os.environ, "PATH": path, "COLUMNS": "160", **hub})


def to_run(page: Path) -> list[Snippet]:
    """The page's commands and programs, without those that run elsewhere or nowhere."""
    kept = [s for s in snippets(page) if s.language == "python" or s.commands]
    return [s for s in kept if not RUN_ELSEWHERE.match(s.mark) and not s.marked("not run")]


def run(snippet: Snippet, place: Place, shown: list[str]) -> None:
    """shown: lines that the page says this program prints."""
    if snippet.language == "python":
        program = snippet.text
        if snippet.page.parent.parent.name == "weights":
            program = CONTEXT + program.replace("FOLDER", str(snippet.page.parent))
        if "check(port" in program:
            program = PORT + program
        printed = place.run(sys.executable, "-c", (TUNE if "import tune" not in program else "") + program)
        assert not missing(shown, printed), f"{snippet} does not print\n{printed}"
        return
    for command in snippet.commands if snippet.language == "bash" else []:
        place.run("bash", "-euo", "pipefail", "-c", shorter(command, snippet))
    for command, lines in snippet.sessions:
        printed = place.run("bash", "-euo", "pipefail", "-c", shorter(command, snippet))
        assert not missing(lines, printed), f"{snippet}: {command} does not print\n{printed}"


def shorter(command: str, snippet: Snippet) -> str:
    options = snippet.marked("shorter")
    return f"{command} {options}" if options and " train " in command else command


@pytest.mark.parametrize(
    "page", [p for p in PAGES if to_run(p)], ids=lambda p: p.relative_to(ROOT).as_posix()
)
def test_a_page_does_what_it_shows(page: Path, place: Place) -> None:
    shown: list[str] = []
    for snippet in to_run(page):
        if snippet.marked("output of") == BELOW:
            shown = snippet.text.splitlines()
            continue
        run(snippet, place, shown)
        shown = [] if snippet.language == "python" else shown
    assert not shown, f"{page.name} has no program below what it shows"


def test_few_are_not_run_and_say_why() -> None:
    marked = [s for page in PAGES for s in snippets(page) if s.mark.startswith("not run")]
    assert len(marked) <= NOT_RUN and all(len(s.marked("not run").split()) > 3 for s in marked)


@pytest.mark.parametrize("example", sorted((ROOT / "examples").glob("*.py")), ids=lambda p: p.name)
def test_an_example_runs_and_is_short(example: Path, place: Place) -> None:
    written = [line for line in example.read_text("utf-8").splitlines() if line.strip()]
    assert len(written) <= 40
    assert place.run(sys.executable, str(place.folder / "examples" / example.name)).strip()


def test_the_notebook_runs(place: Place, monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("nbclient", reason="nbclient is not installed; the extra 'dev' has it")
    program = (
        "import nbformat, nbclient, sys\n"
        "notebook = nbformat.read(sys.argv[1], as_version=4)\n"
        "nbclient.NotebookClient(notebook, timeout=600).execute()\n"
        "print([o for c in notebook.cells for o in c.get('outputs', [])][-1]['data']['text/plain'])\n"
    )
    said = place.run(sys.executable, "-W", "ignore", "-c", program, "examples/tour.ipynb")
    assert re.search(r"\(0\.\d+, '(better|worse|level)'\)|outcome", said) or "0." in said
