"""The documents keep their word: what they show is executed, what they link to is there."""

from __future__ import annotations

import re

import pytest

from docs import generate
from tests.documents import ROOT, Reading, blocks, documents, to_do
from tests.tools import tool

LINK = re.compile(r"\]\((?!https?:|mailto:)([^)#\s]*)(?:#[^)]*)?\)")


def short(path):
    return str(path.relative_to(ROOT))


def marked(document):
    """A document that needs the platform is a whole story."""
    slow = "<!-- platform -->" in document.read_text()
    return pytest.param(document, id=short(document), marks=[pytest.mark.slow] if slow else [])


@pytest.mark.parametrize("document", [marked(document) for document in documents()])
def test_what_a_document_shows_works(document, tmp_path, record_property):
    if any("$ curl" in block.body for block in blocks(document) if to_do(block)):
        tool("curl")
    record_property("snippets", Reading(document, tmp_path).read())


@pytest.mark.parametrize("document", [*ROOT.glob("*.md"), *(ROOT / "docs").rglob("*.md")], ids=short)
def test_every_link_leads_somewhere(document):
    prose = re.sub(r"^```.*?^```", "", document.read_text(), flags=re.MULTILINE | re.DOTALL)
    missing = [to for to in LINK.findall(prose) if to and not (document.parent / to).exists()]
    assert missing == []


def test_every_page_is_in_the_sites_table_of_contents():
    text = (ROOT / "zensical.toml").read_text()
    listed = set(re.findall(r'"([\w/.-]+\.md)"', text))
    pages = {str(path.relative_to(ROOT / "docs")) for path in (ROOT / "docs").rglob("*.md")}
    assert listed - pages == set()
    assert {page for page in pages if not re.match(r"adr/\d", page)} - listed == set()


def test_the_first_screen_of_the_readme_shows_code_and_the_two_commands():
    screen = "\n".join((ROOT / "README.md").read_text().splitlines()[:45])
    assert "python3 dev.py up" in screen
    assert "python3 dev.py test" in screen
    first = next(block for block in blocks(ROOT / "README.md") if to_do(block))
    assert first.body in screen


@pytest.mark.parametrize("name", generate.PAGES)
def test_the_reference_is_made_from_the_source_as_it_is(name):
    there = generate.place(name).read_text()
    assert there == generate.PAGES[name](), "python3 dev.py docs makes it again"


def test_the_reference_shows_every_parameter():
    page = (ROOT / "docs" / "reference" / "python.md").read_text()
    assert "serve(cls: type[Any], runtime: DistributedRuntime | None = None)" in page
    assert "Context.construct(cls: type[T]) -> T" in page
    assert "(self" not in page
