"""Removing what `udi-admin install` placed: from its record, and from what the configuration of now would place.

Only what is recognized as ours is removed: a complete file by its mark, a line or block by its key or marks, a program
by its content, a directory where the installation made it and it is empty. Lines that load or call ours go first, the
record last, so that it can be run again after any failure.
"""

from __future__ import annotations

import hashlib
import os
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass

from admin.install.installed import RECORD, Record, line_file
from admin.install.installing import BLOCK, calls_ours, destination, is_our_line, lines_with_key, text_of, with_line
from admin.install.software import versions
from udi import durable
from udi.oserrors import reason
from udi.sitefiles import SiteFile, is_ours
from udiroot.errors import UpstreamFailed

_UNITS = "/etc/systemd/system"
_FIGURES = "# HELP udi_"
"""How a file of figures begins."""


@dataclass(frozen=True)
class Step:
    """One path that is removed, or changed to another text. A directory that is not empty by then stays."""

    path: str
    text: str | None = None
    is_directory: bool = False

    def __str__(self) -> str:
        return self.path if self.text is None else f"{self.path} (our part of it)"


@dataclass(frozen=True)
class Removal:
    """What will be done, in this order, and a sentence for each thing that is not recognized any more."""

    steps: list[Step]
    kept: list[str]

    def carry_out(self, report: Callable[[Step], None]) -> list[str]:
        """Do it, and report each step that was taken; directories that stay. Raises UpstreamFailed."""
        staying = []
        for step in self.steps:
            try:
                if step.is_directory and os.listdir(step.path):
                    staying.append(step.path)
                    continue
                _take(step)
            except FileNotFoundError:
                continue
            except OSError as error:
                raise UpstreamFailed(
                    f"{step.path} cannot be removed: {reason(error)}", "repair that, and uninstall again"
                ) from error
            report(step)
        return staying


def planned_removal(
    prefix: str,
    record: Record,
    files: Sequence[SiteFile],
    link: str,
    figures: Sequence[str] = (),
    unfinished: Sequence[str] = (),
) -> Removal:
    """What uninstalling below `prefix` will do; `files`, the `link` to the node software and the files of `figures` for
    Prometheus are those of the configuration of now, and `unfinished` is what a killed installation left. Raises
    UpstreamFailed."""
    kept: list[str] = []
    shared = [each for each in files if each.kind != "complete"]
    known = {each.path for each in shared}
    shared += [each for each in map(line_file, record.lines) if each.path not in known]
    shared += [SiteFile(path, 0o644, "", "block") for path in record.blocks if path not in known]
    steps = [step for each in shared for step in _of_shared(prefix, record, each)]
    complete = [path for each in files if each.kind == "complete" for path in (each.path, each.beside) if path]
    for path in dict.fromkeys([*complete, *record.complete]):
        steps += _of_complete(prefix, path, path in record.complete, kept)
    for entry in record.programs:
        sha256, _, path = entry.partition(" ")
        steps += _of_program(prefix + path, sha256, kept)
    for path in dict.fromkeys([link, *record.links]):
        steps += _of_software(prefix + path)
    for path in figures:
        steps += _of_figures(prefix + path, kept)
    steps += [Step(path) for path in unfinished]
    directories = sorted(record.directories, reverse=True)
    if os.path.lexists(prefix + RECORD):
        steps.append(Step(prefix + RECORD))
    steps += [Step(prefix + path, is_directory=True) for path in directories if os.path.isdir(prefix + path)]
    return Removal(steps, kept)


def callers(prefix: str, files: Iterable[SiteFile]) -> list[str]:
    """What of the site's own runs ours, and would fail without: a hook of theirs, an enabled unit."""
    found = []
    for file in files:
        path = prefix + file.path
        if file.beside and os.path.isfile(path) and not is_ours(text_of(path)) and calls_ours(file, text_of(path)):
            found.append(f"{path} runs {file.beside}: remove that line")
        if os.path.dirname(file.path) == _UNITS:
            name = os.path.basename(file.path)
            found += [f"{wants} is enabled: systemctl disable --now {name}" for wants in _wanted(prefix, name)]
    return found


def _wanted(prefix: str, unit: str) -> list[str]:
    try:
        with os.scandir(prefix + _UNITS) as entries:
            directories = sorted(each.path for each in entries if each.name.endswith((".wants", ".requires")))
    except FileNotFoundError:
        return []
    return [path for each in directories if os.path.lexists(path := f"{each}/{unit}")]


def _of_shared(prefix: str, record: Record, file: SiteFile) -> list[Step]:
    path, _ = destination(prefix, file)
    if not os.path.isfile(path):
        return []
    present = text_of(path)
    if file.kind == "block":
        text = BLOCK.sub("", present)
    else:
        ours = [
            line for line in lines_with_key(file, present) if is_our_line(file, line) and not _is_theirs(file, line)
        ]
        text = with_line(present, ours, _taken(record, file)) if ours else present
    if text == present:
        return []
    if not text and file.path in record.made:
        return [Step(path)]
    if file.path in record.unended and present.startswith(text):  # nobody has added lines after ours
        text = text.removesuffix("\n")
    return [Step(path, text)]


def _is_theirs(file: SiteFile, line: str) -> bool:
    return bool(file.takes_over) and line.split() == file.takes_over.split()


def _taken(record: Record, file: SiteFile) -> str:
    """The line of the site's own that comes back."""
    found = (line for path, _, line in (entry.partition("\n") for entry in record.taken) if path == file.path)
    return next(found, f"{file.takes_over}\n" if file.takes_over else "")


def _of_complete(prefix: str, path: str, is_recorded: bool, kept: list[str]) -> list[Step]:
    if not os.path.isfile(prefix + path) or os.path.islink(prefix + path):
        return []
    if is_ours(text_of(prefix + path)):
        return [Step(prefix + path)]
    if is_recorded:
        kept.append(f"{prefix}{path} is not ours any more")
    return []


def _of_program(path: str, sha256: str, kept: list[str]) -> list[Step]:
    try:
        with open(path, "rb") as stream:
            is_same = hashlib.file_digest(stream, "sha256").hexdigest() == sha256
    except FileNotFoundError:
        return []
    except OSError as error:
        raise UpstreamFailed(f"{path}: {reason(error)}") from error
    if not is_same:
        kept.append(f"{path} was changed since it was installed")
    return [Step(path)] if is_same else []


def _of_software(link: str) -> list[Step]:
    linked = [Step(link)] if os.path.islink(link) else []
    return linked + [Step(path) for path in versions(link)]


def _of_figures(path: str, kept: list[str]) -> list[Step]:
    """The file, and what a killed process left of one: nobody would update them, and old figures raise alarms."""
    steps = [Step(durable.unfinished(path))] if os.path.lexists(durable.unfinished(path)) else []
    if not os.path.lexists(path):
        return steps
    if os.path.isfile(path) and not os.path.islink(path) and text_of(path).startswith(_FIGURES):
        return [*steps, Step(path)]
    kept.append(f"{path} has no figures of ours")
    return steps


def _take(step: Step) -> None:
    if step.is_directory:
        os.rmdir(step.path)
    elif step.text is None:
        os.unlink(step.path)
    else:
        status = os.stat(step.path)
        mode = status.st_mode & 0o7777
        durable.write(step.path, step.text.encode("utf-8", "surrogateescape"), mode=mode)
