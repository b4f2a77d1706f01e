"""`udi-session`: what `udi shell` starts as root, by the rule of sudo that the site has installed.

    udi-session [--config FILE] --image NAME [--id ID] [--volumes LIST] [--modules LIST] [--run TEXT] [--term NAME]
                [--cwd DIR] [-- WORD...]

It opens a session for whoever called sudo: an image's root that only this session's processes see, made and taken down
by the software that does it for jobs. All its arguments are user text, and are checked as a job's are. The user's
program runs without any right of root, on the terminal of the caller. All of the session ends when that program ends,
when the terminal is closed, or when the time that the site allows is over.

The exit code is that of the program, or the error's.
"""

from __future__ import annotations

import contextlib
import logging
import os
import re
import resource
import signal
import sys
import time
import types
from collections.abc import Mapping, Sequence

from jobs.local import LocalJob
from jobs.process import Interrupted, catch_signals, ignore_signals
from outside.entering import Limits, Program, enter
from outside.namespaces import own_mounts
from outside.rights import require_permitted, require_permitted_image
from outside.sessions import admitted, of_sessions
from outside.settings import SessionsConfig
from udi.accounts import Account, account_of_uid
from udi.command import ENVIRONMENT, Deadline
from udi.config import DEFAULT_PATH, SiteConfig, load
from udi.log import start_log
from udi.nodes import NodeSlots, named
from udi.oserrors import reason
from udi.request import JobRequest, job_request, pin_of
from udi.sentences import report, sentence
from udiroot.errors import SetupFailed, TeardownIncomplete, TimedOut, UdiError, UsageError, printable
from udiroot.fields import number

PROGRAM = "udi-session"
_OPTIONS = ("--config", "--image", "--id", "--volumes", "--modules", "--run", "--term", "--cwd")
_TERM = re.compile(r"[A-Za-z0-9._+-]{1,64}")
_BEYOND_NODE = 40
"""Seconds that opening or closing a session may take beyond the node software's deadline."""
_GRACE = 2.0
"""Seconds that a program has to end by itself when its session must."""
_INTERNAL_ERROR = 70
_KEPT_LIMITS = (resource.RLIMIT_CPU, resource.RLIMIT_FSIZE, resource.RLIMIT_DATA, resource.RLIMIT_AS,
                resource.RLIMIT_STACK, resource.RLIMIT_NOFILE, resource.RLIMIT_CORE)  # fmt: skip
"""Limits of the caller that are the program's, and not ours."""
_OF_TERMINAL = (signal.SIGINT, signal.SIGQUIT, signal.SIGTSTP, signal.SIGTTOU, signal.SIGTTIN)
_log = logging.getLogger("udi.sessions")


def main(argv: Sequence[str] | None = None) -> int:
    """Run one session; its program's exit code, or the error's."""
    try:
        caller = number(os.environ.get("SUDO_UID", ""))
        limits = _clean_process()
        given, words = _arguments(list(sys.argv[1:] if argv is None else argv))
        return _session(caller, given, words, limits)
    except UdiError as error:
        report("udi", sentence(error))
        return error.exit_code
    except Interrupted as error:
        report("udi", f"the session was ended: {error}")
        return 128 + signal.SIGTERM
    except Exception as error:  # noqa: BLE001 - the last line of defence: no traceback is for the user
        _log.error("internal error: %s", type(error).__name__)
        report("udi", f"internal error: {type(error).__name__}")
        return _INTERNAL_ERROR


def _session(caller: int, given: Mapping[str, str], words: tuple[str, ...], limits: Limits) -> int:
    if os.geteuid() != 0 or caller <= 0:
        raise UsageError("udi-session is not called by a user", "udi shell IMAGE starts it by sudo")
    user = account_of_uid(caller)
    site = of_sessions(load(given.get("--config", DEFAULT_PATH)))
    settings = site.table(SessionsConfig)
    start_log(site, PROGRAM)
    require_permitted(settings, user)
    seconds = site.node.deadline + _BEYOND_NODE
    with admitted(site, user) as local:
        start_log(site, PROGRAM, local.job)
        try:
            request = _request(site, local.job, user, given)
            require_permitted_image(settings, request.reference)
            return _opened(site, local, request, _program(user, given, words, limits), seconds)
        finally:  # whatever happened, nothing stays
            ignore_signals()
            _close(local, Deadline(seconds))


def _opened(site: SiteConfig, local: LocalJob, request: JobRequest, program: Program, seconds: int) -> int:
    """The session from its set-up to the end of its program; the program's exit code."""
    try:
        own_mounts(follows=True)
    except OSError as error:
        raise SetupFailed(f"the session cannot have mounts of its own: {reason(error)}") from error
    here = os.uname().nodename
    root = local.prepare(request, (NodeSlots(named(here), 1),), here, Deadline(seconds))
    _log.info("opened for uid %d, image %s", request.user.uid, request.reference)
    if root.notice:
        report("udi", root.notice)
    return _run(enter(root.path, program), site.table(SessionsConfig).max_minutes)


