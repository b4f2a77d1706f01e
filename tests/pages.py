"""Commands of a page of the manual, run as the page shows them.

A fenced block whose first line is ` ```console MACHINE [USER] ` is a terminal of alice's, or of that user's: lines that
begin with `$ ` are typed, what follows each is seen. Those on a Cray and on a workstation take turns. `$ cat FILE` of a
file that is not there yet is how the page says what its reader has written: the file is made. All that is shown is
compared, line by line. Times and the port of a registry are compared by their form. Ids of images and jobs are the
page's own: which one stands for which on this machine is learnt where it is first seen, and holds from there on.
"""

from __future__ import annotations

import os
import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import NamedTuple

DOCS = Path(__file__).parents[1] / "docs"
PAGES = ("users.md", "coming-from.md")
"""Those for users, on whichever machine."""
OTHERS = ("gateway.md", "modules.md", "metrics.md", "signatures.md", "audit.md", "upgrade.md")
"""Those whose terminals are on a Cray that is as each of them says: tests/system/typed_terminals.py."""
MACHINES = ("torque", "slurm", "workstation")
USERS = ("alice", "root", "udi")
_BLOCK = re.compile(r"^```console (\w+)(?: (\w+))?\n(.*?)^```$", re.MULTILINE | re.DOTALL)
_NUMBER = re.compile(
    r"(?<![\w/:])\d{3}(?=(?:\[\d*\])?\.sdb\b)|(?<=\.[oe])\d{3}\b|(?<=job )\d{3}\b|(?<=slurm-)\d{3}\b|^\d{3}$"
)
_JOB = re.compile(r"^(?:Submitted batch job )?((\d+)(?:\[\])?(?:\.sdb)?)$")
_IMAGE = re.compile(r"\b(?:[0-9a-f]{64}|[0-9a-f]{12})\b")
_VARYING = {
    "SECONDS": re.compile(r"\b\d+\.\d s\b"),
    "REGISTRY": re.compile(r"\blocalhost:\d+\b"),
}


class Step(NamedTuple):
    """What is typed, and what is seen."""

    typed: str
    seen: list[str]
    who: str = "alice"


class Recipe(NamedTuple):
    """The steps of one section on one machine, in order."""

    page: str
    title: str
    steps: list[Step]

    def __str__(self) -> str:
        return f"{self.page.removesuffix('.md')}: {self.title.partition('.')[0]}"


def recipes(page: str, machines: Sequence[str]) -> Iterator[Recipe]:
    """The sections of a page that have commands for one of these machines."""
    for section in re.split(r"^## ", (DOCS / page).read_text(), flags=re.MULTILINE)[1:]:
        title = section.partition("\n")[0]
        found = [(_who(name, user), text) for name, user, text in _BLOCK.findall(section) if name in machines]
        steps = [step for who, text in found for step in steps_of(text, who)]
        if steps:
            yield Recipe(page, title, steps)


def _who(machine: str, user: str) -> str:
    return user or (machine if machine == "workstation" else "alice")


def chosen(*machines: str) -> list[Recipe]:
    """All recipes on these machines, of which `make test` plays the first one."""
    found = [recipe for page in PAGES for recipe in recipes(page, machines)]
    return found if os.environ.get("UDI_ALL_RECIPES") else found[:1]


def block_of(page: str, begin: str) -> str:
    """The indented block of a page whose first line begins so; without the indentation."""
    found = re.search(rf"^    {re.escape(begin)}.*\n(?:    .*\n|\n)*", (DOCS.parent / page).read_text(), re.MULTILINE)
    assert found, begin
    return re.sub(r"^    ", "", found[0], flags=re.MULTILINE)


def steps_of(block: str, who: str = "alice") -> list[Step]:
    """The steps of one terminal."""
    steps: list[Step] = []
    for line in block.splitlines():
        if line.startswith("$ "):
            steps.append(Step(line[2:], [], who))
        elif line.startswith("> "):  # the shell's second prompt: the command goes on
            steps[-1] = steps[-1]._replace(typed=f"{steps[-1].typed}\n{line[2:]}")
        else:
            steps[-1].seen.append(line)
    return steps


@dataclass
class Terminal:
    """What is typed by whom: `run` runs a line of shell and returns its output and errors as they came; `finish` waits
    for the job of that id, of an array for all its tasks; `directories` are where they are, as this process sees it."""

    run: Callable[[str, str], str]
    finish: Callable[[str], object]
    directories: Mapping[str, Path]
    owner: int
    numbers: dict[str, str] = field(default_factory=dict)
    images: dict[str, str] = field(default_factory=dict)

    def play(self, steps: list[Step]) -> None:
        """Type every step, and compare."""
        for step in steps:
            if found := re.fullmatch(r"cat ([\w.-]+)", step.typed):
                self._write(self.directories[step.who] / found[1], step.seen)
            typed = self._ours(step.typed)
            seen = self.run(typed, step.who).splitlines()
            if re.search(r"\b(qsub|sbatch|udi submit)\b", typed) and seen and (ours := _JOB.match(seen[-1])):
                shown = _JOB.match(step.seen[-1]) if step.seen else None
                assert shown, f"{step.typed}: the page shows no job's number"
                self.numbers[shown[2]] = ours[2]
                self.finish(ours[1])
            self._learn_images(step.seen, seen)
            wanted = [self._ours(line) for line in step.seen]
            same = list(map(form, wanted)) == list(map(form, seen))
            assert same, "\n".join([f"$ {typed}", "the page shows:", *wanted, "", "seen:", *seen])

    def _write(self, path: Path, lines: list[str]) -> None:
        """The file that the page's reader has written, unless something on the machine has."""
        if not re.search(r"\.[oe]?\d+(\.out)?$|\.out$", path.name) and not path.exists():
            path.write_text("".join(f"{line}\n" for line in lines))
            path.chmod(0o755)
            os.chown(path, self.owner, self.owner)

    def _learn_images(self, shown: list[str], seen: list[str]) -> None:
        """Which image of this machine each of the page's is."""
        for page, here in zip(_IMAGE.findall("\n".join(shown)), _IMAGE.findall("\n".join(seen)), strict=False):
            if page not in self.images:
                self.images |= {page: here, page[:12]: here[:12]}

    def _ours(self, text: str) -> str:
        """The page's images and job numbers, of three digits and told by where they stand, as this machine has them."""
        text = _IMAGE.sub(lambda found: self.images.get(found[0], found[0]), text)
        return _NUMBER.sub(lambda found: self.numbers.get(found[0], found[0]), text)


def form(line: str) -> str:
    """A line without what differs each time."""
    for name, varying in _VARYING.items():
        line = varying.sub(name, line)
    return line
