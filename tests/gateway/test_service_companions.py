"""Conversions of images that are large enough for companions (`gateway.image.companions`): where one part is killed
while these work, no other is left, nor a file, nor a lock."""

from __future__ import annotations

import base64
import contextlib
import os
import re
import signal
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from gateway.image.companions import WORTH
from tests.conversions import DIGESTING, PACKING, WORKER, conversions, send
from tests.gateway.archives import BASE, file, make_archive
from tests.gateway.service import ACCOUNT, ANNA, Service, directory_for_all, until

_LASTING = re.compile(r"/state/turns/\d+$|/history\.sqlite|\.sock$")
_TRIES = 5
_SLOW = "gzip:9"
"""A tenth of the default's speed, so that packing is found at work."""


@pytest.fixture(scope="module")
def service() -> Iterator[Service]:
    """A service that packs by its own writer, unlike that of the other modules."""
    if os.geteuid() != 0:
        pytest.skip("needs root: a service and its users are different accounts")
    with directory_for_all("udi-gateway-") as directory, Service(directory, compression=_SLOW) as running:
        yield running


def at_work() -> dict[int, str]:
    """The processes of all conversions of the store's account."""
    found = []
    for name in os.listdir("/proc"):
        with contextlib.suppress(FileNotFoundError, ProcessLookupError):
            if name.isdecimal() and os.stat(f"/proc/{name}").st_uid == ACCOUNT:
                found.append(int(name))
    return conversions(found)


def large(service: Service, name: str) -> tuple[str, str]:
    """An archive whose layers are compressed, as a registry's are: its path and the image's id."""
    path = service.directory / f"{name}.tar"
    data = base64.b64encode(os.urandom(WORTH))
    image_id = make_archive(path, [[*BASE], [file("data", data)]], tags=[f"{name}:1"], how="gzip")
    path.chmod(0o644)
    return str(path), image_id


def files_of(service: Service) -> set[str]:
    """All files of the store and of the gateway's state, but for those that each user or service has once."""
    found = {os.path.join(at, name) for at, _, names in os.walk(service.own) for name in names}
    return {path for path in found if not _LASTING.search(path)}


def locks_of(service: Service) -> set[str]:
    """The locks that are held: bytes of the gateway's lock file."""
    inode = f":{os.stat(service.own / 'state/locks').st_ino}"
    rows = [line.split() for line in Path("/proc/locks").read_text().splitlines()]
    return {" ".join(row[-2:]) for row in rows if row[-3].endswith(inode)}


@contextlib.contextmanager
def pulled(service: Service, path: str, name: str) -> Iterator[subprocess.Popen[str]]:
    """A pull whose companions are at work; its worker is stopped, so that they stay there."""
    for _ in range(_TRIES):
        with subprocess.Popen(
            service.command("pull", f"docker-archive:{path}", name),
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            user=ANNA,
            group=ANNA,
            extra_groups=[],
        ) as process:
            try:
                if _is_stopped(process):
                    yield process
                    return
            finally:
                send(at_work(), WORKER, signal.SIGCONT)
                process.kill()
        until(lambda: not at_work())
        service.udi(ANNA, "rm", name)  # it was made before it could be stopped
    raise AssertionError("no companion was met at work")


def _is_stopped(pull: subprocess.Popen[str]) -> bool:
    while pull.poll() is None:
        if PACKING in at_work().values():
            send(at_work(), WORKER, signal.SIGSTOP)
            return PACKING in at_work().values()
        time.sleep(0.01)
    return False


@pytest.mark.parametrize("victim", ["worker", pytest.param("companion", marks=pytest.mark.long)])
def test_a_part_of_a_conversion_is_killed(service: Service, victim: str) -> None:
    path, image_id = large(service, victim)
    files, locks = files_of(service), locks_of(service)
    with pulled(service, path, f"{victim}:1") as pull:
        send(at_work(), WORKER if victim == "worker" else PACKING, signal.SIGKILL)
        send(at_work(), WORKER, signal.SIGCONT)
        _, said = pull.communicate(timeout=30)
    assert pull.returncode == 6, said
    told = {
        "worker": "the conversion terminated unexpectedly (signal 9)",
        "companion": f"a process of the conversion ({PACKING}) was terminated by signal 9",
    }
    assert told[victim] in said
    until(lambda: not at_work())
    until(lambda: locks_of(service) == locks)
    assert files_of(service) == files
    assert service.ask(ANNA, "pull", f"docker-archive:{path}", f"{victim}:1")["id"] == image_id


def test_the_service_is_killed(service: Service) -> None:
    """All its processes end with it. The client asks again, and is served by the next service."""
    path, image_id = large(service, "service")
    files = files_of(service)
    with pulled(service, path, "service:1") as pull:
        assert DIGESTING in at_work().values()
        service.stop(signal.SIGKILL)
        until(lambda: not at_work())
        assert not locks_of(service)
        assert files_of(service) - files, "it was in the middle of the image"
        service.start()
        _, said = pull.communicate(timeout=60)
    assert pull.returncode == 0 and "trying again" in said, said
    until(lambda: not at_work())
    image = {f"images/{image_id}.squashfs", f"images/{image_id}.json", f"refs/service:1~{ANNA}.json"}
    assert files_of(service) == files | {f"{service.store}/{name}" for name in image}
