"""Installing the site's files: rendered below a directory for review, or installed below a root directory.

Files of others are not overwritten: in a shared file only our own block or line is replaced, and beside a hook of the
site's own, ours gets another name, to be called from it. Where neither will do, nothing is changed. Every file and
directory has the mode that it needs, whatever the umask.
"""

from __future__ import annotations

import os
import re
import shlex
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from udi import durable
from udi.oserrors import reason
from udi.sitefiles import MARK, SiteFile, is_ours, marked
from udiroot.errors import NotPermitted, UpstreamFailed, printable

_BEGIN = f"# >>> {MARK} >>>"
_END = f"# <<< {MARK} <<<"
_MOVE = "mv {path} {path}.site"
_SHELL = re.compile(r"#![^\n]*sh\b")
_MAX_BYTES = 16 << 20
BLOCK = re.compile(rf"^{re.escape(_BEGIN)}$.*?^{re.escape(_END)}$\n?", re.MULTILINE | re.DOTALL)


@dataclass(frozen=True)
class Installed:
    """The paths that changed, and a sentence for each file of the site's own that must call ours."""

    changed: list[str]
    advice: list[str]


def render_below(directory: str, files: Sequence[SiteFile]) -> list[str]:
    """Write each file at its own path below `directory`, as on a site that has none yet; the paths."""
    return [_write(directory + file.path, _merged(file, ""), file.mode) for file in files]


@dataclass(frozen=True)
class Placed:
    """A file of ours, or a file that has our line or block, at its path below the root directory; `before` is what a
    shared file held, None where there was none."""

    file: SiteFile
    path: str
    before: str | None = None


@dataclass(frozen=True)
class Installation:
    """What will be written: path, text and mode of each file that differs; and the advice for people. `placed` is all
    that is ours afterwards, whether it differs or not."""

    files: list[tuple[str, str, int]]
    advice: list[str]
    placed: list[Placed]

    def put(self) -> Installed:
        """Put each file in place, none before all are on the disk. Raises UpstreamFailed."""
        try:
            for path, _, _ in self.files:
                durable.make_public_directory(os.path.dirname(path))
            durable.write_all([(path, _as_bytes(text), mode) for path, text, mode in self.files])
        except OSError as error:
            raise UpstreamFailed(
                f"{error.filename} cannot be written: {reason(error)}", "nothing was installed; install again"
            ) from error
        return Installed([path for path, _, _ in self.files], self.advice)


def install(root: str, files: Sequence[SiteFile]) -> Installed:
    """Put each file in place below `root`. Raises NotPermitted, UpstreamFailed; nothing is written then."""
    return planned(root, files).put()


def planned(root: str, files: Sequence[SiteFile], earlier: Sequence[SiteFile] = ()) -> Installation:
    """What installing below `root` will write, also in place of the lines of `earlier` installations. Raises
    NotPermitted, with all files of the site's own in the way."""
    prefix = root.rstrip("/")
    advice, refusals, merged, placed = [], [], [], []
    for file in files:
        if blocked := _blocked(file, prefix):
            refusals.append(blocked)
            continue
        path, mode = destination(prefix, file)
        theirs = _foreign(file, prefix + file.path)
        if not theirs:
            merged.append((path, _merged(file, text_of(path), earlier), mode))
            placed.append(Placed(file, file.path, text_of(path) if os.path.exists(path) else None))
        elif not file.advice:
            refusals.append(theirs)
        else:
            if file.beside:
                merged.append((prefix + file.beside, marked(file.text), file.mode))
                placed.append(Placed(file, file.beside))
            if not calls_ours(file, text_of(path)):
                advice.append(f"{theirs.message}: {_advice(file, text_of(path))}")
    if refusals:
        hint = "; ".join(dict.fromkeys(refusal.hint for refusal in refusals))
        raise NotPermitted("; ".join(refusal.message for refusal in refusals), hint)
    differing = [(path, text, mode) for path, text, mode in merged if _differs(path, _as_bytes(text), mode)]
    return Installation(differing, advice, placed)


def _advice(file: SiteFile, theirs: str) -> str:
    """Only a shell script can be given a line for the shell."""
    if file.beside and not _SHELL.match(theirs):
        return f"it is not a shell script, so put one in its place that runs it, and at its end: {file.call}"
    return file.advice


def install_programs(root: str, programs: Mapping[str, bytes]) -> list[str]:
    """Put programs that were built in place below `root`, path → content; the paths of those that differed. Raises
    UpstreamFailed."""
    wanted = [(root + path, content, 0o755) for path, content in programs.items()]
    return [_write_bytes(*each) for each in wanted if os.path.islink(each[0]) or _differs(*each)]


def destination(prefix: str, file: SiteFile) -> tuple[str, int]:
    """Its path and mode: a shared file stays where its links lead, with its mode unchanged."""
    path = prefix + file.path
    if file.kind == "complete" or not os.path.exists(path):
        return path, file.mode
    return os.path.realpath(path), os.stat(path).st_mode & 0o7777


