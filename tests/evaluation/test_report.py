"""report.html as a browser shows it: the verdict, the figures, on a wide screen, a phone and paper; no
request, no error.
"""

import html
import re
import sys
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest

from mlx_lvm.core.mlx import mx
from mlx_lvm.data.corpus import Corpus
from mlx_lvm.errors import SetupInvalid
from mlx_lvm.evaluation.evaluate import examine
from mlx_lvm.evaluation.findings import Findings
from mlx_lvm.evaluation.report import drawing
from mlx_lvm.evaluation.report.html import render
from mlx_lvm.evaluation.study.study import study
from mlx_lvm.hub.load import Loaded
from mlx_lvm.models import build, config_from_dict

from .browser import Page, find_browser

NAME = r"""_<b>amn</b> & $\frac{1} \1 "co" 日本"""
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

# The least contrast of the text of all elements of a selector with what is behind it.
CONTRAST = """Math.min(...[...document.querySelectorAll('%s')].map(e => {
  const parse = c => (c.match(/[\\d.]+/g) || []).map(Number);
  let at = e, back = [0, 0, 0, 0];
  while (at && !(back.length == 3 || back[3] > 0)) {
    back = parse(getComputedStyle(at).backgroundColor); at = at.parentElement; }
  const linear = v => (v /= 255) <= 0.03928 ? v / 12.92 : ((v + 0.055) / 1.055) ** 2.4;
  const light = c => { const [r, g, b] = c.slice(0, 3).map(linear);
    return 0.2126 * r + 0.7152 * g + 0.0722 * b; };
  const [a, b] = [light(parse(getComputedStyle(e).color)), light(back)].sort((x, y) => y - x);
  return (a + 0.05) / (b + 0.05); }))"""

chromium = pytest.mark.skipif(
    find_browser() is None, reason="no Chromium here (Debian: apt-get install chromium)"
)


@pytest.fixture(scope="module")
def findings(small: Corpus) -> Findings:
    mx.random.seed(3)
    model = build(
        config_from_dict({"model_type": "amn", "dim": small.dim, "attention_dim": 4, "hidden_dim": 8})
    )
    # A run may be named so: neither a page nor a picture may believe it, as HTML, TeX or a pattern.
    name = NAME
    evaluation = examine(
        Loaded(model, name, card=small.card, corpus_sha256=small.sha256), small, resamples=200
    )
    return Findings(evaluation, study(evaluation))


@pytest.fixture(scope="module")
def result(findings: Findings) -> dict:
    return findings.to_dict()


