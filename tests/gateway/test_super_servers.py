"""The files that start the service, in the hands of the programs that read them: xinetd and systemd."""

from __future__ import annotations

import os
import shlex
import subprocess
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from admin.seams.machines import machine_of
from admin.sitefiles.all_files import site_files
from tests.gateway.archives import BASE, file, make_archive
from tests.gateway.munged import Munged
from tests.gateway.service import ACCOUNT, ANNA, Service, directory_for_all
from tests.gateway.support import needs_root
from xcsim.ports import free_port

pytestmark = needs_root

_UNITS = "/etc/systemd/system"


class Installed(Service):
    """A service that nothing has started yet; its programs and the files that start it lie in `directory`."""

    def __init__(self, directory: Path, munge: str) -> None:
        port = free_port()
        network = f'address = "127.0.0.1:{port}"\nmunge = "{munge}"'
        tables = f'[install]\nbin = "{directory}/bin"\n[metrics]\ndirectory = "{directory}"'
        super().__init__(directory, network, tables)
        (directory / "bin").mkdir()
        self.texts = {each.path: each.text for each in site_files(self.site, machine_of(self.site), str(self.config))}
        program = directory / "bin/udi-gateway"
        program.write_text(self.texts[str(program)])
        program.chmod(0o755)
        self.started: list[subprocess.Popen[bytes]] = []

    def start_by(self, *words: str, ready: Callable[[], bool], user: int = 0) -> None:
        with self.log.open("ab") as log:
            self.started.append(
                subprocess.Popen(words, stdin=subprocess.DEVNULL, stdout=log, stderr=log, user=user, group=user)
            )
        deadline = time.monotonic() + 30
        while not ready():
            assert self.started[-1].poll() is None and time.monotonic() < deadline, self.log.read_text()
            time.sleep(0.05)

    def pull_as_anna(self) -> None:
        path = self.directory / "image.tar"
        image_id = make_archive(path, [[*BASE, file("data", os.urandom(1000))]], tags=["app:1"])
        path.chmod(0o644)
        assert self.ask(ANNA, "pull", f"docker-archive:{path}")["id"] == image_id
        assert self.ask(ANNA, "lookup", "app:1")["id"] == image_id

    def close(self) -> None:
        for process in self.started:
            process.terminate()
            process.wait(30)


@pytest.fixture
def installed() -> Iterator[Installed]:
    with directory_for_all("udi-started-") as directory:
        munged = Munged(directory / "munge")
        made = Installed(directory, munged.socket)
        try:
            yield made
        finally:
            made.close()
            munged.stop()


def _listens(port: str) -> bool:
    wanted = f":{int(port):04X} 00000000:0000 0A"
    return any(wanted in line for line in Path("/proc/net/tcp").read_text().splitlines())


def test_xinetd_starts_a_process_for_each_client_elsewhere(installed: Installed) -> None:
    configuration = installed.directory / "xinetd.conf"
    configuration.write_text("defaults\n{\n}\n" + installed.texts["/etc/xinetd.d/udi-gateway"])
    installed.start_by(
        "/usr/sbin/xinetd", "-dontfork", "-f", str(configuration), "-pidfile", str(installed.directory / "pid"),
        ready=lambda: _listens(installed.site.gateway.address.rpartition(":")[2]),
    )  # fmt: skip
    installed.pull_as_anna()


def test_systemd_hands_over_each_connection(installed: Installed) -> None:
    socket = installed.site.gateway.socket
    handler = installed.texts[f"{_UNITS}/udi-gateway-handle@.service"]
    [command] = [line.removeprefix("ExecStart=") for line in handler.splitlines() if line.startswith("ExecStart=")]
    installed.start_by(
        "/usr/bin/systemd-socket-activate", "--accept", "--inetd", "--listen", socket, *shlex.split(command),
        ready=lambda: os.path.exists(socket), user=ACCOUNT,
    )  # fmt: skip
    os.chmod(socket, 0o666)
    installed.pull_as_anna()


def test_systemd_finds_nothing_wrong_with_the_units(installed: Installed) -> None:
    units = {os.path.basename(path): text for path, text in installed.texts.items() if path.startswith(_UNITS)}
    assert len(units) == 5
    for name, text in units.items():
        (installed.directory / name).write_text(text)
    paths = [installed.directory / name for name in units]
    done = subprocess.run(
        ["/usr/bin/systemd-analyze", "verify", "--man=no", *paths], capture_output=True, text=True, timeout=60
    )
    said = [line for line in done.stderr.splitlines() if str(installed.directory) in line or "udi-gateway" in line]
    assert (done.returncode, said) == (0, [])
