"""`udi-submit-filter`: what qsub runs as the user before it submits a job.

It refuses a request that could not succeed, while the user is there to read why, and fixes the image that a tag stands
for: as a comment line of the script, since `#PBS -v` lines that a filter adds are lost where the command line has `-v`
(torque-reference d). Whatever goes wrong with us, the script comes out as it came in.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Sequence

from torque_hooks.arguments import config_and_rest
from torque_hooks.directives import read_submission
from torque_hooks.userline import sentence, tell
from udi.accounts import account_of_uid
from udi.config import SiteConfig, load
from udi.request import JobRequest, Pin, is_requested, job_request, with_pin
from udiroot.errors import ConfigError, NotFound, NotPermitted, TimedOut, UpstreamFailed, UsageError

PROGRAM = "udi-submit-filter"
REJECTED = 255
"""qsub: the job was administratively rejected."""
_NO_JOB_YET = "0"
_GATEWAY_SECONDS = 10.0


def main(argv: Sequence[str] | None = None) -> int:
    """Copy the script from stdin to stdout, with a pin where the job wants an image. 0, or 255 for a refusal."""
    config, arguments = config_and_rest(list(sys.argv[1:] if argv is None else argv))
    script = _read_all(0)
    try:
        changed = _filtered(config, arguments, script)
    except (UsageError, NotFound, NotPermitted) as error:
        tell(PROGRAM, sentence(error))
        return REJECTED
    except (ConfigError, UpstreamFailed, TimedOut) as error:
        tell(PROGRAM, f"image not checked, it will be when the job starts: {sentence(error)}")
        changed = script
    except Exception as error:  # noqa: BLE001 - a fault of ours must not cost the user the script
        tell(PROGRAM, f"image not checked, it will be when the job starts: internal error: {type(error).__name__}")
        changed = script
    _write_all(1, changed)
    return 0


def _filtered(config: str, arguments: Sequence[str], script: bytes) -> bytes:
    submission = read_submission(arguments, script, os.environ)
    if not is_requested(submission.variables):
        return script
    site = load(config)
    request = job_request(_NO_JOB_YET, account_of_uid(os.getuid()), submission.variables, None, site.volumes)
    pin = _pin(site, request)
    return script if submission.is_interactive else with_pin(script, pin)


def _pin(site: SiteConfig, request: JobRequest) -> Pin:
    """What the reference stands for now. Raises NotFound where the user may use no such image."""
    from gateway.client import lookup  # a job without UDI need not import it

    return Pin(request.reference, lookup(site, str(request.reference), _GATEWAY_SECONDS))


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
