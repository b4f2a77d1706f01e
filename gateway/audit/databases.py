"""Where an image keeps what is installed in it, and which of these files are worth their memory."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

from gateway.audit import apk, dpkg, rpm
from gateway.audit.packages import Package, Unreadable
from gateway.image import tree
from gateway.image.tree import Tree, shown
from udiroot.errors import ImageInvalid

_OS_RELEASE = (b"etc/os-release", b"usr/lib/os-release")
_DPKG, _DPKG_PARTS = b"var/lib/dpkg/status", b"var/lib/dpkg/status.d"
_APK = (b"lib/apk/db/installed", b"usr/lib/apk/db/installed")
_RPM = (b"var/lib/rpm", b"usr/lib/sysimage/rpm", b"usr/share/rpm")
_SQLITE, _SQLITE_LOG = b"rpmdb.sqlite", b"rpmdb.sqlite-wal"
_MAX_FILE, _MAX_TOTAL = 192 << 20, 384 << 20
"""Bytes. The largest known, of a complete Fedora, has a hundred megabytes."""
_MAX_PARTS = 20_000
_MAX_RELEASE = 64 << 10


@dataclass
class Databases:
    """The files that tell what is in a tree: each path with its inode. What cannot be had is said in `unread`."""

    final: Tree
    files: dict[bytes, int] = field(default_factory=dict)
    unread: list[str] = field(default_factory=list)
    _total: int = 0

    @classmethod
    def of(cls, final: Tree) -> Databases:
        """Those of a tree; links are followed inside of it."""
        found = cls(final)
        found._add(_OS_RELEASE, _MAX_RELEASE)
        found._add((_DPKG, *_APK), _MAX_FILE)
        found._add_parts()
        for directory in _RPM:
            found._add([directory + b"/" + name for name in (_SQLITE, b"Packages.db", b"Packages")], _MAX_FILE)
            if directory + b"/" + _SQLITE in found.files:
                found._add((directory + b"/" + _SQLITE_LOG,), _MAX_FILE)
        return found

    def read(self, contents: Mapping[int, bytes]) -> tuple[dict[str, str], list[Package]]:
        """What os-release says, and all packages. A database that several paths lead to is read once."""
        seen: set[int] = set()
        packages: list[Package] = []
        release: dict[str, str] = {}
        for path, inode in self.files.items():
            if inode in seen or path.endswith(_SQLITE_LOG):
                continue
            seen.add(inode)
            text = contents.get(inode, b"")
            if len(text) != self.final.sizes[inode]:
                self.unread.append(f"/{shown(path)}: its contents were not kept")
                continue
            if path in _OS_RELEASE:
                release = release or _release(text)
                continue
            try:
                packages += self._packages(path, text, contents)
            except Unreadable as error:
                self.unread.append(f"/{shown(path)}: {error}")
        return release, packages

    def _packages(self, path: bytes, text: bytes, contents: Mapping[int, bytes]) -> list[Package]:
        if path == _DPKG or path.startswith(_DPKG_PARTS):
            return dpkg.packages(text)
        if path in _APK:
            return apk.packages(text)
        if path.endswith(_SQLITE):
            log = self.files.get(path.removesuffix(_SQLITE) + _SQLITE_LOG, -1)
            return rpm.from_sqlite(text, contents.get(log, b""))
        return rpm.READERS[path.rpartition(b"/")[2].decode()](text)

    def _add_parts(self) -> None:
        """One file for each package, as images without dpkg have them."""
        directory = self._directory(_DPKG_PARTS)
        names = sorted(self.final.children.get(directory, {})) if directory is not None else []
        names = [name for name in names if not name.endswith(b".md5sums")]
        if len(names) > _MAX_PARTS:
            self.unread.append(f"/{shown(_DPKG_PARTS)}: it has more than {_MAX_PARTS} files")
            names = names[:_MAX_PARTS]
        self._add([_DPKG_PARTS + b"/" + name for name in names], _MAX_RELEASE)

    def _add(self, paths: tuple[bytes, ...] | list[bytes], most: int) -> None:
        for path in paths:
            inode = self._file(path)
            if inode is None:
                continue
            size = self.final.sizes[inode]
            if size > most or self._total + size > _MAX_TOTAL:
                self.unread.append(f"/{shown(path)}: it is too large ({size} bytes)")
                continue
            self._total += size
            self.files[path] = inode

    def _file(self, path: bytes) -> int | None:
        """The inode of the regular file at a path; links are followed, the last part's too."""
        row, missing = self._resolved(path)
        if len(missing) != 1:
            return None
        found = self.final.find(row, missing[0])
        if found is None or self.final.kind(found) != tree.FILE:
            return None
        return self.final.inodes.get(found, found)

    def _directory(self, path: bytes) -> int | None:
        row, missing = self._resolved(path)
        return None if missing else row

    def _resolved(self, path: bytes) -> tuple[int, list[bytes]]:
        try:
            return self.final.resolve(path.split(b"/"))
        except ImageInvalid as error:  # links that form a loop: nothing is there for any program
            self.unread.append(f"/{shown(path)}: {error.message}")
            return tree.ROOT, [b"", b""]


def _release(text: bytes) -> dict[str, str]:
    """Variables of os-release(5), by their names in lower case."""
    values: dict[str, str] = {}
    for line in text.decode("utf-8", "replace").splitlines():
        name, equals, value = line.strip().partition("=")
        if equals and name.replace("_", "").isalnum() and len(values) < 50:
            values[name.lower()[:50]] = value.strip().strip("\"'")[:500]
    return values
