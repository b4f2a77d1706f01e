"""What a job is submitted with, as qsub would read it: its own options, and the `#PBS` lines of the script.

Torque's rules, quirks included (cray-reference T60 to T64, torque-reference d): a `-v` on the command line replaces the
script's, the first `#PBS -v` of the script wins over later ones, and every comma separates. A directive that ends in a
backslash goes on in the next line.
"""

from __future__ import annotations

import getopt
from collections.abc import Mapping, Sequence

from udi.values import Frozen, field, replace

OPTIONS = "a:A:b:c:C:d:D:e:fF:hIj:J:k:K:l:L:m:M:nN:o:p:P:q:r:S:t:T:u:v:Vw:W:xXzZ:"
"""qsub's options, as getopt takes them."""
_DEFAULT_PREFIX = "#PBS"
_MAX_LINES = 100_000
_NAME = "UDI"
"""What a directive after the first command must name to be looked at."""
_SETTINGS = ("-W", "-l")
"""Options by which sites and schedulers pass settings."""


class Item(Frozen):
    """One item of a `-v` list: `NAME=value`, or a name alone, which takes its value from qsub's environment.

    `text` is the item as it was written, and `value` what the job gets of it.
    """

    text: str
    name: str
    value: str

    @property
    def has_value(self) -> bool:
        """Whether the value was written, and not taken from the environment."""
        return not self.text.strip().endswith("=") and "=" in self.text


class VariableList(Frozen):
    """A `-v` list, by its line in the script (0: on the command line). `counts` is whether qsub goes by it: of several
    lists, it goes by one."""

    line: int
    items: tuple[Item, ...]
    counts: bool = False

    @property
    def place(self) -> str:
        """Where it is, after `on`."""
        return f"line {self.line} of the script" if self.line else "the command line"


class Submission(Frozen):
    """What matters of a submission here. `lists` are all that were written; `variables` are what the job gets.

    `late` are the lists of directives after the first command, which qsub does not read, and `others` is what was
    given to options by which sites and schedulers pass settings. `operands` are the words after the options of the
    command line, and `strays` those after a directive's, which qsub passes over, with their lines. Of the script,
    `header` are the lines up to the first command, of which `directives` are the numbers of those that qsub reads, and
    `body` is the rest. `prefix` begins a directive.
    """

    variables: Mapping[str, str] = field(default_factory=dict)
    is_interactive: bool = False
    lists: tuple[VariableList, ...] = ()
    late: tuple[VariableList, ...] = ()
    others: tuple[tuple[str, str], ...] = ()
    operands: tuple[str, ...] = ()
    strays: tuple[tuple[int, str], ...] = ()
    prefix: str = _DEFAULT_PREFIX
    header: tuple[str, ...] = ()
    directives: frozenset[int] = frozenset()
    body: tuple[str, ...] = ()
    takes_environment: bool = False


def read_submission(arguments: Sequence[str], script: bytes, environment: Mapping[str, str]) -> Submission:
    """The variables that the job will get of those that the user names, and what else the user wrote.

    Arguments that qsub itself would refuse make an empty submission: qsub then reports them.
    """
    parsed = _parsed(arguments)
    if parsed is None:
        return Submission()
    given, operands = parsed
    options = dict(given)
    prefix = options.get("-C", environment.get("PBS_DPREFIX", _DEFAULT_PREFIX))
    is_interactive = "-I" in options
    lines = [] if is_interactive else script.decode("utf-8", "surrogateescape").split("\n")[:_MAX_LINES]
    first = _first_command(lines, prefix)
    read = _directives(lines, range(first), prefix)
    written = [(each.line, option, value) for each in read for option, value in each.options]
    lists = _lists([value for option, value in given if option == "-v"], written, environment)
    others = [(option, value) for option, value in (*given, *(each[1:] for each in written)) if option in _SETTINGS]
    takes_environment = "-V" in options or any(option == "-V" for _, option, _ in written)
    counted = next((each.items for each in lists if each.counts), ())
    return Submission(
        variables=(dict(environment) if takes_environment else {}) | {item.name: item.value for item in counted},
        is_interactive=is_interactive,
        lists=lists,
        late=_late_lists(lines, first, prefix, environment),
        others=tuple(others),
        operands=tuple(operands),
        strays=tuple((each.line, word) for each in read for word in each.operands),
        prefix=prefix,
        header=tuple(lines[:first]),
        directives=frozenset(number for each in read for number in range(each.line, each.end)),
        body=tuple(lines[first:]),
        takes_environment=takes_environment,
    )


