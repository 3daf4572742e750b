"""report.html as a browser shows it: the verdict, the figures, on a wide screen, a phone and paper; no
request, no error.
"""

import json
import re
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from mlx_lvm.core.mlx import mx
from mlx_lvm.data.corpus import Corpus
from mlx_lvm.errors import SetupInvalid
from mlx_lvm.evaluation.evaluate import examine
from mlx_lvm.evaluation.report import plots
from mlx_lvm.evaluation.report.html import render
from mlx_lvm.evaluation.study.study import study
from mlx_lvm.hub.load import Loaded
from mlx_lvm.models import build, config_from_dict

from .browser import Page, find_browser

FIGURES = (
    "scores",
    "direction",
    "rollout",
    "difficulty",
    "ablations",
    "sets",
    "reliability",
    "attention",
    "training",
)
HISTORY = [{"epoch": e, "train_cosine": 0.5 + e / 20, "val_cosine": 0.55 + e / 50} for e in (1, 2, 3)]

chromium = pytest.mark.skipif(
    find_browser() is None, reason="no Chromium here (Debian: apt-get install chromium)"
)


@pytest.fixture(scope="module")
def result(small: Corpus) -> dict:
    mx.random.seed(3)
    model = build(
        config_from_dict({"model_type": "amn", "dim": small.dim, "attention_dim": 4, "hidden_dim": 8})
    )
    name = "<b>amn</b> & co"  # a run may be named so, and a page must not believe it
    evaluation = examine(
        Loaded(model, name, card=small.card, corpus_sha256=small.sha256), small, resamples=200
    )
    return {**evaluation.result, **study(evaluation)}


@pytest.fixture(scope="module")
def page_file(result: dict, tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("report") / "report.html"
    path.write_text(render(result, HISTORY, {"command": "lvm eval '<x>'"}), "utf-8")
    return path


@pytest.fixture(scope="module")
def page() -> Iterator[Page]:
    browser = find_browser()
    assert browser is not None
    with Page(browser) as opened:
        yield opened


def test_the_page_holds_every_number_and_no_address(result: dict, page_file: Path) -> None:
    text = page_file.read_text("utf-8")
    for name, entry in result["metrics"].items():
        assert f"{entry['cosine']:.4f}" in text, name
    assert result["corpus_sha256"] in text and "lvm eval &#x27;&lt;x&gt;&#x27;" in text
    assert "<b>amn</b>" not in text and "&lt;b&gt;amn&lt;/b&gt; &amp; co" in text
    addresses = set(re.findall(r"https?://[^\s\"'<>]+", text))
    assert addresses <= {"http://www.w3.org/2000/svg", "http://www.w3.org/1999/xlink"}
    assert not re.search(r"<script|<link rel=\"stylesheet|@import|url\((?!#)", text)
    ids = re.findall(r'\bid="([^"]+)"', text)
    assert len(ids) == len(set(ids))


@pytest.mark.slow
def test_the_same_evaluation_gives_the_same_page(result: dict) -> None:
    assert render(result, HISTORY) == render(result, HISTORY)


def test_several_chunks_ahead_and_a_query_are_drawn_where_a_model_has_them(small: Corpus) -> None:
    sizes = {"dim": small.dim, "rank": 8, "hidden_dim": 16, "horizons": 3, "queries": 0.5}
    mx.random.seed(0)
    evaluation = examine(
        Loaded(build(config_from_dict({"model_type": "ramn", **sizes})), "ramn", card=small.card),
        small,
        resamples=50,
    )
    result = {**evaluation.result, **study(evaluation)}
    page = render(result)
    ahead, own = result["horizons"]["gains"]["the best baseline"], result["queries"]["gains"]["own"]["mrr"]
    assert (
        'aria-label="Several chunks ahead, each predicted directly"' in page
        and 'aria-label="Given a query"' in page
    )
    assert f"At t+3: {result['horizons']['gains']['its rollout']['difference'][2]:+.4f} (" in page
    assert f"{ahead['difference'][2]:+.4f} (" in page and f"{own['difference']:+.4f} (" in page


def test_a_table_alone_makes_a_page(result: dict) -> None:
    quick = {
        key: value
        for key, value in result.items()
        if key not in ("direction", "rollout", "ablations", "difficulty", "attention", "cases")
    }
    text = render(json.loads(json.dumps(quick)))
    assert (
        'id="figure-scores"' in text
        and 'id="figure-direction"' not in text
        and 'id="figure-training"' not in text
    )


@pytest.mark.system
@chromium
@pytest.mark.parametrize(("width", "height"), [(1280, 900), (390, 844)])
def test_a_reader_sees_the_verdict_and_the_figures(
    page: Page, page_file: Path, result: dict, width: int, height: int
) -> None:
    page.resize(width, height)
    page.open(page_file)
    assert page.errors == []
    assert page.requests == [page_file.resolve().as_uri()]
    assert page.value("document.getElementById('verdict').innerText") == result["verdict"]["sentence"]
    top = page.value("document.getElementById('verdict').getBoundingClientRect().bottom")
    assert 0 < top < height  # on the first screen
    assert page.value("document.documentElement.scrollWidth") <= width  # wide tables scroll in their own box
    shown = page.value(
        "[...document.querySelectorAll('figure')].map(f => [f.id, "
        "f.querySelector('svg').getBoundingClientRect().width, "
        "f.querySelector('svg').getBoundingClientRect().height, f.querySelectorAll('svg path, svg "
        "use').length])"
    )
    assert [name for name, *_ in shown] == [f"figure-{name}" for name in FIGURES]
    for name, wide, high, drawn in shown:
        assert min(wide, high) > 0.4 * min(width, 400) and wide <= width and drawn > 10, name
    small_text = page.value(
        "Math.min(...[...document.querySelectorAll('svg text')].map(t => t.getBoundingClientRect()).map(r => "
        "Math.min(r.width, r.height)))"
    )
    assert small_text > 0  # every label is drawn
    assert (
        page.value(
            "[...document.querySelectorAll('#figure-attention svg text')].filter(t => "
            "/^0[.]\\d{3}$/.test(t.textContent)).length"
        )
        == 25
    )


@pytest.mark.system
@chromium
def test_on_paper(page: Page, page_file: Path) -> None:
    page.open(page_file)
    assert page.pdf().startswith(b"%PDF-")
    page.call("Emulation.setEmulatedMedia", media="print")
    page.resize(720, 1000)
    clipped = page.value(
        "[...document.querySelectorAll('.scroll')].filter(b => getComputedStyle(b).overflowX != "
        "'visible').length"
    )
    wide = page.value("document.documentElement.scrollWidth")
    page.call("Emulation.setEmulatedMedia", media="")
    assert clipped == 0 and wide <= 720


@pytest.mark.system
@chromium
def test_the_browser_test_can_fail(page: Page, page_file: Path, tmp_path: Path) -> None:
    """A picture from elsewhere, a script: both are refused by the page's own policy, and both are noticed."""
    text = page_file.read_text("utf-8")
    for planted in ('<img src="http://127.0.0.1:9/x.png">', "<script>console.log(1)</script>"):
        path = tmp_path / "planted.html"
        path.write_text(text.replace("</body>", planted + "</body>"), "utf-8")
        page.open(path)
        assert any("Content Security Policy" in error for error in page.errors), planted


def test_without_matplotlib(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "matplotlib", None)
    with pytest.raises(SetupInvalid, match=re.escape("pip install 'mlx-lvm[report]'")), plots.figure("x"):
        pass
