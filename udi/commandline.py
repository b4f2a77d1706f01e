"""What all commands for people have in common: options, one line for an error, its exit code, never a traceback.

Hooks, the submit filter and the commands of a node do not use it. Nothing here may be slow to import.
"""

from __future__ import annotations

import os
import sys

import click

from udiroot.errors import UdiError, UsageError, complain, printable

DEFAULT_CONFIG = "/etc/udi/udi.toml"
"""`udi.config.DEFAULT_PATH`, which a program that only prints its help need not import."""


def _print_version(context: click.Context, option: click.Parameter, wanted: bool) -> None:
    if not wanted or context.resilient_parsing:
        return
    from importlib.metadata import version

    click.echo(f"{context.find_root().info_name} {version('shifter-xc')}")
    context.exit()


version_option = click.option(
    "--version", is_flag=True, expose_value=False, is_eager=True, callback=_print_version, help="Print the version."
)
config_option = click.option(
    "--config", "config_path", default=DEFAULT_CONFIG, metavar="FILE", show_default=True, help="Site configuration."
)
json_option = click.option("--json", "as_json", is_flag=True, help="Print one JSON object, for scripts.")


def run(command: click.Command, program: str) -> None:
    """Run a click command to the end of the process."""
    try:
        sys.exit(command.main(prog_name=program, standalone_mode=False))
    except UdiError as error:
        sys.exit(complain(program, error))
    except click.exceptions.NoArgsIsHelpError as error:
        error.show()
        sys.exit(UsageError.exit_code)
    except click.UsageError as error:
        hint = f"{error.ctx.command_path} --help" if error.ctx else ""
        sys.exit(complain(program, UsageError(_first_lower(error.format_message()), hint)))
    except click.ClickException as error:
        sys.exit(complain(program, UsageError(_first_lower(error.format_message()))))
    except (click.Abort, KeyboardInterrupt):
        sys.exit(130)
    except BrokenPipeError:
        # Nothing more can be written, by the interpreter's own last flush either.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        sys.exit(141)


def _first_lower(message: str) -> str:
    """click's message in the form of our own: lower case, without a full stop."""
    return printable(message[:1].lower() + message[1:].rstrip("."), 1000)
