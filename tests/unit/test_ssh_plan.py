"""The private sshd in a plan: all that a node needs where the site has it, and nothing at all elsewhere."""

from __future__ import annotations

import base64
import struct

import pytest

from alps.machine import Alps
from udi.accounts import Account
from udi.config import parse
from udi.facts import Facts
from udi.nodes import NodeSlots, numbered
from udi.planning import make_plan
from udi.reference import ImageReference
from udi.request import JobRequest
from udi.sshkeys import SshKeys, public_key
from udiroot.errors import UpstreamFailed
from udiroot.plan import NodePlan

SITE = '[store]\npath = "/lus/udi"\naccount = "990"\n[ssh]\nenabled = true\nport = 2222\nfirst_address = "10.1.0.1"\n'


def private(seed: int) -> bytes:
    """A key as the programs keep it: its kind, then 32 private and 32 public bytes."""
    parts = b"ssh-ed25519", bytes([seed]) * 32 + bytes([seed + 1]) * 32
    return b"".join(struct.pack(">I", len(part)) + part for part in parts)


KEYS = SshKeys(private(1), private(3))


def planned(keys: SshKeys | None) -> NodePlan:
    alice = Account("alice", 1001, 1001, (1001,), "/home/alice", "/bin/sh")
    request = JobRequest("1.sdb", alice, ImageReference.parse("tiny"), ())
    facts = Facts(id="ab" * 32, format="squashfs", size=1, sha256="0" * 64, env=("PATH=/bin",))
    site = parse(SITE, "udi.toml")
    return make_plan(site, request, facts, Alps(site), [NodeSlots(numbered(12), 2), NodeSlots(numbered(300), 2)], keys)


def test_keys_and_names_of_a_job() -> None:
    plan = planned(KEYS)
    files = {file.path: file for file in plan.files}
    assert set(files) == {
        "/opt/udi/etc/run", "/opt/udi/bin/ssh", "/opt/udi/etc/authorized_keys", "/opt/udi/etc/known_hosts",
    }  # fmt: skip
    options, _, key = files["/opt/udi/etc/authorized_keys"].text.partition(" ssh-ed25519 ")
    assert 'command="/opt/udi/bin/udi-run --session"' in options.split(",")
    assert bytes([2]) * 32 in base64.b64decode(key) and bytes([1]) * 32 not in base64.b64decode(key)
    assert files["/opt/udi/etc/known_hosts"].text == f"* {public_key(KEYS.host)}\n"
    assert "-p 2222 " in files["/opt/udi/bin/ssh"].text
    hosts = next(file.text for file in plan.etc if file.path == "hosts")
    assert "\n10.1.0.13 nid00012\n10.1.1.45 nid00300\n" in hosts
    assert plan.ssh is not None
    assert (plan.ssh.port, plan.address_of("12"), plan.address_of("300")) == (2222, "10.1.0.13", "10.1.1.45")
    secret = base64.b64encode(KEYS.user).decode()
    assert plan.ssh.user_key == secret
    assert not any(secret in file.text for file in (*plan.files, *plan.etc))


def test_without_it_there_is_no_trace_of_it() -> None:
    plan = planned(None)
    assert [file.path for file in plan.files] == ["/opt/udi/etc/run"]
    assert plan.programs == ("/opt/udi/bin/udi-run",)
    assert "ssh" not in plan.text() and "10.1.0.13" not in plan.text()
    assert "node 2 12,300 nid00012,nid00300 %\n" in plan.text()


def test_a_key_is_not_shown_where_it_is_printed() -> None:
    assert "\\x01" not in repr(KEYS)


@pytest.mark.parametrize("key", [b"", b"-----BEGIN", private(1)[:-1], private(1) + b"x"])
def test_what_is_no_key(key: bytes) -> None:
    with pytest.raises(UpstreamFailed, match="not an ed25519 key"):
        public_key(key)
