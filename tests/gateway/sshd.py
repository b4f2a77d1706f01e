"""An sshd of the tests' own on loopback, and a special-purpose account that exists for it and its callers alone.

The account is a line in a copy of /etc/passwd, which is mounted over the real one in mount namespaces of our own.
"""

from __future__ import annotations

import shlex
import socket
import subprocess
import time
from pathlib import Path

from xcsim.ports import free_port


class Sshd:
    """Runs in `directory` until `stop`; `account` with `uid` may log in with the key `identity`."""

    def __init__(self, directory: Path, account: str, uid: int) -> None:
        directory.mkdir()
        directory.chmod(0o755)
        self.account = account
        self.port = free_port()
        self.home = directory / "home"
        self.home.mkdir()
        self.identity = self.home / "id"
        for name in (self.identity, directory / "host"):
            subprocess.run(["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-f", name], check=True)
        keys = directory / "authorized_keys"
        keys.write_text(self.identity.with_suffix(".pub").read_text())
        self.known = directory / "known_hosts"
        self.known.write_text(f"[127.0.0.1]:{self.port} {(directory / 'host.pub').read_text()}")
        subprocess.run(["chown", "-R", f"{uid}:{uid}", self.home], check=True)
        passwd = directory / "passwd"
        line = f"{account}:x:{uid}:{uid}::{self.home}:/bin/sh\n"
        passwd.write_text(Path("/etc/passwd").read_text() + line)
        shadow = directory / "shadow"
        shadow.write_text(Path("/etc/shadow").read_text() + f"{account}:*:19000::::::\n")
        self._entered = directory / "entered"
        mounts = "".join(f"mount --bind {shlex.quote(str(p))} /etc/{p.name}\n" for p in (passwd, shadow))
        self._entered.write_text(f'#!/bin/sh\nset -e\n{mounts}exec "$@"\n')
        self._entered.chmod(0o755)
        config = directory / "config"
        config.write_text(
            f"Port {self.port}\nListenAddress 127.0.0.1\nHostKey {directory}/host\nAuthorizedKeysFile {keys}\n"
            f"PidFile none\nUsePAM no\nStrictModes no\nPasswordAuthentication no\nAllowUsers {account}\n"
        )
        Path("/run/sshd").mkdir(exist_ok=True)
        self._log = directory / "log"
        with self._log.open("wb") as log:
            self._process = subprocess.Popen(
                self.inside("/usr/sbin/sshd", "-D", "-e", "-f", str(config)), stderr=log, stdin=subprocess.DEVNULL
            )
        deadline = time.monotonic() + 30
        while not self._answers():
            assert time.monotonic() < deadline, self._log.read_text()
            assert self._process.poll() is None, self._log.read_text()
            time.sleep(0.02)

    def inside(self, *words: str) -> list[str]:
        """A command for which the account exists."""
        return ["unshare", "--mount", "--propagation", "private", str(self._entered), *words]

    def ssh(self) -> list[str]:
        """The words of `systems.ssh`."""
        options = ("BatchMode=yes", "StrictHostKeyChecking=yes", f"UserKnownHostsFile={self.known}", "ConnectTimeout=5")
        return ["/usr/bin/ssh", "-F/dev/null", f"-p{self.port}", f"-i{self.identity}", *(f"-o{o}" for o in options)]

    def stop(self) -> None:
        self._process.terminate()
        self._process.wait(30)

    def _answers(self) -> bool:
        with socket.socket() as probe:
            return probe.connect_ex(("127.0.0.1", self.port)) == 0
