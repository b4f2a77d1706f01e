"""What jobs with roots of their own on one node share: kernel modules, and the switch of realm-specific IP.

Each job's record names the modules that it needs and that were absent before any of our jobs: those that it found
absent, and those that a neighbour's record names. The last of these jobs unloads them. A lock on the directory above
all run directories makes one step of a look at the records and what follows from it.

On a node that is one job's alone, the run directory is not called by its job, and nothing is shared.
"""

import fcntl
import os
import time

from udiroot.errors import TimedOut
from udiroot.record import Record, RunDirectory

TYPE_CHECKING = False
if TYPE_CHECKING:
    from types import TracebackType

_PAUSE = 0.005


class Neighbours:
    """The other jobs of a node, for the time of a `with`: nobody else changes what is shared meanwhile.

    `deadline` is a time of time.monotonic(), after which TimedOut is raised.
    """

    def __init__(self, job: str, run: RunDirectory, deadline: float) -> None:
        directory, name = os.path.split(run.path)
        self._directory, self._own = (directory, name) if name == job else ("", "")
        self._deadline = deadline
        self._descriptor = -1

    @property
    def is_shared(self) -> bool:
        """Whether the node may have other jobs."""
        return bool(self._directory)

    def modules(self) -> "set[str]":
        """Files of kernel modules that their records name."""
        return {path for record in self._records() for path in record.modules}

    def switches(self) -> "set[str]":
        """The switches that they have turned on."""
        return {record.krsip for record in self._records() if record.krsip}

    def _records(self) -> "list[Record]":
        if not self._directory:
            return []
        names = [name for name in os.listdir(self._directory) if name != self._own]
        found = [RunDirectory(f"{self._directory}/{name}").read() for name in names]
        return [record for record in found if record is not None and record.is_of_this_boot]

    def __enter__(self) -> "Neighbours":
        if self._directory:
            descriptor = os.open(self._directory, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC | os.O_NOFOLLOW)
            try:
                self._lock(descriptor)
            except BaseException:
                os.close(descriptor)
                raise
            self._descriptor = descriptor
        return self

    def _lock(self, descriptor: int) -> None:
        while True:
            try:
                fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
                return
            except BlockingIOError:
                if time.monotonic() >= self._deadline:
                    raise TimedOut(f"{self._directory} is locked by a set-up or teardown of another job") from None
            time.sleep(_PAUSE)

    def __exit__(
        self, kind: "type[BaseException] | None", error: "BaseException | None", trace: "TracebackType | None"
    ) -> None:
        if self._descriptor >= 0:
            os.close(self._descriptor)
            self._descriptor = -1
