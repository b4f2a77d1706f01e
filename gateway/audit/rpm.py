"""Packages of rpm, in whichever of its databases: SQLite, ndb or Berkeley DB. The bytes of each are a stranger's."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator

from gateway.audit import berkeley, ndb, sqlite_blobs
from gateway.audit.packages import Package, Unreadable, require_few
from gateway.audit.rpm_header import package

_TABLE = "Packages"


def from_sqlite(database: bytes, log: bytes) -> list[Package]:
    """The packages of rpmdb.sqlite, with its write-ahead log. Raises Unreadable."""
    return _packages(sqlite_blobs.blobs(database, log, _TABLE), len(database) + len(log))


def from_ndb(database: bytes) -> list[Package]:
    """The packages of Packages.db. Raises Unreadable."""
    return _packages(ndb.blobs(database), len(database))


def from_berkeley(database: bytes) -> list[Package]:
    """The packages of Packages. Raises Unreadable."""
    return _packages(berkeley.values(database), len(database))


READERS: dict[str, Callable[[bytes], list[Package]]] = {"Packages.db": from_ndb, "Packages": from_berkeley}
"""What reads a database that is one file, by its name."""


def _packages(blobs: Iterable[bytes], most: int) -> list[Package]:
    found: list[Package] = []
    for blob in _apart(blobs, most):
        each = package(blob)
        if each is not None:
            found.append(each)
            require_few(found)
    return sorted(found, key=lambda each: (each.name, each.version, each.arch))


def _apart(blobs: Iterable[bytes], most: int) -> Iterator[bytes]:
    """The blobs, which together are no larger than their database: the same bytes are no second package."""
    total = 0
    for blob in blobs:
        total += len(blob)
        if total > most:
            raise Unreadable("its records overlap")
        yield blob
