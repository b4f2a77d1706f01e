"""What a site asks of signatures, as its users meet it: pulls, submissions, job starts, archives, withdrawn keys, and
replica systems."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from jobs.image import choose_image
from tests.gateway.archives import BASE, file, make_archive
from tests.gateway.registries import DebianRegistry, Pushed
from tests.gateway.service import ACCOUNT, ANNA, NOBODY, Service, directory_for_all
from tests.gateway.signing import Key, sign
from tests.gateway.support import needs_root
from torque_hooks.pin import find_pin
from udi.accounts import Account
from udi.registries import RegistryConfig
from udi.request import JobRequest
from udiroot.errors import NotPermitted

pytestmark = needs_root

USER = 1
"""Someone with an account, daemon's, and a group of that name."""
SCRIPT = b"#!/bin/sh\naprun -n 2 hostname\n"


class Centre:
    """A service with a registry whose repositories below `signed/` must be signed by a key of the ring."""

    def __init__(self, directory: Path, registry: DebianRegistry) -> None:
        self.registry = registry
        self.key, self.second = Key(directory / "keys", "first"), Key(directory / "keys", "second")
        self.ring = directory / "ring"
        self.ring.mkdir(mode=0o755)
        self.near = directory / "service/own/near"
        own = directory / "service"
        own.mkdir()
        self._tables = (
            f'[registry]\ndefault = "{registry.name}"\nsilence = 3\n[[registry.hosts]]\nname = "{registry.name}"\n'
            f'plain_http = true\n[[systems]]\nname = "near"\npath = "{self.near}"\n'
        )
        self.service = Service(own, "", self._tables)
        self._plain = self.service.config.read_text()
        self.trust(self.key)

    def trust(self, *keys: Key) -> None:
        """The ring has these keys from now on."""
        for path in self.ring.iterdir():
            path.unlink()
        for number, key in enumerate(keys):
            (self.ring / f"{number}.pem").write_bytes(key.public.read_bytes())

    def ask_for(self, *lines: str, needed: int = 1) -> None:
        """Restart the service with these lines of `[signatures]`, and the rule."""
        rule = f'[[signatures.rules]]\nimages = ["{self.registry.name}/signed/*"]\nkeys = ["{self.ring}"]\n'
        text = "\n".join(["[signatures]", *lines, rule, f"needed = {needed}", ""])
        self._restart(self._plain + text)

    def ask_for_nothing(self) -> None:
        self._restart(self._plain)

    def _restart(self, text: str) -> None:
        self.service.stop()
        self.service.config.write_text(text)
        self.service.start()

    def push(self, name: str, *keys: Key) -> Pushed:
        pushed = self.registry.push(name, [BASE, [file("data", os.urandom(500))]])
        if keys:
            sign(self.registry, name, pushed.digest, *keys)
        return pushed

    def archive(self, name: str) -> tuple[str, str]:
        path = self.service.directory / f"{name}.tar"
        image_id = make_archive(path, [[*BASE, file("data", os.urandom(500))]], tags=[f"{name}:1"])
        path.chmod(0o644)
        return f"docker-archive:{path}", image_id

    def qsub(self, *listed: str) -> subprocess.CompletedProcess[bytes]:
        return self.service.qsub(*listed, uid=USER, script=SCRIPT)

    def start(self, text: str, uid: int = USER) -> str:
        """The id of the image that a job of a user gets at its start."""
        account = Account("x", uid, uid, (uid,), "/", "/bin/sh")
        request = JobRequest(job="1.sdb", user=account, reference=self.service.site.registry.parse(text), volumes=())
        return choose_image(self.service.site, request).facts.id

    def refused(self, *words: str, uid: int = ANNA) -> str:
        done = self.service.udi(uid, *words)
        assert done.returncode == 4, (done.returncode, done.stderr)
        assert done.stderr.count("\n") <= 2 and done.stdout == ""
        return done.stderr


@pytest.fixture(scope="module")
def running() -> Iterator[Centre]:
    with directory_for_all("udi-signed-") as directory, DebianRegistry(directory / "registry") as registry:
        centre = Centre(directory, registry)
        with centre.service:
            yield centre


@pytest.fixture
def centre(running: Centre) -> Centre:
    running.trust(running.key)
    running.ask_for()
    return running


def pinned(done: subprocess.CompletedProcess[bytes]) -> str:
    assert done.returncode == 0, done.stderr
    pin = find_pin(RegistryConfig(), done.stdout)
    return pin.id if pin else ""


