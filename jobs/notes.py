"""What a hook tells the workload manager's own processes of a job on this host: one small file, which anybody may read.

    udi-note 1
    uid <uid>
    start <number>
    state wanted|ready|failed
    root <path>, label <source of the root's mount>      where the root is ready
    image <reference>, id <64 hex>                       what was asked for, once known
    given <text>                                         as the user wrote it
    why <words>                                          where it failed, for the user
    end

Values are escaped as in plans (`udiroot.fields`). A file is replaced atomically, and only root may write it: whoever
reads it goes by it, and takes a file that is damaged for a root that must not be entered.
"""

from __future__ import annotations

import os
from typing import Final, Literal, cast

from udi import durable
from udi.jobid import is_job_id, job_id
from udi.oserrors import reason
from udi.values import Frozen, replace
from udiroot.errors import UpstreamFailed
from udiroot.fields import escape, number, unescape

State = Literal["wanted", "ready", "failed"]
WANTED: Final = "wanted"
READY: Final = "ready"
FAILED: Final = "failed"
_HEAD = "udi-note 1"
_MAX_BYTES = 64 << 10
_TEXTS = ("root", "label", "image", "given", "id", "why")


class Note(Frozen):
    """A job with an image on this host. `start` tells one start of the job from another."""

    uid: int
    state: State
    start: int = 0
    root: str = ""
    label: str = ""
    image: str = ""
    given: str = ""
    id: str = ""
    why: str = ""

    def text(self) -> str:
        """As the file has it."""
        texts = [(name, str(getattr(self, name))) for name in _TEXTS]
        rows = [f"{name} {escape(value)}" for name, value in texts if value]
        return "\n".join((_HEAD, f"uid {self.uid}", f"start {self.start}", f"state {self.state}", *rows, "end", ""))

    @classmethod
    def parse(cls, data: bytes) -> Note | None:
        """The note in a file; None for one that is damaged."""
        try:
            lines = data.decode("ascii").split("\n")
            pairs = [line.split(" ") for line in lines[1:-2]]
            values = {name: unescape(value) for name, value in pairs}
        except ValueError:
            return None
        known = {"uid", "start", "state", *_TEXTS}
        if lines[0] != _HEAD or lines[-2:] != ["end", ""] or len(values) < len(pairs) or not values.keys() <= known:
            return None
        uid, start = (number(values.pop(name, "")) for name in ("uid", "start"))
        state = values.pop("state", "")
        if uid < 0 or start < 0 or state not in (WANTED, READY, FAILED):
            return None
        return cls(uid, cast("State", state), start, **values)


class Notes:
    """The directory of all notes of this host."""

    def __init__(self, path: str) -> None:
        self.path = path

    def write(self, job: str, note: Note) -> None:
        """Put the job's note in place, as the only one who does. Raises UpstreamFailed."""
        path = self._path(job)
        try:
            durable.make_public_directory(self.path)
            durable.write(path, note.text(), mode=0o644, alone=True)
        except OSError as error:
            raise UpstreamFailed(f"{path} cannot be written: {reason(error)}") from error

    def read(self, job: str) -> Note | None:
        """The job's note; None where it has none, or a damaged one. Raises UpstreamFailed."""
        path = self._path(job)
        try:
            descriptor = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_CLOEXEC | os.O_NONBLOCK)
            with os.fdopen(descriptor, "rb") as stream:
                return Note.parse(stream.read(_MAX_BYTES))
        except FileNotFoundError:
            return None
        except OSError as error:
            raise UpstreamFailed(f"{path} cannot be read: {reason(error)}") from error

    def remove(self, job: str) -> None:
        """The job has no note any more. Raises UpstreamFailed."""
        path = self._path(job)
        try:
            durable.remove(path, alone=True)
        except OSError as error:
            raise UpstreamFailed(f"{path} cannot be removed: {reason(error)}") from error

    def change(self, job: str, note: Note, **changes: str) -> Note:
        """Replace parts of the job's note. Raises UpstreamFailed."""
        changed = replace(note, **changes)
        self.write(job, changed)
        return changed

    def jobs(self) -> set[str]:
        """Every job that has a note, damaged or not. Raises UpstreamFailed."""
        try:
            names = os.listdir(self.path)
        except FileNotFoundError:
            return set()
        except OSError as error:
            raise UpstreamFailed(f"{self.path} cannot be read: {reason(error)}") from error
        return set(filter(is_job_id, names))

    def _path(self, job: str) -> str:
        return f"{self.path}/{job_id(job)}"
