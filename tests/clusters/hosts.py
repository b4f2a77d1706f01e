"""Hosts of a cluster, as real as one machine can make them: Debian's sshd in namespaces of their own, on one network.

A host has this machine's own root file system, with a /run and a /mnt that are its alone, its own host name, processes
and network. It is no Cray: Python is where Debian has it, and there is no nid.
"""

from __future__ import annotations

import shlex
import socket
import subprocess
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

from xcsim.network import Network, address
from xcsim.processes import children, wait_until

_NUMBERS = iter(range(1, 10000))
_START = """
set -e
hostname {name}
mount -t tmpfs -o mode=0755 host-run /run
mount -t tmpfs -o mode=0755 host-mnt /mnt
mkdir /run/sshd
ip link set lo up
exec {command}
"""
_SSHD = """
HostKey {directory}/{name}.key
AuthorizedKeysFile {directory}/client.pub
AllowUsers root
StrictModes no
UsePAM no
PasswordAuthentication no
KbdInteractiveAuthentication no
PidFile none
MaxStartups 100
"""


def make_key(path: Path) -> str:
    """A key pair at `path`; its public half."""
    subprocess.run(["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-C", "", "-f", path], check=True)
    return path.with_name(f"{path.name}.pub").read_text()


@dataclass
class Host:
    """One host, running or not."""

    name: str
    directory: Path
    network: Network
    number: int = field(default_factory=lambda: next(_NUMBERS))
    _process: subprocess.Popen[bytes] | None = None

    def start(self) -> None:
        """Boot it, and wait for its sshd."""
        config = self.directory / f"{self.name}.sshd"
        config.write_text(_SSHD.format(directory=self.directory, name=self.name))
        self.boot(f"/usr/sbin/sshd -D -e -f {shlex.quote(str(config))}")
        assert wait_until(self._listens, 30), self.log.read_text()

    def boot(self, command: str) -> None:
        """Boot it with `command` as its first process."""
        script = _START.format(name=self.name, command=command)
        with self.log.open("ab") as log:
            self._process = subprocess.Popen(
                ["unshare", "--mount", "--uts", "--net", "--pid", "--ipc", "--fork", "--kill-child", "--mount-proc",
                 "--propagation", "private", "/bin/sh", "-c", script],
                stdin=subprocess.DEVNULL, stdout=log, stderr=log,
            )  # fmt: skip
        assert wait_until(lambda: self._process is not None and bool(children(self._process.pid)), 30)
        self.network.join(self.number, self.pid)

    def stop(self) -> None:
        """Power off."""
        if self._process is not None:
            self._process.kill()
            self._process.wait()
            self._process = None

    @property
    def pid(self) -> int:
        """Its first process, as this machine sees it."""
        assert self._process is not None
        return children(self._process.pid)[0]

    @property
    def log(self) -> Path:
        return self.directory / f"{self.name}.log"

    def run(self, *command: str) -> str:
        """The output of a command on the host."""
        words = ["nsenter", f"--target={self.pid}", "--mount", "--uts", "--net", "--pid", "--ipc", *command]
        return subprocess.run(words, check=True, capture_output=True, text=True).stdout

    def picture(self) -> tuple[list[str], list[str]]:
        """Its table of mounts, without numbers, and what runs there except sessions of ssh, which just end."""
        lines = Path(f"/proc/{self.pid}/mountinfo").read_text().splitlines()
        processes = self.run("ps", "-eo", "args=").splitlines()
        return (
            sorted(" ".join(line.split()[3:]) for line in lines),
            sorted(line for line in processes if not line.startswith("sshd: root")),
        )

    def _listens(self) -> bool:
        return ":0016 00000000:0000 0A" in Path(f"/proc/{self.pid}/net/tcp").read_text()


@dataclass
class Cluster:
    """Some hosts, and the one from which ssh reaches them."""

    directory: Path
    names: Sequence[str]
    hosts: dict[str, Host] = field(init=False)
    _network: Network = field(init=False)
    _service: Host = field(init=False)

    def __post_init__(self) -> None:
        self._network = Network(self.directory / "network").start()
        make_key(self.directory / "client")
        self.hosts = {name: Host(name, self.directory, self._network) for name in self.names}
        known, config = [], [f"IdentityFile {self.directory}/client", f"UserKnownHostsFile {self.directory}/known"]
        for name, host in self.hosts.items():
            known.append(f"{name} {make_key(self.directory / f'{name}.key')}")
            config.append(f"Host {name}\n HostName {address(host.number)}\n HostKeyAlias {name}")
        (self.directory / "known").write_text("".join(known))
        (self.directory / "config").write_text("\n".join(config) + "\n")
        self._service = Host("service", self.directory, self._network)
        self._service.boot("sleep infinity")

    def ssh(self) -> list[str]:
        """The setting `clusters.ssh`: on the service host, with its configuration."""
        options = ("BatchMode=yes", "ConnectTimeout=2", "StrictHostKeyChecking=yes")
        return [
            "/usr/bin/nsenter", f"--net=/proc/{self._service.pid}/ns/net",
            "/usr/bin/ssh", f"-F{self.directory}/config", *(f"-o{option}" for option in options),
        ]  # fmt: skip

    def addresses(self, name: str, *_: object, **__: object) -> list[tuple[object, ...]]:
        """Answers as `socket.getaddrinfo`."""
        return [(socket.AF_INET, socket.SOCK_STREAM, 6, "", (address(self.hosts[name].number), 0))]

    def stop(self) -> None:
        """Everything off."""
        for host in (*self.hosts.values(), self._service):
            host.stop()
        self._network.stop()
