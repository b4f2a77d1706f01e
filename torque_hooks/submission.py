"""What the submit filter does with a job that requests an image.

It refuses a request that could not succeed, while the user is there to read why; reads an environment file that the
request names, as the user, and has the job carry what it says; has the image pulled where it is not in the store yet,
and shows the progress; and fixes the image that a tag stands for. Both are lines of the script. On any error that is
not the user's the image is checked when the job starts. With `UDI_WAIT=no` among the job's variables, qsub does not
wait for a pull.
"""

from __future__ import annotations

import os
from collections.abc import Sequence

from gateway.client.submission import image_id
from torque_hooks.arguments import config_and_rest
from torque_hooks.directives import Submission, read_submission
from torque_hooks.homefile import with_image
from torque_hooks.pin import with_carried, with_pin
from torque_hooks.review import review
from torque_hooks.variables import IMAGE, MODULES, VOLUMES, is_requested, requested
from udi.accounts import account_of_uid
from udi.carried import Carried
from udi.config import load
from udi.homefile import FILE, image_of_home
from udi.log import plain
from udi.request import NO_JOB_YET, Pin, require_sources
from udi.runfile import carry
from udi.sentences import report, sentence
from udi.waiting import WAIT, waits
from udiroot.errors import ConfigError, UdiError, UsageError, printable

PROGRAM = "udi-submit-filter"
_MAX_WARNING = 400
_FIRST_BYTES = 128


def filtered(arguments: Sequence[str], script: bytes) -> bytes | None:
    """The script that qsub submits, with a pin where the job requests an image; None where the job is refused."""
    config, arguments = config_and_rest(arguments)
    carrying = script
    try:
        submission = read_submission(arguments, script, os.environ)
        at_home, words = _at_home(config) if IMAGE not in submission.variables else ("", "")
        for warning in review(submission, os.environ, has_image=bool(at_home)):
            report(PROGRAM, f"warning: {plain(warning, _MAX_WARNING)}")
        if words:
            report(PROGRAM, words)
        if at_home:
            script, submission = _in_environment(at_home, arguments, script, submission)
            carrying = script
        if not is_requested(submission.variables):
            return script
        carried = carry(submission.variables[IMAGE], os.environ)
        if carried:
            _require_place(submission, script, carried)
            carrying = with_carried(script, carried)
        return _pinned(config, submission, carrying, carried)
    except UdiError as error:
        if error.is_users:
            report(PROGRAM, sentence(error))
            return None
        report(PROGRAM, f"image not checked, it will be when the job starts: {sentence(error)}")
        return carrying


def _at_home(config: str) -> tuple[str, str]:
    """What `~/.chos` has a job of its user run in that names no image, or nothing; and what the user should know."""
    home = os.environ.get("HOME", "")
    if not os.path.lexists(f"{home}/{FILE}"):
        return "", ""
    try:
        image, warning = image_of_home(load(config), home)
    except ConfigError as error:
        return "", f"~/{FILE} is not read, the job runs without an image: {sentence(error)}"
    return image, f"warning: {plain(warning, _MAX_WARNING)}" if warning else ""


def _in_environment(
    image: str, arguments: Sequence[str], script: bytes, submission: Submission
) -> tuple[bytes, Submission]:
    """The script with a line that names the image, and how qsub reads it then. Raises UsageError."""

    def read(text: bytes) -> Submission:
        return read_submission(arguments, text, os.environ)

    script = with_image(script, submission, image, read)
    return script, read(script)


def _pinned(config: str, submission: Submission, script: bytes, carried: str) -> bytes:
    variables = submission.variables
    site = load(config)
    request = requested(site, NO_JOB_YET, account_of_uid(os.getuid()), variables, carried=carried)
    require_sources(request.volumes, site.volumes)
    pinned = image_id(site, PROGRAM, str(request.reference), wait=waits(variables.get(WAIT, "")))
    if pinned is None or submission.is_interactive or not _takes_a_comment(submission, script):
        return script
    return with_pin(script, Pin(request.reference, pinned))


def _require_place(submission: Submission, script: bytes, carried: str) -> None:
    """Raise UsageError where there are no lines of a script that could carry what the file says."""
    if submission.is_interactive or not _takes_a_comment(submission, script):
        what = "an interactive job has no script" if submission.is_interactive else "a program has no lines"
        found = Carried.parse(carried)
        typed = [f"{IMAGE}={found.image}", *([f"{VOLUMES}={found.volumes}"] if found.volumes else [])]
        typed += [f"{MODULES}={found.modules}"] if found.modules else []
        raise UsageError(
            f"{what} to carry environment file {printable(found.file)}",
            f"type what it says: -v '{printable(','.join(typed))}'; its environment goes with udi-run --env",
        )


def _takes_a_comment(submission: Submission, script: bytes) -> bool:
    """Whether a line that begins with `#` does the script no harm: not a program, nor one whose directives say that
    comments begin otherwise."""
    return b"\0" not in script[:_FIRST_BYTES] and (not submission.prefix or submission.prefix.startswith("#"))
