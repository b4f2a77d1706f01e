"""What the submit filter does with a job that requests an image.

It refuses a request that could not succeed, while the user is there to read why; has the image pulled where it is not
in the store yet, and shows the progress; and fixes the image that a tag stands for, by a line of the script. On any
error that is not the user's the script is passed through unchanged, and the image is checked when the job starts. With
`UDI_WAIT=no` among the job's variables, qsub does not wait for a pull.
"""

from __future__ import annotations

import os
from collections.abc import Sequence
from contextlib import ExitStack
from typing import TYPE_CHECKING

from gateway.client import client
from gateway.client.client import Pending
from gateway.wire.events import Event, Progress
from torque_hooks.arguments import config_and_rest
from torque_hooks.directives import Submission, read_submission
from torque_hooks.pin import with_pin
from torque_hooks.review import review
from torque_hooks.userline import report, sentence
from torque_hooks.variables import WAIT, is_requested, requested, waits
from udi.accounts import account_of_uid
from udi.config import SiteConfig, load
from udi.log import plain
from udi.request import Pin, require_sources
from udiroot.errors import TimedOut, UdiError

if TYPE_CHECKING:
    from gateway.client.progress import Shown

PROGRAM = "udi-submit-filter"
_NO_JOB_YET = "0"
_LOOKUP_SECONDS = 10.0
_MAX_WARNING = 400
_FIRST_BYTES = 128


def filtered(arguments: Sequence[str], script: bytes) -> bytes | None:
    """The script that qsub submits, with a pin where the job requests an image; None where the job is refused."""
    config, arguments = config_and_rest(arguments)
    try:
        return _pinned(config, arguments, script)
    except UdiError as error:
        if error.is_users:
            report(PROGRAM, sentence(error))
            return None
        report(PROGRAM, f"image not checked, it will be when the job starts: {sentence(error)}")
        return script


def _pinned(config: str, arguments: Sequence[str], script: bytes) -> bytes:
    submission = read_submission(arguments, script, os.environ)
    for warning in review(submission, os.environ):
        report(PROGRAM, f"warning: {plain(warning, _MAX_WARNING)}")
    variables = submission.variables
    if not is_requested(variables):
        return script
    site = load(config)
    request = requested(site, _NO_JOB_YET, account_of_uid(os.getuid()), variables)
    require_sources(request.volumes, site.volumes)
    image_id = _image_id(site, str(request.reference), waits(variables))
    if image_id is None or submission.is_interactive or not _takes_a_comment(submission, script):
        return script
    return with_pin(script, Pin(request.reference, image_id))


def _takes_a_comment(submission: Submission, script: bytes) -> bool:
    """Whether a line that begins with `#` does the script no harm: not a program, nor one whose directives say that
    comments begin otherwise."""
    return b"\0" not in script[:_FIRST_BYTES] and (not submission.prefix or submission.prefix.startswith("#"))


def _image_id(site: SiteConfig, reference: str, wait: bool) -> str | None:
    """The image that the reference stands for now, or after it was pulled; None, and a line for the user, where the
    pull continues without qsub.

    Raises NotFound where the user has no access to such an image and it cannot be pulled, ImageInvalid where it cannot
    be the root of a job, UpstreamFailed, TimedOut.
    """
    if not site.gateway.pull_at_submission:
        return client.lookup(site, reference, _LOOKUP_SECONDS)
    seconds = site.gateway.submission_wait
    display = _Display(reference)
    try:
        with display.stack:
            on_event = display.show if wait else None
            found = client.submit(site, reference, within=float(seconds), wait=wait, on_event=on_event)
    except TimedOut:
        if not display.has_begun:
            raise
        found = Pending(reference)
    if not isinstance(found, Pending):
        return found
    state = f"not ready after {seconds} s; submitting anyway, the pull continues" if wait else "is being pulled"
    report(PROGRAM, f"image {reference} {state} (the job fails if the pull has not finished by job start)")
    return None


class _Display:
    """Shows a pull on qsub's standard error, once it has begun: what shows it is slow to import, and most images are in
    the store already."""

    def __init__(self, reference: str) -> None:
        self.stack = ExitStack()
        self._reference = reference
        self._shown: Shown | None = None
        self._queried = False

    @property
    def has_begun(self) -> bool:
        return self._shown is not None

    def show(self, event: Event) -> None:
        if isinstance(event, Progress) and event.is_query and not self._queried:
            self._queried = True
            return  # a registry that answers at once, perhaps that the name is mistyped, is not worth a line
        from gateway.client.progress import Shown, show

        if self._shown is None:
            self._shown = self.stack.enter_context(Shown())
            self._shown.note(f"{PROGRAM}: pulling {self._reference}; {WAIT}=no submits without waiting")
        show(self._shown, event)
