"""A conversion whose worker is on another host: each end notices that the other is gone, and nothing stays running."""

from __future__ import annotations

import dataclasses
import os
import re
import signal
import socket
import subprocess
import sys
import threading
import time
from pathlib import Path
from typing import Any

import pytest

from gateway.service.elsewhere import place_of
from gateway.service.lifeline import ServiceEnd
from gateway.service.order import Order
from gateway.service.origins import FromDaemon, FromFiles, FromSpool
from gateway.service.workers import Worker
from gateway.sources.docker_daemon import DaemonImage
from gateway.sources.files import DockerArchive
from gateway.wire.events import Event
from tests.gateway.archives import BASE, file, make_archive
from udi.gatewayconfig import GatewayConfig
from udiroot.errors import ConfigError, ImageInvalid, TimedOut, UpstreamFailed
from xcsim.processes import ProcessId, wait_until

_WORKER = """
import subprocess, sys, time
from gateway.service import lifeline
lifeline.SILENCE, lifeline.BEAT = 3.0, 0.1
child = subprocess.Popen(["sleep", "60"], stdin=subprocess.DEVNULL)
end = lifeline.WorkerEnd(sys.stdin, lambda: print("beat", flush=True))
print(child.pid, flush=True)
print("got", end.readline().strip(), flush=True)
if sys.argv[1] == "release":
    child.kill()
    end.release()
else:
    time.sleep(60)
"""


def _worker(what: str) -> tuple[subprocess.Popen[str], ProcessId]:
    process = subprocess.Popen(
        [sys.executable, "-c", _WORKER, what],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
        start_new_session=True,
    )
    assert process.stdout
    return process, ProcessId.of(int(process.stdout.readline()))


def test_a_worker_ends_with_its_input() -> None:
    process, child = _worker("hang")
    assert process.stdin
    process.stdin.close()
    assert process.wait(30) == -signal.SIGKILL
    assert wait_until(lambda: not child.alive, 30)


@pytest.mark.parametrize("begun", ["", "\n", '{"parent": 1'])
def test_a_worker_whose_service_is_killed_before_its_order_ends_without_a_word(begun: str) -> None:
    words = [sys.executable, "-m", "gateway.service.worker"]
    done = subprocess.run(words, input=begun, capture_output=True, text=True, timeout=60, check=False)
    assert (done.returncode, done.stdout, done.stderr) == (1, "", "")


def test_a_worker_whose_service_is_killed_before_its_last_word_ends_without_another() -> None:
    reads, writes = os.pipe()
    os.close(reads)
    words = [sys.executable, "-m", "gateway.service.worker"]
    with os.fdopen(writes, "wb") as output:
        done = subprocess.run(
            words,
            input=b'{"version": "of another gateway"}\n',
            stdout=output,
            stderr=subprocess.PIPE,
            timeout=60,
            check=False,
        )
    assert (done.returncode, done.stderr) == (1, b"")


def test_a_worker_ends_when_nothing_comes_any_more() -> None:
    """Nothing tells it that the service's host is dead."""
    process, child = _worker("hang")
    assert process.wait(30) == -signal.SIGKILL
    assert wait_until(lambda: not child.alive, 30)


