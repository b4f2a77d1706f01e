"""The service between accounts: bounds on what callers may send, hold and wait for, and on who may run it."""

from __future__ import annotations

import os
import socket
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import pytest

from gateway.client import client
from gateway.store.locks import Locks
from gateway.wire import protocol
from gateway.wire.events import Event, Failed
from tests.gateway.service import (
    ACCOUNT,
    ANNA,
    Service,
    fresh,
    mode_of,
    next_event,
)
from udi import config
from udiroot.errors import TimedOut, UpstreamFailed


def _raw(service: Service, data: bytes) -> Event:
    with socket.socket(socket.AF_UNIX) as connection:
        connection.connect(service.site.gateway.socket)
        connection.sendall(data)
        connection.shutdown(socket.SHUT_WR)
        return next_event(connection, 15)


@pytest.mark.parametrize(
    ("data", "said"),
    [
        (b"not json\n", "not valid JSON"),
        (b"[]\n", "not a JSON object"),
        (b'{"udi": 2, "do": "images"}\n', "version 2"),
        (b'{"udi": 1, "do": "destroy"}\n', "unknown request 'destroy'"),
        (b'{"udi": 1, "do": "lookup"}\n', "no reference"),
        (b'{"udi": 1, "do": ["lookup"]}\n', "unknown request"),
        (b'{"udi": 1, "do": "lookup", "reference": 5}\n', "reference of request must be of type string"),
        (b'{"udi": 1, "do": "lookup", "reference": "a", "tag": ""}\n', "unknown field 'tag'"),
        (b'{"udi": 1, "do": "lookup", "reference": "a;b"}\n', "not an image name"),
        (
            b'{"udi": 1, "do": "pull", "kind": "docker-archive", "tag": "", "files": [""], "name": "a"}\n',
            "brings 0 descriptors",
        ),
        (b'{"udi": 1, "do": "pull", "kind": "tarball", "tag": "", "files": []}\n', "unknown kind of source 'tarball'"),
        (b'{"udi": 1', "cut off"),
        (b"x" * 70_000, "larger than"),
        (b"[" * 60_000 + b"\n", "not valid JSON"),
    ],
)
def test_requests_that_cannot_be_meant(service: Service, data: bytes, said: str) -> None:
    event = _raw(service, data)
    assert isinstance(event, Failed)
    assert said in event.message


def test_a_descriptor_that_is_no_file_is_refused(service: Service) -> None:
    read, write = os.pipe()
    with socket.socket(socket.AF_UNIX) as connection:
        connection.connect(service.site.gateway.socket)
        message = {"udi": 1, "do": "pull", "kind": "docker-archive", "tag": "", "files": [""], "name": "x:1"}
        protocol.send(connection, message, [read])
        event = next_event(connection, 10)
    os.close(read)
    os.close(write)
    assert isinstance(event, Failed)
    assert event.message == "a descriptor of the request is not a regular file"


def test_lookup_has_a_time_limit(tmp_path: Path, service: Service) -> None:
    text = service.config.read_text().replace("gateway.sock", "deaf.sock")
    deaf = service.directory / "deaf.toml"
    deaf.write_text(text)
    with socket.socket(socket.AF_UNIX) as listening:
        listening.bind(str(service.own / "deaf.sock"))
        listening.listen(5)
        start = time.monotonic()
        with pytest.raises(TimedOut):
            client.lookup(config.load(str(deaf)), "x:1", timeout=0.3)
        assert time.monotonic() - start < 30
    with pytest.raises(UpstreamFailed, match="not running"):
        client.lookup(config.load(str(deaf)), "x:1", timeout=0.3)


def test_who_only_reads_waits_for_no_lock(service: Service) -> None:
    """While another process keeps the store from changing, its names are listed and found; an error is no list."""
    path, image_id = fresh(service)
    service.ask(ANNA, "pull", f"docker-archive:{path}", "listed:1")
    locks = Locks(service.site.gateway.state)
    with locks.holder() as holder:
        holder.take(locks.store())
        holder.take(locks.image(image_id))
        start = time.monotonic()
        assert "listed:1" in service.names(ANNA)
        assert service.ask(ANNA, "lookup", "listed:1")["id"] == image_id
        assert service.ask(ANNA, "inspect", "listed:1")["facts"]["id"] == image_id
        assert time.monotonic() - start < 30
    refs = service.store / "refs"
    refs.rename(refs.with_name("away"))
    try:
        failed = service.udi(ANNA, "images")
    finally:
        refs.with_name("away").rename(refs)
    assert (failed.returncode, failed.stdout) == (6, "")
    assert failed.stderr.startswith(f"udi: image store {service.store} cannot be used: ")


def test_serve_runs_as_the_stores_account_alone(service: Service) -> None:
    program: list[str] = [
        sys.executable,
        "-c",
        "from gateway.service.cli import main; main()",
        "--config",
        str(service.config),
        "serve",
    ]
    as_root = subprocess.run(program, capture_output=True, text=True, timeout=60, check=False)
    assert as_root.returncode == 2
    assert f"must run as the store's account {ACCOUNT}" in as_root.stderr
    assert f"hint: runuser -u {ACCOUNT} -- udi-gateway --config {service.config} serve" in as_root.stderr
    twice = subprocess.run(
        program, capture_output=True, text=True, timeout=60, user=ACCOUNT, group=ACCOUNT, check=False
    )
    assert twice.returncode == 2
    assert "another gateway is running" in twice.stderr and f"(process {service.pid}, since" in twice.stderr


def test_the_layout_of_the_store(service: Service) -> None:
    assert [mode_of(service.store / name) for name in ("images", "refs", "plans")] == [0o755, 0o755, 0o711]


def test_missing_programs_are_told_at_the_start() -> None:
    tables = '[[systems]]\nname = "two"\npath = "/two"\nhost = "two"\nssh = ["/no/ssh", "-q"]\n'
    with tempfile.TemporaryDirectory() as directory:
        running = Service(Path(directory), tables=tables)
        running.start()
        running.stop()
        said = running.log.read_text()
    assert "systems[0].ssh: /no/ssh is not an executable program; pulls will fail" in said
    assert "gateway.tar2sqfs" not in said