def test_a_signed_image_is_pulled_run_and_shown_and_an_unsigned_one_is_not(centre: Centre) -> None:
    good, bad = centre.push("signed/good", centre.key), centre.push("signed/bad")
    assert centre.service.ask(ANNA, "pull", "signed/good:1")["id"] == good.id
    shown = centre.service.ask(ANNA, "inspect", "signed/good:1")
    assert shown["signed_by"] == [centre.key.fingerprint]
    assert f"signed_by: {centre.key.fingerprint}\n" in centre.service.udi(ANNA, "inspect", "signed/good:1").stdout
    said = centre.refused("pull", "signed/bad:1")
    assert said.startswith("udi: image signed/bad:1 is not signed as the site requires: its registry has no signature")
    assert not any(name.startswith(bad.id) for name in centre.service.files()), "nothing of it is left"
    assert pinned(centre.qsub("UDI=signed/good:1")) == good.id
    assert centre.start("signed/good:1") == good.id
    refused = centre.qsub("UDI=signed/bad:1")
    assert refused.returncode == 255 and refused.stdout == b""
    assert refused.stderr.startswith(b"udi-submit-filter: image signed/bad:1 is not signed as the site requires: ")
    assert refused.stderr.count(b"\n") <= 2, refused.stderr
    assert centre.qsub("UDI=signed/bad:1", "UDI_WAIT=no").returncode == 255
    free = centre.push("free/app")
    assert pinned(centre.qsub("UDI=free/app:1")) == free.id, "no rule names it"


def test_every_caller_s_own_pull_verifies(centre: Centre) -> None:
    """Two users share the conversion and the image, and neither the verdict."""
    pushed = centre.push("signed/both", centre.key)
    centre.service.ask(ANNA, "pull", "signed/both:1")
    sign(centre.registry, "signed/both", pushed.digest, centre.second)
    assert "by no key of the site" in centre.refused("pull", "signed/both:1", uid=USER)
    assert centre.service.conversions(pushed.id) == 1


def test_a_rule_that_comes_later_counts_for_what_is_in_the_store(centre: Centre) -> None:
    centre.ask_for_nothing()
    pushed = centre.push("signed/early")
    assert pinned(centre.qsub("UDI=signed/early:1")) == pushed.id
    assert not any(name.endswith("provenance.json") for name in centre.service.files() if name.startswith(pushed.id))
    centre.ask_for()
    refused = centre.qsub("UDI=signed/early:1")
    assert refused.returncode == 255
    assert b"is signed by 0 of the keys that the site trusts for it, 1 needed" in refused.stderr
    assert b"(udi pull signed/early:1 verifies it again)" in refused.stderr
    with pytest.raises(NotPermitted, match="pulled before the site asked"):
        centre.start("signed/early:1")
    with pytest.raises(NotPermitted, match="pulled before the site asked") as caught:
        centre.start(f"id:{pushed.id}")
    assert "by its name" in caught.value.hint
    sign(centre.registry, "signed/early", pushed.digest, centre.key)
    centre.service.ask(ANNA, "pull", "signed/early:1")
    assert pinned(centre.qsub("UDI=signed/early:1")) == pushed.id
    assert centre.start("signed/early:1") == centre.start(f"id:{pushed.id}") == pushed.id


def test_a_key_that_is_withdrawn_and_one_that_is_asked_for_more(centre: Centre) -> None:
    pushed = centre.push("signed/two", centre.key)
    centre.service.ask(ANNA, "pull", "signed/two:1")
    centre.trust(centre.second)
    refused = centre.qsub("UDI=signed/two:1")
    assert refused.returncode == 255 and b"is signed by 0 of the keys" in refused.stderr
    centre.trust(centre.key, centre.second)
    assert pinned(centre.qsub("UDI=signed/two:1")) == pushed.id, "without a restart"
    centre.ask_for(needed=2)
    assert b"is signed by 1 of the keys that the site trusts for it, 2 needed" in centre.qsub("UDI=signed/two:1").stderr
    with pytest.raises(NotPermitted, match="signed by 1 of the keys"):
        centre.start("signed/two:1")
    sign(centre.registry, "signed/two", pushed.digest, centre.key, centre.second)
    centre.service.ask(ANNA, "pull", "signed/two:1")
    assert pinned(centre.qsub("UDI=signed/two:1")) == pushed.id


def test_keys_that_cannot_be_read_are_the_site_s_error_and_let_nothing_pass(centre: Centre) -> None:
    centre.push("signed/keys", centre.key)
    path = centre.ring / "0.pem"
    path.chmod(0o666)
    done = centre.service.udi(ANNA, "pull", "signed/keys:1")
    assert done.returncode == 6 and "0.pem: mode 0666 lets others write it" in done.stderr
    path.chmod(0o644)
    centre.service.ask(ANNA, "pull", "signed/keys:1")
    os.chown(path, ACCOUNT, ACCOUNT)
    done = centre.service.udi(ANNA, "pull", "signed/keys:1")
    assert done.returncode == 6 and "must be owned by root" in done.stderr
    centre.push("signed/unknown", centre.key)
    submitted = centre.qsub("UDI=signed/unknown:1")
    assert submitted.returncode == 255 or not pinned(submitted)


