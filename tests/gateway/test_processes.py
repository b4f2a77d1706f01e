"""`udi-gateway handle`: one process a connection, as xinetd and systemd start it, all of them one gateway."""

from __future__ import annotations

import contextlib
import os
import random
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from gateway.client import client
from gateway.sources.files import DockerArchive
from gateway.wire import events, protocol
from gateway.wire.events import Event, EventSink, Failed, Progress
from gateway.wire.messages import FailedPull, Found, Remove
from tests.gateway.archives import BASE, file, make_archive
from tests.gateway.service import ACCOUNT, ANNA, BERT, Service, descriptors, next_event, pull_of, until
from udi.reference import ImageReference
from udiroot.errors import UdiError, UpstreamFailed

HANDLE = "from gateway.service.cli import main; main()"


class SuperServer:
    """What xinetd and systemd do: accept, and start a process whose standard streams are the connection."""

    def __init__(self, service: Service) -> None:
        self._service = service
        self._socket = socket.socket(socket.AF_UNIX)
        path = service.site.gateway.socket
        self._socket.bind(path)
        Path(path).chmod(0o666)
        self._socket.listen(256)
        self.processes: list[subprocess.Popen[bytes]] = []
        threading.Thread(target=self._accept, daemon=True).start()

    def _accept(self) -> None:
        with (self._service.directory / "log").open("ab") as log:
            while True:
                try:
                    connection, _ = self._socket.accept()
                except OSError:
                    return
                with connection:
                    self.processes.append(self.start(connection, log.fileno()))

    def start(self, connection: socket.socket, log: int) -> subprocess.Popen[bytes]:
        return subprocess.Popen(
            [sys.executable, "-c", HANDLE, "--config", str(self._service.config), "handle"],
            stdin=connection.fileno(),
            stdout=connection.fileno(),
            stderr=log,
            user=ACCOUNT,
            group=ACCOUNT,
            extra_groups=[],
        )

    def close(self) -> None:
        self._socket.shutdown(socket.SHUT_RDWR)
        self._socket.close()
        Path(self._service.site.gateway.socket).unlink()
        for process in self.processes:
            process.kill()
            process.wait(30)


@pytest.fixture
def handled(service: Service) -> Iterator[SuperServer]:
    """The module's service, replaced for one test by processes a connection."""
    service.stop()
    server = SuperServer(service)
    try:
        yield server
    finally:
        server.close()
        service.start()


def archive(service: Service, name: str, size: int = 1000) -> tuple[str, str]:
    path = service.directory / f"{name}.tar"
    image_id = make_archive(path, [[*BASE, file("data", os.urandom(size))]], tags=[f"{name}:1"])
    path.chmod(0o644)
    return str(path), image_id


def pull(service: Service, path: str, name: str, found: list[object], on_event: EventSink | None = None) -> None:
    """A pull by this process, whose outcome goes to `found`."""
    source = DockerArchive(str(path)).open("amd64", 1 << 20)
    try:
        found.append(client.pull(service.site, pull_of(source, name), files=descriptors(source), on_event=on_event).id)
    except UdiError as error:
        found.append(error.message)
    finally:
        source.close()


def stage_of(event: Event) -> str:
    return event.stage if isinstance(event, Progress) else ""


def together(threads: list[threading.Thread], seconds: float = 60) -> None:
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(seconds)
        assert not thread.is_alive()


def test_processes_share_one_conversion_and_its_progress(service: Service, handled: SuperServer) -> None:
    path, image_id = archive(service, "processes", 400_000)
    service.fault("wait")
    found: list[object] = []
    told: dict[int, list[str]] = {number: [] for number in range(8)}
    threads = [
        threading.Thread(
            target=pull,
            args=(service, path, f"processes:{n}", found, lambda event, n=n: told[n].append(stage_of(event))),
        )
        for n in told
    ]
    for thread in threads:
        thread.start()
    until(lambda: all("packing" in stages for stages in told.values()), 30)
    service.fault("")
    for thread in threads:
        thread.join(30)
    assert found == [image_id] * 8
    assert service.conversions(image_id) == 1
    assert {f"processes:{n}" for n in told} <= service.names(0)


