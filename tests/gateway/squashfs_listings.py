"""What readers of squashfs list, entry by entry, of an image with so many that unpacking it takes long. No name in it
may have a blank, a line's end or a quotation mark."""

from __future__ import annotations

import datetime
import os
import stat
import subprocess
import tarfile
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import NamedTuple

from tests.gateway.archives import Entry

_SECONDS = 60
_KINDS = {
    tarfile.REGTYPE: stat.S_IFREG,
    tarfile.DIRTYPE: stat.S_IFDIR,
    tarfile.SYMTYPE: stat.S_IFLNK,
    tarfile.FIFOTYPE: stat.S_IFIFO,
}
_WORDS = {"dir": "d", "file": "-", "slink": "l", "pipe": "p"}


class Row(NamedTuple):
    """One entry; `mode` begins with the kind, as `ls -l` writes it. A directory's size is 0: it is the reader's own."""

    mode: str
    uid: int
    gid: int
    size: int
    mtime: int
    target: bytes


def listings_agree(image: Path, entries: Sequence[Entry]) -> None:
    """Assert that unsquashfs and rdsquashfs list these entries, of which none is a hard link. The former shows times to
    the minute, the latter neither sizes nor times."""
    rows = {entry.name: _row(entry) for entry in entries}
    seen: dict[str, tuple[Callable[[Path], dict[bytes, Row]], Callable[[Row], Row]]] = {
        "unsquashfs": (_by_unsquashfs, lambda row: row._replace(mtime=row.mtime // 60 * 60)),
        "rdsquashfs": (_by_rdsquashfs, lambda row: row._replace(size=0, mtime=0)),
    }
    for reader, (listed, shown) in seen.items():
        wanted = {name: shown(row) for name, row in rows.items()}
        found = listed(image)
        # pytest's explanation of how such trees differ would take minutes
        wrong = [name for name in {*wanted, *found} if wanted.get(name) != found.get(name)][:3]
        assert not wrong, [(reader, name, wanted.get(name), found.get(name)) for name in wrong]


def kernel_agrees(root: Path, entries: Sequence[Entry]) -> None:
    """Assert that an image that is mounted at `root` has these entries. Each is looked up in its directory, so that all
    of a large one would take the kernel seconds."""
    for entry in entries:
        path = os.path.join(os.fsencode(root), entry.name)
        status = os.lstat(path)
        mode, is_directory = stat.filemode(status.st_mode), stat.S_ISDIR(status.st_mode)
        size, mtime = 0 if is_directory else status.st_size, int(status.st_mtime)
        target = os.readlink(path) if stat.S_ISLNK(status.st_mode) else b""
        assert Row(mode, status.st_uid, status.st_gid, size, mtime, target) == _row(entry), entry.name


def _row(entry: Entry) -> Row:
    size = len(entry.target if entry.kind == tarfile.SYMTYPE else entry.data)
    return Row(stat.filemode(_KINDS[entry.kind] | entry.mode), entry.uid, entry.gid, size, entry.mtime, entry.target)


def _by_unsquashfs(image: Path) -> dict[bytes, Row]:
    rows = {}
    for line in _output("unsquashfs", "-quiet", "-lln", "-d", "root", image).splitlines():
        mode, owner, size, day, minute, path, *target = line.split()
        name = path.removeprefix(b"root").lstrip(b"/")
        if name:
            uid, gid = owner.split(b"/")
            when = datetime.datetime.fromisoformat(f"{day.decode()}T{minute.decode()}+00:00")
            rows[name] = _seen(mode, uid, gid, size, int(when.timestamp()), b"".join(target[1:]))
    return rows


def _by_rdsquashfs(image: Path) -> dict[bytes, Row]:
    rows = {}
    for line in _output("rdsquashfs", "--describe", image).splitlines():
        kind, path, mode, uid, gid, *target = line.split(b" ")
        shown = stat.filemode(int(mode, 8))[1:]
        rows[path.lstrip(b"/")] = Row(_WORDS[kind.decode()] + shown, int(uid), int(gid), 0, 0, b"".join(target))
    return rows


def _seen(mode: bytes, uid: bytes, gid: bytes, size: bytes, mtime: int, target: bytes) -> Row:
    bytes_of = 0 if mode.startswith(b"d") else int(size)
    return Row(mode.decode(), int(uid), int(gid), bytes_of, mtime, target)


def _output(*argv: str | Path) -> bytes:
    done = subprocess.run(
        argv, capture_output=True, timeout=_SECONDS, check=True, env={**os.environ, "TZ": "UTC", "LC_ALL": "C"}
    )
    return done.stdout
