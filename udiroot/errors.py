"""The one family of errors: a sentence for a person, a hint, an exit code.

Nothing below a program's `main` exits; it raises one of these. `complain` is the one place that prints them.
"""

import sys


class UdiError(Exception):
    """Something that a person must be told in one line.

    `message` is lower case, names the value and the rule, and has no full stop. `hint` says what to do about it.
    """

    exit_code = 1

    def __init__(self, message: str, hint: str = "") -> None:
        super().__init__(message)
        self.message = message
        self.hint = hint


class UsageError(UdiError):
    """What a person said cannot be meant."""

    exit_code = 2


class ConfigError(UdiError):
    """The site's configuration is wrong."""

    exit_code = 2


class NotFound(UdiError):
    """No such image, job or node; or one that the caller may not know of."""

    exit_code = 3


class NotPermitted(UdiError):
    """The site, or the owner, does not allow it."""

    exit_code = 4


class ImageInvalid(UdiError):
    """The image or archive is broken, or refused."""

    exit_code = 5


class UpstreamFailed(UdiError):
    """The gateway, a registry, ALPS or the workload manager did not do its part."""

    exit_code = 6


class SetupFailed(UdiError):
    """A node could not be set up."""

    exit_code = 7


class TeardownIncomplete(UdiError):
    """A node is not as it was before the job."""

    exit_code = 8


class TimedOut(UdiError):
    """A deadline passed."""

    exit_code = 9


def printable(text: object, limit: int = 200) -> str:
    """User text made safe for a terminal, a log and a report: escapes what is not printable ASCII, and shortens."""
    raw = str(text)
    shown = "".join(c if " " <= c <= "~" and c != "\\" else ascii(c)[1:-1] for c in raw[: limit + 1])
    return shown if len(shown) <= limit else shown[: limit - 3] + "..."


def complain(program: str, error: UdiError) -> int:
    """Print `program: message` and `hint: …` to stderr, and return the exit code for `main` to give back."""
    sys.stderr.write(f"{program}: {error.message}\n")
    if error.hint:
        sys.stderr.write(f"hint: {error.hint}\n")
    sys.stderr.flush()
    return error.exit_code
