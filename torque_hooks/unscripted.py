"""A job of Torque that is its image's entry point or one command: `qsub` with a script of our own."""

from __future__ import annotations

import getopt

from torque_hooks.directives import OPTIONS
from torque_hooks.variables import IMAGE, MODULES, VOLUMES
from udi.launch import Launch, Submission
from udiroot.errors import UsageError, printable

_PROGRAM = "qsub"
_TAKES_TERMINAL = ("-I", "-X")
_OURS = (IMAGE, VOLUMES, MODULES)


class UnscriptedTorque:
    """`aprun -B` starts as many as the job's reservation has room for: what was asked for with `-l` says so once."""

    def split(self, words: tuple[str, ...]) -> tuple[tuple[str, ...], tuple[str, ...]]:
        """qsub's options, and what follows. Raises UsageError."""
        rest = _parsed(words)[1]
        return words[: len(words) - len(rest)], tuple(rest)

    def submission(self, options: tuple[str, ...], launch: Launch) -> Submission:
        """Raises UsageError for an interactive job, and for what a `-v` list cannot hold (cray-reference T60)."""
        given, _ = _parsed(options)
        names = [name for name, _ in given]
        if interactive := next((name for name in names if name in _TAKES_TERMINAL), ""):
            raise UsageError(f"{interactive} makes an interactive job, which has no command", "qsub -I -v UDI=IMAGE")
        variables = [value for name, value in given if name == "-v"][-1:]
        for name in _OURS:
            if any(item.partition("=")[0].strip() == name for value in variables for item in value.split(",")):
                raise UsageError(
                    f"{name} is set by this command",
                    "the image is its argument; for volumes use --volume, for modules --module",
                )
        argv = [_PROGRAM, *(() if "-N" in names else ("-N", launch.job_name)), *options]
        values = zip(_OURS, (launch.image, launch.volumes, launch.modules), strict=True)
        ours = [f"{name}={_item(value)}" for name, value in values if value]
        return Submission((*argv, "-v", ",".join((*variables, *ours))), _script(launch))


def _script(launch: Launch) -> str:
    return (
        "#!/bin/sh\n"
        "# Written by `udi submit`: what runs inside the image, once for each slot of the reservation.\n"
        'cd "${PBS_O_WORKDIR:-.}" || exit 125\n'
        f"exec aprun -q -B -b {launch.command}\n"
    )


def _item(text: str) -> str:
    """A value of a `-v` list. Raises UsageError: every comma separates there, and backslashes and quotes are lost."""
    if lost := next((c for c in text if c in ",\\\"'"), ""):
        raise UsageError(f"qsub cannot pass on a value with {lost} in it: '{printable(text)}'")
    return text


def _parsed(words: tuple[str, ...]) -> tuple[list[tuple[str, str]], list[str]]:
    try:
        return getopt.getopt(list(words), OPTIONS)
    except getopt.GetoptError as error:
        raise UsageError(printable(error.msg), "options before the image are qsub's: man qsub") from error
