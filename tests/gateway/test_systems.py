"""Further systems: a directory of this machine, and another account's store behind a real sshd."""

from __future__ import annotations

import json
import os
import shutil
import stat
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from gateway.client import client
from tests.gateway.archives import BASE, file, make_archive
from tests.gateway.service import ACCOUNT, ANNA, NOBODY, Service
from tests.gateway.sshd import Sshd
from tests.gateway.support import needs_root

pytestmark = needs_root

FAR = 1501
"""The special-purpose account there."""
CHECK = """\
import sys
from admin.checks.remote import trials
from udi.config import load
[check] = trials(load(sys.argv[1]))
print(*(f"{row.level}: {row.what}" for row in check.rows()), sep="; ")
"""


class Site(Service):
    """A service with one system beside it and one behind sshd."""

    def __init__(self, directory: Path, sshd: Sshd) -> None:
        self.sshd = sshd
        self.near, self.far = directory / "own/near", directory / "far"
        self.far.mkdir()
        os.chown(self.far, FAR, FAR)
        key = directory / "id"
        shutil.copy(sshd.identity, key)
        os.chown(key, ACCOUNT, ACCOUNT)
        words = json.dumps([word.replace(str(sshd.identity), str(key)) for word in sshd.ssh()])
        tables = (
            f'[[systems]]\nname = "near"\npath = "{self.near}"\n'
            f'[[systems]]\nname = "far"\npath = "{self.far}"\nhost = "127.0.0.1"\nuser = "{sshd.account}"\n'
            f"ssh = {words}\n"
        )
        super().__init__(directory, "", tables)

    def transfer(self) -> subprocess.CompletedProcess[str]:
        words = ["-c", "from gateway.service.cli import main; main()", "--config", str(self.config), "transfer"]
        dropped = ["setpriv", f"--reuid={ACCOUNT}", f"--regid={ACCOUNT}", "--clear-groups"]
        return subprocess.run(
            self.sshd.inside(*dropped, sys.executable, *words), capture_output=True, text=True, timeout=60, check=False
        )

    def checked(self, *before: str) -> str:
        """What `udi-admin check-config` has of the systems, as the store's account reaches them; on one line."""
        words = [*before, sys.executable, "-c", CHECK, str(self.config)]
        done = subprocess.run(words, capture_output=True, text=True, timeout=60, check=True)
        return done.stdout.strip()

    def image(self, name: str) -> tuple[str, str]:
        path = self.directory / f"{name}.tar"
        image_id = make_archive(path, [[*BASE, file("data", os.urandom(200_000))]], tags=[f"{name}:1"])
        path.chmod(0o644)
        return str(path), image_id

    def there(self, store: Path) -> dict[str, set[str]]:
        return {name: set(os.listdir(store / name)) for name in ("images", "refs")}


@pytest.fixture(scope="module")
def site() -> Iterator[Site]:
    directory = Path(tempfile.mkdtemp(prefix="udi-systems-"))
    directory.chmod(0o755)
    sshd = Sshd(directory / "sshd", "udi-far", FAR)
    # ssh wants its caller to have an account, too
    with (directory / "sshd/passwd").open("a") as stream:
        stream.write(f"udi-gw:x:{ACCOUNT}:{ACCOUNT}::{directory}:/bin/sh\n")
    running = Site(directory, sshd)
    try:
        running.start()
        yield running
    finally:
        running.stop()
        sshd.stop()
        shutil.rmtree(directory)


def mode(path: Path) -> int:
    return stat.S_IMODE(path.stat().st_mode)


def test_images_names_and_modes_arrive_and_go(site: Site) -> None:
    path, image_id = site.image("arrives")
    site.ask(ANNA, "pull", f"docker-archive:{path}")
    done = site.transfer()
    assert done.returncode == 0, done.stderr
    here = site.there(site.store)
    for store, owner in ((site.near, ACCOUNT), (site.far, FAR)):
        assert site.there(store) == here
        there = store / "images" / f"{image_id}.squashfs"
        assert there.read_bytes() == (site.store / "images" / there.name).read_bytes()
        assert there.stat().st_uid == owner
        assert mode(there) == mode(there.with_suffix(".json")) == 0o400
        assert mode(store / "plans") == 0o711
    site.ask(NOBODY, "pull", "--public", f"docker-archive:{path}", "everybody:1")
    assert site.transfer().returncode == 0
    for store in (site.near, site.far):
        assert site.there(store) == site.there(site.store)
        assert mode(store / "images" / f"{image_id}.squashfs") == 0o444, "a public name opens it there too"
    site.ask(NOBODY, "rm", "everybody:1")
    site.ask(ANNA, "rm", "arrives:1")
    assert site.transfer().returncode == 0
    for store in (site.near, site.far):
        assert site.there(store) == {"images": set(), "refs": set()}


def test_a_name_that_moves_twice_in_a_second_moves_there_too(site: Site) -> None:
    """Both references have one size, and one time as far as rsync looks at it."""
    ids = []
    for number in range(2):
        path, image_id = site.image(f"moves{number}")
        site.ask(NOBODY, "pull", "--public", f"docker-archive:{path}", "moves:1")
        ids.append(image_id)
        [ref] = [path for path in (site.store / "refs").iterdir() if '"moves:1"' in path.read_text()]
        os.utime(ref, (1_700_000_000, 1_700_000_000 + number / 4))
        assert site.transfer().returncode == 0
        for store in (site.near, site.far):
            assert json.loads((store / "refs" / ref.name).read_text())["id"] == image_id
    assert len(set(ids)) == 2
    site.ask(NOBODY, "rm", "moves:1")
    assert site.transfer().returncode == 0


