"""Every command of a page is typed by a test, or the page says that it was not run."""

from __future__ import annotations

import re
import tomllib
from collections.abc import Iterator
from pathlib import Path

import pytest
from markdown_it import MarkdownIt
from markdown_it.token import Token

from tests import pages, typed_lines
from tests.install.page import CRAY, SLURM

ROOT = Path(__file__).parents[2]
NOT_RUN = "ot run from this page"
_OTHERWISE = {
    "design.md": "formats of files and messages",
    "operations.md": "procedures, which tests/system/test_operations.py goes through",
    "release-checklist.md": "for a person",
}
PAGES = sorted({ROOT / "README.md", *(ROOT / "docs").glob("*.md")} - {ROOT / "docs" / name for name in _OTHERWISE})
_WALKED = {CRAY.document, SLURM.document}


def unproved(text: str, page: str) -> Iterator[str]:
    """The lines of a page's blocks that nobody types, and that nothing beside the block says were not run."""
    tokens = MarkdownIt("commonmark").enable("table").parse(text)
    for number, token in enumerate(tokens):
        if token.type not in ("code_block", "fence") or _is_marked(tokens, number):
            continue
        words = token.info.split()
        if words[:1] == ["console"]:
            known = page.removeprefix("docs/") in (*pages.PAGES, *pages.OTHERS)
        elif words:
            known = words[0] in ("text", "toml") or (ROOT / page in _WALKED and words[0] in ("sh", "ini", "jinja"))
        else:
            yield from _lines(token.content, page)
            continue
        if not known:
            yield f"```{token.info}"


def _is_marked(tokens: list[Token], number: int) -> bool:
    """Whether the paragraph before or after a block says so."""
    before = next((one.content for one in reversed(tokens[:number]) if one.type == "inline"), "")
    after = next((one.content for one in tokens[number:] if one.type == "inline"), "")
    return any(NOT_RUN in " ".join(text.split()) for text in (before, after))


def _lines(block: str, page: str) -> Iterator[str]:
    try:
        tomllib.loads(block)  # a part of the configuration, which test_named_in_pages reads
        return
    except tomllib.TOMLDecodeError:
        pass
    begins = [*typed_lines.CRAY.get(page, ()), *typed_lines.SLURM.get(page, ())]
    begins += [begin for of, begin in typed_lines.ELSEWHERE if of == page]
    if any(begin.startswith(("#!", "{")) and block.startswith(begin) for begin in begins):
        return  # one file or one message as a whole
    for line in block.replace("\\\n", " ").splitlines():
        if line and not any(line == begin or line.startswith(f"{begin} ") for begin in begins):
            yield line


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.relative_to(ROOT).as_posix())
def test_every_command_is_typed_or_said_not_to_be(page: Path) -> None:
    assert list(unproved(page.read_text(), page.relative_to(ROOT).as_posix())) == []


@pytest.mark.parametrize(
    ("text", "found"),
    [
        ("    udi images\n", []),
        ("    udi images\n    rm -r x\n", ["rm -r x"]),
        ("    rm -r x\n\nThis was not run from this page.\n", []),
        ("(Not run\nfrom this page.)\n\n    rm -r x\n", []),
        ("    [gateway]\n    keep_days = 3\n", []),
        ("```sh\nrm -r x\n```\n", ["```sh"]),
        ("```console torque\n$ udi images\n```\n", ["```console torque"]),
        ("```text\na drawing\n```\n", []),
    ],
)
def test_a_command_that_nobody_types_is_found(text: str, found: list[str]) -> None:
    assert list(unproved(text, "README.md")) == found


def test_what_is_named_is_there() -> None:
    for page, begin in typed_lines.ELSEWHERE:
        assert re.search(rf"^ +{re.escape(begin)}", (ROOT / page).read_text(), re.MULTILINE), (page, begin)
    assert [file for file in typed_lines.ELSEWHERE.values() if not (ROOT / file).is_file()] == []
    for machine in (typed_lines.CRAY, typed_lines.SLURM):
        for page, programs in machine.items():
            assert [one for one in programs if not typed_lines.lines(page, one)] == [], page