def _parsed(arguments: Sequence[str]) -> tuple[list[tuple[str, str]], list[str]] | None:
    """Options with their values in order, and the operands; None for what qsub would refuse. An option that only some
    version of qsub knows is taken for one without a value."""
    options = OPTIONS
    while True:
        try:
            return getopt.getopt(list(arguments), options)
        except getopt.GetoptError as error:
            if len(error.opt) != 1 or not error.opt.isalpha() or error.opt in options:
                return None
            options += error.opt


def _lists(
    given: Sequence[str], written: Sequence[tuple[int, str, str]], environment: Mapping[str, str]
) -> tuple[VariableList, ...]:
    """All `-v` lists. The last of the command line counts, and without one, the script's first."""
    on_command_line = [
        VariableList(0, _listed(text, environment), counts=number == len(given)) for number, text in enumerate(given, 1)
    ]
    in_script = [VariableList(number, _listed(text, environment)) for number, option, text in written if option == "-v"]
    if in_script and not on_command_line:
        in_script[0] = replace(in_script[0], counts=True)
    return (*on_command_line, *in_script)


def _late_lists(
    lines: Sequence[str], first: int, prefix: str, environment: Mapping[str, str]
) -> tuple[VariableList, ...]:
    """The `-v` lists of directives from the line `first` on, which may be about images."""
    return tuple(
        VariableList(each.line, _listed(value, environment))
        for each in _directives(lines, range(first, len(lines)), prefix)
        if _NAME in each.text
        for option, value in each.options
        if option == "-v"
    )


def _first_command(lines: Sequence[str], prefix: str) -> int:
    """Where the lines end in which qsub looks for directives: at the first that is neither blank nor a comment."""
    index = 0
    while index < len(lines):
        line = lines[index]
        if _begins(line, prefix):
            index = _end(lines, index)
        elif line.startswith(":") or line.lstrip()[:1] in ("", "#"):
            index += 1
        else:
            return index
    return len(lines)


class _Directive(Frozen):
    """A line of the script that qsub reads, with those in which it goes on, up to `end`."""

    line: int
    end: int
    text: str
    options: Sequence[tuple[str, str]]
    operands: Sequence[str]


def _directives(lines: Sequence[str], where: range, prefix: str) -> list[_Directive]:
    """The directives among the lines, of those that qsub can parse."""
    found, index = [], where.start
    while index < where.stop:
        end = _end(lines, index) if _begins(lines[index], prefix) else index + 1
        if _begins(lines[index], prefix):
            text = "".join(part.rstrip("\r").removesuffix("\\") for part in lines[index:end])
            parsed = _parsed(_split(text.lstrip()[len(prefix) :]))
            if parsed:
                found.append(_Directive(index + 1, end + 1, text, *parsed))
        index = end
    return found


def _begins(line: str, prefix: str) -> bool:
    return bool(prefix) and line.lstrip().startswith(prefix)


def _end(lines: Sequence[str], index: int) -> int:
    """Where a directive that begins at `index` has ended."""
    while index < len(lines) and lines[index].rstrip("\r").endswith("\\"):
        index += 1
    return min(index + 1, len(lines))


def _split(line: str) -> list[str]:
    """A directive's arguments: split at blanks; quotes group and are removed, a backslash outside quotes escapes one
    character (T64)."""
    arguments: list[str] = []
    argument: list[str] | None = None
    quote = ""
    characters = iter(line)
    for c in characters:
        if not quote and c.isspace():
            if argument is not None:
                arguments.append("".join(argument))
            argument = None
            continue
        argument = [] if argument is None else argument
        if quote and c == quote:
            quote = ""
        elif not quote and c in "\"'":
            quote = c
        else:
            argument.append(next(characters, "") if c == "\\" and not quote else c)
    return arguments if argument is None else [*arguments, "".join(argument)]


def _listed(text: str, environment: Mapping[str, str]) -> tuple[Item, ...]:
    """The items of a `-v` list. A name alone takes its value from the environment; backslashes are lost (T60)."""
    items = []
    for item in text.split(","):
        name, equals, value = item.partition("=")
        taken = value.strip().replace("\\", "") if equals and value else environment.get(name.strip(), "")
        items.append(Item(item, name.strip(), taken))
    return tuple(items)
