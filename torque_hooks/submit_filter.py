"""`udi-submit-filter`: what qsub runs as the user before it submits a job.

It refuses a request that could not succeed, while the user is there to read why; has the image pulled where it is not
in the store yet, and shows how far that is; and fixes the image that a tag stands for: as a comment line of the script,
since `#PBS -v` lines that a filter adds are lost where the command line has `-v` (torque-reference d). Whatever goes
wrong with us, the script comes out as it came in, and the job's start sees to the image. With `UDI_WAIT=no` among the
job's variables, qsub does not wait for a pull.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from torque_hooks.arguments import config_and_rest
from torque_hooks.directives import read_submission
from torque_hooks.userline import sentence, tell
from udi.accounts import account_of_uid
from udi.config import SiteConfig, load
from udi.request import JobRequest, Pin, is_requested, job_request, with_pin
from udiroot.errors import ConfigError, NotFound, NotPermitted, TimedOut, UdiError, UpstreamFailed, UsageError

if TYPE_CHECKING:
    from gateway.client.progress import Shown

PROGRAM = "udi-submit-filter"
REJECTED = 255
"""qsub: the job was administratively rejected."""
_NO_JOB_YET = "0"
_LOOKUP_SECONDS = 10.0
_WAIT_VARIABLE = "UDI_WAIT"
_CHECKED_LATER = "image not checked, it will be when the job starts"


def main(argv: Sequence[str] | None = None) -> int:
    """Copy the script from stdin to stdout, with a pin where the job wants an image. 0, or 255 for a refusal."""
    config, arguments = config_and_rest(list(sys.argv[1:] if argv is None else argv))
    script = _read_all(0)
    try:
        changed = _filtered(config, arguments, script)
    except (UsageError, NotFound, NotPermitted) as error:
        tell(PROGRAM, sentence(error))
        return REJECTED
    except _NotWaited as error:
        tell(PROGRAM, error.message)
        changed = script
    except (ConfigError, UpstreamFailed, TimedOut) as error:
        tell(PROGRAM, f"{_CHECKED_LATER}: {sentence(error)}")
        changed = script
    except Exception as error:  # noqa: BLE001 - a fault of ours must not cost the user the script
        tell(PROGRAM, f"{_CHECKED_LATER}: internal error: {type(error).__name__}")
        changed = script
    _write_all(1, changed)
    return 0


def _filtered(config: str, arguments: Sequence[str], script: bytes) -> bytes:
    submission = read_submission(arguments, script, os.environ)
    if not is_requested(submission.variables):
        return script
    site = load(config)
    request = job_request(_NO_JOB_YET, account_of_uid(os.getuid()), submission.variables, None, site.volumes)
    pin = _pin(site, request, submission.variables.get(_WAIT_VARIABLE, "").lower() not in ("no", "0", "false"))
    return script if submission.is_interactive else with_pin(script, pin)


class _NotWaited(UdiError):
    """The image is on its way, and nobody waits for it here."""


def _pin(site: SiteConfig, request: JobRequest, wait: bool) -> Pin:
    """What the reference stands for now, or after its image was pulled.

    Raises NotFound where the user may use no such image, and it cannot be pulled; _NotWaited where the pull goes on.
    """
    from gateway.client import client  # a job without UDI need not import it

    reference = str(request.reference)
    if not site.gateway.pull_at_submission:
        return Pin(request.reference, client.lookup(site, reference, _LOOKUP_SECONDS))
    progress = _Progress(reference, wait)
    try:
        image_id = client.submit(site, reference, within=float(site.gateway.submission_wait), tell=progress.tell)
    except TimedOut as error:
        if not progress.begun:
            raise
        raise _NotWaited(
            f"image {reference} is not there after {site.gateway.submission_wait} s; the pull goes on,"
            " and the job gets the image if it is there when the job starts"
        ) from error
    finally:
        progress.end()
    return Pin(request.reference, image_id)


class _Progress:
    """Shows a pull on qsub's standard error, from its first event on."""

    def __init__(self, reference: str, wait: bool) -> None:
        self._reference = reference
        self._wait = wait
        self._shown: Shown | None = None
        self._asked = False

    @property
    def begun(self) -> bool:
        return self._shown is not None

    def tell(self, event: dict[str, Any]) -> None:
        if event.get("stage", "").startswith("asking") and not (self._wait and self._asked):
            self._asked = True
            return  # the registry may know of no such image: that is worth a moment, and no line for a mistyped name
        if not self._wait:
            raise _NotWaited(f"image {self._reference} is being pulled; the job gets it if it is there when it starts")
        from gateway.client.progress import Shown, show  # most jobs' images are there already

        if self._shown is None:
            self._shown = Shown()
            self._shown.note(f"{PROGRAM}: pulling {self._reference}; {_WAIT_VARIABLE}=no submits without waiting")
            self._shown.__enter__()
        show(self._shown, event)

    def end(self) -> None:
        if self._shown:
            self._shown.__exit__(*sys.exc_info())


def _read_all(descriptor: int) -> bytes:
    chunks = []
    while chunk := os.read(descriptor, 1 << 20):
        chunks.append(chunk)
    return b"".join(chunks)


def _write_all(descriptor: int, text: bytes) -> None:
    rest = memoryview(text)
    while rest:
        rest = rest[os.write(descriptor, rest) :]


if __name__ == "__main__":
    sys.exit(main())
