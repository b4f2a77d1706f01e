"""Steps of jobs on this node: each has a process of root's, which calls itself `slurmstepd: [JOB.STEP]`."""

from __future__ import annotations

import re

from udiroot import processes, smallfile

_TITLE = re.compile(rb"slurmstepd: \[([1-9][0-9]{0,9})\.")


def jobs_with_steps() -> frozenset[str]:
    """The jobs of which any step runs here, with an image or without. What users call their programs does not count,
    and is not read: a process can make whoever reads its memory wait."""
    found = set()
    for pid in processes.pids():
        status = processes.status(pid)
        if status and status.lives and status.uids[0] == 0 and (title := _TITLE.match(_command_line(pid))):
            found.add(title[1].decode("ascii"))
    return frozenset(found)


def _command_line(pid: int) -> bytes:
    try:
        return smallfile.read(f"/proc/{pid}/cmdline")
    except (FileNotFoundError, ProcessLookupError):
        return b""
