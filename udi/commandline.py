"""What all commands for people have in common: options, one line for an error, its exit code, never a traceback.

Hooks, the submit filter and the commands of a node do not use it. Nothing here may be slow to import.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Callable
from typing import TYPE_CHECKING

import click

from udi.oserrors import reason
from udi.version import VERSION
from udiroot.errors import UdiError, UpstreamFailed, UsageError, complain, printable

if TYPE_CHECKING:
    from click.shell_completion import CompletionItem

DEFAULT_CONFIG = "/etc/udi/udi.toml"
"""`udi.config.DEFAULT_PATH`, which a program that only prints its help need not import."""


def _print_version(context: click.Context, option: click.Parameter, wanted: bool) -> None:
    if not wanted or context.resilient_parsing:
        return
    click.echo(f"{context.find_root().info_name} {VERSION}")
    context.exit()


version_option = click.option(
    "--version", is_flag=True, expose_value=False, is_eager=True, callback=_print_version, help="Print the version."
)


def files(context: click.Context, parameter: click.Parameter, incomplete: str) -> list[CompletionItem]:
    """Completion of what is a file: the shell's own."""
    return _of_kind("file", incomplete)


def directories(context: click.Context, parameter: click.Parameter, incomplete: str) -> list[CompletionItem]:
    """Completion of what is a directory: the shell's own."""
    return _of_kind("dir", incomplete)


def one_of(*words: str) -> Callable[[click.Context, click.Parameter, str], list[str]]:
    """Completion of a word that is one of these."""
    return lambda context, parameter, incomplete: [word for word in words if word.startswith(incomplete)]


config_option = click.option(
    "--config",
    "config_path",
    default=DEFAULT_CONFIG,
    metavar="FILE",
    show_default=True,
    shell_complete=files,
    help="Site configuration.",
)
json_option = click.option("--json", "as_json", is_flag=True, help="Print one JSON object, for scripts.")


def _of_kind(kind: str, incomplete: str) -> list[CompletionItem]:
    from click.shell_completion import CompletionItem

    return [CompletionItem(incomplete, type=kind)]


def run(command: click.Command, program: str) -> None:
    """Run a click command to the end of the process. Output that nobody takes any more, or that cannot be written, is
    an exit code and not a traceback."""
    _open_closed_streams()
    if f"_{program.replace('-', '_')}_COMPLETE".upper() in os.environ:
        from udi.completion import register

        register()
    try:
        code = _run(command, program)
        sys.stdout.flush()
    except BrokenPipeError:
        code = _BROKEN_PIPE
    except OSError as error:
        code = _cannot_write(program, error)
    _discard_unwritten()
    sys.exit(code)


_BROKEN_PIPE = 141
"""As the shell reports a process that SIGPIPE ended."""


def _run(command: click.Command, program: str) -> int:
    try:
        returned = command.main(prog_name=program, standalone_mode=False)
        return returned if isinstance(returned, int) else 0
    except SystemExit as exited:
        return exited.code if isinstance(exited.code, int) else int(exited.code is not None)
    except UdiError as error:
        return _complain(program, error)
    except click.exceptions.NoArgsIsHelpError as error:
        error.show()
        return UsageError.exit_code
    except click.UsageError as error:
        hint = f"{error.ctx.command_path} --help" if error.ctx else ""
        return _complain(program, UsageError(_first_lower(error.format_message()), hint))
    except click.ClickException as error:
        return _complain(program, UsageError(_first_lower(error.format_message())))
    except (click.Abort, KeyboardInterrupt):
        return 130


def _open_closed_streams() -> None:
    """A standard stream that the caller closed becomes /dev/null: Python has None in its place, and the next file that
    is opened would get its number."""
    for number, mode in enumerate("rww"):
        try:
            os.fstat(number)
        except OSError:
            os.open(os.devnull, os.O_RDONLY if mode == "r" else os.O_WRONLY)  # the lowest free number is this one
    for name, number, mode in (("stdin", 0, "r"), ("stdout", 1, "w"), ("stderr", 2, "w")):
        if getattr(sys, name) is None:
            setattr(sys, name, os.fdopen(number, mode, closefd=False))


def _cannot_write(program: str, error: OSError) -> int:
    what = printable(error.filename) if error.filename else "output cannot be written"
    return _complain(program, UpstreamFailed(f"{what}: {reason(error)}"))


def _complain(program: str, error: UdiError) -> int:
    """Where standard error cannot be written either, the exit code is all that is left to report the error by."""
    try:
        return complain(program, error)
    except OSError:
        return error.exit_code


def _discard_unwritten() -> None:
    """What is still in the buffers must not fail again at the interpreter's own last flush."""
    for stream, number in ((sys.stdout, 1), (sys.stderr, 2)):
        try:
            stream.flush()
        except OSError:
            os.dup2(os.open(os.devnull, os.O_WRONLY), number)


def _first_lower(message: str) -> str:
    """click's message in the form of our own: lower case, without a full stop."""
    return printable(message[:1].lower() + message[1:].rstrip("."), 1000)
