"""A walk through docs/install.md: its own commands, one after another, on a fresh Debian system that has no network but
the loopback interface, and nothing of ours but the bundle: from unpacking it to the output of a job in an image.

Torque's and Cray's programs are xcsim's, which were installed before. Two things differ from what the page says: there
is no systemd, so the unit that is enabled is started as it says itself; and simulated nodes have their number in
another file than Cray's, which the configuration names.
"""

from __future__ import annotations

import configparser
import shlex
import subprocess
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

from slurmsim.host import Host
from tests.install import fresh
from tests.install.page import CHOICES, Block, blocks
from xcsim.initramfs import NID_FILE
from xcsim.processes import wait_until

_BUNDLE = "shifter-xc-*.tar.gz*"
_XCSIM = "/usr/bin/python3 -c 'from xcsim.cli import main; main()' "
_ENABLE = "systemctl enable --now "
_SECONDS = 60.0


@dataclass
class Walker:
    """Follows the page on the login node of a machine that is up."""

    host: Host
    gateway: subprocess.Popen[str] | None = None
    configuration: str = ""
    job: str = ""

    def follow(self, block: Block) -> str:
        """Run one block; what it printed."""
        if block.path:
            self.configuration += block.text + "\n"
            return self._write(block.path, _with_nid_file(self.configuration))
        if block.text.startswith(_ENABLE):
            self._start_unit(block.text.removeprefix(_ENABLE).strip())
            return ""
        if "after-job" in block.words:
            fresh.run(self.host, f"{_XCSIM} wait --timeout {_SECONDS} {self.job} || {{ {_XCSIM} log; exit 1; }} >&2")
        said = self._as("alice" if "user" in block.words else "root", block.text)
        if "qsub" in block.text:
            self.job = said.strip().splitlines()[-1]
        return said

    def _write(self, path: str, text: str) -> str:
        name = shlex.quote(path)
        return self._as(
            "root", f"mkdir -p $(dirname {name}); printf %s {shlex.quote(text)} > {name}; chmod 0644 {name}"
        )

    def _as(self, user: str, script: str) -> str:
        return fresh.run(self.host, f"{_XCSIM} run --user {user} /bin/sh -ec {shlex.quote(script)}").stdout

    def _start_unit(self, name: str) -> None:
        """What systemd would do with the few keys of our unit that say what runs, as whom, and where."""
        unit = configparser.ConfigParser(interpolation=None, strict=False)
        unit.optionxform = str  # type: ignore[assignment, method-assign]
        unit.read_string(self._as("root", f"cat /etc/systemd/system/{name}.service"))
        service = unit["Service"]
        user = service["User"]
        for parent, key in (("/run", "RuntimeDirectory"), ("/var/lib", "StateDirectory")):
            self._as("root", f"install -d -o {user} -g {user} {parent}/{service[key]}")
        account = f"setpriv --reuid={user} --regid={user} --init-groups"
        command = f"{_XCSIM} run --user root {account} {service['ExecStart']}"
        self.gateway = self.host.popen(
            ["/bin/sh", "-c", f"exec {command}"], env=fresh.ENVIRONMENT, stdin=subprocess.DEVNULL
        )
        sock = f"/run/{service['RuntimeDirectory']}/gateway.sock"
        probe = f"{_XCSIM} run --user root test -S {sock}"
        assert wait_until(lambda: fresh.run(self.host, probe, check=False).returncode == 0, _SECONDS, 0.2)


def _with_nid_file(configuration: str) -> str:
    key = f'nid_file = "{NID_FILE}"\n'
    if "[node]\n" in configuration:
        return configuration.replace("[node]\n", f"[node]\n{key}")
    return f"{configuration}\n[node]\n{key}"


def bundle() -> list[Path]:
    """The archive of `make bundle` and its checksum."""
    found = sorted((fresh.ROOT / "dist").glob(_BUNDLE))
    assert len(found) == 2, "make bundle was not run, or dist holds another version too"
    return found


@pytest.fixture
def walker(tmp_path: Path, request: pytest.FixtureRequest) -> Iterator[Walker]:
    """A machine with Torque and ALPS, users, and the bundle in root's directory."""
    (tmp_path / "state").mkdir()
    host = fresh.host("walk", fresh.NEW, {str(tmp_path / "state"): "/var/lib/xcsim"})
    host.start()
    walker = Walker(host)
    try:
        fresh.put_standins(host)
        fresh.run(host, f"{_XCSIM} up --nodes 2 --no-site")
        # The page makes the account itself.
        undone = "userdel udi; umount /var/lib/udi-gateway; rmdir /var/lib/udi-gateway; rm -rf /scratch/udi/*"
        fresh.run(host, f"{_XCSIM} run --user root sh -ec '{undone}'")
        login = host.path(f"/proc/{_login(host)}/root")
        for file in bundle():
            login.joinpath("root", file.name).write_bytes(file.read_bytes())
        fresh.image(login / "home/alice/debian.tar")
        yield walker
    finally:
        if walker.gateway:
            walker.gateway.kill()
        fresh.run(host, f"{_XCSIM} down", check=False)
        host.stop()
        if walker.gateway:
            walker.gateway.wait()


def _login(host: Host) -> int:
    """The process that keeps the login node, as the host sees it."""
    words = 'import json; print(json.load(open("/var/lib/xcsim/login.json"))["pid"])'
    return int(fresh.run(host, f"python3 -c '{words}'").stdout)


@pytest.mark.parametrize("choice", CHOICES)
def test_the_page_leads_to_a_job_in_an_image(walker: Walker, choice: str) -> None:
    assert "Network is unreachable" in fresh.run(walker.host, "busybox ping -c 1 10.0.0.1 2>&1 || true").stdout
    said = ""
    for block in blocks(choice):
        print(f"--- {' '.join(block.words)}\n{block.text}")
        said = walker.follow(block)
        print(said)
        if "after-job" in block.words:
            assert said.count("VERSION_CODENAME=bullseye") == 4
    assert said.startswith("no jobs with images here, no dirty nodes\n")
