"""What a job script sets that means something at submission only, read as text: nobody can say what it will do."""

from __future__ import annotations

import re
from collections.abc import Sequence

from torque_hooks.variables import IMAGE, MODULES, ROOT, VOLUMES
from udi.values import Frozen

_NAMES = f"({IMAGE}|{VOLUMES}|{MODULES}|{ROOT})"
_BEFORE = "export|env|declare|typeset|readonly|local|then|do|else|exec|time|command|builtin|eval|set|@"
_KEYWORDS = rf"(?:(?:{_BEFORE})\s+(?:-\w+\s+)*)"
_SET = re.compile(rf"\s*{_KEYWORDS}{{0,4}}(?:[A-Za-z_]\w*=\S*\s+){{0,8}}{_NAMES}=(\S*)")
_SETENV = re.compile(rf"\s*{_KEYWORDS}{{0,4}}setenv\s+{_NAMES}\s+(\S*)")
_UNSET = re.compile(rf"\s*{_KEYWORDS}{{0,4}}(?:unset|unsetenv)\s+(?:-\w+\s+)?(?:\w+\s+){{0,8}}({ROOT})\b()")
_SEPARATORS = re.compile(r"[;&|(){}`]+")
_SUBMITS = re.compile(r"\b(?:qsub|msub|sbatch)\b")
_MAX_LINE = 4096


class Setting(Frozen):
    """An assignment in a script, by its line; a variable that is unset has an empty value."""

    name: str
    value: str
    line: int

    def __str__(self) -> str:
        return f"{self.name}={self.value}"


def settings(lines: Sequence[str], first: int) -> list[Setting]:
    """Where the lines set our variables or the root of aprun, in sh or csh. `first` is the number of the first line."""
    found = []
    for number, line in enumerate(lines, first):
        if (IMAGE in line or ROOT in line) and not line.lstrip().startswith("#"):
            for statement in _SEPARATORS.split(line[:_MAX_LINE]):
                match = _SET.match(statement) or _SETENV.match(statement) or _UNSET.match(statement)
                if match:
                    found.append(Setting(match[1], match[2].strip("\"'"), number))
    return found


def submits(lines: Sequence[str]) -> bool:
    """Whether a line submits another job, whose variables the script may set."""
    return any(_SUBMITS.search(line[:_MAX_LINE]) for line in lines)
