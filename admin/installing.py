"""Installing the site's files: rendered below a directory for review, or installed below a root directory.

Files of others are not overwritten: in a shared file only our own block or line is replaced, and a hook that shifter-xc
did not install stops the installation before anything is changed.
"""

from __future__ import annotations

import os
import re
from collections.abc import Sequence

from udi import durable
from udi.sitefiles import MARK, SiteFile
from udiroot.errors import ConfigError, NotPermitted, UpstreamFailed

_BEGIN = f"# >>> {MARK} >>>"
_END = f"# <<< {MARK} <<<"
SSHD_PROGRAMS = ("sshd", "ssh", "sshkey")
"""What `make sshd` builds: the server, its client, and the maker of keys."""
_BLOCK = re.compile(rf"^{re.escape(_BEGIN)}$.*?^{re.escape(_END)}$\n?", re.MULTILINE | re.DOTALL)


def render_below(directory: str, files: Sequence[SiteFile]) -> list[str]:
    """Write each file at its own path below `directory`, as on a site that has none yet; the paths."""
    return [_write(directory + file.path, _merged(file, ""), file.mode) for file in files]


def install(root: str, files: Sequence[SiteFile]) -> list[str]:
    """Put each file in place below `root`; the paths that changed.

    Raises NotPermitted for a file that shifter-xc did not install, before anything is written.
    """
    prefix = root.rstrip("/")
    merged = [(*_destination(prefix, file), _merged(file, _present(prefix + file.path))) for file in files]
    return [_write(path, text, mode) for path, mode, text in merged if _differs(path, text, mode)]


def install_sshd(built: str, directory: str) -> list[str]:
    """Copy the private sshd's programs from where they were built; their paths. Raises ConfigError, UpstreamFailed."""
    done = []
    for name in SSHD_PROGRAMS:
        path = f"{directory}/{name}"
        try:
            with open(f"{built}/{name}", "rb") as program:
                content = program.read()
            os.makedirs(directory, mode=0o755, exist_ok=True)
            durable.write(path, content, mode=0o755)
        except FileNotFoundError as error:
            raise ConfigError(f"install.ssh_built: {built}/{name} not found", "make sshd builds it") from error
        except OSError as error:
            raise UpstreamFailed(f"{path} cannot be written: {error.strerror}") from error
        done.append(path)
    return done


def _destination(prefix: str, file: SiteFile) -> tuple[str, int]:
    """Its path and mode: a shared file stays where its links lead, with its mode unchanged."""
    path = prefix + file.path
    if file.kind == "complete" or not os.path.exists(path):
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
    if present and MARK not in present:
        raise NotPermitted(
            f"{file.path} exists and was not installed by shifter-xc", "call our hook from yours, or move it away"
        )
    return file.text


def _with_line(file: SiteFile, present: str) -> str:
    lines = present.splitlines(keepends=True)
    if lines and not lines[-1].endswith("\n"):
        lines[-1] += "\n"
    positions = [n for n, line in enumerate(lines) if line.lstrip().startswith(file.key)]
    for position in positions:
        if lines[position].split() != file.text.split() and not _is_ours(file, lines[position]):
            raise NotPermitted(f"{file.path} has another {file.key.rstrip('=')}: {lines[position].strip()}")
    others = [line for n, line in enumerate(lines) if n not in positions]
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
    """Written atomically, owned by whoever runs this (root), with its mode set before it has its name."""
    try:
        os.makedirs(os.path.dirname(path), mode=0o755, exist_ok=True)
        durable.write(path, text.encode("utf-8", "surrogateescape"), mode=mode)
    except OSError as error:
        raise UpstreamFailed(f"{path} cannot be written: {error.strerror}") from error
    return path
