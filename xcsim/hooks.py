"""How pbs_mom runs a hook: the permission check, the arguments, the bare environment, the time limit.

Standard library only, since the job starter uses it too. Follows torque-reference a and b, and cray-reference 4.3 to
4.6: a hook that is killed by a signal, unless by the time limit, counts as a success.
"""

import os
import stat
import subprocess
import threading
from dataclasses import dataclass, field

from xcsim.processes import kill_session

MOM_PRIV = "/var/spool/torque/mom_priv"
JOBS = f"{MOM_PRIV}/jobs"
SPOOL = "/var/spool/torque/spool"
NODE_FILES = "/var/spool/torque/aux"

PERMISSION, TIMED_OUT, EXEC_FAILED = -1, -4, 255


@dataclass(frozen=True)
class HookCall:
    """One call of one hook, as root or as the user."""

    name: str
    arguments: list[str]
    environment: dict[str, str]
    output: str
    error: str
    groups: list[int]
    umask: int
    seconds: float
    user: tuple[int, int] | None = None
    home: str = ""
    kill_after: float | None = None


@dataclass
class JobContext:
    """What the hooks of a job are given. Plain values, so that it can be passed as JSON."""

    id: str
    prefix: str
    user: str
    group: str
    name: str
    requested: str
    queue: str
    account: str
    workdir: str
    uid: int
    gid: int
    groups: list[int]
    home: str
    shell: str
    output: str
    error: str
    first: str
    node_count: int
    per_node: int
    asked_nodes: str
    seconds: float
    script_argument: bool
    nids: list[int] = field(default_factory=list)

    @property
    def script(self) -> str:
        return f"{JOBS}/{self.prefix}.SC"

    def prologue_arguments(self) -> list[str]:
        words = [self.id, self.user, self.group, self.name, self.requested, self.queue, self.account]
        return [*words, self.script] if self.script_argument else words

    def epilogue_arguments(self, session: int, used: str, exit_status: int) -> list[str]:
        words = [self.id, self.user, self.group, self.name, str(session), self.requested, used]
        words += [self.queue, self.account, str(exit_status)]
        return [*words, self.script] if self.script_argument else words

    def hook_environment(self) -> dict[str, str]:
        """The complete environment of a hook: no job id, no HOME, nothing from `-v` (T20, T21)."""
        listed = {"PATH": "/bin:/usr/bin", "LANG": "C.UTF-8"}
        if self.asked_nodes:
            listed |= {
                "PBS_RESOURCE_NODES": self.asked_nodes,
                "PBS_NUM_NODES": str(self.node_count),
                "PBS_NUM_PPN": str(self.per_node),
                "PBS_NP": str(self.node_count * self.per_node),
            }
        return listed | {
            "PBS_NODENUM": "0",
            "PBS_MSHOST": self.first,
            "PBS_NODEFILE": f"{NODE_FILES}//{self.id}",
            "PBS_O_WORKDIR": self.workdir,
        }

    def call(self, name: str, arguments: list[str], umask: int, *, kill_after: float | None = None) -> HookCall:
        """The call of a hook; names that end in `.user` run as the user, in the user's home."""
        as_user = name.endswith(".user")
        return HookCall(
            name=name,
            arguments=arguments,
            environment=self.hook_environment(),
            output=self.output,
            error=self.error,
            groups=self.groups if as_user else [0, *self.groups],
            umask=umask,
            seconds=self.seconds,
            user=(self.uid, self.gid) if as_user else None,
            home=self.home if as_user else "",
            kill_after=kill_after,
        )


def run(call: HookCall) -> int:
    """Run one hook to completion; its exit code, and 0 if it does not exist or a signal killed it."""
    path = f"{MOM_PRIV}/{call.name}"
    if not os.path.exists(path):
        return 0
    if not _trusted(path, for_user=call.user is not None):
        return PERMISSION
    uid, gid = call.user or (0, 0)
    with open(call.output, "ab") as out, open(call.error, "ab") as err:
        try:
            process = subprocess.Popen(
                [path, *call.arguments],
                env=call.environment,
                cwd=call.home or MOM_PRIV,
                stdin=subprocess.DEVNULL,
                stdout=out,
                stderr=err,
                start_new_session=True,
                umask=call.umask,
                user=uid,
                group=gid,
                extra_groups=call.groups,
            )
        except OSError:
            return EXEC_FAILED
    if call.kill_after is not None:
        threading.Timer(call.kill_after, process.kill).start()
    try:
        code = process.wait(call.seconds)
    except subprocess.TimeoutExpired:
        kill_session(process.pid)
        process.wait()
        return TIMED_OUT
    return max(code, 0)


def _trusted(path: str, *, for_user: bool) -> bool:
    """A regular file owned by root, readable and executable by its owner, writable by nobody else."""
    found = os.stat(path)
    mode = stat.S_IMODE(found.st_mode)
    wanted = 0o505 if for_user else 0o500
    return stat.S_ISREG(found.st_mode) and found.st_uid == 0 and mode & wanted == wanted and not mode & 0o022
