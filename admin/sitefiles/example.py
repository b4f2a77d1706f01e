"""An annotated `udi.toml`, made from the tables of settings: every key with help, constraint and default."""

from __future__ import annotations

import textwrap

from admin.seams.tables import all_tables
from manual.tables import ShownKey, ShownTable, shown_tables
from udi.config import SiteConfig, shared_keys

_WIDTH = 100
_HEAD = """\
# Configuration of shifter-xc: /etc/udi/udi.toml, owned by root, mode 0644.
# Every key is shown with its default, commented out; a key without one must be set.
"""
_EXAMPLES = {"store.path": '"/scratch/udi"'}
"""Values to show for keys that have no default, where the key can stand in the file only once."""


def example() -> str:
    """The text of the file; it is valid, and sets what must be set to an example."""
    return _HEAD + "".join(f"\n{_block(table)}" for table in shown_tables(SiteConfig, shared_keys(), all_tables()))


def _block(table: ShownTable) -> str:
    """A table that may stand any number of times is commented out, and so is all inside it."""
    heading = f"{'# ' * table.repeated}{table.heading}\n" if table.heading else ""
    where = "" if table.repeated else f"{table.name}."
    return (_comment(table.words) if table.heading else "") + heading + "".join(_key(key, where) for key in table.keys)


def _key(key: ShownKey, where: str) -> str:
    help_text = key.help + (f" ({key.constraint})" if key.constraint else "")
    example = _EXAMPLES.get(where + key.name)
    if example:
        return _comment(help_text) + f"{key.name} = {example}\n"
    required = " # required" if key.is_required else ""
    return _comment(help_text) + f"# {key.name} = {key.value}{required}\n"


def _comment(text: str) -> str:
    return textwrap.fill(" ".join(text.split()), _WIDTH, initial_indent="# ", subsequent_indent="# ") + "\n"
