"""The two keys of a job's private sshd, made on the job host for each job and kept only in the plan."""

from __future__ import annotations

import base64
import os
import struct
import tempfile
from dataclasses import dataclass

from udi.command import run
from udi.config import SiteConfig
from udi.oserrors import reason
from udiroot.errors import UpstreamFailed

_KIND = b"ssh-ed25519"
_SECONDS = 10


@dataclass(frozen=True, repr=False)
class SshKeys:
    """Private keys in the programs' own format: the user's, and the host key that all nodes of the job share."""

    user: bytes
    host: bytes


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
