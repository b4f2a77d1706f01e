"""The site's MUNGE key changes: what users and operators see until every host has it, by docs/operations.md."""

from __future__ import annotations

import os
import socket
import subprocess
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

from admin.checks.check import Level
from admin.checks.gateway import checks, trials
from gateway.client import client
from gateway.wire.events import Event, Retrying
from gateway.wire.messages import PullReference
from tests.gateway.munged import Munged
from tests.gateway.service import ANNA, Service, directory_for_all
from tests.gateway.support import needs_root
from tests.gateway.test_network import archive
from udi import config
from udiroot.errors import UpstreamFailed
from xcsim.ports import free_port

pytestmark = needs_root
OLD, NEW = os.urandom(128), os.urandom(128)
UNANSWERED = "the gateway closed the connection without an answer"
WHY = "it answers no host whose MUNGE key or clock differs from its own"


class Apart(Service):
    """A gateway whose clients are on another host: each of the two has a munged of its own."""

    def __init__(self, directory: Path, here: Munged, there: Munged) -> None:
        super().__init__(directory, f'address = "127.0.0.1:{free_port()}"\nmunge = "{here.socket}"')
        self.here, self.there = here, there
        self.far_config = directory / "there.toml"
        text = self.config.read_text().replace("/gateway.sock", "/not-on-this-host.sock")
        text = text.replace(f'state = "{self.own}/state"', f'state = "{self.own}/not-on-this-host"')
        self.far_config.write_text(text.replace(here.socket, there.socket))
        self.far_config.chmod(0o644)

    def command(self, *words: str) -> list[str]:
        return [str(self.far_config) if word == str(self.config) else word for word in super().command(*words)]

    def submitted(self, name: str) -> subprocess.CompletedProcess[bytes]:
        """The submission of a job on the other host."""
        return self.qsub(f"UDI={name}", uid=ANNA, config=self.far_config)

    def found(self) -> dict[str, tuple[str, str]]:
        """What `check-config` says on the other host, where it is no praise."""
        site = config.load(str(self.far_config))
        rows = [row for check in (*checks(site), *trials(site)) for row in check.rows()]
        return {row.check: (row.what, row.todo) for row in rows if row.level is not Level.OK}


@pytest.fixture
def hosts() -> Iterator[Apart]:
    with directory_for_all("udi-key-") as directory:
        gateways, clients = Munged(directory / "here", OLD), Munged(directory / "there", OLD)
        try:
            with directory_for_all("udi-apart-") as own, Apart(own, gateways, clients) as running:
                yield running
        finally:
            gateways.stop()
            clients.stop()


def test_until_the_other_host_has_the_new_key(hosts: Apart, monkeypatch: pytest.MonkeyPatch) -> None:
    """The service is not started anew: it asks munged for each message."""
    path, image_id = archive(hosts, "x")
    hosts.ask(ANNA, "pull", f"docker-archive:{path}")
    hosts.here.change_key(NEW)
    for words in (("images",), ("lookup", "x:1"), ("login", "docker.io", "-u", "anna", "--password-stdin")):
        done = hosts.udi(ANNA, *words, given="secret\n")
        assert (done.returncode, done.stdout) == (6, "") and done.stderr.startswith(f"udi: {UNANSWERED}\nhint: {WHY}")
    job = hosts.submitted("x:1")
    assert job.returncode == 0, "a job whose image is in the store is submitted"
    assert f"image not checked, it will be when the job starts: {UNANSWERED} ({WHY}" in job.stderr.decode()
    assert set(hosts.found()) == {"gateway.address"}, "munged itself is well"
    what, todo = hosts.found()["gateway.address"]
    assert what.endswith(UNANSWERED) and WHY in todo
    assert "address 127.0.0.1: MUNGE authentication failed: invalid credential" in hosts.log.read_text()
    assert refused_by_hand(hosts) == "unmunge: Error: Invalid credential"
    _pull_gives_up(hosts, monkeypatch)
    hosts.there.change_key(NEW)
    assert hosts.ask(ANNA, "lookup", "x:1")["id"] == image_id
    assert hosts.found() == {}


def _pull_gives_up(hosts: Apart, monkeypatch: pytest.MonkeyPatch) -> None:
    """After the time in which a service that was killed is waited for, and it says so once."""
    monkeypatch.setattr(client, "_PATIENCE", 1.0)
    told: list[Event] = []
    request = PullReference(kind="docker", reference="docker.io/x:1")
    with pytest.raises(UpstreamFailed, match=UNANSWERED) as refused:
        client.pull(config.load(str(hosts.far_config)), request, on_event=told.append)
    assert WHY in refused.value.hint
    assert told == [Retrying(UNANSWERED)]


def refused_by_hand(hosts: Apart) -> str:
    """What an operator sees who carries a credential from the one host to the other."""
    made = subprocess.run(["munge", "-n", f"--socket={hosts.there.socket}"], capture_output=True, text=True, check=True)
    read = subprocess.run(
        ["unmunge", f"--socket={hosts.here.socket}"], input=made.stdout, capture_output=True, text=True, check=False
    )
    return read.stderr.strip()


def test_a_service_on_this_host_that_ends_at_each_request(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """On a socket no key can be wrong, and it is given up all the same."""
    monkeypatch.setattr(client, "_PATIENCE", 0.5)
    site = config.parse(f'store.path = "/s"\n[gateway]\nsocket = "{tmp_path}/socket"\n', "udi.toml")
    with socket.socket(socket.AF_UNIX) as server:
        server.bind(site.gateway.socket)
        server.listen()

        def end_each() -> None:
            try:
                while True:
                    server.accept()[0].close()
            except OSError:  # it was closed
                return

        thread = threading.Thread(target=end_each)
        thread.start()
        request = PullReference(kind="docker", reference="docker.io/x:1")
        with pytest.raises(UpstreamFailed) as refused:
            client.pull(site, request)
        server.shutdown(socket.SHUT_RDWR)
    thread.join(30)
    assert "MUNGE" not in refused.value.hint