def test_the_leader_is_killed_and_another_takes_over(service: Service, handled: SuperServer) -> None:
    path, image_id = archive(service, "leader", 50_000)
    service.fault("wait")
    found: list[object] = []
    threads = [threading.Thread(target=pull, args=(service, path, f"leader:{n}", found)) for n in range(4)]
    for thread in threads:
        thread.start()
    until(lambda: len(handled.processes) >= 4 and _leader(handled) is not None)
    leader = _leader(handled)
    assert leader is not None
    leader.kill()
    until(lambda: _leader(handled) not in (None, leader), 30)
    service.fault("")
    for thread in threads:
        thread.join(40)
    assert found == [image_id] * 4, "the one whose process was killed asked again"


def _leader(server: SuperServer) -> subprocess.Popen[bytes] | None:
    """The process that has a worker."""
    for process in server.processes:
        with contextlib.suppress(OSError):
            if process.poll() is None and Path(f"/proc/{process.pid}/task/{process.pid}/children").read_text().strip():
                return process
    return None


def test_a_failure_is_told_to_all_and_does_not_stick(service: Service) -> None:
    path, image_id = archive(service, "sticky")
    service.fault("wait")
    found: list[object] = []
    threads = [threading.Thread(target=pull, args=(service, path, f"sticky:{n}", found)) for n in range(5)]
    for thread in threads:
        thread.start()
    until(lambda: _queued(service) == 5 and _workers())
    for worker in _workers():
        os.kill(worker, signal.SIGKILL)
    for thread in threads:
        thread.join(30)
    assert found == ["the conversion terminated unexpectedly (signal 9)"] * 5
    failed = _errors(service)["sticky:0"]
    assert (failed.uid, failed.error) == (0, found[0])
    service.fault("")
    pull(service, path, "sticky:1", found)
    assert found[-1] == image_id


def test_different_images_go_in_parallel_up_to_a_limit(service: Service) -> None:
    images = [archive(service, f"parallel{number}") for number in range(4)]
    service.fault("wait")
    found: list[object] = []
    threads = [
        threading.Thread(target=pull, args=(service, path, f"parallel:{number}", found))
        for number, (path, _) in enumerate(images)
    ]
    for thread in threads:
        thread.start()
    limit = service.site.gateway.workers
    until(lambda: _queued(service) == 4 and len(_workers()) == limit)
    time.sleep(0.5)
    assert len(_workers()) == limit < 4
    service.fault("")
    for thread in threads:
        thread.join(30)
    assert set(found) == {image_id for _, image_id in images}


def _workers() -> list[int]:
    """Workers of the store's account whose packer runs."""
    found = []
    for directory in Path("/proc").iterdir():
        with contextlib.suppress(OSError):
            if directory.name.isdecimal() and directory.stat().st_uid == ACCOUNT:
                words = (directory / "cmdline").read_bytes()
                children = (directory / f"task/{directory.name}/children").read_text()
                if b"gateway.service.worker" in words and children.strip():
                    found.append(int(directory.name))
    return found


def _errors(service: Service) -> dict[str, FailedPull]:
    return {failed.reference: failed for failed in client.status(service.site).errors}


def _queued(service: Service) -> int:
    return len(client.status(service.site).queue)


def test_a_hundred_users_make_one_conversion(service: Service) -> None:
    path, image_id = archive(service, "hundred", 2_000_000)
    found: list[object] = []
    # One uid may have 64 connections, so that a hundred are several users
    users = [threading.Thread(target=pull, args=(service, path, f"hundred:{n}", found)) for n in range(50)]
    others = [threading.Thread(target=_as_user, args=(service, ANNA + n, path, found)) for n in range(2)]
    together([*users, *others])
    assert found == [image_id] * 100
    assert service.conversions(image_id) == 1


def _as_user(service: Service, uid: int, path: str, found: list[object]) -> None:
    """25 pulls of one user, in one process."""
    code = (
        "import threading, types\n"
        "from tests.gateway.test_processes import pull\n"
        "service, found = types.SimpleNamespace(site=site), []\n"
        "threads = [threading.Thread(target=pull, args=(service, sys.argv[2], f'hundred:{n}', found))"
        " for n in range(25)]\n"
        "[t.start() for t in threads]; [t.join() for t in threads]\n"
        "print('\\n'.join(map(str, found)))\n"
    )
    done = service.python(uid, code, path)
    assert not done.stderr, done.stderr
    found += done.stdout.split("\n")[:-1]


