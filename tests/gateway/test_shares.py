"""What one user may take of the gateway, so that others are served: workers, time, memory, open files."""

from __future__ import annotations

import contextlib
import os
import sqlite3
import subprocess
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from gateway.service.admission import Admission
from gateway.store.locks import Locks
from tests.gateway.archives import BASE, directory, file, make_archive
from tests.gateway.service import ACCOUNT, ANNA, BERT, Service, directory_for_all, until
from tests.gateway.support import needs_root
from udiroot.errors import UpstreamFailed

pytestmark = needs_root


@pytest.fixture
def place() -> Iterator[Path]:
    with directory_for_all("udi-shares-") as path:
        yield path


class Pull:
    """`udi pull` of an archive, in the background."""

    def __init__(self, service: Service, uid: int, name: str, archive: Path) -> None:
        self._thread = threading.Thread(target=self._run, args=(service, uid, name, archive), daemon=True)
        self.done: subprocess.CompletedProcess[str] | None = None
        self._thread.start()

    def _run(self, service: Service, uid: int, name: str, archive: Path) -> None:
        self.done = service.udi(uid, "pull", f"docker-archive:{archive}", name)

    def result(self) -> subprocess.CompletedProcess[str]:
        self._thread.join(60)
        assert self.done
        return self.done


def small(service: Service, name: str) -> Path:
    path = service.directory / f"{name}.tar"
    make_archive(path, [BASE, [file(name)]])
    path.chmod(0o644)
    return path


def packers() -> set[str]:
    """What the packers of the store's account pack now: their last arguments."""
    found = set()  # the shell that stands for the packer forks
    for process in Path("/proc").iterdir():
        try:
            if process.name.isdecimal() and process.stat().st_uid == ACCOUNT:
                words = (process / "cmdline").read_bytes().split(b"\0")
                if any(word.endswith(b"/packer") for word in words[:2]):
                    found.add(words[-2].decode())
        except OSError:
            continue
    return found


def test_one_user_cannot_hold_all_workers(place: Path) -> None:
    with Service(place) as service:
        service.fault("wait")
        pulls = [Pull(service, ANNA, f"anna{n}:1", small(service, f"anna{n}")) for n in range(4)]
        until(lambda: len(packers()) == 1)
        time.sleep(0.5)
        assert len(packers()) == 1, "the other worker is for somebody else"
        pulls.append(Pull(service, BERT, "bert:1", small(service, "bert")))
        until(lambda: len(packers()) == 2)
        service.fault("")
        assert [pull.result().returncode for pull in pulls] == [0] * 5


def test_an_image_that_another_requested_first_does_not_wait_for_all_pulls_of_that_user(place: Path) -> None:
    """Who requests many images, popular ones among them, would else hold those back from everybody."""
    with Service(place) as service:
        service.fault("wait")
        pulls = [Pull(service, ANNA, "anna:1", small(service, "anna"))]
        until(lambda: len(packers()) == 1)
        common = small(service, "common")
        pulls.append(Pull(service, ANNA, "common:1", common))
        queued = "SELECT count(*) FROM pulls WHERE state='running'"
        until(lambda: _history(service, queued) == 2)
        pulls.append(Pull(service, BERT, "common:1", common))
        until(lambda: len(packers()) == 2)
        service.fault("")
        assert [pull.result().returncode for pull in pulls] == [0] * 3
        assert service.conversions(service.ask(ANNA, "lookup", "common:1")["id"]) == 1


def _history(service: Service, query: str) -> int:
    with contextlib.closing(sqlite3.connect(service.own / "state" / "history.sqlite")) as base:
        return int(base.execute(query).fetchone()[0])


def test_a_conversion_that_takes_too_long_is_ended(place: Path) -> None:
    with Service(place, "conversion_seconds = 1") as service:
        service.fault("wait")
        done = service.udi(ANNA, "pull", f"docker-archive:{small(service, 'slow')}", "slow:1")
        assert done.returncode == 9
        assert "the conversion took longer than 1 s\nhint: limit set by gateway.conversion_seconds" in done.stderr
        until(lambda: not packers())
        assert not service.files(), "nothing is left of it"
        service.fault("")
        assert service.udi(ANNA, "pull", f"docker-archive:{small(service, 'next')}", "next:1").returncode == 0


