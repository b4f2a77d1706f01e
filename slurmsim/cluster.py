"""The hosts of a cluster, their network, munge, and Slurm on them."""

from __future__ import annotations

import os
import secrets
import shutil
import subprocess
import sysconfig
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from slurmsim.host import Host
from udiroot.errors import NotFound, SetupFailed
from xcsim import shared_root, tools
from xcsim.processes import wait_until

LOGIN = "login"
PROGRAMS = ("slurmctld", "slurmd", "srun", "munged")
"""Programs without which there is no cluster."""
LIBRARIES = "/opt/udi/libraries"
"""Where each host has the Python libraries of this process."""
_NETWORK = "10.99.1"
_BRIDGE, _INTERFACE = "cluster", "eth0"
_ROOT_ENVIRONMENT = {"PATH": "/opt/udi/bin:/usr/sbin:/usr/bin:/sbin:/bin", "HOME": "/root", "LANG": "C.UTF-8"}
_SECONDS = 30.0
SHARED = {"etc-slurm": "/etc/slurm", "etc-udi": "/etc/udi", "opt": "/opt/udi", "home": "/home", "scratch": "/scratch"}
"""Directories of the cluster's own that all hosts have, and where."""
_MUNGE = """
install -d -o munge -g munge -m 0755 /run/munge
install -d -o slurm -g slurm /var/spool/slurmctld /var/spool/slurmd
cat > /etc/munge/munge.key
chown munge /etc/munge/munge.key
chmod 0400 /etc/munge/munge.key
"""
_START_MUNGE = """
setpriv --reuid munge --regid munge --clear-groups munged --log-file=/run/munge/log --seed-file=/run/munge/seed \\
    --pid-file=/run/munge/pid
"""
_CONFIGURATION: Mapping[str, str] = {
    "ClusterName": "slurmsim",
    "SlurmctldHost": LOGIN,
    "SlurmUser": "slurm",
    "AuthType": "auth/munge",
    "AuthInfo": "cred_expire=5",
    "StateSaveLocation": "/var/spool/slurmctld",
    "SlurmdSpoolDir": "/var/spool/slurmd",
    "SlurmctldPidFile": "/run/slurmctld.pid",
    "SlurmdPidFile": "/run/slurmd.pid",
    "SlurmctldLogFile": "/var/log/slurmctld.log",
    "SlurmdLogFile": "/var/log/slurmd.log",
    "SlurmdParameters": "config_overrides",
    "ProctrackType": "proctrack/linuxproc",
    "TaskPlugin": "task/none",
    "JobAcctGatherType": "jobacct_gather/none",
    "SelectType": "select/cons_tres",
    "SelectTypeParameters": "CR_Core",
    "MpiDefault": "none",
    "LaunchParameters": "use_interactive_step",
    "SchedulerParameters": "bf_interval=1,sched_interval=1,batch_sched_delay=0",
    "ReturnToService": "2",
    "SlurmdTimeout": "10",
    "KillWait": "2",
    "InactiveLimit": "0",
    "MinJobAge": "300",
    "PrologFlags": "Alloc",
}
"""slurm.conf: nothing in it waits longer than a test can; a requeued job waits until its credentials expire."""


