"""The one family of errors: a message for a person, a hint, an exit code, and an owner who must act.

Nothing below a program's `main` exits; it raises one of these. `complain` is the one place that prints them.
"""

import sys


class UdiError(Exception):
    """Something that a person must learn in one line.

    `message` is lower case, names the value and the rule, and has no full stop. `hint` says what to do about it.
    `owner` is who must act: the `user`, the `site`, or the administrator of the `node`.
    """

    exit_code = 1
    owner = "site"

    def __init__(self, message: str, hint: str = "") -> None:
        super().__init__(message)
        self.message = message
        self.hint = hint

    @property
    def is_users(self) -> bool:
        """Whether the user must change something: trying again unchanged would fail again."""
        return self.owner == "user"


class UsageError(UdiError):
    """Invalid arguments, or an invalid value in them."""

    exit_code = 2
    owner = "user"


class ConfigError(UdiError):
    """The site's configuration is wrong."""

    exit_code = 2


class NotFound(UdiError):
    """No such image, job or node; or one that the caller may not know of."""

    exit_code = 3
    owner = "user"


class NotPermitted(UdiError):
    """The site, or the owner, does not allow it."""

    exit_code = 4
    owner = "user"


class ImageInvalid(UdiError):
    """The image or archive is broken or refused."""

    exit_code = 5
    owner = "user"


class UpstreamFailed(UdiError):
    """The gateway, a registry, the machine or the workload manager failed."""

    exit_code = 6


class SetupFailed(UdiError):
    """A node could not be set up."""

    exit_code = 7
    owner = "node"


class TeardownIncomplete(UdiError):
    """A node is not in the state that it had before the job.

    `jobs` are the ids of the jobs that left something, as far as is known; `left` counts what is left, each as
    `kind=count` (mounts=3, loops=1, processes=2, files=1, modules=1).
    """

    exit_code = 8
    owner = "node"

    def __init__(
        self, message: str, hint: str = "", *, jobs: "tuple[str, ...]" = (), left: "tuple[str, ...]" = ()
    ) -> None:
        super().__init__(message, hint)
        self.jobs, self.left = jobs, left


class TimedOut(UdiError):
    """A deadline passed."""

    exit_code = 9


def printable(text: object, limit: int = 200) -> str:
    """User text made safe for a terminal, a log and a report: escapes what is not printable ASCII, and shortens."""
    raw = str(text)
    shown = "".join(c if " " <= c <= "~" and c != "\\" else ascii(c)[1:-1] for c in raw[: limit + 1])
    return shown if len(shown) <= limit else shown[: limit - 3] + "..."


def counted(number: int, noun: str, plural: str = "") -> str:
    """A number with its noun: `1 mount`, `2 mounts`."""
    return f"{number} {noun if number == 1 else plural or noun + 's'}"


def complain(program: str, error: UdiError) -> int:
    """Print `program: message` and `hint: …` to stderr, and return the exit code for `main` to return."""
    sys.stderr.write(f"{program}: {error.message}\n")
    if error.hint:
        sys.stderr.write(f"hint: {error.hint}\n")
    sys.stderr.flush()
    return error.exit_code
