"""The documents: a README that one reads, no link to what is not there, no command that `lvm` does not
have.
"""

import re
import shlex
from pathlib import Path
from typing import Any

import pytest
import typer

from mlx_lvm.cli.main import COMMANDS, app

from .snippets import agrees, inline_commands, missing, snippets

ROOT = Path(__file__).parent.parent
PAGES = [
    *(ROOT / name for name in ("README.md", "CONTRIBUTING.md")),
    *sorted((ROOT / "docs").glob("*.md")),
    *sorted((ROOT / "weights").rglob("*.md")),
]
QUESTIONS = {  # of an outsider: what the README links to, and the words that answer there
    "how do I use it from Python": ("docs/python.md", "import mlx_lvm as lvm"),
    "can I push it": ("docs/python.md#to-and-from-the-hub", "push_to_hub"),
    "does it work with my encoder": ("docs/corpora.md", "sentence-transformers folder"),
    "how good is it": ("docs/results.md", "95% interval"),
    "how do I add a model": ("CONTRIBUTING.md#add-an-architecture", "mlx_lvm/models/"),
}

every_page = pytest.mark.parametrize("page", PAGES, ids=lambda page: page.relative_to(ROOT).as_posix())


def anchors(page: Path) -> set[str]:
    """The anchors that GitHub makes of a page's headings."""
    headings = re.findall(r"^#+ (.*)$", page.read_text("utf-8"), re.M)
    return {re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-") for heading in headings}


@every_page
def test_every_link_leads_somewhere(page: Path) -> None:
    text = re.sub(r"```.*?```", "", page.read_text("utf-8"), flags=re.S)
    for link in re.findall(r"\]\(([^)\s]+)\)", text):
        if link.startswith(("http://", "https://")):
            continue
        name, _, anchor = link.partition("#")
        target = page if not name else page.parent / name
        assert target.exists(), f"{page.name} links to {link}"
        assert not anchor or anchor in anchors(target), f"{page.name} links to {link}: no such heading"
    for name in re.findall(r"`(docs/[\w./]+|benchmarks/[\w./]+)`", text):
        assert (ROOT / name).exists(), f"{page.name} names {name}"


def test_the_readme_is_short() -> None:
    text = (ROOT / "README.md").read_text("utf-8")
    assert len(text.splitlines()) <= 180 and len(text.encode()) <= 10_000


@pytest.mark.parametrize("question", QUESTIONS)
def test_an_outsider_s_question_is_one_click_away(question: str) -> None:
    link, words = QUESTIONS[question]
    assert f"]({link})" in (ROOT / "README.md").read_text("utf-8")
    assert words in (ROOT / link.partition("#")[0]).read_text("utf-8")


def problem(command: str) -> str:
    """Why `lvm` would refuse a command of a document; empty where it would not. What is missing may be left
    away.
    """
    words = shlex.split(re.split(r" [|>&] ?", command)[0], comments=True)[1:]
    found: Any = typer.main.get_command(app)
    context, name = None, "lvm"
    if words[0] in {option for parameter in found.params for option in parameter.opts}:
        return ""
    try:
        while hasattr(found, "resolve_command") and words:
            context = found.make_context(name, words[:1], parent=context, resilient_parsing=True)
            context.resilient_parsing = False
            name, found, words = found.resolve_command(context, words)
        found.make_context(name, words)
    except Exception as error:  # typer's click or one of its own, as the version has it
        kind = type(error).__name__
        if kind not in ("MissingParameter", "Exit", "NoArgsIsHelpError"):
            return f"{kind}: {error}"
    except SystemExit:
        pass
    return ""


@every_page
def test_every_command_is_one_that_lvm_has(page: Path) -> None:
    shown = inline_commands(page)
    for block in snippets(page):
        shown += [c.split(" -- ")[-1] for c in block.commands if re.match(r"(mlx\.launch .* -- )?lvm ", c)]
    wrong = {command: why for command in shown if (why := problem(command))}
    assert not wrong


def test_a_command_that_lvm_has_not_is_seen() -> None:
    assert "NoSuchOption" in problem("lvm train amn --epocs 3")
    assert problem("lvm tran amn") and problem("lvm data chek x") and problem("lvm predict amn --top three")
    assert not problem("lvm predict") and not problem("lvm parity MODEL  # as it is")


def test_the_readme_lists_every_command() -> None:
    listed = dict(re.findall(r"^\| `lvm (\w+)` \| (.*) \|$", (ROOT / "README.md").read_text("utf-8"), re.M))
    assert listed == {name: line for name, (_, line, _) in COMMANDS.items()}


def test_what_is_shown_is_held_against_what_is_printed() -> None:
    printed = "corpus  sotu: 12,171 windows\nbest 0.6598 at epoch 2; 38 s of training\nmore\n"
    assert not missing(["corpus sotu: 12,171 windows", "best 0.6611 at epoch 2; 90 s of training"], printed)
    assert missing(["best 0.7611 at epoch 2; 38 s of training"], printed)
    assert missing(["more", "corpus sotu: 12,171 windows"], printed), "the order counts"
    assert agrees("best 0.65 at ...", "best 0.66 at epoch 2") and not agrees(
        "best 0.65 on ...", "best 0.66 at 2"
    )
