"""A walk through docs/install.md: its own commands, one after another, on a fresh Debian system that has no network but
the loopback interface, and nothing of ours but the bundle: from unpacking it to the output of a job in an image.

Torque's and Cray's programs are xcsim's, which were installed before. Two things differ from what the page says: there
is no systemd, so `systemctl` is a program that starts units as they say themselves; and simulated nodes have their
number in another file than Cray's, which the configuration names.
"""

from __future__ import annotations

import shlex
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

from slurmsim.host import Host
from tests.install import fresh
from tests.install.page import CRAY, Block, extended
from xcsim.initramfs import NID_FILE

_XCSIM = "/usr/bin/python3 -c 'from xcsim.cli import main; main()' "
_SECONDS = 60.0


@dataclass
class Walker:
    """Follows the page on the login node of a machine that is up."""

    host: Host
    configuration: str = f'[node]\nnid_file = "{NID_FILE}"\n'
    job: str = ""

    def follow(self, block: Block) -> str:
        """Run one block; what it printed."""
        if block.path:
            self.configuration = extended(self.configuration, block.text)
            return self._write(block.path, self.configuration)
        if "after-job" in block.words:
            fresh.run(self.host, f"{_XCSIM} wait --timeout {_SECONDS} {self.job} || {{ {_XCSIM} log; exit 1; }} >&2")
        said = self._as("alice" if "user" in block.words else "root", block.text)
        if "qsub" in block.text:
            self.job = said.strip().splitlines()[-1]
        return said

    def _write(self, path: str, text: str) -> str:
        name = shlex.quote(path)
        return self._as("root", f"printf %s {shlex.quote(text)} > {name}; chmod 0644 {name}")

    def _as(self, user: str, script: str) -> str:
        return fresh.run(self.host, f"{_XCSIM} run --user {user} /bin/sh -ec {shlex.quote(script)}").stdout


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
        for file in fresh.bundle():
            login.joinpath("root", file.name).write_bytes(file.read_bytes())
        fresh.put_systemctl(login)
        fresh.image(login / "home/alice/debian.tar")
        yield walker
    finally:
        fresh.run(host, f"{_XCSIM} down", check=False)
        host.stop()


def _login(host: Host) -> int:
    """The process that keeps the login node, as the host sees it."""
    words = 'import json; print(json.load(open("/var/lib/xcsim/login.json"))["pid"])'
    return int(fresh.run(host, f"python3 -c '{words}'").stdout)


@pytest.mark.parametrize("choice", CRAY.choices)
def test_the_page_leads_to_a_job_in_an_image(walker: Walker, choice: str) -> None:
    assert "Network is unreachable" in fresh.run(walker.host, "busybox ping -c 1 10.0.0.1 2>&1 || true").stdout
    said = ""
    for block in CRAY.blocks(choice):
        print(f"--- {' '.join(block.words)}\n{block.text}")
        said = walker.follow(block)
        print(said)
        if "after-job" in block.words:
            assert said.count("VERSION_CODENAME=bullseye") == 4
    assert said.startswith("no jobs with images here, no dirty nodes\n")
