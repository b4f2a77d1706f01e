"""What shells complete of the commands that use an image outside of a job's script."""

from __future__ import annotations

from typing import TYPE_CHECKING

import click

from gateway.client.completion import image_names
from udi.commandline import files
from udiroot.errors import UdiError

if TYPE_CHECKING:
    from click.shell_completion import CompletionItem


def image_or_command(
    context: click.Context, parameter: click.Parameter, incomplete: str
) -> list[str] | list[CompletionItem]:
    """After `--` the words of a command, which may be files; before it the image."""
    if "--" in context.params[parameter.name or ""]:
        return files(context, parameter, incomplete)
    return image_names(context, parameter, incomplete)


def module_names(context: click.Context, parameter: click.Parameter, incomplete: str) -> list[CompletionItem]:
    """The site modules that the caller may have, with their descriptions."""
    from click.shell_completion import CompletionItem

    from outside.modules import offered
    from udi import config

    try:
        rows = offered(config.load(context.find_root().params["config_path"]))
    except (UdiError, OSError):
        return []
    return [
        CompletionItem(row.name, help=row.description)
        for row in rows
        if row.allowed and row.name.startswith(incomplete)
    ]
