"""Running one command in a root that is set up, as its user: what `udi-admin try` does on a node.

The command gets what a program of a job gets: `udi-run` starts it, with the image's environment and working directory.
What it prints goes to the caller by `udiroot.says`.
"""

import binascii
import os
import time

from udiroot import privileges, processes
from udiroot.child import detach
from udiroot.errors import SetupFailed, UsageError, printable
from udiroot.fields import number
from udiroot.record import RunDirectory
from udiroot.says import CHUNK, MOST, say
from udiroot.software import UDI_RUN

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import NoReturn

_ENVIRONMENT = {"PATH": "/usr/local/bin:/usr/bin:/bin"}
_PATIENCE = 10.0
_LAST_SECONDS = 1.0


def enter(
    job: str, ids: str, words: str, nonce: str, root: str, run: RunDirectory, deadline: float
) -> "tuple[str, ...]":
    """Run the command in the root of `job`; what became of it, in words and as `exit=` or `signal=`.

    `ids` are uid and groups of the user, joined by commas, the primary group first; `words` are the command's, each
    ended by NUL, in hexadecimal. It is killed when `deadline`, a time of time.monotonic(), has come. Raises SetupFailed
    where the node has not, or no longer, the root of that job.
    """
    uid, *groups = _ids(ids)
    argv = [UDI_RUN, *_words(words)]
    reading, writing = os.pipe2(os.O_CLOEXEC)
    null = os.open("/dev/null", os.O_RDWR | os.O_CLOEXEC)
    if not run.lock(min(_PATIENCE, deadline - time.monotonic())):
        raise SetupFailed(f"another set-up or teardown is running on this node, so {job} was not entered")
    _require_root_of(job, uid, run)
    child = os.fork()
    if child == 0:
        _become(root, uid, tuple(groups), argv, null, writing)
    run.unlock()  # the child's is given back by its exec: a teardown then finds a process that holds the root
    os.close(writing)
    os.close(null)
    is_late = _pass_on(reading, nonce, deadline)
    if is_late:
        processes.kill(child, processes.start_time(child), time.monotonic() + _LAST_SECONDS)
    code = os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
    if is_late:
        return "not ended in time, and terminated", f"signal={max(0, -code)}"
    if code < 0:  # perhaps by the set-up of a job, which takes the node
        if not run.lock(min(_PATIENCE, deadline - time.monotonic())):
            raise SetupFailed(f"a set-up or teardown of another job has ended {job}")
        _require_root_of(job, uid, run)
    return (f"ended by signal {-code}", f"signal={-code}") if code < 0 else (f"exit code {code}", f"exit={code}")


def _require_root_of(job: str, uid: int, run: RunDirectory) -> None:
    """For the holder of the lock, for which the run directory may have been made."""
    record = run.read()
    if not run.raw():
        run.remove()
    if record is None or record.job != job:
        raise SetupFailed(f"this node no longer has the root of {job}: it has {record.job if record else 'none'}")
    if record.uid != uid:
        raise SetupFailed(f"the root of {job} is that of uid {record.uid}, not {uid}")


def _become(root: str, uid: int, groups: "tuple[int, ...]", argv: "list[str]", null: int, output: int) -> "NoReturn":
    """In the child. Between chroot and exec nothing is imported or looked up."""
    try:
        detach(null, output)
        os.chroot(root)
        os.chdir("/")
        privileges.become(uid, groups[0], groups)
        os.execve(argv[0], argv, _ENVIRONMENT)  # noqa: S606 - without a shell, intentionally
    except BaseException as error:  # noqa: BLE001 - the child must not go on as a second caller
        os.write(2, f"{argv[0]}: {error}\n".encode("utf-8", "replace")[:400])
    finally:
        os._exit(125)


def _pass_on(descriptor: int, nonce: str, deadline: float) -> bool:
    """Print what the command prints, until it has closed its output; True where the deadline came first."""
    import select

    passed = 0
    poll = select.poll()
    poll.register(descriptor, select.POLLIN | select.POLLHUP)
    while (left := deadline - time.monotonic()) > 0:
        if not poll.poll(left * 1000):
            continue
        data = os.read(descriptor, CHUNK)
        if not data:
            return False
        if passed < MOST:
            passed += len(data)
            say(data, nonce)
    return True


def _ids(text: str) -> "list[int]":
    found = [number(part) for part in text.split(",")]
    if len(found) < 2 or min(found) < 0 or found[0] == 0:
        raise UsageError(f"not the ids of a user: {printable(text)}")
    return found


def _words(text: str) -> "list[str]":
    try:
        raw = binascii.unhexlify(text)
    except ValueError as error:
        raise UsageError(f"not the words of a command: {printable(text)}") from error
    if len(raw) < 2 or not raw.endswith(b"\0"):
        raise UsageError("a command has at least one word")
    return [os.fsdecode(word) for word in raw[:-1].split(b"\0")]


def as_words(command: "tuple[str, ...]") -> str:
    """The words of a command as `enter` takes them."""
    return binascii.hexlify(b"".join(os.fsencode(word) + b"\0" for word in command)).decode("ascii")
