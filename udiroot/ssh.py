"""The private sshd of a job: only programs of the job can start others on its nodes, inside the image.

It is a static program of shifter-xc that runs as the job's user, chrooted in the published root. Between chroot and
exec nothing is imported or looked up. Its one authorized key and its host key were made for the job.
"""

import binascii
import os
import sys
import time

from udiroot import privileges, processes, smallfile
from udiroot.binds import FROZEN, bind
from udiroot.child import detach
from udiroot.errors import SetupFailed, printable
from udiroot.plan import PlanUser
from udiroot.plan_ssh import PlanSsh

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import NoReturn

PROGRAMS = "/opt/udi/ssh"
"""The directory of its programs in a root: `sshd` and its client `ssh`."""
_KEYS = "/opt/udi/etc"
_USER_KEY, _HOST_KEY = _KEYS + "/ssh_key", _KEYS + "/ssh_host_key"
_ENVIRONMENT = {"PATH": "/usr/local/bin:/usr/bin:/bin"}
_LISTENING = b"0A"
_LAST_SECONDS = 1.0
"""How long to wait for the exit of one that failed to start; teardown looks again."""


def write_keys(user: PlanUser, ssh: PlanSsh, root: str) -> None:
    """Put the private keys into a root that is being composed, owned by the user and readable by nobody else."""
    if not os.path.isdir(root + _KEYS):
        os.mkdir(root + _KEYS, 0o755)
    for path, text in ((_USER_KEY, ssh.user_key), (_HOST_KEY, ssh.host_key)):
        try:
            key = binascii.a2b_base64(text)
        except ValueError as error:
            raise SetupFailed("plan: invalid base64 in a key of the private sshd") from error
        descriptor = os.open(root + path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC | os.O_NOFOLLOW, 0o400)
        try:
            os.write(descriptor, key)
            os.fchown(descriptor, user.uid, user.gid)
        finally:
            os.close(descriptor)
    os.mkdir(root + PROGRAMS, 0o755)


def mount_programs(ssh: PlanSsh, root: str) -> None:
    """Bind the programs into a root that is being composed. Raises SetupFailed."""
    try:
        bind(ssh.programs, root + PROGRAMS, FROZEN)
    except OSError as error:
        hint = "install it with udi-admin install"
        raise SetupFailed(f"private sshd: {ssh.programs}: {error.strerror}", hint) from error


def start(user: PlanUser, ssh: PlanSsh, root: str, address: str, deadline: float) -> "tuple[int, int]":
    """Start it in the published `root`; its pid and start time, once it listens on `address`. Raises SetupFailed."""
    where = f"[{address}]:{ssh.port}" if ":" in address else f"{address}:{ssh.port}"
    argv = [f"{PROGRAMS}/sshd", "-F", "-p", where, "-r", _HOST_KEY]
    null = os.open("/dev/null", os.O_RDWR | os.O_CLOEXEC)
    errors, report = os.pipe2(os.O_CLOEXEC)
    pid = os.fork()
    if pid == 0:
        _become_sshd(user, root, argv, null, report)
    os.close(report)
    os.close(null)
    try:
        error = os.read(errors, 400)
        if error:
            raise SetupFailed(f"private sshd could not be started: {printable(error.decode('utf-8', 'replace'))}")
        _wait_until_it_listens(pid, address, ssh.port, deadline)
    except BaseException:
        processes.kill(pid, processes.start_time(pid), time.monotonic() + _LAST_SECONDS)
        raise
    finally:
        os.close(errors)
    return pid, processes.start_time(pid)


def _become_sshd(user: PlanUser, root: str, argv: "list[str]", null: int, report: int) -> "NoReturn":
    """In the child. An error is written to the pipe `report`, which a successful exec closes without output.

    The run directory's lock is also held until then: a teardown cannot come between, and later finds a process that
    holds the root.
    """
    try:
        detach(null, null)
        os.chroot(root)
        os.chdir("/")
        privileges.become(user.uid, user.gid, user.groups)
        os.execve(argv[0], argv, _ENVIRONMENT)  # noqa: S606 - without a shell, intentionally
    except BaseException as error:  # noqa: BLE001 - the child must not go on as a second set-up
        os.write(report, str(error).encode("utf-8", "replace")[:400])
    finally:
        os._exit(1)


def _wait_until_it_listens(pid: int, address: str, port: int, deadline: float) -> None:
    """It is ready once the kernel's table has its socket. Nothing is sent to it for that."""
    table = "/proc/net/tcp6" if ":" in address else "/proc/net/tcp"
    local = f"{_as_in_table(address)}:{port:04X}".encode()
    while not _has_listener(pid, table, local):
        if os.waitid(os.P_PID, pid, os.WEXITED | os.WNOHANG | os.WNOWAIT):
            raise SetupFailed(
                f"private sshd exited at once on {address} port {port}",
                "check that the node has this address and that no other program uses the port",
            )
        if time.monotonic() >= deadline:
            raise SetupFailed(f"private sshd does not listen on {address} port {port}")
        time.sleep(0.0005)


def _as_in_table(address: str) -> str:
    """An address as /proc/net/tcp and tcp6 write it: hexadecimal words of 32 bits in the machine's byte order."""
    from _socket import AF_INET, AF_INET6, inet_pton

    raw = inet_pton(AF_INET6 if ":" in address else AF_INET, address)
    words = (raw[start : start + 4] for start in range(0, len(raw), 4))
    return "".join(f"{int.from_bytes(word, sys.byteorder):08X}" for word in words)


def _has_listener(pid: int, table: str, local: bytes) -> bool:
    """Whether that very process has a socket that listens on the address: another process's would not do."""
    for line in smallfile.read(table).split(b"\n")[1:]:
        fields = line.split()
        if len(fields) > 9 and fields[1] == local and fields[3] == _LISTENING:
            wanted = f"socket:[{fields[9].decode()}]"
            return any(link == wanted for link in _open_by(pid))
    return False


def _open_by(pid: int) -> "list[str]":
    directory = f"/proc/{pid}/fd"
    try:
        return [os.readlink(f"{directory}/{name}") for name in os.listdir(directory)]
    except OSError:  # it is exiting, or a descriptor was closed meanwhile: the next look shows which
        return []