def _blocked(file: SiteFile, prefix: str) -> NotPermitted | None:
    """What is neither a file nor nothing, such as a directory or a link that leads nowhere, is moved by people only; so
    is a file of theirs that has the name by which theirs would call ours. A link to a hook can stay."""
    for path in (prefix + file.path, *([prefix + file.beside] if file.beside else [])):
        is_lost_hook = bool(file.beside) and os.path.islink(path) and not os.path.exists(path)
        if os.path.lexists(path) and not os.path.isfile(path) and not is_lost_hook:
            return NotPermitted(f"{path} is not a regular file", _MOVE.format(path=shlex.quote(path)))
    if file.beside and os.path.exists(prefix + file.beside) and not is_ours(text_of(prefix + file.beside)):
        return _not_ours(prefix + file.beside)
    return None


def _not_ours(path: str, remedy: str = "") -> NotPermitted:
    hint = (remedy or _MOVE).format(path=shlex.quote(path))
    return NotPermitted(f"{path} was not installed by shifter-xc", hint)


def _foreign(file: SiteFile, path: str) -> NotPermitted | None:
    """Why what is at the path must stay as it is; None where it is ours, or nothing of anybody's."""
    if not os.path.lexists(path) or (file.kind == "block" and os.path.isfile(path)):
        return None
    if file.kind == "line":
        others = [line.strip() for line in lines_with_key(file, text_of(path)) if not is_our_line(file, line)]
        hint = f"remove or change that line of {path}"
        return NotPermitted(f"{path} has a line of the site's own, {printable(others[0])}", hint) if others else None
    if os.path.exists(path) and is_ours(text_of(path)):
        return None
    return _not_ours(path, file.remedy)


def is_our_line(file: SiteFile, line: str) -> bool:
    """Whether a line is the one that we would write, or an older one of ours, the same program at another path, or the
    one of the site's own that ours takes over."""
    if file.takes_over and line.split() == file.takes_over.split():
        return True
    if len(file.key.split()) > 1 or re.sub(r"\s*=\s*", "=", line.strip()).split() == file.text.split():
        return True
    ours, theirs = file.text.split(), line.split()
    return len(ours) == len(theirs) == 2 and os.path.basename(ours[1]) == os.path.basename(theirs[1])


def calls_ours(file: SiteFile, theirs: str) -> bool:
    """Whether a file of the site's own names ours already; of a line, nobody can tell what its program does."""
    name = re.compile(rf"{re.escape(file.beside)}(?![\w.-])")
    return bool(file.beside) and any(
        name.search(line) and not line.lstrip().startswith("#") for line in theirs.splitlines()
    )


def _merged(file: SiteFile, present: str, earlier: Sequence[SiteFile] = ()) -> str:
    """What the file will hold, given what it holds now."""
    if file.kind == "block":
        kept = BLOCK.sub("", present)
        gap = "" if not kept or kept.endswith("\n") else "\n"
        return f"{kept}{gap}{_BEGIN}\n{file.text}{_END}\n"
    if file.kind == "line":
        old = [line for line in earlier if line.path == file.path and line.key != file.key]
        written = [line for each in old for line in lines_with_key(each, present) if line.split() == each.text.split()]
        return with_line(present, [*lines_with_key(file, present), *written], file.text)
    return marked(file.text)


def with_line(present: str, old: Sequence[str], new: str) -> str:
    """The text with the line `new` where the first of the `old` ones was, or at its end, and without the others."""
    lines = present.splitlines(keepends=True)
    at = next((number for number, line in enumerate(lines) if line in old), len(lines))
    kept = [line for line in lines[at:] if line not in old]
    head = "".join(lines[:at])
    gap = "" if not head or head.endswith("\n") else "\n"
    return f"{head}{gap}{new}{''.join(kept)}"


def lines_with_key(file: SiteFile, present: str) -> list[str]:
    """Lines that set what ours sets: the key, then a blank, or nothing where the key ends in `=`."""
    name = r"\s+".join(map(re.escape, file.key.rstrip("=").split()))
    key = re.compile(rf"\s*{name}\s*=" if file.key.endswith("=") else rf"\s*{name}(?=\s|$)")
    return [line for line in present.splitlines(keepends=True) if key.match(line)]


def text_of(path: str) -> str:
    """The text of a file; nothing where there is none. Raises UpstreamFailed."""
    try:
        descriptor = os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_NOCTTY | os.O_CLOEXEC)
        with open(descriptor, encoding="utf-8", errors="surrogateescape", newline="") as stream:
            return stream.read(_MAX_BYTES)
    except FileNotFoundError:
        return ""
    except OSError as error:
        raise UpstreamFailed(f"{path}: {reason(error)}") from error


def _differs(path: str, content: bytes, mode: int) -> bool:
    try:
        status = os.stat(path)
    except FileNotFoundError:
        return True
    is_same = status.st_mode & 0o7777 == mode and status.st_uid == os.geteuid() and status.st_size == len(content)
    return not is_same or _as_bytes(text_of(path)) != content


def _write(path: str, text: str, mode: int) -> str:
    return _write_bytes(path, _as_bytes(text), mode)


def _as_bytes(text: str) -> bytes:
    return text.encode("utf-8", "surrogateescape")


def _write_bytes(path: str, content: bytes, mode: int) -> str:
    """Written atomically, owned by whoever runs this (root), with its mode set before it has its name."""
    try:
        durable.make_public_directory(os.path.dirname(path))
        durable.write(path, content, mode=mode)
    except OSError as error:
        raise UpstreamFailed(f"{path} cannot be written: {reason(error)}") from error
    return path
