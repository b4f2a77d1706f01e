"""Every link in the repository's Markdown leads somewhere, each page is reached, and each block says what it holds."""

from __future__ import annotations

import itertools
import re
from collections import Counter
from functools import cache
from pathlib import Path
from typing import NamedTuple

import pytest
from markdown_it import MarkdownIt
from markdown_it.token import Token
from pygments.filters import ErrorToken
from pygments.lexers import get_lexer_by_name

ROOT = Path(__file__).parents[2]
PAGES = sorted((*ROOT.glob("*.md"), *(ROOT / "docs").glob("**/*.md")))


class Page(NamedTuple):
    """What of a page matters here."""

    links: tuple[str, ...]
    """Targets of links and pictures, as they are written."""
    anchors: frozenset[str]
    """Those of its headings, as the repository's host makes them."""
    levels: tuple[int, ...]
    """Those of its headings, in their order."""
    blocks: tuple[tuple[str, str], ...]
    """What its fenced blocks say that they hold, and what they hold."""


@cache
def read(path: Path) -> Page:
    return read_text(path.read_text())


def read_text(text: str) -> Page:
    tokens = MarkdownIt("commonmark").enable("table").parse(text)
    inline = [child for token in tokens for child in token.children or ()]
    links = (child.attrGet("href") or child.attrGet("src") for child in inline)
    titles = [tokens[number + 1] for number, token in enumerate(tokens) if token.type == "heading_open"]
    return Page(
        tuple(str(link) for link in links if link),
        frozenset(_slugs(titles)),
        tuple(int(token.tag[1:]) for token in tokens if token.type == "heading_open"),
        tuple((token.info.partition(" ")[0], token.content) for token in tokens if token.type == "fence"),
    )


def _slugs(titles: list[Token]) -> list[str]:
    """Small letters, digits, `-` and `_` stay, blanks become `-`; what is there already gets a number."""
    seen: Counter[str] = Counter()
    slugs = []
    for title in titles:
        plain = "".join(child.content for child in title.children or ())
        slug = re.sub(r"[^\w\- ]", "", plain.lower()).replace(" ", "-")
        slugs.append(f"{slug}-{seen[slug]}" if seen[slug] else slug)
        seen[slug] += 1
    return slugs


def problem(page: Path, link: str) -> str | None:
    """What is wrong with a link of a page; external ones are not asked for."""
    if re.match(r"[a-z]+:", link):
        return None if link.startswith("https://") else f"{link} is not https"
    target, _, anchor = link.partition("#")
    file = (page.parent / target).resolve() if target else page
    if not file.is_file():
        return f"{link} is not a file"
    if anchor and anchor not in read(file).anchors:
        return f"{link}: {file.name} has no such heading"
    return None


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.relative_to(ROOT).as_posix())
def test_every_link_leads_somewhere(page: Path) -> None:
    wrong = [said for link in read(page).links if (said := problem(page, link))]
    assert not wrong, "\n".join(wrong)


def test_what_leads_nowhere_is_found() -> None:
    readme = ROOT / "README.md"
    for link in ("docs/none.md", "docs", "docs/gateway.md#nothing", "#nothing", "http://example.org", "docs/none.svg"):
        assert problem(readme, link), link
    for link in ("docs/gateway.md", "docs/gateway.md#with-qsub", "docs/udi.toml.example", "https://example.org"):
        assert problem(readme, link) is None, link
    page = read_text("# A `b`, c!\n\n## D\n\n## D\n\n```\nx\n```\n\n| a |\n| --- |\n| ![p](q.svg) |\n")
    assert page == Page(("q.svg",), frozenset({"a-b-c", "d", "d-1"}), (1, 2, 2), (("", "x\n"),))


def test_every_page_is_reached_from_the_documents_first_page() -> None:
    """Which has the HTML's navigation, too."""
    first = ROOT / "docs/README.md"
    linked = {(first.parent / link).resolve() for link in read(first).links}
    assert set(PAGES) - linked == {first}
    assert first in {(ROOT / link).resolve() for link in read(ROOT / "README.md").links}


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.relative_to(ROOT).as_posix())
def test_headings_begin_with_one_title_and_skip_no_level(page: Path) -> None:
    levels = read(page).levels
    assert levels[0] == 1 and levels.count(1) == 1
    assert all(after <= before + 1 for before, after in itertools.pairwise(levels))


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.relative_to(ROOT).as_posix())
def test_every_fenced_block_has_a_language_in_which_it_can_be_read(page: Path) -> None:
    """`make docs` takes a block that its highlighter cannot read for an error."""
    for language, text in read(page).blocks:
        assert language
        lexer = get_lexer_by_name(language)
        lexer.add_filter("raiseonerror")
        assert "".join(value for _, value in lexer.get_tokens(text)) == text


def test_a_block_that_cannot_be_read_is_found() -> None:
    lexer = get_lexer_by_name("console")
    lexer.add_filter("raiseonerror")
    with pytest.raises(ErrorToken):
        list(lexer.get_tokens("# the job's own\n"))
