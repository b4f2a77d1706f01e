"""Counts of short-lived processes, kept in the very file that node_exporter reads (its textfile collector).

Each hook adds what it saw: under a lock it reads the file, adds, and replaces it atomically. So the file is complete at
every moment, there is no second copy that could differ, and a file that is lost or damaged begins at 0 again, which
Prometheus takes for a restart. Nothing waits for the disk: what a crash of the host loses are counts.

`prometheus_client` would write the same text, but it brings an HTTP server and TLS, and takes several times as long to
import as a bare interpreter to start; and its own way to count over processes keeps a file for each process for ever.
"""

from __future__ import annotations

import contextlib
import math
import os
import stat
from collections.abc import Iterable, Mapping

from udi import durable
from udi.command import Deadline
from udi.filelock import locked
from udi.metrics import Family, text_of
from udiroot.errors import TimedOut

_LOCK_SECONDS = 1.0
_MAX_BYTES = 1 << 20
_LARGEST = 2.0**53
"""Beyond that, a float does not rise by 1 any more."""


class Textfile:
    """The file at `path`, of these families and no others. `lock` is a file that only its writers can open."""

    def __init__(self, path: str, lock: str, families: Iterable[Family]) -> None:
        self.path = path
        self._lock = lock
        self._families = tuple(families)

    def add(self, rises: Mapping[str, float], gauges: Mapping[str, float]) -> None:
        """Counts rise by `rises`; gauges are as given. Raises OSError; TimedOut where others hold the lock."""
        with self._locked():
            samples = self._read()
            for key, by in rises.items():
                samples[key] = samples.get(key, 0) + by
            text = text_of(self._families, {**samples, **gauges})
            durable.write(self.path, text, mode=0o644, alone=True, lasting=False)

    def _read(self) -> dict[str, float]:
        """The counts so far: of what the families have, and nothing else that the file may say."""
        try:
            descriptor = os.open(self.path, os.O_RDONLY | os.O_NOFOLLOW | os.O_CLOEXEC | os.O_NONBLOCK)
        except OSError:
            return {}
        with os.fdopen(descriptor, "rb") as stream:
            status = os.fstat(descriptor)
            if not stat.S_ISREG(status.st_mode) or status.st_size > _MAX_BYTES:
                return {}
            lines = stream.read(_MAX_BYTES).decode("utf-8", "replace").splitlines()
        known = {key for family in self._families if family.kind != "gauge" for key in family.samples()}
        return {key: value for key, value in map(_sample, lines) if key in known and 0 <= value < _LARGEST}

    def _locked(self) -> contextlib.AbstractContextManager[None]:
        refusal = TimedOut(f"{self._lock} was held by others for {_LOCK_SECONDS:g} s")
        return locked(self._lock, self._open, Deadline(_LOCK_SECONDS), refusal)

    def _open(self) -> int:
        durable.make_public_directory(os.path.dirname(self._lock))
        return os.open(self._lock, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW, 0o600)


def _sample(line: str) -> tuple[str, float]:
    """A line's sample; one that no family has for a line that is none."""
    key, _, number = line.rpartition(" ")
    try:
        value = float(number)
    except ValueError:
        return "", 0.0
    return (key, value) if math.isfinite(value) else ("", 0.0)
