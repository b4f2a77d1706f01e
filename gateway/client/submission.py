"""The image of a job that is being submitted: pulled where it is not in the store yet, with the progress shown.

What a workload manager's submission program does with the answer is its own.
"""

from __future__ import annotations

from contextlib import ExitStack
from typing import TYPE_CHECKING

from gateway.client import client
from gateway.client.client import Pending
from gateway.wire.events import Event, Progress
from udi.config import SiteConfig
from udi.log import plain
from udi.sentences import report
from udi.waiting import WAIT
from udiroot.errors import TimedOut

if TYPE_CHECKING:
    from gateway.client.progress import Shown

_LOOKUP_SECONDS = 10
"""Where nothing is pulled."""
_MAX_WARNING = 600


def image_id(site: SiteConfig, program: str, reference: str, *, wait: bool) -> str | None:
    """The image that the reference stands for now, or after it was pulled; None, and a line for the user, where the
    pull continues without `program`, the submission.

    Raises NotFound where the user has no access to such an image and it cannot be pulled, ImageInvalid where it cannot
    be the root of a job, NotPermitted where the site refuses what its scanner found, UpstreamFailed, TimedOut.
    """
    seconds = site.gateway.submission_wait if site.gateway.pull_at_submission else _LOOKUP_SECONDS
    display = _Display(program, reference)
    try:
        with display.stack:
            on_event = display.show if wait else None
            found = client.submit(site, reference, within=float(seconds), wait=wait, on_event=on_event)
    except TimedOut:
        if not display.has_begun:
            raise
        found = Pending(reference)
    if not isinstance(found, Pending):
        for warning in found.warnings:
            report(program, f"warning: {plain(warning, _MAX_WARNING)}")
        return found.id
    state = f"not ready after {seconds} s; submitting anyway, the pull continues" if wait else "is being pulled"
    report(program, f"image {reference} {state} (the job fails if the pull has not finished by job start)")
    return None


class _Display:
    """Shows a pull on standard error, once it has begun: what shows it is slow to import, and most images are in the
    store already."""

    def __init__(self, program: str, reference: str) -> None:
        self.stack = ExitStack()
        self._program = program
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
            self._shown.note(f"{self._program}: pulling {self._reference}; {WAIT}=no submits without waiting")
        show(self._shown, event)