def test_a_service_that_lives_keeps_its_worker(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("gateway.service.lifeline.BEAT", 0.1)
    process, child = _worker("hang")
    assert process.stdin and process.stdout
    end = ServiceEnd(process.stdin.buffer)  # type: ignore[attr-defined]
    end.send("order")
    lines = [process.stdout.readline() for _ in range(4)]
    assert "got order\n" in lines and lines.count("beat\n") == 3
    time.sleep(4)  # longer than the silence that it bears
    assert process.poll() is None and child.alive
    end.close()
    assert process.wait(30) == -signal.SIGKILL


def test_a_worker_that_is_done_ends_by_itself() -> None:
    process, _ = _worker("release")
    assert process.stdin and process.stdout
    process.stdin.write("order\n")
    process.stdin.flush()
    assert process.wait(30) == 0 and "got order" in process.stdout.read()


# -- the worker itself, started by a program that passes on streams and nothing else --------------------------------

_LAUNCH = """\
#!/bin/sh
# As srun and ssh: streams and words are passed on; descriptors and the parent are not.
here=$(dirname "$0")
[ ! -e "$here/refuses" ] || { echo "no such partition" >&2; exit 1; }
[ ! -e "$here/greets" ] || echo "Welcome to convert1"
[ ! -e "$here/stays" ] || exec sleep 60 >/dev/null
[ ! -e "$here/queues" ] || exec sleep 60
echo $$ >"$here/launcher"
trap 'exit 0' TERM
exec 3<&0
cat <&3 | setsid sh -c 'echo $$ >"$0"; exec "$@"' "$here/pid" "$@" 3>&- 4>&- 5>&- 6>&- 7>&- 8>&- 9>&- | cat &
wait $!
"""


_SILENT = f"the host of the conversion, {socket.gethostname()}, has fallen silent"


class Elsewhere:
    """A gateway whose conversions run by the launcher above."""

    def __init__(self, directory: Path) -> None:
        self.directory = directory
        launcher = directory / "launch"
        launcher.write_text(_LAUNCH)
        launcher.chmod(0o755)
        self.settings = GatewayConfig(
            state=str(directory / "state"), spool=str(directory / "spool"), worker_prefix=(str(launcher),)
        )
        self.archive = str(directory / "image.tar")
        self.id = make_archive(self.archive, [[*BASE, file("a", os.urandom(300_000))]])
        self.output = str(directory / "image.squashfs")
        self.events: list[Event] = []

    def origin(self, path: str = "") -> FromFiles:
        return FromFiles.of(DockerArchive(path or self.archive).open("amd64", 1 << 20))

    @property
    def pid(self) -> int:
        return int((self.directory / "pid").read_text())

    def spooled(self) -> list[str]:
        return os.listdir(self.directory / "spool")


@pytest.fixture
def elsewhere(tmp_path: Path) -> Elsewhere:
    return Elsewhere(tmp_path)


def test_a_conversion_elsewhere(elsewhere: Elsewhere) -> None:
    """The files go there by name, and nothing of them is left."""
    with place_of(elsewhere.origin(), elsewhere.settings, elsewhere.events.append) as place:
        assert isinstance(place.origin, FromSpool) and not place.is_here
        with Worker(place, elsewhere.output, elsewhere.settings) as worker:
            assert worker.identified(elsewhere.events.append).id == elsewhere.id
            ran = ProcessId.of(elsewhere.pid)
            facts = worker.convert(elsewhere.events.append)
    assert (facts.id, facts.size) == (elsewhere.id, os.path.getsize(elsewhere.output))
    assert wait_until(lambda: not ran.alive, 30)
    assert elsewhere.spooled() == []


def test_a_service_that_does_not_want_it_any_more(elsewhere: Elsewhere) -> None:
    with (
        place_of(elsewhere.origin(), elsewhere.settings, elsewhere.events.append) as place,
        Worker(place, elsewhere.output, elsewhere.settings) as worker,
    ):
        worker.identified(elsewhere.events.append)
        ran = ProcessId.of(elsewhere.pid)
    assert wait_until(lambda: not ran.alive, 30)
    assert elsewhere.spooled() == [] and not os.path.exists(elsewhere.output)


def test_a_worker_s_host_that_dies(elsewhere: Elsewhere) -> None:
    with (
        place_of(elsewhere.origin(), elsewhere.settings, elsewhere.events.append) as place,
        Worker(place, elsewhere.output, elsewhere.settings) as worker,
    ):
        worker.identified(elsewhere.events.append)
        os.killpg(elsewhere.pid, signal.SIGKILL)
        with pytest.raises(UpstreamFailed, match=f"the conversion terminated unexpectedly on {socket.gethostname()} "):
            worker.convert(elsewhere.events.append)


def test_a_worker_s_host_that_says_nothing_any_more(elsewhere: Elsewhere, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("gateway.service.workers.SILENCE", 1.0)
    monkeypatch.setattr("gateway.service.workers.BEAT", 0.1)
    with (
        place_of(elsewhere.origin(), elsewhere.settings, elsewhere.events.append) as place,
        Worker(place, elsewhere.output, elsewhere.settings) as worker,
    ):
        worker.identified(elsewhere.events.append)
        os.killpg(elsewhere.pid, signal.SIGSTOP)
        try:
            with pytest.raises(UpstreamFailed, match=f"{_SILENT}: nothing came for [0-9]+ s$") as caught:
                worker.convert(elsewhere.events.append)
        finally:
            os.killpg(elsewhere.pid, signal.SIGKILL)
    assert caught.value.hint == "that is the site's fault, and not the image's; try again"


def test_what_started_a_worker_gives_its_silent_host_up(elsewhere: Elsewhere, monkeypatch: pytest.MonkeyPatch) -> None:
    """Slurm may notice sooner than the gateway does that a node is down, and ends srun: with 0, as it happens."""
    monkeypatch.setattr("gateway.service.workers._MISSED", 0.3)
    with (
        place_of(elsewhere.origin(), elsewhere.settings, elsewhere.events.append) as place,
        Worker(place, elsewhere.output, elsewhere.settings) as worker,
    ):
        worker.identified(elsewhere.events.append)
        os.killpg(elsewhere.pid, signal.SIGSTOP)
        launcher = int((elsewhere.directory / "launcher").read_text())
        timer = threading.Timer(1.0, os.killpg, (launcher, signal.SIGTERM))
        timer.start()
        try:
            with pytest.raises(UpstreamFailed, match=_SILENT) as caught:
                worker.convert(elsewhere.events.append)
        finally:
            timer.join()
            os.killpg(elsewhere.pid, signal.SIGKILL)
    assert re.search(r": nothing came for \d+ s, then /.*/launch ended with exit code 0$", caught.value.message)


def test_what_connects_a_worker_says_something_itself(elsewhere: Elsewhere) -> None:
    """A user would read that of the image, and as a fault of its own."""
    (elsewhere.directory / "greets").touch()
    with (
        place_of(elsewhere.origin(), elsewhere.settings, elsewhere.events.append) as place,
        Worker(place, elsewhere.output, elsewhere.settings) as worker,
        pytest.raises(UpstreamFailed, match=r"/launch printed what no conversion says: 'Welcome to convert1'"),
    ):
        worker.identified(elsewhere.events.append)


def test_what_connects_a_worker_closes_its_output_and_stays(
    elsewhere: Elsewhere, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("gateway.service.workers.BEAT", 0.1)
    monkeypatch.setattr("gateway.service.workers._GRACE", 0.1)
    (elsewhere.directory / "stays").touch()
    with (
        place_of(elsewhere.origin(), elsewhere.settings, elsewhere.events.append) as place,
        Worker(place, elsewhere.output, elsewhere.settings) as worker,
        pytest.raises(UpstreamFailed, match=r"no host for the conversion: .*/launch ended with no exit code yet"),
    ):
        worker.identified(elsewhere.events.append)


def test_an_order_that_is_larger_than_a_pipe_waits_for_no_host(
    elsewhere: Elsewhere, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As one for srun does, whose job is queued: the service waits as long as it would for any other."""
    monkeypatch.setattr("gateway.service.workers._GRACE", 0.1)
    monkeypatch.setattr("gateway.service.lifeline.BEAT", 0.1)
    (elsewhere.directory / "queues").touch()
    paths = tuple((str(number), elsewhere.archive) for number in range(20_000))
    settings = dataclasses.replace(elsewhere.settings, conversion_seconds=1)
    with place_of(elsewhere.origin(), settings, elsewhere.events.append) as place:
        assert isinstance(place.origin, FromSpool)
        place = dataclasses.replace(place, origin=dataclasses.replace(place.origin, paths=paths))
        with (
            Worker(place, elsewhere.output, settings) as worker,
            pytest.raises(TimedOut, match="the conversion took longer than 1 s"),
        ):
            worker.identified(elsewhere.events.append)


def test_no_host_for_it(elsewhere: Elsewhere) -> None:
    (elsewhere.directory / "refuses").touch()
    with (
        place_of(elsewhere.origin(), elsewhere.settings, elsewhere.events.append) as place,
        Worker(place, elsewhere.output, elsewhere.settings) as worker,
        pytest.raises(UpstreamFailed, match=r"no host for the conversion: .*/launch ended with exit code 1"),
    ):
        worker.identified(elsewhere.events.append)


def test_another_version_there(elsewhere: Elsewhere, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("gateway.service.order.VERSION", "0.0.1")
    with (
        place_of(elsewhere.origin(), elsewhere.settings, elsewhere.events.append) as place,
        Worker(place, elsewhere.output, elsewhere.settings) as worker,
        pytest.raises(UpstreamFailed, match=r"shifter-xc \S+ is installed on \S+, and 0.0.1 at the gateway"),
    ):
        worker.identified(elsewhere.events.append)


def test_an_image_of_the_daemon_is_converted_here(elsewhere: Elsewhere) -> None:
    origin = FromDaemon(DaemonImage("/run/docker.sock", "a", pull=False), "key", "amd64", 1.0)
    with place_of(origin, elsewhere.settings, elsewhere.events.append) as place:
        assert place.is_here and place.command[0] == sys.executable


def test_files_that_are_too_large(elsewhere: Elsewhere) -> None:
    small = dataclasses.replace(elsewhere.settings, max_image_bytes=1000)
    with (
        pytest.raises(ImageInvalid, match="image is too large"),
        place_of(elsewhere.origin(), small, elsewhere.events.append),
    ):
        pass
    assert elsewhere.spooled() == []


def test_what_a_killed_service_left_is_removed_later(elsewhere: Elsewhere) -> None:
    old, new, other = (elsewhere.directory / "spool" / name for name in ("given.old", "given.new", "layers"))
    for directory in (old, new, other):
        directory.mkdir(parents=True)
        (directory / "0").touch()
        if directory != new:
            os.utime(directory, (0, 0))
    with place_of(elsewhere.origin(), elsewhere.settings, elsewhere.events.append):
        pass
    assert sorted(elsewhere.spooled()) == ["given.new", "layers"]


@pytest.mark.parametrize(
    ("settings", "words"),
    [
        ({"worker_prefix": ("srun",), "spool": "/scratch"}, "must begin with the absolute path of a program"),
        ({"worker_prefix": ("/usr/bin/srun",)}, "worker_prefix needs a spool that its hosts see"),
    ],
)
def test_a_prefix_that_cannot_work(settings: dict[str, Any], words: str) -> None:
    with pytest.raises(ConfigError, match=words):
        GatewayConfig(**settings).check()


def test_an_order_names_the_version() -> None:
    order = Order(0, "/o", GatewayConfig(), FromSpool("docker-archive", "", (("", "/a"),)))
    assert Order.from_json(order.to_json()) == order