def test_the_check_reaches_them_as_a_transfer_does(site: Site) -> None:
    inside = site.sshd.inside()
    assert site.checked(*inside).startswith("ok: ")
    site.far.chmod(0o555)
    try:
        assert f"error: systems[1], far: {site.far} on udi-far@127.0.0.1 cannot be written" in site.checked(*inside)
    finally:
        site.far.chmod(0o755)
    assert "error: systems[1], far: ssh to udi-far@127.0.0.1 failed: " in site.checked(), "its account has no name here"


def test_a_pull_brings_the_image_to_all_systems_or_says_which_not(site: Site) -> None:
    """The service itself runs where its account has no name, so that ssh refuses; the near system is served."""
    path, image_id = site.image("partly")
    done = site.ask(ANNA, "pull", f"docker-archive:{path}")
    assert [trouble.split(":")[0] for trouble in done["troubles"]] == ["system far"]
    assert f"{image_id}.squashfs" in os.listdir(site.near / "images")
    said = site.udi(ANNA, "pull", f"docker-archive:{path}")
    assert said.returncode == 0
    assert "udi: warning: not yet copied to all systems: system far: ssh to 127.0.0.1" in said.stderr
    assert client.status(site.site).errors[0].reference == "system far"
    assert site.transfer().returncode == 0
    assert f"{image_id}.squashfs" in os.listdir(site.far / "images")
    site.ask(ANNA, "rm", "partly:1")


def test_an_image_that_a_job_there_uses_stays_there(site: Site) -> None:
    path, image_id = site.image("held")
    site.ask(ANNA, "pull", f"docker-archive:{path}")
    assert site.transfer().returncode == 0
    plan = site.far / "plans" / "1.x"
    plan.write_text(f"image squashfs /x {image_id}\n")
    os.chown(plan, FAR, FAR)
    site.ask(ANNA, "rm", "held:1")
    assert site.transfer().returncode == 0
    assert f"{image_id}.squashfs" in os.listdir(site.far / "images")
    assert f"{image_id}.squashfs" not in os.listdir(site.near / "images")
    plan.unlink()
    assert site.transfer().returncode == 0
    assert os.listdir(site.far / "images") == []


def test_what_a_dead_transfer_left_is_made_good(site: Site) -> None:
    path, image_id = site.image("dead")
    site.ask(ANNA, "pull", f"docker-archive:{path}")
    assert site.transfer().returncode == 0
    for store, owner in ((site.near, ACCOUNT), (site.far, FAR)):
        (store / "images" / f"{image_id}.json").unlink()  # killed before the facts
        leftover = store / "images" / ".new-0123"
        leftover.write_text("half")
        os.chown(leftover, owner, owner)
        image = store / "images" / f"{image_id}.squashfs"
        image.chmod(0o600)
        image.write_bytes(b"damaged")
    assert site.transfer().returncode == 0
    for store in (site.near, site.far):
        assert site.there(store) == site.there(site.store)
        image = store / "images" / f"{image_id}.squashfs"
        assert image.read_bytes() == (site.store / "images" / image.name).read_bytes()
    site.ask(ANNA, "rm", "dead:1")


def test_a_damaged_image_is_not_published_there(site: Site) -> None:
    path, image_id = site.image("damaged")
    site.ask(ANNA, "pull", f"docker-archive:{path}")
    shutil.rmtree(site.near)
    image = site.store / "images" / f"{image_id}.squashfs"
    whole = image.read_bytes()
    image.chmod(0o600)
    image.write_bytes(b"x" + whole[1:])
    refused = site.transfer()
    assert refused.returncode == 6
    assert "arrived at near damaged" in refused.stderr
    assert os.listdir(site.near / "images") == []
    image.write_bytes(whole)
    image.chmod(0o400)
    assert site.transfer().returncode == 0
    site.ask(ANNA, "rm", "damaged:1")


def test_sparse_files_stay_sparse(site: Site) -> None:
    path, image_id = site.image("sparse")
    site.ask(ANNA, "pull", f"docker-archive:{path}")
    facts_path = site.store / "images" / f"{image_id}.json"
    image = site.store / "images" / f"{image_id}.squashfs"
    image.chmod(0o600)
    os.truncate(image, 64 << 20)
    facts = json.loads(facts_path.read_text())
    facts["sha256"] = subprocess.run(["sha256sum", image], capture_output=True, check=True).stdout.split()[0].decode()
    facts_path.chmod(0o600)
    facts_path.write_text(json.dumps(facts))
    image.chmod(0o400)
    facts_path.chmod(0o400)
    for store in (site.near, site.far):
        shutil.rmtree(store / "images", ignore_errors=True)
    assert site.transfer().returncode == 0
    for store in (site.near, site.far):
        sent = (store / "images" / image.name).stat()
        assert sent.st_size == 64 << 20
        assert sent.st_blocks * 512 < 4 << 20
    site.ask(ANNA, "rm", "sparse:1")
