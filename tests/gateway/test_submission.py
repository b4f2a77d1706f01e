"""The paper's way: a job names an image of a registry, qsub has it pulled, shows it, and fixes what the job runs."""

from __future__ import annotations

import os
import pty
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.gateway.archives import BASE, file
from tests.gateway.registries import DebianRegistry, Pushed
from tests.gateway.service import ANNA, Service, directory_for_all, until
from tests.gateway.support import needs_root
from torque_hooks.pin import find_pin
from udi.registries import RegistryConfig

pytestmark = needs_root

USER = 1
"""Someone with an account."""
SCRIPT = b"#!/bin/sh\naprun -n 2 hostname\n"


class Centre:
    """A service whose default registry is a real one."""

    def __init__(self, directory: Path, registry: DebianRegistry) -> None:
        self.registry = registry
        tables = f'[registry]\ndefault = "{registry.name}"\nsilence = 3\n'
        tables += f'[[registry.hosts]]\nname = "{registry.name}"\nplain_http = true\n'
        own = directory / "service"
        own.mkdir()
        self.service = Service(own, "", tables)

    def qsub(self, *listed: str, script: bytes = SCRIPT) -> subprocess.CompletedProcess[bytes]:
        return self.service.qsub(*listed, uid=USER, script=script)

    def push(self, name: str, size: int = 2000) -> Pushed:
        return self.registry.push(name, [BASE, [file("data", os.urandom(size))], [file("more", os.urandom(size))]])


@pytest.fixture(scope="module")
def centre() -> Iterator[Centre]:
    with directory_for_all("udi-submission-") as directory, DebianRegistry(directory / "registry") as registry:
        made = Centre(directory, registry)
        with made.service:
            yield made


def pinned(done: subprocess.CompletedProcess[bytes]) -> str:
    assert done.returncode == 0, done.stderr
    pin = find_pin(RegistryConfig(), done.stdout)
    return pin.id if pin else ""


def test_qsub_pulls_what_is_not_there_and_pins_it(centre: Centre) -> None:
    pushed = centre.push("sub/app")
    first = centre.qsub("UDI=sub/app:1")
    assert pinned(first) == pushed.id
    assert b"pulling sub/app:1" in first.stderr and b"packing" in first.stderr
    second = centre.qsub("UDI=sub/app:1")
    assert pinned(second) == pushed.id and second.stderr == b""
    moved = centre.push("sub/app")
    centre.service.ask(ANNA, "pull", "sub/app:1")
    assert centre.service.ask(ANNA, "lookup", "sub/app:1")["id"] == moved.id
    assert f"{pushed.id}.squashfs" in centre.service.files(), "the queued jobs' image stays"


def test_qsub_refuses_what_no_registry_has(centre: Centre) -> None:
    done = centre.qsub("UDI=sub/nosuch:1")
    assert done.returncode == 255 and done.stdout == b""
    assert b"image 'sub/nosuch:1' not found, or you do not have access to it; it cannot be pulled: " in done.stderr
    assert done.stderr.count(b"\n") == 1
    assert centre.qsub("UDI=elsewhere.example/app:1").returncode == 255, "a registry that the site does not know"


def test_without_waiting_the_pull_goes_on_and_the_job_start_resolves(centre: Centre) -> None:
    pushed = centre.push("sub/later")
    centre.service.fault("wait")
    done = centre.qsub("UDI=sub/later:1", "UDI_WAIT=no")
    assert done.returncode == 0 and done.stdout == SCRIPT
    assert b"is being pulled" in done.stderr
    assert not centre.service.names(USER) & {"sub/later:1"}
    centre.service.fault("")
    until(lambda: "sub/later:1" in centre.service.names(USER), 20)
    assert pinned(centre.qsub("UDI=sub/later:1", "UDI_WAIT=no")) == pushed.id


def test_with_the_gateway_down_submission_still_works(centre: Centre) -> None:
    centre.service.stop()
    try:
        done = centre.qsub("UDI=sub/app:1")
        assert done.returncode == 0 and done.stdout == SCRIPT
        assert b"image not checked, it will be when the job starts" in done.stderr
    finally:
        centre.service.start()


def test_a_terminal_gets_a_bar_a_layer(centre: Centre) -> None:
    pushed = centre.push("sub/bars", size=5_000_000)
    ours, theirs = pty.openpty()
    process = subprocess.Popen(
        centre.service.command("pull", "sub/bars:1"), stdin=theirs, stdout=theirs, stderr=theirs, user=ANNA, group=ANNA
    )
    os.close(theirs)
    shown = b""
    try:
        while piece := os.read(ours, 65536):
            shown += piece
    except OSError:
        pass  # the end of a terminal
    os.close(ours)
    assert process.wait(30) == 0, shown
    assert pushed.id.encode() in shown
    layers = [digest.removeprefix("sha256:")[:12].encode() for digest in pushed.layers]
    assert sum(layer in shown for layer in layers) >= 2, shown[:1500]