def test_a_conversion_that_takes_too_much_memory_is_ended(place: Path) -> None:
    """400 names of 4 KB, which make 720,000 directories; an image of normal size takes less than the smallest limit."""
    with Service(place, f"conversion_memory_bytes = {1 << 28}") as service:
        assert service.udi(ANNA, "pull", f"docker-archive:{small(service, 'normal')}", "normal:1").returncode == 0
        before = service.files()
        path = service.directory / "large.tar"
        make_archive(path, [BASE, [directory(f"{number}/{'/'.join('d' * 1800)}") for number in range(400)]], how="gzip")
        path.chmod(0o644)
        done = service.udi(ANNA, "pull", f"docker-archive:{path}", "large:1")
        assert (done.returncode, done.stderr.splitlines()[-2:]) == (
            5,
            [
                "udi: converting the image takes more than 268435456 bytes of memory",
                "hint: limit set by gateway.conversion_memory_bytes",
            ],
        )
        assert service.files() == before
        assert "Traceback" not in service.log.read_text()


_HOARD = """
import os, select, socket, time
files = [os.open("/dev/null", os.O_RDONLY) for _ in range(200)]
held = []
for number in range(6):
    connection = socket.socket(socket.AF_UNIX)
    connection.connect(site.gateway.socket)
    socket.send_fds(connection, [b"{"], files)
    held.append(connection)
def answered():
    return select.select(held, [], [], 0)[0]
end = time.monotonic() + 30
while len(answered()) < 2 and time.monotonic() < end:
    time.sleep(0.05)
time.sleep(1)
print([one.recv(4096).decode() if one in answered() else "waits" for one in held])
input()
"""


def test_one_user_cannot_hoard_the_service_s_descriptors(place: Path) -> None:
    with Service(place, "files_per_user = 900") as service:
        argv = [
            "-c",
            "import sys\nfrom udi import config\nsite = config.load(sys.argv[1])\n" + _HOARD,
            str(service.config),
        ]
        hoard = subprocess.Popen(
            [service.command()[0], *argv],
            user=ANNA, group=ANNA, extra_groups=[], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True,
            cwd=Path(__file__).parents[2],
        )  # fmt: skip
        assert hoard.stdout and hoard.stdin
        said = hoard.stdout.readline()
        assert said.count("waits") == 4 and said.count("limit set by gateway.files_per_user") == 2, said
        assert _descriptors(service) < 900
        assert service.udi(BERT, "pull", f"docker-archive:{small(service, 'bert')}", "bert:1").returncode == 0
        hoard.communicate("\n", timeout=60)
        until(lambda: _descriptors(service) < 40)
        assert service.udi(ANNA, "pull", f"docker-archive:{small(service, 'anna')}", "anna:1").returncode == 0


def _descriptors(service: Service) -> int:
    assert service._process
    return len(os.listdir(f"/proc/{service._process.pid}/fd"))


def test_files_and_uploads_are_counted_for_each_user(tmp_path: Path) -> None:
    admission = Admission(Locks(str(tmp_path)), 10, 10, files=5, upload_bytes=100)
    with contextlib.ExitStack() as anna, contextlib.ExitStack() as bert:
        admission.admit_files(ANNA, 3, 0, anna)
        admission.admit_files(ANNA, 2, 90, anna)
        for files, size, hint in ((1, 0, "gateway.files_per_user"), (0, 11, "gateway.max_image_bytes")):
            with pytest.raises(UpstreamFailed) as caught:
                admission.admit_files(ANNA, files, size, anna)
            assert hint in caught.value.hint
        admission.admit_files(BERT, 5, 100, bert)
        anna.close()
        admission.admit_files(ANNA, 5, 100, anna)
