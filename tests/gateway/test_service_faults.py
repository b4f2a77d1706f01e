"""The service between accounts: what fails costs one request, is told to whom it concerns, and leaves nothing."""

from __future__ import annotations

import os
import signal
import subprocess
import threading
from pathlib import Path

import pytest

from gateway.client import client
from gateway.sources.files import DockerArchive
from tests.gateway.service import (
    ACCOUNT,
    ANNA,
    BERT,
    Service,
    descriptors,
    fresh,
    packer_runs,
    pull_of,
    until,
)
from udiroot.errors import UdiError


@pytest.mark.parametrize("word", ["exit", "early", "kill", "garbage", "nothing"])
def test_a_packer_that_fails(service: Service, word: str) -> None:
    path, image_id = fresh(service, size=500_000)
    before = service.files()
    service.fault(word)
    failed = service.udi(ANNA, "pull", f"docker-archive:{path}", f"fails:{word}")
    assert failed.returncode == 6, failed.stderr
    assert "Traceback" not in failed.stderr
    assert service.files() == before
    assert f"fails:{word}" not in service.names(ANNA)
    service.fault("")
    assert service.ask(ANNA, "pull", f"docker-archive:{path}", f"fails:{word}")["id"] == image_id


def test_the_log_has_errors_for_what_failed_and_not_for_what_users_ask(service: Service) -> None:
    before = len(service.log.read_text())
    path, _ = fresh(service)
    service.ask(ANNA, "pull", f"docker-archive:{path}", "log:1")
    assert service.udi(ANNA, "lookup", "no/such:1").returncode == 3
    assert service.udi(BERT, "rm", "log:1").returncode == 3
    levels = {line.partition(" ")[0] for line in service.log.read_text()[before:].splitlines()}
    assert levels == {"INFO"}
    service.fault("exit")
    other, _ = fresh(service)
    assert service.udi(ANNA, "pull", f"docker-archive:{other}", "log:2").returncode == 6
    service.fault("")
    said = [line for line in service.log.read_text()[before:].splitlines() if not line.startswith("INFO ")]
    assert [line.startswith(f"ERROR gateway.service.requests: uid {ANNA}: ") for line in said] == [True]


def test_a_converter_killed(service: Service) -> None:
    path, image_id = fresh(service)
    before = service.files()
    service.fault("wait")
    results: list[subprocess.CompletedProcess[str]] = []
    thread = threading.Thread(
        target=lambda: results.append(service.udi(ANNA, "pull", f"docker-archive:{path}", "killed:1"))
    )
    thread.start()
    until(lambda: packer_runs(service))
    os.kill(_worker(service), signal.SIGKILL)
    thread.join(30)
    assert results[0].returncode == 6
    assert "terminated unexpectedly (signal 9)" in results[0].stderr
    assert service.files() == before
    until(lambda: not packer_runs(service))
    service.fault("")
    assert service.ask(ANNA, "pull", f"docker-archive:{path}", "killed:1")["id"] == image_id


def _worker(service: Service) -> int:
    for name in os.listdir("/proc"):
        try:
            words = Path(f"/proc/{name}/cmdline").read_bytes() if name.isdecimal() else b""
        except OSError:
            continue
        if b"gateway.service.worker" in words and Path(f"/proc/{name}").stat().st_uid == ACCOUNT:
            return int(name)
    raise AssertionError("no worker runs")


def test_a_service_killed_in_the_middle(service: Service) -> None:
    path, image_id = fresh(service)
    before = service.files()
    service.fault("wait")
    results: list[subprocess.CompletedProcess[str]] = []
    thread = threading.Thread(
        target=lambda: results.append(service.udi(ANNA, "pull", f"docker-archive:{path}", "service:1"))
    )
    thread.start()
    until(lambda: packer_runs(service))
    service.stop(signal.SIGKILL)
    assert service.udi(ANNA, "images").stderr.startswith("udi: the image gateway is not running")
    (service.store / "images" / ".new-0123").write_text("what a dead conversion left")
    service.start()
    until(lambda: service.log.read_text().count("serving on ") >= 2 and _queued(service))
    assert ".new-0123" not in service.files()
    service.fault("")
    thread.join(30)
    assert results[0].returncode == 0, "the client tried again"
    assert "trying again" in results[0].stderr
    assert service.ask(ANNA, "lookup", "service:1")["id"] == image_id
    until(lambda: not packer_runs(service))  # the dead conversion's may live a little longer than its worker
    service.stop()
    service.start()
    assert service.files() == before | {f"{image_id}.squashfs", f"{image_id}.json"}


def _queued(service: Service) -> bool:
    return bool(client.status(service.site).queue)


@pytest.mark.parametrize("cut", [100, 3000, 11_000])
def test_a_truncated_archive(service: Service, cut: int) -> None:
    path, _ = fresh(service, size=10_000)
    before = service.files()
    os.truncate(path, cut)
    refused = service.udi(ANNA, "pull", f"docker-archive:{path}", "cut:1")
    assert refused.returncode == 5, refused.stderr
    assert len(refused.stderr.splitlines()) <= 2
    assert service.files() == before


def test_a_broken_archive_is_refused_by_the_service_too(service: Service) -> None:
    """The client looks first, but the service does not rely on it."""
    path = service.directory / "junk.tar"
    path.write_bytes(b"junk" * 1000)
    source = DockerArchive(str(path)).open("amd64", 1 << 20)
    with pytest.raises(UdiError, match="not a tar header"):
        client.ask(service.site, pull_of(source, "junk:1"), files=descriptors(source))
    source.close()
