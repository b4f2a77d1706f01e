"""What `udi-admin install` placed below a root directory: kept there, for `udi-admin uninstall`.

Written before anything else is: after a crash it may name what was never placed, which does no harm, since whatever is
removed is first recognized as ours. It remembers what files of the site's own were before, however often was installed.
"""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Iterable, Mapping

from admin.install.installing import Placed, lines_with_key
from udi import durable
from udi.oserrors import reason
from udi.records import read_record
from udi.sitefiles import SiteFile
from udi.values import Frozen, as_dict
from udi.version import VERSION
from udiroot.errors import UpstreamFailed

RECORD = "/var/lib/udi/installed.json"


class Record(Frozen):
    """All paths are those below the root directory. `complete` are files with our mark, `programs` are files without,
    `sha256 path`; `links` lead to the node software of now. `lines` are `path`, key and line of shared files, `blocks`
    are shared files with our block. Of shared files, `made` did not exist before, `unended` had no end of their last
    line, and `taken` are `path` and the line of theirs that ours replaced. `directories` did not exist before."""

    version: str = ""
    complete: tuple[str, ...] = ()
    programs: tuple[str, ...] = ()
    links: tuple[str, ...] = ()
    lines: tuple[str, ...] = ()
    blocks: tuple[str, ...] = ()
    made: tuple[str, ...] = ()
    unended: tuple[str, ...] = ()
    taken: tuple[str, ...] = ()
    directories: tuple[str, ...] = ()

    @classmethod
    def read(cls, prefix: str) -> Record:
        """The record of the installation below `prefix`; an empty one where there is none. Raises UpstreamFailed."""
        try:
            return read_record(prefix + RECORD, cls, "remove it; what is recognized by its mark is uninstalled without")
        except FileNotFoundError:
            return cls()

    def write(self, prefix: str) -> None:
        """Keep it, on the disk. Raises UpstreamFailed."""
        path = prefix + RECORD
        try:
            durable.make_public_directory(os.path.dirname(path))
            durable.write(path, json.dumps(as_dict(self), indent=1, sort_keys=True) + "\n", mode=0o644)
        except OSError as error:
            raise UpstreamFailed(f"{path} cannot be written: {reason(error)}", "nothing was installed") from error

    def paths(self) -> list[str]:
        """Of all that was placed, whether our own or shared."""
        programs = (entry.partition(" ")[2] for entry in self.programs)
        return [*self.complete, *programs, *self.links, *sorted(_paths(self.lines)), *self.blocks]

    def with_installation(
        self, prefix: str, placed: Iterable[Placed], programs: Mapping[str, bytes], link: str
    ) -> Record:
        """This record and one more installation; `programs` are path → content."""
        placed = list(placed)
        shared = [each for each in placed if each.file.kind != "complete"]
        known = {*_paths(self.lines), *self.blocks}
        new = [each for each in shared if each.path not in known]
        made = [each.path for each in new if each.before is None]
        unended = [each.path for each in new if each.before and not each.before.endswith("\n")]
        taken = [f"{each.path}\n{line}" for each in new for line in _replaced(each)]
        lines = [f"{each.path}\n{each.file.key}\n{each.file.text}" for each in shared if each.file.kind == "line"]
        contents = [f"{hashlib.sha256(content).hexdigest()} {path}" for path, content in programs.items()]
        others = [one for one in self.programs if one.partition(" ")[2] not in programs]
        paths = [*(each.path for each in placed), *programs, link, RECORD]
        return Record(
            version=VERSION,
            complete=_union(self.complete, (each.path for each in placed if each.file.kind == "complete")),
            programs=_union(others, contents),
            links=_union(self.links, [link]),
            lines=_union((line for line in self.lines if line.split("\n")[0] not in _paths(lines)), lines),
            blocks=_union(self.blocks, (each.path for each in shared if each.file.kind == "block")),
            made=_union(self.made, made),
            unended=_union(self.unended, unended),
            taken=_union(self.taken, taken),
            directories=_union(self.directories, _missing_directories(prefix, paths)),
        )


def line_file(entry: str) -> SiteFile:
    """A line of the record, as the shared file that it went into."""
    path, key, text = entry.split("\n", 2)
    return SiteFile(path, 0o644, text, "line", key)


def _replaced(placed: Placed) -> list[str]:
    """Lines of the site's own in whose place ours goes."""
    file = placed.file
    if not file.takes_over or placed.before is None:
        return []
    return [line for line in lines_with_key(file, placed.before) if line.split() == file.takes_over.split()]


def _paths(lines: Iterable[str]) -> set[str]:
    return {line.partition("\n")[0] for line in lines}


def _union(first: Iterable[str], second: Iterable[str]) -> tuple[str, ...]:
    return tuple(dict.fromkeys([*first, *second]))


def _missing_directories(prefix: str, paths: Iterable[str]) -> list[str]:
    """Directories above the paths that do not exist yet, the outer ones first."""
    found: set[str] = set()
    for path in paths:
        directory = os.path.dirname(path)
        while directory not in ("/", "") and not os.path.lexists(prefix + directory):
            found.add(directory)
            directory = os.path.dirname(directory)
    return sorted(found)
