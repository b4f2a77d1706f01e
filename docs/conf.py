"""Sphinx's configuration: HTML of the Markdown that the repository's host shows, and of the man pages.

The Markdown has nothing that only Sphinx understands. What Sphinx needs besides is made here, in copies:
`docs/README.md` becomes the first page, and the navigation is its sections with the pages that they link to.
`make docs` runs it.
"""

from __future__ import annotations

import posixpath
import re
import shutil
from importlib.metadata import version as version_of
from pathlib import Path

from sphinx.application import Sphinx

from admin.sitefiles.documents import pages
from manual.markdown import as_markdown, file_of

project = "shifter-xc"
version = release = version_of(project)
extensions = ["myst_parser"]
myst_enable_extensions = ["deflist"]  # for the man pages
myst_heading_anchors = 6  # as the repository's host makes them
smartquotes = False  # would make dashes of the hyphens of options
highlight_language = "sh"  # of blocks that are only indented: most are commands

html_theme = "furo"
html_title = f"{project} {version}"
html_static_path = [str(Path(__file__).parent / "html")]
html_css_files = ["pages.css"]
html_favicon = str(Path(__file__).parent / "html/icon.svg")
html_copy_source = False
html_show_copyright = False
html_show_sphinx = False

_ROOT = Path(__file__).parents[1]
_FIRST = "docs/README.md"
_BESIDE = ("README.md", "CHANGELOG.md", "CONTRIBUTING.md", "SECURITY.md")
_LINK = re.compile(r"(?<=\]\()[^)#:\s]+(?=[#)])")
"""The path of a link to another file; a colon is of a URL."""


def setup(app: Sphinx) -> None:
    """Have the pages gathered before Sphinx looks for them."""
    app.connect("builder-inited", _gather)


def _gather(app: Sphinx) -> None:
    """Fill the empty directory that Sphinx reads."""
    directory = Path(app.srcdir)
    shutil.copytree(
        _ROOT / "docs", directory / "docs", ignore=shutil.ignore_patterns("*.md", "conf.py", "html", "__pycache__")
    )
    for path in (*_BESIDE, *(file.relative_to(_ROOT).as_posix() for file in _ROOT.glob("docs/**/*.md"))):
        text = _relinked((_ROOT / path).read_text(), path)
        file = directory / _place(path)
        file.parent.mkdir(exist_ok=True)
        file.write_text(_with_navigation(text + _man_pages(directory / "man")) if path == _FIRST else text)


def _place(path: str) -> str:
    """Where a page of the repository is read."""
    return "index.md" if path == _FIRST else path


def _relinked(text: str, page: str) -> str:
    """A page's text with its links as they lead from its place."""
    here = posixpath.dirname(_place(page)) or "."

    def moved(link: re.Match[str]) -> str:
        target = posixpath.normpath(posixpath.join(posixpath.dirname(page), link[0]))
        return posixpath.relpath(_place(target), here)

    return _LINK.sub(moved, text)


def _man_pages(directory: Path) -> str:
    """Write the man pages there; the section that lists them."""
    found = {f"{page.name}({page.number})": page for page in pages()}
    directory.mkdir()
    for title, page in found.items():
        (directory / file_of(title)).write_text(as_markdown(page, found))
    lines = (f"- [{title}](man/{file_of(title)}): {page.purpose}\n" for title, page in found.items())
    return f"\n## Man pages\n\n{''.join(lines)}"


def _with_navigation(text: str) -> str:
    """The first page with the navigation's part after each of its sections."""
    head, *sections = re.split(r"^(?=## )", text, flags=re.MULTILINE)
    return head + "".join(f"{section}\n{_navigation(section)}\n" for section in sections)


def _navigation(section: str) -> str:
    caption = section.partition("\n")[0].removeprefix("## ")
    linked = "\n".join(f"{title} <{page}>" for title, page in re.findall(r"\[([^]]+)\]\(([^)]+)\.md\)", section))
    return f"```{{toctree}}\n:caption: {caption}\n:hidden:\n\n{linked}\n```\n"
