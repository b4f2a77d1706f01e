"""What udi.toml(5) says of the configuration's tables."""

from __future__ import annotations

from collections.abc import Iterable

from manual.page import Definitions, Paragraph, Section
from manual.tables import ShownKey, ShownTable


def settings_sections(tables: Iterable[ShownTable]) -> tuple[Section, ...]:
    """A section for each table, with every key: its help, its constraint and its default."""
    return tuple(_section(table) for table in tables)


def _section(table: ShownTable) -> Section:
    words = (Paragraph(table.words),) if table.words else ()
    repeated = (Paragraph("May stand any number of times."),) if table.repeated else ()
    keys = (Definitions(tuple((key.name, _text(key)) for key in table.keys)),) if table.keys else ()
    return Section(table.heading or "Before all tables", (*words, *repeated, *keys))


def _text(key: ShownKey) -> str:
    constraint = f" ({key.constraint})" if key.constraint else ""
    return f"{key.help}{constraint}. {'Must be set.' if key.is_required else f'Default: {key.value}'}"