def test_images_of_no_registry(centre: Centre) -> None:
    own, own_id = centre.archive("own")
    theirs, theirs_id = centre.archive("theirs")
    centre.service.ask(USER, "pull", own, "own:1")
    assert pinned(centre.qsub("UDI=own:1")) == own_id
    centre.ask_for('files = "publishers"')
    said = centre.refused("pull", own, "own:2")
    assert "this image comes from no registry; the site takes images of registries and takes others from its" in said
    refused = centre.qsub("UDI=own:1")
    assert refused.returncode == 255 and b"image own:1 comes from no registry" in refused.stderr
    centre.service.ask(NOBODY, "pull", "--public", theirs, "theirs:1")
    assert pinned(centre.qsub("UDI=theirs:1")) == theirs_id
    centre.ask_for('files = "refuse"', 'default = "refuse"')
    assert "comes from no registry" in centre.refused("pull", theirs, "theirs:2", uid=NOBODY)
    assert centre.qsub("UDI=theirs:1").returncode == 255
    centre.push("free/other")
    assert "no rule of the site accepts" in centre.refused("pull", "free/other:1")
    good = centre.push("signed/only", centre.key)
    assert pinned(centre.qsub("UDI=signed/only:1")) == good.id


def test_a_name_that_must_be_signed_is_not_given_to_a_group_for_something_else(centre: Centre) -> None:
    own, own_id = centre.archive("posing")
    said = centre.refused("pull", "--group", "daemon", own, "signed/posing:1", uid=USER)
    assert (
        f"images called {centre.registry.name}/signed/posing must be signed, and this one comes from elsewhere" in said
    )
    centre.push("signed/another", centre.key)
    assert "comes from elsewhere" in centre.refused(
        "pull", "--group", "daemon", "signed/another:1", "signed/posing:1", uid=USER
    )
    assert centre.service.ask(USER, "pull", "--group", "daemon", own, "local/posing:1")["id"] == own_id
    assert centre.service.ask(USER, "pull", own, "signed/posing:1")["id"] == own_id, "one's own"
    assert pinned(centre.qsub("UDI=signed/posing:1")) == own_id
    centre.service.ask(NOBODY, "pull", "--public", own, "signed/posing:1")
    centre.service.ask(USER, "rm", "signed/posing:1")
    assert pinned(centre.qsub("UDI=signed/posing:1")) == own_id, "publishers are trusted to name what they bring"


def test_content_that_came_from_elsewhere_too_does_not_make_a_name_good(centre: Centre) -> None:
    """An unsigned image, pulled before there were rules, gets no better by a pull of the same from where none are."""
    centre.ask_for_nothing()
    pushed = centre.push("signed/bad-early")
    centre.service.ask(ANNA, "pull", "signed/bad-early:1")
    centre.ask_for()
    text = centre.registry.manifest_text("signed/bad-early", "1")
    centre.registry.put_blob(
        "free/same", centre.registry.blob_text("signed/bad-early", json.loads(text)["config"]["digest"])
    )
    for layer in json.loads(text)["layers"]:
        path = centre.registry.directory / "data/docker/registry/v2/blobs/sha256" / layer["digest"][7:9]
        centre.registry.put_blob("free/same", (path / layer["digest"][7:] / "data").read_bytes())
    manifest = json.loads(text)
    centre.registry.put_manifest("free/same", "1", manifest, manifest["mediaType"])
    assert centre.service.ask(USER, "pull", "free/same:1")["id"] == pushed.id
    assert pinned(centre.qsub("UDI=free/same:1")) == pushed.id
    assert centre.qsub("UDI=signed/bad-early:1").returncode == 255
    with pytest.raises(NotPermitted, match="pulled before the site asked"):
        centre.start("signed/bad-early:1")


def test_records_go_to_replica_systems_and_with_their_image(centre: Centre) -> None:
    pushed = centre.push("signed/far", centre.key)
    centre.service.ask(ANNA, "pull", "signed/far:1")
    name = f"{pushed.id}.provenance.json"
    here, there = centre.service.store / "images" / name, centre.near / "images" / name
    assert there.read_text() == here.read_text()
    assert here.stat().st_mode == (centre.service.store / "images" / f"{pushed.id}.json").stat().st_mode
    record = json.loads(here.read_text())["provenance"]
    assert [(each["repository"], each["digest"], each["signers"]) for each in record] == [
        (f"{centre.registry.name}/signed/far", pushed.digest, [centre.key.fingerprint])
    ]
    sign(centre.registry, "signed/far", pushed.digest, centre.key, centre.second)
    centre.trust(centre.second)
    centre.service.ask(ANNA, "pull", "signed/far:1")
    assert there.read_text() == here.read_text() and centre.second.fingerprint in there.read_text()
    here.write_text("{")
    with pytest.raises(Exception, match="not JSON"):
        centre.start("signed/far:1")
    centre.service.ask(ANNA, "pull", "signed/far:1")
    assert centre.start("signed/far:1") == pushed.id
    expired = subprocess.run(
        [sys.executable, "-c", "from gateway.service.cli import main; main()", "--config", str(centre.service.config),
         "expire", "--dry-run", "--json"], user=ACCOUNT, group=ACCOUNT, extra_groups=[], check=True,
        capture_output=True,
    )  # fmt: skip
    assert json.loads(expired.stdout) == {"expired": []}
    centre.service.ask(NOBODY, "rm", "signed/far:1")
    assert not here.exists()
    centre.service.ask(ANNA, "pull", "signed/far:1")
