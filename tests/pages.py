"""Commands of a page of the manual, run as the page shows them.

A fenced block whose first line is ` ```console MACHINE ` is a terminal: lines that begin with `$ ` are typed, what
follows each is seen. `$ cat FILE` of a file that is not there yet is how the page says what its reader has written: the
file is made. Where the page shows `...`, anything may stand: inside a line a part of it, alone any number of lines. A
job's number is the page's own; which one it has on this machine is learnt when it is submitted.
"""

from __future__ import annotations

import os
import re
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import NamedTuple

DOCS = Path(__file__).parents[1] / "docs"
_BLOCK = re.compile(r"^```console (\w+)\n(.*?)^```$", re.MULTILINE | re.DOTALL)
_NUMBER = re.compile(r"(?<![\w/:])\d{3}(?=\.sdb\b)|(?<=\.[oe])\d{3}\b|(?<=job )\d{3}\b|(?<=slurm-)\d{3}\b|^\d{3}$")
_JOB = re.compile(r"^(?:Submitted batch job )?(\d+)(?:\.sdb)?$")


class Step(NamedTuple):
    """What is typed, and what is seen."""

    typed: str
    seen: list[str]


class Recipe(NamedTuple):
    """The steps of one section on one machine, in order."""

    title: str
    steps: list[Step]


def recipes(page: str, machine: str) -> Iterator[Recipe]:
    """The sections of a page that have commands for a machine."""
    for section in re.split(r"^## ", (DOCS / page).read_text(), flags=re.MULTILINE)[1:]:
        title = section.partition("\n")[0]
        steps = [step for name, text in _BLOCK.findall(section) if name == machine for step in steps_of(text)]
        if steps:
            yield Recipe(title, steps)


def steps_of(block: str) -> list[Step]:
    """The steps of one terminal."""
    steps: list[Step] = []
    for line in block.splitlines():
        if line.startswith("$ "):
            steps.append(Step(line[2:], []))
        elif line.startswith("> "):  # the shell's second prompt: the command goes on
            steps[-1] = Step(f"{steps[-1].typed}\n{line[2:]}", steps[-1].seen)
        else:
            steps[-1].seen.append(line)
    return steps


def matches(shown: list[str], seen: list[str]) -> bool:
    """Whether what is seen is what the page shows."""
    pattern = "".join(
        r"(?:.*\n)*" if line == "..." else re.escape(line).replace(r"\.\.\.", ".*") + r"\n" for line in shown
    )
    return re.fullmatch(pattern, "".join(f"{line}\n" for line in seen)) is not None


@dataclass
class Terminal:
    """One user's terminal: `run` runs a line of shell and returns its output and errors as they came; `finish` waits
    for the job of that number; `directory` is where the terminal is, as this process sees it."""

    run: Callable[[str], str]
    finish: Callable[[str], object]
    directory: Path
    owner: int
    numbers: dict[str, str] = field(default_factory=dict)

    def play(self, steps: list[Step]) -> None:
        """Type every step, and compare."""
        for step in steps:
            if found := re.fullmatch(r"cat ([\w.-]+)", step.typed):
                self._write(found[1], step.seen)
            typed = self._ours(step.typed)
            seen = self.run(typed).splitlines()
            if re.search(r"\b(qsub|sbatch|udi submit)\b", typed) and seen and (ours := _JOB.match(seen[-1])):
                shown = _JOB.match(step.seen[-1])
                assert shown, f"{step.typed}: the page shows no job's number"
                self.numbers[shown[1]] = ours[1]
                self.finish(ours[1])
            wanted = [self._ours(line) for line in step.seen]
            assert matches(wanted, seen), f"$ {typed}\n" + "\n".join(["the page shows:", *wanted, "", "seen:", *seen])

    def _write(self, name: str, lines: list[str]) -> None:
        """The file that the page's reader has written, unless something on the machine has."""
        path = self.directory / name
        if not re.search(r"\.[oe]?\d+(\.out)?$|\.out$", name) and not path.exists():
            path.write_text("".join(f"{line}\n" for line in lines))
            path.chmod(0o755)
            os.chown(path, self.owner, self.owner)

    def _ours(self, text: str) -> str:
        """The page's job numbers, of three digits, as this machine has them: told by where they stand."""
        return _NUMBER.sub(lambda found: self.numbers.get(found[0], found[0]), text)