@dataclass
class Cluster:
    """A cluster whose files are in `directory`; up from `start` to `stop`, or to the end of this process. With the root
    of another `system` than this machine's, its hosts have that one's programs, and nothing of this process."""

    directory: Path
    names: tuple[str, ...] = ("n1", "n2")
    system: str = "/"
    login: Host = field(init=False)
    nodes: dict[str, Host] = field(init=False)
    _conf: dict[str, str] = field(init=False)

    def __post_init__(self) -> None:
        shared = {str(self.directory / name): target for name, target in SHARED.items()}
        if self.system == "/":
            shared |= {sysconfig.get_paths()["purelib"]: LIBRARIES}
        self.login = Host(LOGIN, shared, lower=self.system)
        # Loop devices are the machine's: clusters on one machine must know theirs by the names of their nodes.
        domain = secrets.token_hex(4)
        self.nodes = {name: Host(name, shared, domain, self.system) for name in self.names}
        self._conf = dict(_CONFIGURATION)

    # -- life ---------------------------------------------------------------------------------------------------

    def start(self) -> None:
        """Bring the hosts up, without Slurm. Raises SetupFailed."""
        path = os.pathsep.join(self.system + each for each in _ROOT_ENVIRONMENT["PATH"].split(os.pathsep))
        missing = [name for name in PROGRAMS if not shutil.which(name, path=path)]
        if missing:
            raise SetupFailed(f"{', '.join(missing)} not installed", "make setup installs it")
        self._lay_out()
        key = secrets.token_bytes(1024)
        self.login.start()
        tools.run(
            *("nsenter", f"--target={self.login.pid}", "--net", "ip", "-batch", "-"),
            input=f"link add {_BRIDGE} type bridge\nlink set {_BRIDGE} up\naddr add {_address(0)}/24 dev {_BRIDGE}\n",
            failure="the network of the cluster could not be set up",
        )
        for number, node in enumerate(self.nodes.values(), 1):
            node.start(self.login)
            self._join(node, number)
        for host in self.hosts():
            self._furnish(host, key)

    def stop(self) -> None:
        """End everything of it; safe to repeat."""
        for host in (*self.nodes.values(), self.login):
            host.stop()

    def hosts(self) -> list[Host]:
        return [self.login, *self.nodes.values()]

    def _lay_out(self) -> None:
        self.directory.mkdir(parents=True, exist_ok=True)
        self.directory.chmod(0o755)
        for name in SHARED:
            (self.directory / name).mkdir(exist_ok=True)
        for who in shared_root.ACCOUNTS:
            for parent in ("scratch",) if who.name == "udi" else ("scratch", "home"):
                own = self.directory / parent / who.name
                own.mkdir(exist_ok=True)
                shared_root.give(own, who)
                own.chmod(0o755 if who.name == "udi" else 0o750)

    def _join(self, node: Host, number: int) -> None:
        """A wire from the node to the bridge."""
        tools.run(
            *("nsenter", f"--target={self.login.pid}", "--net", "ip", "-batch", "-"),
            input=f"link add w{number} type veth peer name {_INTERFACE} netns {node.pid}\n"
            f"link set w{number} master {_BRIDGE} up\n",
            failure=f"node {node.name} could not be joined to the network",
        )
        tools.run(
            *("nsenter", f"--target={node.pid}", "--net", "ip", "-batch", "-"),
            input=f"addr add {_address(number)}/24 dev {_INTERFACE}\nlink set {_INTERFACE} up\n",
            failure=f"node {node.name} could not be joined to the network",
        )

    def _furnish(self, host: Host, key: bytes) -> None:
        """Accounts, names of hosts, and munge."""
        root = host.path("/")
        shared_root.add_accounts(root)
        lines = [f"{_address(n)} {name}" for n, name in enumerate((LOGIN, *self.names))]
        (root / "etc/hosts").write_text("127.0.0.1 localhost\n" + "\n".join(lines) + "\n")
        host.run(["sh", "-ec", _MUNGE], input=key.hex(), env=_ROOT_ENVIRONMENT)
        self.start_munge(host.name)

    def start_munge(self, name: str) -> None:
        """Start munged on a host where none runs."""
        self.root(name, "sh", "-ec", _START_MUNGE)

    # -- Slurm --------------------------------------------------------------------------------------------------

    def configure(self, changes: Mapping[str, str]) -> None:
        """Write slurm.conf with further parameters; an empty value removes one."""
        self._conf |= changes
        lines = [f"{name}={value}" for name, value in self._conf.items() if value]
        lines += [f"NodeName={name} NodeAddr={_address(n)} CPUs=8" for n, name in enumerate(self.names, 1)]
        lines += [f"PartitionName=work Nodes={','.join(self.names)} Default=YES OverSubscribe=NO"]
        path = self.directory / "etc-slurm/slurm.conf"
        temporary = path.with_suffix(".new")
        temporary.write_text("\n".join(lines) + "\n")
        temporary.rename(path)

    def start_slurm(self) -> None:
        """Start slurmctld and every slurmd; all nodes are idle then. Raises SetupFailed."""
        self.start_controller()
        for name in self.names:
            self.start_slurmd(name)
        self.await_states("idle")

    def start_controller(self) -> None:
        self.root(LOGIN, "slurmctld")
        if not wait_until(lambda: self._answers(), _SECONDS, 0.05):
            raise SetupFailed(f"slurmctld does not answer: {self._last_line(self.login, 'slurmctld')}")

    def start_slurmd(self, name: str) -> None:
        self.root(name, "slurmd", "-N", name)

    def stop_controller(self, signal: str = "KILL") -> None:
        self.kill(LOGIN, "slurmctld", signal)

    def kill(self, host: str, program: str, signal: str = "KILL") -> None:
        """Kill a daemon of a host, and wait until it is gone. The login host sees the processes of all hosts: those of
        the same name on nodes go on."""
        own = ("-x", program, "--ns", "1", "--nslist", "pid")
        self.root(host, "pkill", f"-{signal}", *own, check=False)
        gone = wait_until(lambda: self.root(host, "pgrep", *own, check=False).returncode == 1, _SECONDS, 0.02)
        if not gone:
            raise SetupFailed(f"{program} on {host} does not end")

    def states(self) -> dict[str, str]:
        """The state of each node, in Slurm's words, without its marks."""
        said = self.root(LOGIN, "sinfo", "-h", "-N", "-o", "%N %T").stdout
        return {name: state.rstrip("*~#$@+^-") for name, state in (line.split() for line in said.splitlines())}

    def await_states(self, *wanted: str, seconds: float = _SECONDS) -> None:
        """Wait until each node is in one of these states. Raises SetupFailed."""
        if not wait_until(lambda: set(self.states().values()) <= set(wanted), seconds, 0.05):
            raise SetupFailed(f"nodes are {self.states()}, not {' or '.join(wanted)}")

    def reason(self, name: str) -> str:
        """Why a node is drained; empty where it is not."""
        said = self.root(LOGIN, "sinfo", "-h", "-n", name, "-o", "%E").stdout.strip()
        return "" if said == "none" else said

    def _answers(self) -> bool:
        return self.root(LOGIN, "scontrol", "ping", check=False).returncode == 0

    def _last_line(self, host: Host, daemon: str) -> str:
        log = host.path(f"/var/log/{daemon}.log")
        lines = log.read_text(errors="replace").splitlines() if log.exists() else []
        return lines[-1] if lines else "no log"

    # -- programs on it -----------------------------------------------------------------------------------------

    def host(self, name: str) -> Host:
        """The host of that name. Raises NotFound."""
        found = {host.name: host for host in self.hosts()}.get(name)
        if found is None:
            raise NotFound(f"no host {name} in this cluster")
        return found

    def root(self, host: str, *argv: str, check: bool = True, **more: Any) -> subprocess.CompletedProcess[str]:
        """Run a program as root on a host."""
        return self.host(host).run(argv, env=_ROOT_ENVIRONMENT, check=check, **more)

    def words_as(self, user: str, argv: Sequence[str], *, cwd: str = "", host: str = LOGIN) -> list[str]:
        """What runs a program of a user on a host."""
        who = _known(user)
        return self.host(host).words(argv, uid=who.uid, groups=shared_root.groups_of(who), cwd=cwd or who.home)

    def run_as(
        self,
        user: str,
        *argv: str,
        cwd: str = "",
        env: Mapping[str, str] | None = None,
        host: str = LOGIN,
        check: bool = False,
        **more: Any,
    ) -> subprocess.CompletedProcess[str]:
        """Run a program as a user on the login host, or on another, to its end."""
        who = _known(user)
        return self.host(host).run(
            argv, uid=who.uid, groups=shared_root.groups_of(who), cwd=cwd or who.home,
            env=environment_of(user) | dict(env or {}), check=check, **more,
        )  # fmt: skip

    def popen_as(
        self, user: str, *argv: str, cwd: str = "", env: Mapping[str, str] | None = None, host: str = LOGIN, **more: Any
    ) -> subprocess.Popen[str]:
        """Start a program as a user."""
        return subprocess.Popen(
            self.words_as(user, argv, cwd=cwd, host=host), env=environment_of(user) | dict(env or {}), text=True, **more
        )


def environment_of(user: str) -> dict[str, str]:
    """What a user's login gives."""
    who = _known(user)
    path = "/opt/udi/bin:/usr/local/bin:/usr/bin:/bin"
    return {"HOME": who.home, "USER": user, "LOGNAME": user, "SHELL": who.shell, "LANG": "C.UTF-8", "PATH": path}


def _known(user: str) -> shared_root.Account:
    who = shared_root.account(user)
    if who is None:
        raise NotFound(f"no account {user} in this cluster")
    return who


def _address(number: int) -> str:
    """Of the login host (0) and the nodes."""
    return f"{_NETWORK}.{number + 1}"
