"""`setupRoot`, `unsetupRoot` and `enterRoot`: what the fan-out starts on a node.

    setupRoot   [--run DIR] [--nid-file FILE] PLAN-FILE SHA256 NONCE
    unsetupRoot [--root DIR] [--run DIR] [--nid-file FILE] [--deadline SECONDS] [--shared yes|no] --job ID NONCE
    enterRoot   [--root DIR] [--run DIR] [--nid-file FILE] [--deadline SECONDS] --job ID IDS WORDS NONCE

`--shared yes` says that jobs of others may run on the node: then only what holds the root is terminated, and otherwise
everything that runs as the job's user. `enterRoot` runs a command in a trial's root, see `udiroot.enter`.

Each prints one line, a NodeReport, and exits with 0 or the error's code. `nodehealth.check` is another such command.
An argument parser from the library would cost more than all the mounts.
"""

import os
import sys
import time

from udiroot import smallfile
from udiroot.alarm import set_alarm
from udiroot.errors import SetupFailed, TimedOut, UdiError, UsageError, printable
from udiroot.fields import is_token, number
from udiroot.report import UNKNOWN_NODE, UNREAD, NodeReport
from udiroot.rules import in_real_directory

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import NoReturn

_OPTIONS = {
    "root": "/var/udi",
    "run": "/var/run/udi",
    "nid-file": "/proc/cray_xt/nid",
    "deadline": "60",
    "shared": "no",
    "job": "",
    "nonce": "",
}
_MAX_PLAN = 8 << 20
_MAX_SECONDS = 1 << 20
_NID_HINT = "set node.nid_file to the file with a node's nid"


def main() -> "NoReturn":
    """Run the command that sys.argv names; the process exits here, without the interpreter's own cleanup."""
    leave(run(sys.argv[1:]))


def leave(code: int) -> "NoReturn":
    """Exit with all output written, and without the interpreter's own cleanup."""
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(code)


def run(arguments: "list[str]") -> int:
    """Run one command; its exit code."""
    began = time.monotonic()
    os.umask(0o022)
    try:
        command, *rest = arguments or [""]
        options, words = parse(rest)
        if command == "setupRoot" and len(words) == 3:
            path, sha256, nonce = words
            return answer(began, options, nonce, lambda node: _set_up(path, sha256, node))
        if command == "unsetupRoot" and len(words) == 1 and options["job"]:
            return answer(began, options, words[0], lambda node: _tear_down(options, node))
        if command == "enterRoot" and len(words) == 3 and options["job"]:
            return answer(began, options, words[2], lambda node: _enter(options, words))
        raise UsageError(f"invalid arguments: {printable(' '.join(arguments))}", "see udiroot/commands.py")
    except UdiError as error:
        sys.stderr.write(f"{error.message}\n{error.hint}\n")
        return error.exit_code


def answer(began: float, options: "dict[str, str]", nonce: str, step: "Callable[[str], tuple[str, ...]]") -> int:
    """Do one step and report the result; a defect of this program is reported too, with its trace in the log.

    `began` is a time of time.monotonic(); `step` gets the node's identity, and returns words and counts, or raises.
    """
    node = UNKNOWN_NODE
    try:
        node = read_identity(options["nid-file"])
        words, *left = step(node)
        report = NodeReport(node, 0, _milliseconds(began), words, left=tuple(left))
    except UdiError as error:
        report = NodeReport.of_error(node, _milliseconds(began), error)
    except BaseException as error:  # noqa: BLE001 - a node must report whatever happens, or it counts as dead
        sys.excepthook(type(error), error, error.__traceback__)
        where = f"{error.filename}: {error.strerror}" if isinstance(error, OSError) else repr(error)
        report = NodeReport.of_error(node, _milliseconds(began), SetupFailed(where))
    report.send(nonce)
    return report.code


