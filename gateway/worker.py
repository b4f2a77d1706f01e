"""One conversion in a process of its own, so that a crash or a kill leaves the service as it was.

Started by `gateway.conversions` with the user's files as descriptors. On its input: a job (one line of JSON), later
one word, `convert` or `verify`. On its output, lines of JSON: progress; `identified` with the image's id and name once
they are known, upon which it waits for the word; `done` with the facts; or `error`. It ends with its parent.
"""

from __future__ import annotations

import ctypes
import json
import os
import signal
import sys
import time
from typing import Any

from gateway.convert import convert, verify
from gateway.protocol import error_event
from gateway.sources.opened import OpenedSource
from gateway.spool import spool
from udi.config import GatewayConfig
from udiroot.errors import UdiError, UpstreamFailed, printable

_PR_SET_PDEATHSIG = 1
_INTERVAL = 0.2


class _Reported:
    """Progress as lines, a few a second."""

    def __init__(self) -> None:
        self._stage, self._total, self._done, self._said = "", 0, 0, 0.0

    def stage(self, name: str, total: int) -> None:
        self._stage, self._total, self._done = name, total, 0
        self._say()

    def advance(self, count: int) -> None:
        self._done += count
        if time.monotonic() - self._said > _INTERVAL:
            self._say()

    def _say(self) -> None:
        self._said = time.monotonic()
        _say({"event": "progress", "stage": self._stage, "bytes": self._done, "total": self._total})


def main() -> None:
    """Run the one job. The exit code is 0 when the last event says all there is to say."""
    ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)
    job = json.loads(sys.stdin.readline())
    if os.getppid() != job["parent"]:
        sys.exit(1)  # it died before we asked to be told
    try:
        _run(job)
    except UdiError as error:
        _say(error_event(error))
    except MemoryError:
        _say(error_event(UpstreamFailed("the gateway has not enough memory for this image")))
    except OSError as error:
        _say(error_event(UpstreamFailed(f"the gateway could not convert it: {printable(error)}")))


def _run(job: dict[str, Any]) -> None:
    values: dict[str, Any] = {
        key: tuple(value) if isinstance(value, list) else value for key, value in job["settings"].items()
    }
    settings = GatewayConfig(**values)
    progress = _Reported()
    given = OpenedSource(job["kind"], job["tag"], job["files"])
    progress.stage("copying", sum(os.fstat(descriptor).st_size for descriptor in given.files.values()))
    copied = spool(given, settings.state, settings.max_image_bytes, progress.advance)
    given.close()
    image = copied.read(settings.architecture, settings.max_metadata_bytes)
    _say({"event": "identified", "id": image.id, "name": image.name})
    word = sys.stdin.readline().strip()
    if word == "convert":
        facts = convert(image, job["output"], settings, progress)
        _say({"event": "done", "facts": facts.to_json()})
    elif word == "verify":
        verify(image, settings, progress)
        _say({"event": "done", "facts": ""})


def _say(event: dict[str, Any]) -> None:
    sys.stdout.write(json.dumps(event) + "\n")
    sys.stdout.flush()


if __name__ == "__main__":
    main()