@pytest.fixture(scope="module")
def page_file(findings: Findings, tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("report") / "report.html"
    path.write_text(render(findings, HISTORY, {"This evaluation": {"command": "lvm eval '<x>'"}}), "utf-8")
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
    assert all(html.escape(sentence) in text for sentence in result["verdict"]["sentences"])
    assert result["corpus_sha256"] in text and "lvm eval &#x27;&lt;x&gt;&#x27;" in text
    assert "<b>amn</b>" not in text and html.escape(NAME, quote=True) in text
    assert r"&lt;b&gt;amn&lt;/b&gt; &amp; $\frac{1} \1 " in text[text.index("<svg") :]  # in pictures too
    addresses = set(re.findall(r"https?://[^\s\"'<>]+", text))
    assert addresses <= {"http://www.w3.org/2000/svg", "http://www.w3.org/1999/xlink"}
    assert not re.search(r"<script|<link rel=\"stylesheet|@import|url\((?!#)", text)
    ids = re.findall(r'\bid="([^"]+)"', text)
    assert len(ids) == len(set(ids))


@pytest.mark.slow
def test_the_same_evaluation_gives_the_same_page(findings: Findings) -> None:
    assert render(findings, HISTORY) == render(findings, HISTORY)


def test_several_chunks_ahead_and_a_query_are_drawn_where_a_model_has_them(small: Corpus) -> None:
    sizes = {"dim": small.dim, "rank": 8, "hidden_dim": 16, "horizons": 3, "queries": 0.5}
    mx.random.seed(0)
    evaluation = examine(
        Loaded(build(config_from_dict({"model_type": "ramn", **sizes})), "ramn", card=small.card),
        small,
        resamples=50,
    )
    findings = Findings(evaluation, study(evaluation))
    page, result = render(findings), findings.to_dict()
    ahead, own = result["horizons"]["gains"]["the best baseline"], result["queries"]["gains"]["own"]["mrr"]
    assert (
        'aria-label="Several chunks ahead, each predicted directly"' in page
        and 'aria-label="Given a query"' in page
    )
    assert f"At t+3: {result['horizons']['gains']['its rollout']['difference'][2]:+.4f} (" in page
    assert f"{ahead['difference'][2]:+.4f} (" in page and f"{own['difference']:+.4f} (" in page


def test_a_table_alone_makes_a_page(findings: Findings) -> None:
    text = render(Findings(findings.evaluation))
    assert (
        'id="figure-scores"' in text
        and 'id="figure-direction"' not in text
        and 'id="figure-training"' not in text
    )


@pytest.mark.system
@chromium
@pytest.mark.parametrize("scheme", ["light", "dark"])
@pytest.mark.parametrize(("width", "height"), [(1280, 900), (768, 1024), (360, 740)])
def test_a_reader_sees_the_verdict_and_the_figures(
    page: Page, page_file: Path, result: dict, width: int, height: int, scheme: str
) -> None:
    page.call("Emulation.setEmulatedMedia", features=[{"name": "prefers-color-scheme", "value": scheme}])
    page.resize(width, height)
    page.open(page_file)
    assert page.errors == []
    assert page.requests == [page_file.resolve().as_uri()]
    assert page.value("document.getElementById('verdict').textContent") == result["verdict"]["headline"]
    top = page.value("document.querySelector('.verdict').getBoundingClientRect().bottom")
    assert 0 < top < height  # on the first screen, with its picture
    claims = page.value(
        "[...document.querySelectorAll('.claims svg')]"
        ".map(s => [s.getAttribute('aria-label'), s.getBoundingClientRect().width])"
    )
    assert [label for label, _ in claims] == result["verdict"]["sentences"]
    assert all(wide > 90 for _, wide in claims)
    # Everything is legible: no text nearer to its background than WCAG's 4.5 to 1.
    for part in (
        "h1",
        "#verdict",
        ".claims .value",
        ".lead",
        "td",
        "tr.control td",
        "figcaption",
        ".provenance th",
    ):
        assert page.value(CONTRAST % part) >= 4.5, part
    ink = page.value(
        "getComputedStyle(document.querySelector('svg.figure .ytick text, svg.figure text')).fill"
    )
    assert sum(map(int, re.findall(r"\d+", ink)[:3])) > 3 * 128 if scheme == "dark" else True
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
    cut = page.value(
        "[...document.querySelectorAll('p, h1, h2, h3, figcaption, .claims > *, .provenance td')]"
        ".filter(e => e.scrollWidth > e.clientWidth + 1 && getComputedStyle(e).display != 'inline').length"
    )
    assert cut == 0
    assert (
        page.value(
            "[...document.querySelectorAll('#figure-attention svg text')].filter(t => "
            "/^0[.]\\d{3}$/.test(t.textContent)).length"
        )
        == 25
    )


def test_a_model_made_for_ranking_is_shown_by_ranking(small: Corpus) -> None:
    """Its verdict, the order of tables, the figures and the cases are in MRR; its cosine comes last."""
    mx.random.seed(0)
    sizes = {"model_type": "ramn", "head": "retrieve", "dim": small.dim, "rank": 8, "hidden_dim": 8}
    model = build(config_from_dict(sizes))
    evaluation = examine(
        Loaded(model, "r", card=small.card, corpus_sha256=small.sha256), small, resamples=100
    )
    findings = Findings(evaluation, study(evaluation))
    result = findings.to_dict()
    history = [{"epoch": e, "train_cosine": 0.1, "val_cosine": 0.1, "val_mrr": 0.2 + e / 100} for e in (1, 2)]
    text = render(findings, history)
    cut = text.index("How its vector behaves, which it is not made for")
    before, after = text[:cut], text[cut:]
    for key in ("scores", "difficulty", "ablations", "sets", "training"):
        assert f'id="figure-{key}"' in before
        picture = before[before.index(f'id="figure-{key}"') :].split("</figure>")[0]
        assert "cosine" not in re.sub(r"cos\(next, last\)", "", picture), key
    for key in ("direction", "rollout", "reliability"):
        assert f'id="figure-{key}"' in after
    claims = re.findall(r'aria-label="(r is [^"]+)"', before)
    assert [" in MRR: " in claims[0], " in R@5: " in claims[1]] == [True, True] and len(claims) == 2
    assert "r ranks the true next chunk" in before and " in cosine: " not in before
    heads = [re.findall(r"<th[^>]*>([^<]*)</th>", head) for head in re.findall(r"<thead>.*?</thead>", text)]
    assert all(head[1] == "MRR" for head in heads[:2]) and len(heads) == 2
    first = [float(value) for value in re.findall(r"<tr class=\"\w*\"><th>[^<]*</th><td>([\d.]+)", after)]
    assert first[:-3] == sorted(first[:-3], reverse=True)  # the whole table, but for the controls
    assert "in MRR</h2>" in after
    found = result["difficulty"]
    assert found["metric"] == "mrr" and found["against"] == result["best_closed_form"]["centred.mrr"]
    weights = [one["windows"] for one in found["bins"]]
    assert np.average([one["mrr"]["r"] for one in found["bins"]], weights=weights) == pytest.approx(
        result["metrics"]["r"]["centred"]["mrr"]
    )
    assert (
        result["cases"]["against"] == found["against"]
        and "mrr" in (result["cases"]["gains"] + result["cases"]["losses"])[0]
    )


def test_provenance_is_a_table(findings: Findings, result: dict) -> None:
    about = {
        "Training": {"lr": 5e-4, "corpus": "c", "start_from": "", "flag": True},
        "Encoder": {"model": "m", "revision": None},
    }
    text = render(findings, (), about)
    part = text[text.index("Where this comes from") :]
    rows = re.findall(r"<tr><th>([^<]*)</th><td><code>([^<]*)</code></td></tr>", part)
    facts = dict(rows)
    assert facts["lr"] == "0.0005" and facts["flag"] == "yes" and facts["model"] == "m"
    assert "start_from" not in facts and "revision" not in facts  # nothing to say
    assert facts["recency, decay"] == f"{result['hyper_parameters']['recency']['decay']:.4g}"
    assert not any(set("{}[]") & set(value) for _, value in rows)
    assert part.index("Training") < part.index(">lr<") < part.index("Encoder") < part.index(">model<")


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
    with pytest.raises(SetupInvalid, match=re.escape("pip install 'mlx-lvm[report]'")), drawing.figure("x"):
        pass