def _set_up(path: str, sha256: str, node: str) -> "tuple[str, ...]":
    from udiroot.plan import NodePlan
    from udiroot.setup import set_up

    plan = NodePlan.parse(_read_plan(path, sha256))
    set_alarm(plan.deadline)
    return set_up(plan, path, node, time.monotonic() + plan.deadline)


def _tear_down(options: "dict[str, str]", node: str) -> "tuple[str, ...]":
    from udiroot import entered
    from udiroot.record import RunDirectory
    from udiroot.teardown import lock_for_teardown, tear_down

    job, seconds = options["job"], int(options["deadline"])
    deadline = time.monotonic() + seconds
    set_alarm(seconds)
    with RunDirectory(in_real_directory(options["run"])) as run:
        if not lock_for_teardown(job, run, deadline):
            other = run.read()
            raise TimedOut(f"another set-up or teardown is running, for {other.job if other else 'an unknown job'}")
        alone = options["shared"] == "no"
        root = in_real_directory(options["root"])
        unread = entered.is_unread(run.read(), job, root)
        words = tear_down(job, root, run, node, deadline, alone=alone)
        if not run.raw():
            run.remove()
        return (words, UNREAD) if unread else (words,)


def _enter(options: "dict[str, str]", words: "list[str]") -> "tuple[str, ...]":
    from udiroot.enter import enter  # an operator's trial alone pays for it
    from udiroot.record import RunDirectory

    ids, command, nonce = words
    deadline = time.monotonic() + int(options["deadline"])
    with RunDirectory(in_real_directory(options["run"])) as run:
        return enter(options["job"], ids, command, nonce, in_real_directory(options["root"]), run, deadline)


def _read_plan(path: str, sha256: str) -> bytes:
    """The plan's bytes, read with the rights of the file's own owner, since root may be squashed on the store.

    They are trusted because of the sha256, which came with the command.
    """
    from udiroot import digest
    from udiroot.rights import FileRights

    try:
        status = os.stat(path, follow_symlinks=False)
        with FileRights(status.st_uid, status.st_gid):
            descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NOFOLLOW | os.O_NONBLOCK)
    except OSError as error:
        raise SetupFailed(f"plan {path}: {error.strerror}") from error
    with open(descriptor, "rb") as stream:
        data = stream.read(_MAX_PLAN)
    if digest.sha256(data) != sha256:
        raise SetupFailed(f"plan {path} was changed after it was sent: its sha256 differs")
    return data


def read_identity(path: str) -> str:
    """The node's own identity: the nid in the file at `path`, in decimal; where `path` is empty, the kernel's node
    name. Raises SetupFailed."""
    if not path:
        name = os.uname().nodename
        if not is_token(name):
            raise SetupFailed(f"invalid host name: '{printable(name)}'")
        return name
    try:
        text = smallfile.read(path).decode("ascii", "replace").strip()
    except OSError as error:
        raise SetupFailed(f"no nid in {path}: {printable(error)}", _NID_HINT) from error
    nid = number(text)
    if nid < 0:
        raise SetupFailed(f"no nid in {path}: {printable(text, 40)}", _NID_HINT)
    return str(nid)


def parse(words: "list[str]") -> "tuple[dict[str, str], list[str]]":
    """Options (`--name value`, all with a default) and the other arguments. Raises UsageError."""
    options, rest = dict(_OPTIONS), []
    given = iter(words)
    for word in given:
        if not word.startswith("--"):
            rest.append(word)
            continue
        value = next(given, None)
        if word[2:] not in options or value is None:
            raise UsageError(f"invalid option: {printable(word)}")
        options[word[2:]] = value
    if number(options["deadline"], _MAX_SECONDS) < 0:
        raise UsageError(f"not a number of seconds: {printable(options['deadline'])}")
    if options["shared"] not in ("yes", "no"):
        raise UsageError(f"--shared must be yes or no: {printable(options['shared'])}")
    return options, rest


def _milliseconds(began: float) -> int:
    return round((time.monotonic() - began) * 1000)
