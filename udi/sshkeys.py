"""The two keys of a job's private sshd, made on the job host for each job and kept only in the plan."""

from __future__ import annotations

import base64
import os
import struct
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass

from udi.command import run
from udi.config import SiteConfig
from udi.oserrors import reason
from udiroot.errors import UpstreamFailed
from udiroot.plan import PlanFile
from udiroot.plan_ssh import PlanSsh
from udiroot.software import UDI_RUN

_KIND = b"ssh-ed25519"
_SECONDS = 10
_OPTIONS = f'no-port-forwarding,no-agent-forwarding,no-X11-forwarding,command="{UDI_RUN} --session"'


@dataclass(frozen=True, repr=False)
class SshKeys:
    """Private keys in the programs' own format: the user's, and the host key that all nodes of the job share."""

    user: bytes
    host: bytes

    def files(self) -> Iterator[PlanFile]:
        """Files that everyone may read: the authorized key, and the known hosts, which are the job's nodes only."""
        yield PlanFile("/opt/udi/etc/authorized_keys", 0o444, f"{_OPTIONS} {public_key(self.user)}\n")
        yield PlanFile("/opt/udi/etc/known_hosts", 0o444, f"* {public_key(self.host)}\n")

    def plan(self, site: SiteConfig) -> PlanSsh:
        """The private sshd of a node."""
        private = (base64.b64encode(key).decode() for key in (self.user, self.host))
        return PlanSsh(site.ssh.programs, site.ssh.port, *private)


def make_keys(site: SiteConfig, directory: str) -> SshKeys:
    """New keys, written briefly below `directory`, which only root may enter. Raises UpstreamFailed."""
    with tempfile.TemporaryDirectory(dir=directory, prefix="keys-") as temporary:
        return SshKeys(_make(site, f"{temporary}/user"), _make(site, f"{temporary}/host"))


def _make(site: SiteConfig, path: str) -> bytes:
    run([f"{site.install.ssh}/sshkey", "-t", "ed25519", "-f", path], seconds=_SECONDS).require_success()
    try:
        with open(path, "rb") as stream:
            key = stream.read()
    except OSError as error:
        raise UpstreamFailed(f"the private sshd's key could not be made: {reason(error)}") from error
    finally:
        if os.path.exists(path):
            os.unlink(path)
    public_key(key)
    return key


def public_key(private: bytes) -> str:
    """The public half, as an authorized key or a known host is written. Raises UpstreamFailed where it is not a key."""
    kind, rest = _string(private)
    pair, nothing = _string(rest)
    if kind != _KIND or len(pair) != 64 or nothing:
        raise UpstreamFailed("the key made for the private sshd is not an ed25519 key")
    blob = b"".join(struct.pack(">I", len(part)) + part for part in (_KIND, pair[32:]))
    return f"{_KIND.decode()} {base64.b64encode(blob).decode()}"


def _string(data: bytes) -> tuple[bytes, bytes]:
    """The first string of SSH's encoding, and what follows it (RFC 4251)."""
    length = int.from_bytes(data[:4], "big")
    return data[4 : 4 + length], data[4 + length :]
