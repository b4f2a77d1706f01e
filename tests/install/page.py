"""The commands and files of a page: its fenced blocks, in their order.

A block's first word is `sh` for commands, or the language of a file, whose path is the last word. Of the words between,
some are choices, of which a walk makes one; the others say where, as whom, or when.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path

_DOCS = Path(__file__).parents[2] / "docs"
_BLOCK = re.compile(r"^```(\S[^\n]*)\n(.*?)^```$", re.MULTILINE | re.DOTALL)
_FILES = ("toml", "ini", "jinja")


@dataclass(frozen=True)
class Block:
    """Commands, or the text of the file at `path`."""

    words: tuple[str, ...]
    text: str

    @property
    def path(self) -> str:
        return self.words[-1] if self.words[0] in _FILES else ""

    @property
    def conditions(self) -> set[str]:
        return {word for word in self.words[1:] if word != self.path}


@dataclass(frozen=True)
class Page:
    """A page, with the choices that it leaves to its reader, and the other words of its blocks."""

    document: Path
    choices: tuple[str, ...]
    others: tuple[str, ...]

    def blocks(self, choice: str) -> list[Block]:
        """Those that a walk with this choice follows. Raises ValueError for a word that nobody knows."""
        found = [Block(tuple(words.split()), text) for words, text in _BLOCK.findall(self.document.read_text())]
        for block in found:
            known = block.conditions <= {*self.choices, *self.others}
            if block.words[0] not in ("sh", *_FILES) or not known:
                raise ValueError(f"a block of the page begins with {' '.join(block.words)!r}")
        return [block for block in found if not block.conditions & set(self.choices) - {choice}]


CRAY = Page(_DOCS / "install.md", ("host-python", "bundled-python"), ("user", "after-job"))
"""`after-job` is for what waits for a job; the others are for root."""
SLURM = Page(
    _DOCS / "install-slurm.md",
    ("from-bundle", "from-source"),
    ("each-host", "each-node", "node", "user", "job-left", "job-held", "drained"),
)
"""Without a word of place, on the login host. `job-left`, `job-held` and `drained` are for what ends such a trouble."""


def extended(configuration: str, addition: str) -> str:
    """A configuration in TOML and what a page adds to it: keys of a table that it has already go into that table."""
    for section in re.split(r"^(?=\[)", addition, flags=re.MULTILINE):
        header, _, keys = section.partition("\n")
        if re.fullmatch(r"\[[\w.]+\]", header) and f"{header}\n" in configuration:
            configuration = configuration.replace(f"{header}\n", f"{header}\n{keys.rstrip()}\n")
        else:
            configuration += section
    return configuration if configuration.endswith("\n\n") else f"{configuration}\n"
