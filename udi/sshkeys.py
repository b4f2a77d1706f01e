"""The two keys of a job's private sshd, made by the MOM node once for each job and kept nowhere but in the plan."""

from __future__ import annotations

import base64
import os
import struct
import tempfile
from dataclasses import dataclass

from udi.command import run
from udi.config import SiteConfig
from udiroot.errors import UpstreamFailed

_KIND = b"ssh-ed25519"
_SECONDS = 10


@dataclass(frozen=True, repr=False)
class SshKeys:
    """Private keys as the programs keep them: the one that lets in, and the one by which all nodes are known."""

    user: bytes
    host: bytes


def make_keys(site: SiteConfig, folder: str) -> SshKeys:
    """New keys, written for a moment below `folder`, which must be root's alone. Raises UpstreamFailed."""
    with tempfile.TemporaryDirectory(dir=folder, prefix="keys-") as place:
        return SshKeys(_make(site, f"{place}/user"), _make(site, f"{place}/host"))


def _make(site: SiteConfig, path: str) -> bytes:
    run([f"{site.install.ssh}/sshkey", "-t", "ed25519", "-f", path], seconds=_SECONDS).require_success()
    try:
        with open(path, "rb") as stream:
            key = stream.read()
    except OSError as error:
        raise UpstreamFailed(f"no key for the private sshd was made: {error.strerror}") from error
    finally:
        if os.path.exists(path):
            os.unlink(path)
    public_key(key)
    return key


def public_key(private: bytes) -> str:
    """The public half, as an authorised key or a known host is written. Raises UpstreamFailed for what is no key."""
    kind, rest = _string(private)
    pair, nothing = _string(rest)
    if kind != _KIND or len(pair) != 64 or nothing:
        raise UpstreamFailed("what was made for the private sshd is not an ed25519 key")
    blob = b"".join(struct.pack(">I", len(part)) + part for part in (_KIND, pair[32:]))
    return f"{_KIND.decode()} {base64.b64encode(blob).decode()}"


def _string(data: bytes) -> tuple[bytes, bytes]:
    """The first string of SSH's encoding, and what follows it (RFC 4251)."""
    length = int.from_bytes(data[:4], "big")
    return data[4 : 4 + length], data[4 + length :]
