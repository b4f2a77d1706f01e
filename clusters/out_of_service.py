"""The list of nodes that are out of service: one JSON file, replaced atomically under a lock.

    {"c001": {"reason": "teardown of job 12: …", "since": 1764115200}}

For root only. The jobs' hooks of the host and `udi-admin` share it, and the site's own software may read it to keep the
scheduler off these nodes.
"""

from __future__ import annotations

import contextlib
import json
import os
import time
from collections.abc import Mapping, Sequence

from udi import durable
from udi.command import Deadline
from udi.filelock import locked
from udi.nodes import Node, named
from udi.oserrors import reason
from udi.values import Frozen
from udiroot.errors import TimedOut, UpstreamFailed, UsageError, printable

_MAX_REASON = 400
"""Characters of a reason that are kept."""


class Entry(Frozen):
    """Why a node is out of service, and since when (epoch seconds)."""

    reason: str
    since: int


class OutOfServiceList:
    """The list in the file at `path`."""

    def __init__(self, path: str) -> None:
        self._path = path
        self._lock = f"{path}.lock"

    def read(self) -> dict[Node, Entry]:
        """Every node of the list. Raises UpstreamFailed for a file that cannot be read."""
        try:
            document = json.loads(durable.read_text(self._path))
            return {named(name): Entry(str(entry["reason"]), int(entry["since"])) for name, entry in document.items()}
        except FileNotFoundError:
            return {}
        except OSError as error:
            raise UpstreamFailed(f"{self._path} cannot be read: {reason(error)}") from error
        except (ValueError, KeyError, TypeError, AttributeError, UsageError) as error:
            raise UpstreamFailed(
                f"{self._path} cannot be read: not a list of nodes as shifter-xc writes it: {printable(error)}",
                "repair it; removing it brings all nodes into service",
            ) from error

    def add(self, nodes: Sequence[Node], reasons: Mapping[Node, str], deadline: Deadline) -> None:
        """Add nodes; one that is in the list keeps its first moment. Raises UpstreamFailed, TimedOut."""
        with self._locked(deadline):
            entries = self.read()
            for node in nodes:
                since = entries[node].since if node in entries else int(time.time())
                entries[node] = Entry(printable(reasons.get(node, ""), _MAX_REASON), since)
            self._write(entries)

    def remove(self, nodes: Sequence[Node], deadline: Deadline) -> None:
        """Remove nodes from the list. Raises UpstreamFailed, TimedOut."""
        with self._locked(deadline):
            entries = self.read()
            self._write({node: entry for node, entry in entries.items() if node not in nodes})

    def _write(self, entries: Mapping[Node, Entry]) -> None:
        document = {
            node.name: {"reason": entry.reason, "since": entry.since} for node, entry in sorted(entries.items())
        }
        durable.write_text(self._path, json.dumps(document, indent=1) + "\n")

    def _locked(self, deadline: Deadline) -> contextlib.AbstractContextManager[None]:
        """Hold the lock of the list, which is on a file of its own, since the list itself is replaced."""
        return locked(self._lock, self._open, deadline, TimedOut(f"another process keeps {self._lock} locked"))

    def _open(self) -> int:
        try:
            durable.make_directory(os.path.dirname(self._lock))
            return os.open(self._lock, os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW | os.O_CLOEXEC, 0o600)
        except OSError as error:
            raise UpstreamFailed(f"{self._lock} cannot be opened: {reason(error)}") from error
