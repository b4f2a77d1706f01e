"""The gateway moves to another host, by docs/operations.md: what users see meanwhile, and what is kept."""

from __future__ import annotations

import shutil
import subprocess
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

from admin.checks.check import Level
from admin.checks.gateway import checks, trials
from tests.gateway.archives import BASE, file
from tests.gateway.munged import Munged
from tests.gateway.registries import USERS, DebianRegistry
from tests.gateway.service import ANNA, BERT, Service, directory_for_all
from tests.gateway.support import needs_root
from tests.gateway.test_network import archive
from udi import config
from xcsim.ports import free_port

pytestmark = [needs_root, pytest.mark.long]


class Place(Service):
    """The gateway's host: a state, a socket and an address of its own; the store is on a file system that all share."""

    def __init__(self, directory: Path, store: Path, munge: str, registry: str) -> None:
        directory.mkdir()
        self.address = f"127.0.0.1:{free_port()}"
        tables = f'[registry]\ndefault = "{registry}"\n[[registry.hosts]]\nname = "{registry}"\nplain_http = true\n'
        super().__init__(directory, f'address = "{self.address}"\nmunge = "{munge}"', tables)
        self.config.write_text(self.config.read_text().replace(str(self.store), str(store)))
        self.state = self.own / "state"


@dataclass
class Center:
    """Two hosts of which one has the gateway, and a login node whose configuration names its address."""

    old: Place
    new: Place
    registry: DebianRegistry
    login: Path

    def configure(self) -> None:
        """The login node, with the address of the new host."""
        self.login.write_text(self.login.read_text().replace(self.old.address, self.new.address))

    def udi(self, uid: int, *words: str, given: str = "") -> subprocess.CompletedProcess[str]:
        """A command on the login node."""
        argv = [str(self.login) if word == str(self.new.config) else word for word in self.new.command(*words)]
        return subprocess.run(
            argv, user=uid, group=uid, extra_groups=[], input=given, capture_output=True, text=True, check=False
        )

    def names(self, uid: int) -> list[str]:
        done = self.udi(uid, "images")
        assert done.returncode == 0, done.stderr
        return [line.split()[0] for line in done.stdout.splitlines()]

    def qsub(self, name: str) -> str:
        done = self.old.qsub(f"UDI={name}", uid=ANNA, config=self.login)
        assert done.returncode == 0, done.stderr
        return done.stderr.decode()

    def found(self, path: Path) -> set[str]:
        """The checks of the gateway that are not content on a host."""
        site = config.load(str(path))
        rows = [row for check in (*checks(site), *trials(site)) for row in check.rows()]
        return {row.check for row in rows if row.level is not Level.OK}


@pytest.fixture
def center() -> Iterator[Center]:
    with directory_for_all("udi-move-") as directory, DebianRegistry(directory / "r", login=True) as registry:
        munged = Munged(directory / "munge")
        old, new = (
            Place(directory / name, directory / "old/own/store", munged.socket, registry.name)
            for name in ("old", "new")
        )
        login = directory / "login.toml"
        text = old.config.read_text().replace(str(old.own), f"{directory}/not-on-this-host")
        login.write_text(text.replace(f"{directory}/not-on-this-host/store", str(old.store)))
        login.chmod(0o644)
        try:
            yield Center(old, new, registry, login)
        finally:
            old.stop()
            new.stop()
            munged.stop()


def furnished(center: Center) -> dict[str, str]:
    """On the old host: a private image by anna's credentials, and an archive of bert's; their ids."""
    center.old.start()
    pushed = center.registry.push("app", [BASE, [file("app")]])
    center.registry.push("later", [BASE, [file("later")]])
    done = center.udi(ANNA, "login", center.registry.name, "-u", "anna", "--password-stdin", given=USERS["anna"])
    assert done.returncode == 0, done.stderr
    assert center.udi(ANNA, "pull", "app:1").returncode == 0
    path, image_id = archive(center.old, "own", owner=BERT)
    assert center.udi(BERT, "pull", f"docker-archive:{path}").returncode == 0
    return {"app:1": pushed.id, "own:1": image_id}


def stopped(center: Center) -> None:
    """No user waits in vain, and no job whose image is in the store is refused."""
    center.old.stop()
    done = center.udi(ANNA, "pull", "later:1")
    assert (done.returncode, done.stderr.splitlines()[0]) == (6, "udi: the image gateway is not running")
    assert "image not checked, it will be when the job starts: the image gateway is not running" in center.qsub("app:1")
    assert not Path(center.old.site.gateway.socket).exists(), "a client of that host would still connect to it"


def test_with_its_state(center: Center) -> None:
    """Images, names, owners and the pin of a queued job are in the store, credentials in the state."""
    ids = furnished(center)
    assert "image not checked" not in center.qsub("app:1")
    references = {path.name: path.read_bytes() for path in (center.old.store / "refs").iterdir()}
    stopped(center)
    subprocess.run(["rsync", "-a", f"{center.old.state}/", f"{center.new.state}/"], check=True)
    center.new.start()
    center.configure()
    assert {path.name: path.read_bytes() for path in (center.old.store / "refs").iterdir()} == references
    assert (center.names(ANNA), center.names(BERT)) == (["app:1"], ["own:1"])
    assert center.udi(BERT, "lookup", "own:1").stdout.split() == [ids["own:1"]]
    assert center.udi(ANNA, "pull", "app:1").returncode == 0
    assert center.new.conversions(ids["app:1"]) == 0, "what is in the store is not made again"
    assert center.udi(ANNA, "pull", "later:1").returncode == 0, "with the credentials that she gave on the old host"
    assert "image not checked" not in center.qsub("later:1")
    assert center.found(center.new.config) == center.found(center.login) == set()
    assert center.found(center.old.config) == {"gateway.socket", "gateway.address"}, "its state says that it works here"
    shutil.rmtree(center.old.state)
    center.old.config.write_text(center.old.config.read_text().replace(center.old.address, center.new.address))
    assert center.found(center.old.config) == set(), "a host like any other"


def test_without_its_state(center: Center) -> None:
    """The old host is dead. Only what users gave to it is gone."""
    ids = furnished(center)
    stopped(center)
    center.new.start()
    center.configure()
    assert (center.names(ANNA), center.names(BERT)) == (["app:1"], ["own:1"])
    assert center.udi(ANNA, "lookup", "app:1").stdout.split() == [ids["app:1"]]
    done = center.udi(ANNA, "pull", "later:1")
    assert done.returncode == 4 and f"udi login {center.registry.name}" in done.stderr, done.stderr
    done = center.udi(ANNA, "login", center.registry.name, "-u", "anna", "--password-stdin", given=USERS["anna"])
    assert done.returncode == 0, done.stderr
    assert center.udi(ANNA, "pull", "later:1").returncode == 0
    assert center.udi(BERT, "rm", "own:1").returncode == 0, "its owner, and nobody else, removes it"
    assert center.names(BERT) == []


def test_a_login_node_that_was_forgotten(center: Center) -> None:
    """It asks the old host, where nothing listens; `check-config` there names the address."""
    furnished(center)
    center.old.stop()
    center.new.start()
    done = center.udi(ANNA, "images")
    assert (done.returncode, done.stderr) == (
        6,
        f"udi: the image gateway is not running\nhint: expected at {center.old.address}\n",
    )
    assert center.found(center.login) == {"gateway.address"}
