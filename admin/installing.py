"""Putting the site's files in place: rendered below a folder to be looked at, or installed below a root.

Nothing of anybody else is overwritten: of a shared file our own block or line is replaced, and a hook that is not ours
stops the installation before anything was changed.
"""

from __future__ import annotations

import os
import re
import shutil
from collections.abc import Sequence

from admin.sitefiles import OURS, SiteFile
from udiroot.errors import ConfigError, NotPermitted, UpstreamFailed

_BEGIN = f"# >>> {OURS} >>>"
_END = f"# <<< {OURS} <<<"
SSHD_PROGRAMS = ("sshd", "ssh", "sshkey")
"""What `make sshd` builds: the server, its client, and the maker of keys."""
_BLOCK = re.compile(rf"^{re.escape(_BEGIN)}$.*?^{re.escape(_END)}$\n?", re.MULTILINE | re.DOTALL)


def render_below(folder: str, files: Sequence[SiteFile]) -> list[str]:
    """Write each file at its true path below `folder`, as it would be in a site that had none; the paths."""
    return [_write(folder + file.path, _merged(file, ""), file.mode) for file in files]


def install(root: str, files: Sequence[SiteFile]) -> list[str]:
    """Put each file in place below `root`; the paths that changed.

    Raises NotPermitted for a file that is not ours, before anything was written.
    """
    prefix = root.rstrip("/")
    merged = [(*_place(prefix, file), _merged(file, _present(prefix + file.path))) for file in files]
    return [_write(path, text, mode) for path, mode, text in merged if _differs(path, text, mode)]


def install_sshd(built: str, folder: str) -> list[str]:
    """Copy the private sshd's programs from where they were built; their paths. Raises ConfigError, UpstreamFailed."""
    done = []
    for name in SSHD_PROGRAMS:
        path = f"{folder}/{name}"
        try:
            os.makedirs(folder, mode=0o755, exist_ok=True)
            shutil.copyfile(f"{built}/{name}", f"{path}.new")
            os.chmod(f"{path}.new", 0o755)  # noqa: S103 - every user runs it, as root alone may change it
            os.rename(f"{path}.new", path)
        except FileNotFoundError as error:
            raise ConfigError(f"install.ssh_built: no {built}/{name}", "make sshd builds it") from error
        except OSError as error:
            raise UpstreamFailed(f"{path} cannot be written: {error.strerror}") from error
        done.append(path)
    return done


def _place(prefix: str, file: SiteFile) -> tuple[str, int]:
    """Where it goes and with which mode: a shared file stays where its links lead, as readable as it was."""
    path = prefix + file.path
    if file.kind == "whole" or not os.path.exists(path):
        return path, file.mode
    return os.path.realpath(path), os.stat(path).st_mode & 0o7777


def _merged(file: SiteFile, present: str) -> str:
    """What the file will hold, given what it holds now."""
    if file.kind == "block":
        kept = _BLOCK.sub("", present)
        gap = "" if not kept or kept.endswith("\n") else "\n"
        return f"{kept}{gap}{_BEGIN}\n{file.text}{_END}\n"
    if file.kind == "line":
        return _with_line(file, present)
    if present and OURS not in present:
        raise NotPermitted(f"{file.path} is there and not ours", "call our hook from yours, or move it away")
    return file.text


def _with_line(file: SiteFile, present: str) -> str:
    lines = present.splitlines(keepends=True)
    if lines and not lines[-1].endswith("\n"):
        lines[-1] += "\n"
    places = [n for n, line in enumerate(lines) if line.lstrip().startswith(file.key)]
    for place in places:
        if lines[place].split() != file.text.split() and not _is_ours(file, lines[place]):
            raise NotPermitted(f"{file.path} has another {file.key.rstrip('=')}: {lines[place].strip()}")
    others = [line for n, line in enumerate(lines) if n not in places]
    return "".join((*others, file.text))


def _is_ours(file: SiteFile, line: str) -> bool:
    """An older line of ours: the same program or name, at another path."""
    return file.key.endswith("=") or os.path.basename(line.strip()) == os.path.basename(file.text.strip())


def _present(path: str) -> str:
    try:
        with open(path, encoding="utf-8", errors="surrogateescape") as stream:
            return stream.read()
    except FileNotFoundError:
        return ""
    except OSError as error:
        raise UpstreamFailed(f"{path}: {error.strerror}") from error


def _differs(path: str, text: str, mode: int) -> bool:
    try:
        status = os.stat(path)
    except FileNotFoundError:
        return True
    return status.st_mode & 0o7777 != mode or status.st_uid != os.geteuid() or _present(path) != text


def _write(path: str, text: str, mode: int) -> str:
    """Whole, owned by whoever runs this (root), with its mode set before it has its name."""
    unfinished = f"{path}.{os.getpid()}.new"
    try:
        os.makedirs(os.path.dirname(path), mode=0o755, exist_ok=True)
        descriptor = os.open(unfinished, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC, 0o600)
        with os.fdopen(descriptor, "w", encoding="utf-8", errors="surrogateescape") as stream:
            stream.write(text)
            os.fchmod(descriptor, mode)
            stream.flush()
            os.fsync(descriptor)
        os.rename(unfinished, path)
    except OSError as error:
        raise UpstreamFailed(f"{path} cannot be written: {error.strerror}") from error
    return path
