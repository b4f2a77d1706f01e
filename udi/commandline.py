"""How both programs of this room end: one line for an error, its exit code, never a traceback for what a user did."""

from __future__ import annotations

import sys

import click

from udiroot.errors import UdiError, UsageError, complain, printable


def run(command: click.Group, program: str) -> None:
    """Run a click command to the end of the process."""
    try:
        command.main(prog_name=program, standalone_mode=False)
    except UdiError as error:
        sys.exit(complain(program, error))
    except click.exceptions.NoArgsIsHelpError as error:
        error.show()
        sys.exit(UsageError.exit_code)
    except click.ClickException as error:
        sys.exit(complain(program, UsageError(printable(error.format_message()))))
    except (click.Abort, KeyboardInterrupt):
        sys.exit(130)
    except BrokenPipeError:
        sys.exit(141)
