"""What a job is submitted with, as qsub would read it: its own options, and the `#PBS` lines of the script.

Torque's rules, quirks included (cray-reference T60 to T64, torque-reference d): a `-v` on the command line replaces the
script's, the first `#PBS -v` of the script wins over later ones, and every comma separates.
"""

from __future__ import annotations

import getopt
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

_OPTIONS = "a:A:b:c:C:d:D:e:fF:hIj:J:k:K:l:L:m:M:nN:o:p:P:q:r:S:t:T:u:v:Vw:W:xXzZ:"
_DEFAULT_PREFIX = "#PBS"
_MAX_LINES = 100_000


@dataclass(frozen=True)
class Submission:
    """What matters of a submission here."""

    variables: Mapping[str, str] = field(default_factory=dict)
    is_interactive: bool = False


def read_submission(arguments: Sequence[str], script: bytes, environment: Mapping[str, str]) -> Submission:
    """The variables that the job will get of those that the user names.

    Arguments that qsub itself would refuse make an empty submission: qsub then reports them.
    """
    options = _parsed(arguments)
    if options is None:
        return Submission()
    prefix = options.get("-C", environment.get("PBS_DPREFIX", _DEFAULT_PREFIX))
    is_interactive = "-I" in options
    written = {} if is_interactive else _directives(script, prefix)
    variables: dict[str, str] = {}
    if "-V" in options or "-V" in written:
        variables |= environment
    if "-v" in options or "-v" in written:
        variables |= _listed(options.get("-v", written.get("-v", "")), environment)
    return Submission(variables, is_interactive)


def _parsed(arguments: Sequence[str]) -> dict[str, str] | None:
    """Option → value; of an option given twice, the last, as qsub does on its command line."""
    try:
        return dict(getopt.getopt(list(arguments), _OPTIONS)[0])
    except getopt.GetoptError:
        return None


def _directives(script: bytes, prefix: str) -> dict[str, str]:
    """Options of the script's directives; of one given twice, the first.

    qsub looks for them up to the first line that is neither blank nor a comment.
    """
    found: dict[str, str] = {}
    for line in script.decode("utf-8", "surrogateescape").split("\n")[:_MAX_LINES]:
        text = line.lstrip()
        if prefix and text.startswith(prefix):
            for option, value in (_parsed(_split(text[len(prefix) :])) or {}).items():
                found.setdefault(option, value)
        elif text and text[0] not in "#:":
            break
    return found


def _split(line: str) -> list[str]:
    """A directive's arguments: split at blanks; quotes group and are removed, a backslash outside quotes escapes one
    character (T64)."""
    arguments: list[str] = []
    argument: str | None = None
    quote = ""
    characters = iter(line)
    for c in characters:
        if quote:
            argument, quote = (argument, "") if c == quote else ((argument or "") + c, quote)
        elif c in "\"'":
            argument, quote = argument or "", c
        elif c == "\\":
            argument = (argument or "") + next(characters, "")
        elif c.isspace():
            arguments, argument = ([*arguments, argument], None) if argument is not None else (arguments, None)
        else:
            argument = (argument or "") + c
    return arguments if argument is None else [*arguments, argument]


def _listed(text: str, environment: Mapping[str, str]) -> dict[str, str]:
    """The variables of a `-v` list. A name alone takes its value from the environment; backslashes are lost (T60)."""
    variables = {}
    for item in text.split(","):
        name, equals, value = item.partition("=")
        taken = value.strip().replace("\\", "") if equals and value else environment.get(name.strip(), "")
        variables[name.strip()] = taken
    return variables