@pytest.mark.long
def test_killed_at_random_moments_of_fifty_pulls(service: Service) -> None:
    """Nothing half-made is seen, and every pull ends well, since clients ask again."""
    dice = random.Random(7)
    images = [archive(service, f"killed{n}", 20_000 + 1000 * n) for n in range(10)]
    stop = threading.Event()
    half: list[str] = []

    def watch() -> None:
        while not stop.is_set():
            names = service.files()
            facts = {name for name in names if name.endswith(".json")}
            half.extend(name for name in facts if name.replace(".json", ".squashfs") not in service.files() | names)
            time.sleep(0.005)

    watching = threading.Thread(target=watch)
    watching.start()
    found: list[object] = []
    try:
        for turn in range(5):
            threads = [
                threading.Thread(target=pull, args=(service, path, f"kill{turn}:{n}", found))
                for n, (path, _) in enumerate(images)
            ]
            for thread in threads:
                thread.start()
            for _ in range(2):
                time.sleep(dice.random() * 0.7)
                service.stop(signal.SIGKILL)
                service.start()
            for thread in threads:
                thread.join(60)
            for n in range(10):
                client.ask(service.site, Remove(reference=ImageReference.parse(f"kill{turn}:{n}")))
    finally:
        stop.set()
        watching.join()
    assert not half
    service.stop()
    service.start()
    assert sorted(map(str, found)) == sorted(image_id for _, image_id in images for _ in range(5))
    assert not [name for name in service.files() if name.startswith(".")]


def test_a_thousand_connections_that_say_nothing(service: Service) -> None:
    """They are refused or ended, and others are served all the while."""
    silent: list[socket.socket] = []
    try:
        for _ in range(1000):
            connection = socket.socket(socket.AF_UNIX)
            connection.connect(service.site.gateway.socket)
            silent.append(connection)
        start = time.monotonic()
        assert service.udi(BERT, "images").returncode == 0
        assert time.monotonic() - start < 5
        assert "too many connections" in str(next_event(silent[-1], 30))
        assert "no request within 10 s" in str(next_event(silent[0], 30))
    finally:
        for connection in silent:
            connection.close()
    until(lambda: service.udi(0, "images").returncode == 0)


def test_processes_bound_connections_together(service: Service, handled: SuperServer) -> None:
    text = service.config.read_text()
    try:
        service.config.write_text(text.replace("publishers", "connections_per_user = 3\npublishers"))
        silent = []
        for _ in range(5):
            connection = socket.socket(socket.AF_UNIX)
            connection.connect(service.site.gateway.socket)
            silent.append(connection)
        said = []
        for connection in silent:
            with contextlib.suppress(UdiError):
                said.append(str(next_event(connection, 2)))
        assert len(said) == 2
        assert all("too many connections" in words for words in said)
        for connection in silent:
            connection.close()
    finally:
        service.config.write_text(text)


def test_handle_wants_a_connection(service: Service) -> None:
    for stdin, code, words in (
        (subprocess.DEVNULL, 2, "standard input is not a connection"),
        (subprocess.PIPE, 2, "standard input is not a connection"),
    ):
        done = subprocess.run(
            [sys.executable, "-c", HANDLE, "--config", str(service.config), "handle"],
            stdin=stdin,
            capture_output=True,
            text=True,
            user=ACCOUNT,
            group=ACCOUNT,
            timeout=60,
            check=False,
        )
        assert done.returncode == code
        assert words in done.stderr


def test_what_xinetd_gives_holds_nothing_but_answers(service: Service) -> None:
    """Its standard error is the connection, too: a log line in it would be an answer that nobody understands."""
    ours, theirs = socket.socketpair(socket.AF_UNIX)
    with ours:
        with theirs:
            process = subprocess.Popen(
                [sys.executable, "-c", HANDLE, "--config", str(service.config), "handle"],
                stdin=theirs.fileno(),
                stdout=theirs.fileno(),
                stderr=theirs.fileno(),
                user=ACCOUNT,
                group=ACCOUNT,
            )
        protocol.send(ours, {"udi": 1, "do": "lookup", "reference": "no/such:1"})
        reader = protocol.LineReader(ours)
        event = events.from_json(reader.next(20), Found)
        assert isinstance(event, Failed) and event.exit_code == 3
        with pytest.raises(UpstreamFailed, match="closed the connection"):
            reader.next(20)
        assert process.wait(20) == 0
