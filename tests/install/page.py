"""The commands and files of a page: its fenced blocks, in their order.

A block's first word is `sh` for commands of root, or `toml` for a file, whose path is the last word. Other words are
conditions (`host-python`, `bundled-python`), `user` for commands of a user, `after-job` for what waits for a job.
"""

from __future__ import annotations

import re
from collections.abc import Collection
from dataclasses import dataclass
from pathlib import Path

DOCUMENT = Path(__file__).parents[2] / "docs/install.md"
CHOICES = ("host-python", "bundled-python")
"""Words of which a walk takes one: blocks with another one are not its own."""
_BLOCK = re.compile(r"^```(\S[^\n]*)\n(.*?)^```$", re.MULTILINE | re.DOTALL)
_OTHERS = ("user", "after-job")


@dataclass(frozen=True)
class Block:
    """Commands, or the text of the file at `path`."""

    words: tuple[str, ...]
    text: str

    @property
    def path(self) -> str:
        return self.words[-1] if self.words[0] == "toml" else ""

    @property
    def conditions(self) -> set[str]:
        return {word for word in self.words[1:] if word != self.path}


def blocks(choice: str, document: Path = DOCUMENT) -> list[Block]:
    """Those that a walk with this choice follows. Raises ValueError for a word that nobody knows."""
    found = [Block(tuple(words.split()), text) for words, text in _BLOCK.findall(document.read_text())]
    for block in found:
        _require_known(block)
    return [block for block in found if not block.conditions & set(CHOICES) - {choice}]


def _require_known(block: Block) -> None:
    known: Collection[str] = (*CHOICES, *_OTHERS)
    if block.words[0] not in ("sh", "toml") or not block.conditions <= set(known):
        raise ValueError(f"a block of the page begins with {' '.join(block.words)!r}")
