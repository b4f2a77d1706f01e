"""What a page says of a program's commands, read from click's own tables."""

from __future__ import annotations

from collections.abc import Iterator

import click

from manual.page import Block, Definitions, Section, paragraphs
from udiroot import errors
from udiroot.errors import UdiError

INTERRUPTED = 130
_EVERYWHERE = ("--help",)
"""Options that every command has; they are described once."""


def synopsis(name: str, command: click.Command) -> tuple[str, ...]:
    """The usage of a program, as click prints it."""
    return (_usage(command, name, _context(command, name)),)


def described(name: str, command: click.Command) -> tuple[Section, ...]:
    """Description, options and, of a group, each command down to the last, with its arguments and options."""
    context = _context(command, name)
    sections = [
        Section("Description", paragraphs(command.help or "")),
        Section("Options", _options(command, context, ())),
    ]
    if isinstance(command, click.Group):
        inner = tuple(_section(path, each, context) for path, each in _commands(command, context, name))
        sections.append(Section("Commands", (), inner))
    return tuple(sections)


def exit_status() -> Section:
    """The exit codes of all programs for people, from the errors that have them."""
    kinds = [each for each in vars(errors).values() if isinstance(each, type) and issubclass(each, UdiError)]
    meant: dict[int, list[str]] = {0: ["Success."]}
    for kind in kinds:
        if kind is not UdiError:
            meant.setdefault(kind.exit_code, []).append((kind.__doc__ or "").strip().split("\n\n")[0])
    meant[INTERRUPTED] = ["Interrupted."]
    return Section("Exit status", (Definitions(tuple((str(code), " ".join(text)) for code, text in meant.items())),))


def _context(command: click.Command, name: str) -> click.Context:
    return click.Context(command, info_name=name)


def _commands(group: click.Group, context: click.Context, path: str) -> Iterator[tuple[str, click.Command]]:
    """Every command of a group and of the groups in it, by the words that name it."""
    for name in group.list_commands(context):
        command = group.get_command(context, name)
        if command is None or command.hidden:
            continue
        words = f"{path} {name}".strip()
        if isinstance(command, click.Group):
            yield from _commands(command, context, words)
        else:
            yield words, command


def _section(path: str, command: click.Command, context: click.Context) -> Section:
    inner = click.Context(command, parent=context, info_name=path)
    blocks: tuple[Block, ...] = (*paragraphs(command.help or ""), *_options(command, inner, _EVERYWHERE))
    return Section(_usage(command, path, inner), blocks)


def _usage(command: click.Command, words: str, context: click.Context) -> str:
    return " ".join((words, *command.collect_usage_pieces(context)))


def _options(command: click.Command, context: click.Context, but: tuple[str, ...]) -> tuple[Block, ...]:
    """What has a text of its own: arguments are explained with the command."""
    params = (param for param in command.get_params(context) if not set(but) & set(param.opts))
    records = (param.get_help_record(context) for param in params)
    rows = tuple((term, " ".join(text.split())) for term, text in filter(None, records) if text)
    return (Definitions(rows),) if rows else ()
