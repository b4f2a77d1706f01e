"""The private sshd of a job: programs of the job start others on its nodes, inside the image, and nobody else does.

It is a static program of ours that runs as the job's user, chrooted in the published root. Between chroot and exec
nothing is imported or looked up. Its one authorised key and its host key were made for the job.
"""

import binascii
import os
import sys
import time

from udiroot import privileges, processes, smallfile
from udiroot.binds import FROZEN, bind
from udiroot.errors import SetupFailed, printable
from udiroot.plan import NodePlan
from udiroot.plan_ssh import PlanSsh

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import NoReturn

PROGRAMS = "/opt/udi/ssh"
"""Where its programs are in a root: `sshd`, and `ssh`, its client."""
_KEYS = "/opt/udi/etc"
_USER_KEY, _HOST_KEY = _KEYS + "/ssh_key", _KEYS + "/ssh_host_key"
_ENVIRONMENT = {"PATH": "/usr/local/bin:/usr/bin:/bin"}
_SIGNALS = range(1, 32)
_LISTENING = b"0A"
_LAST_SECONDS = 1.0
"""How long to wait for the end of one that did not start well; teardown looks again."""


def write_keys(plan: NodePlan, ssh: PlanSsh, root: str) -> None:
    """Put the private keys into a root that is being composed: the user's own, for nobody else to read."""
    if not os.path.isdir(root + _KEYS):
        os.mkdir(root + _KEYS, 0o755)
    for path, text in ((_USER_KEY, ssh.user_key), (_HOST_KEY, ssh.host_key)):
        try:
            key = binascii.a2b_base64(text)
        except ValueError as error:
            raise SetupFailed("plan: a key of the private sshd is not base64") from error
        descriptor = os.open(root + path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC | os.O_NOFOLLOW, 0o400)
        try:
            os.write(descriptor, key)
            os.fchown(descriptor, plan.user.uid, plan.user.gid)
        finally:
            os.close(descriptor)
    os.mkdir(root + PROGRAMS, 0o755)


def mount_programs(ssh: PlanSsh, root: str) -> None:
    """Bind the programs into a root that is being composed. Raises SetupFailed: the site must act."""
    try:
        bind(ssh.programs, root + PROGRAMS, FROZEN)
    except OSError as error:
        hint = "udi-admin install puts it there"
        raise SetupFailed(f"private sshd: {ssh.programs}: {error.strerror}", hint) from error


def start(plan: NodePlan, ssh: PlanSsh, nid: int, deadline: float) -> "tuple[int, int]":
    """Start it in the published root; its pid and start time, once it listens. Raises SetupFailed."""
    address = ssh.address(nid)
    argv = [f"{PROGRAMS}/sshd", "-F", "-p", f"{address}:{ssh.port}", "-r", _HOST_KEY]
    null = os.open("/dev/null", os.O_RDWR | os.O_CLOEXEC)
    said, say = os.pipe2(os.O_CLOEXEC)
    pid = os.fork()
    if pid == 0:
        _become_sshd(plan, argv, null, say)
    os.close(say)
    os.close(null)
    try:
        trouble = os.read(said, 400)
        if trouble:
            raise SetupFailed(f"private sshd not started: {printable(trouble.decode('utf-8', 'replace'))}")
        _wait_until_it_listens(pid, address, ssh.port, deadline)
    except BaseException:
        processes.kill(pid, processes.start_time(pid), time.monotonic() + _LAST_SECONDS)
        raise
    finally:
        os.close(said)
    return pid, processes.start_time(pid)


def _become_sshd(plan: NodePlan, argv: "list[str]", null: int, say: int) -> "NoReturn":
    """As the child. What goes wrong is said in the pipe, which a successful exec closes without a word.

    The run folder's lock also stays until then: a teardown can't come between, and later finds a process that holds the
    root.
    """
    try:
        _forget_the_caller(null)
        user = plan.user
        os.chroot(plan.root)
        os.chdir("/")
        privileges.become(user.uid, user.gid, user.groups)
        os.execve(argv[0], argv, _ENVIRONMENT)  # noqa: S606 - there is no shell, that is the point
    except BaseException as error:  # noqa: BLE001 - a child of ours must not go on as a second set-up
        os.write(say, str(error).encode("utf-8", "replace")[:400])
    finally:
        os._exit(1)


def _forget_the_caller(null: int) -> None:
    """A session, signals and descriptors of its own: nothing that we or the fan-out had open goes along."""
    import _signal as signals  # type: ignore[import-not-found, unused-ignore]

    os.setsid()
    os.umask(0o022)
    for number in _SIGNALS:
        if number not in (signals.SIGKILL, signals.SIGSTOP):
            signals.signal(number, signals.SIG_DFL)
    signals.pthread_sigmask(signals.SIG_SETMASK, ())
    for name in os.listdir("/proc/self/fd"):
        if int(name) > 2:
            try:
                os.set_inheritable(int(name), False)
            except OSError:  # the descriptor of the listing itself
                continue
    for standard in range(3):
        os.dup2(null, standard)


def _wait_until_it_listens(pid: int, address: str, port: int, deadline: float) -> None:
    """Ready is said once the kernel shows its socket. Nothing is sent to it for that."""
    raw = int.from_bytes(bytes(map(int, address.split("."))), sys.byteorder)
    place = f"{raw:08X}:{port:04X}".encode()
    while not _has_listener(pid, place):
        if os.waitid(os.P_PID, pid, os.WEXITED | os.WNOHANG | os.WNOWAIT):
            raise SetupFailed(f"private sshd ended at once: can it listen on {address} port {port}?")
        if time.monotonic() >= deadline:
            raise SetupFailed(f"private sshd does not listen on {address} port {port}")
        time.sleep(0.0005)


def _has_listener(pid: int, place: bytes) -> bool:
    """Whether that very process has a socket listening there: somebody else's would not do."""
    for line in smallfile.read("/proc/net/tcp").split(b"\n")[1:]:
        fields = line.split()
        if len(fields) > 9 and fields[1] == place and fields[3] == _LISTENING:
            wanted = f"socket:[{fields[9].decode()}]"
            return any(link == wanted for link in _open_by(pid))
    return False


def _open_by(pid: int) -> "list[str]":
    folder = f"/proc/{pid}/fd"
    try:
        return [os.readlink(f"{folder}/{name}") for name in os.listdir(folder)]
    except OSError:  # it is ending, or a descriptor was closed meanwhile: the next look tells
        return []