def _run(child: int, minutes: int) -> int:
    """The program's exit code. Raises TimedOut after so many minutes, Interrupted where the terminal has gone."""
    catch_signals(minutes * 60)
    signal.signal(signal.SIGALRM, _over)
    _pass_over_terminal()
    try:
        code = os.waitstatus_to_exitcode(_status_of(child))
    except (_TimeIsOver, Interrupted) as error:
        ignore_signals()
        _end(child)
        if isinstance(error, Interrupted):
            raise
        raise TimedOut(f"the session was ended: this site allows {minutes} minutes", "jobs may run longer") from None
    return code if code >= 0 else 128 - code


class _TimeIsOver(BaseException):
    """The site's limit on a session's time."""


def _over(number: int, frame: types.FrameType | None) -> None:
    raise _TimeIsOver


def _status_of(child: int) -> int:
    """The status with which the program ended. One that was stopped has nobody but us who could continue it."""
    while True:
        _, status = os.waitpid(child, os.WUNTRACED)
        if not os.WIFSTOPPED(status):
            return status
        os.kill(child, signal.SIGCONT)


def _end(child: int) -> None:
    """Let the program end by itself; teardown kills what does not."""
    with contextlib.suppress(ProcessLookupError):
        os.kill(child, signal.SIGHUP)
        os.kill(child, signal.SIGCONT)
    end = time.monotonic() + _GRACE
    while time.monotonic() < end:
        if os.waitpid(child, os.WNOHANG)[0]:
            return
        time.sleep(0.02)


def _close(local: LocalJob, deadline: Deadline) -> None:
    """Take the root down, verified as after a job. Raises TeardownIncomplete."""
    try:
        local.take_down(deadline)
        local.forget()
    except UdiError as error:
        _log.error("not clean: %s", error.message)
        raise TeardownIncomplete(
            f"the session's root cannot be removed: {error.message}", "tell the site's staff"
        ) from error
    _log.info("closed")


def _request(site: SiteConfig, job: str, user: Account, given: Mapping[str, str]) -> JobRequest:
    image, carried, image_id = given["--image"], given.get("--run", ""), given.get("--id", "")
    pin = pin_of(site, image, carried, image_id)
    return job_request(site, job, user, image, given.get("--volumes", ""), pin, given.get("--modules", ""), carried)


def _program(user: Account, given: Mapping[str, str], words: tuple[str, ...], limits: Limits) -> Program:
    own = {"HOME": user.home, "USER": user.name, "LOGNAME": user.name, "SHELL": user.shell}
    term = given.get("--term", "")
    environment = {"PATH": ENVIRONMENT["PATH"], **own, **({"TERM": term} if _TERM.fullmatch(term) else {})}
    return Program(user, words, environment, given.get("--cwd", ""), limits)


def _clean_process() -> Limits:
    """Nothing of the caller's is trusted but its terminal and its arguments; the limits that its program shall have."""
    for descriptor in (0, 1, 2):
        try:
            os.fstat(descriptor)
        except OSError:
            os.open(os.devnull, os.O_RDWR)  # the lowest free number is this one
    os.closerange(3, 1 << 16)
    os.chdir("/")
    os.umask(0o022)
    os.environ.clear()
    os.environ.update(ENVIRONMENT)
    for timer in (signal.ITIMER_REAL, signal.ITIMER_VIRTUAL, signal.ITIMER_PROF):
        signal.setitimer(timer, 0)
    signal.signal(signal.SIGCHLD, signal.SIG_DFL)
    signal.signal(signal.SIGPIPE, signal.SIG_IGN)
    signal.pthread_sigmask(signal.SIG_SETMASK, ())
    catch_signals()
    signal.signal(signal.SIGTSTP, signal.SIG_IGN)
    signal.signal(signal.SIGTTOU, signal.SIG_IGN)
    limits = {limit: resource.getrlimit(limit) for limit in _KEPT_LIMITS}
    for limit, (_, hard) in limits.items():
        resource.setrlimit(limit, (hard, hard))
    with contextlib.suppress(ValueError):  # a user may have lowered it for himself, and root is not without a limit
        resource.setrlimit(resource.RLIMIT_FSIZE, (resource.RLIM_INFINITY, resource.RLIM_INFINITY))
    resource.setrlimit(resource.RLIMIT_CORE, (0, limits[resource.RLIMIT_CORE][1]))
    return limits


def _pass_over_terminal() -> None:
    """The terminal's signals are for the program, which is in the same foreground."""
    for each in _OF_TERMINAL:
        signal.signal(each, signal.SIG_IGN)


def _arguments(words: list[str]) -> tuple[Mapping[str, str], tuple[str, ...]]:
    """Options, each with its value in a word of its own, and after `--` the words for udi-run. Raises UsageError."""
    at = 0
    while at < len(words) and words[at] != "--":
        at += 2
    given = dict(zip(words[:at:2], words[1:at:2], strict=False))
    if len(words[:at]) % 2 or not given.keys() <= set(_OPTIONS) or "--image" not in given:
        raise UsageError(f"invalid arguments: {printable(' '.join(words))}", "udi shell starts this program")
    return given, tuple(words[at + 1 :])
