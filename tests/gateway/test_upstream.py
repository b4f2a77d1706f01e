"""Registries, logins and the Docker daemon behind the service: who gets what, between accounts."""

from __future__ import annotations

import json
import os
import subprocess
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from tests.gateway.archives import BASE, file, make_archive
from tests.gateway.dockerd import Dockerd
from tests.gateway.odd_registry import OddRegistry
from tests.gateway.registries import USERS, DebianRegistry, Pushed
from tests.gateway.service import ANNA, BERT, NOBODY, Service, directory_for_all
from tests.gateway.support import needs_root
from udiroot.errors import NotFound, NotPermitted, UpstreamFailed, UsageError

pytestmark = needs_root


class Centre:
    """A service with an open registry (its default), one with logins, a bad one, and a Docker daemon."""

    def __init__(self, directory: Path, odd: OddRegistry, daemon: str) -> None:
        self.open = DebianRegistry(directory / "open")
        self.closed = DebianRegistry(directory / "closed", login=True)
        self.odd = odd
        tables = "".join(
            f'[[registry.hosts]]\nname = "{name}"\nplain_http = true\n'
            for name in (self.open.name, self.closed.name, odd.name)
        )
        tables = f'[registry]\ndefault = "{self.open.name}"\nsilence = 3\n{tables}'
        own = directory / "service"
        own.mkdir()
        self.service = Service(own, f'daemon = "{daemon}"', tables)

    def login(self, uid: int, name: str, password: str, registry: str = "") -> subprocess.CompletedProcess[str]:
        where = registry or self.closed.name
        return self.service.udi(uid, "login", "-u", name, "--password-stdin", where, given=f"{password}\n")

    def logged_in(self, *uids: int) -> None:
        for uid in uids:
            name = {ANNA: "anna", BERT: "bert"}[uid]
            done = self.login(uid, name, USERS[name])
            assert done.returncode == 0, done.stderr


@pytest.fixture(scope="module")
def centre() -> Iterator[Centre]:
    with directory_for_all("udi-upstream-") as directory, Dockerd(directory / "docker") as daemon, OddRegistry() as odd:
        made = Centre(directory, odd, daemon.socket)
        made.daemon = daemon  # type: ignore[attr-defined]
        with made.open, made.closed, made.service:
            yield made


@pytest.fixture(autouse=True)
def _logged_out(centre: Centre) -> None:
    for uid in (ANNA, BERT, NOBODY):
        centre.service.udi(uid, "logout", centre.closed.name)


def fresh(registry: DebianRegistry, name: str, tag: str = "1") -> Pushed:
    return registry.push(name, [BASE, [file("data", os.urandom(2000))]], tag=tag)


def test_a_name_alone_comes_from_the_default_registry_and_is_everybodys(centre: Centre) -> None:
    pushed = fresh(centre.open, "app")
    answer = centre.service.ask(ANNA, "pull", "app:1")
    assert (answer["reference"], answer["id"]) == ("app:1", pushed.id)
    assert centre.service.ask(BERT, "lookup", "app:1")["id"] == pushed.id
    again = centre.service.ask(BERT, "pull", f"docker://{centre.open.name}/app:1")
    assert again["reference"] == "app:1", "one spelling"
    assert centre.service.ask(BERT, "lookup", f"{centre.open.name}/app:1")["id"] == pushed.id
    facts = centre.service.ask(BERT, "inspect", "app:1")["facts"]
    assert facts["digest"] == pushed.digest


def test_a_mistyped_name_gets_the_nearest_one_that_is_there(centre: Centre) -> None:
    fresh(centre.open, "application")
    centre.service.ask(ANNA, "pull", "application:1")
    done = centre.service.udi(BERT, "pull", "aplication:1")
    assert done.returncode == NotFound.exit_code
    assert done.stderr.splitlines()[-1] == "hint: did you mean application:1?"


def test_pulling_what_is_there_asks_for_a_manifest_only(centre: Centre) -> None:
    digests = centre.odd.add("there:1", [BASE, [file("data", os.urandom(2000))]])
    reference = f"docker://{centre.odd.name}/there:1"
    centre.service.ask(ANNA, "pull", reference)
    before = len(centre.odd.asked)
    centre.service.ask(BERT, "pull", reference)
    assert [centre.odd.blob_requests(digest) for digest in digests] == [1, 1]
    assert len(centre.odd.asked) - before == 2, "the manifest and the configuration"


def test_a_digest_is_a_name_too(centre: Centre) -> None:
    pushed = fresh(centre.open, "pinned")
    answer = centre.service.ask(ANNA, "pull", f"pinned@{pushed.digest}")
    assert answer["reference"] == f"pinned@{pushed.digest}"
    assert centre.service.ask(BERT, "lookup", f"pinned@{pushed.digest}")["id"] == pushed.id
    refused = centre.service.udi(ANNA, "pull", "pinned:1", f"other@{pushed.digest}")
    assert refused.returncode == UsageError.exit_code, "but only its own"


def test_under_another_name_it_is_the_pullers_own(centre: Centre) -> None:
    pushed = fresh(centre.open, "theirs")
    centre.service.ask(ANNA, "pull", "theirs:1", "mine:1")
    assert centre.service.udi(BERT, "lookup", "mine:1").returncode == NotFound.exit_code
    assert centre.service.ask(ANNA, "lookup", "mine:1")["id"] == pushed.id


def test_login_says_whether_the_registry_took_it(centre: Centre) -> None:
    """shifter#321."""
    taken = centre.login(ANNA, "anna", USERS["anna"])
    assert (taken.returncode, taken.stdout) == (0, f"logged in to {centre.closed.name} as anna\n")
    refused = centre.login(BERT, "bert", "wrong")
    assert refused.returncode == NotPermitted.exit_code
    assert "rejected these credentials" in refused.stderr
    assert "wrong" not in refused.stderr.replace("name or password is wrong", "")
    needless = centre.login(ANNA, "anna", "x", centre.open.name)
    assert "does not require authentication until a repository does" in needless.stdout
    assert "stored unchecked" in needless.stdout
    kept = list((centre.service.own / "state/credentials").rglob("*.json"))
    assert [(path.parent.name, path.stat().st_mode & 0o777) for path in kept] == [(str(ANNA), 0o600)] * 2
    centre.service.udi(ANNA, "logout", centre.open.name)
    assert USERS["anna"] not in centre.service.log.read_text()
    assert (
        centre.service.udi(ANNA, "logout", centre.closed.name).stdout == f"{centre.closed.name}: credentials deleted\n"
    )
    assert "no credentials were stored" in centre.service.udi(ANNA, "logout", centre.closed.name).stdout


def test_a_password_is_never_an_argument(centre: Centre) -> None:
    assert centre.service.udi(ANNA, "login", "-u", "anna", "--password", "x", centre.closed.name).returncode == 2
    without = centre.service.udi(ANNA, "login", "-u", "anna", centre.closed.name)
    assert "--password-stdin" in without.stderr


def test_a_private_image_is_its_pullers_alone(centre: Centre) -> None:
    pushed = fresh(centre.closed, "anna/secret")
    source = f"docker://{centre.closed.name}/anna/secret:1"
    refused = centre.service.udi(ANNA, "pull", source)
    assert refused.returncode == NotPermitted.exit_code
    assert f"hint: udi login {centre.closed.name}" in refused.stderr
    centre.logged_in(ANNA)
    answer = centre.service.ask(ANNA, "pull", source)
    assert answer["id"] == pushed.id
    image = centre.service.store / "images" / f"{pushed.id}.squashfs"
    assert image.stat().st_mode & 0o777 == 0o400
    for words in (["lookup", answer["reference"]], ["inspect", f"id:{pushed.id}"], ["pull", source]):
        assert centre.service.udi(BERT, *words).returncode in (NotFound.exit_code, NotPermitted.exit_code)
    assert answer["reference"] not in centre.service.names(BERT) | centre.service.names(0)


def test_who_shows_an_own_login_gets_it_out_of_the_cache(centre: Centre) -> None:
    pushed = fresh(centre.closed, "shared/secret")
    source = f"docker://{centre.closed.name}/shared/secret:1"
    centre.logged_in(ANNA)
    centre.service.ask(ANNA, "pull", source)
    assert centre.service.udi(BERT, "pull", source).returncode == NotPermitted.exit_code
    centre.logged_in(BERT)
    assert centre.service.ask(BERT, "pull", source)["id"] == pushed.id
    assert centre.closed.fetches(pushed.layers[1]) == 1
    centre.service.udi(BERT, "logout", centre.closed.name)
    assert centre.service.udi(BERT, "pull", source).returncode == NotPermitted.exit_code


def test_a_layer_is_fetched_once_for_all_images(centre: Centre) -> None:
    base = [*BASE, file("base", os.urandom(20_000))]
    pushed = [centre.open.push(f"on-base/{n}", [base, [file("own", os.urandom(10))]]) for n in range(4)]
    with ThreadPoolExecutor(4) as pool:
        list(pool.map(lambda n: centre.service.ask(ANNA, "pull", f"on-base/{n}:1"), range(4)))
    assert centre.open.fetches(pushed[0].layers[0]) == 1


def test_many_who_ask_for_one_image_make_one_conversion(centre: Centre) -> None:
    pushed = fresh(centre.open, "crowd")
    with ThreadPoolExecutor(12) as pool:
        answers = list(pool.map(lambda n: centre.service.ask((ANNA, BERT)[n % 2], "pull", "crowd:1"), range(12)))
    assert {answer["id"] for answer in answers} == {pushed.id}
    assert centre.service.conversions(pushed.id) == 1
    assert [centre.open.fetches(digest) for digest in pushed.layers[1:]] == [1]


def test_a_tag_that_moved_makes_a_new_image(centre: Centre) -> None:
    first = fresh(centre.open, "moving")
    centre.service.ask(ANNA, "pull", "moving:1")
    second = fresh(centre.open, "moving")
    assert centre.service.ask(BERT, "pull", "moving:1")["id"] == second.id != first.id
    assert centre.service.ask(ANNA, "lookup", "moving:1")["id"] == second.id


def test_a_registry_dying_in_the_middle_of_a_blob_leaves_nothing(centre: Centre) -> None:
    centre.odd.add("dying:1", [BASE, [file("big", os.urandom(300_000))]])
    reference = f"docker://{centre.odd.name}/dying:1"
    files = centre.service.files()
    centre.odd.cut = 1000
    failed = centre.service.udi(ANNA, "pull", reference)
    assert failed.returncode == UpstreamFailed.exit_code
    assert "ended after" in failed.stderr
    assert centre.service.files() == files
    centre.odd.cut = None
    centre.service.ask(ANNA, "pull", reference)


def test_text_of_a_registry_is_shown_without_control_characters(centre: Centre) -> None:
    failed = centre.service.udi(ANNA, "pull", f"docker://{centre.odd.name}/nothing:1")
    assert failed.returncode == NotFound.exit_code
    assert "\\x1b[31mhere" in failed.stderr
    assert "\x1b" not in failed.stderr


def test_an_image_for_another_architecture_is_the_pullers_own(centre: Centre) -> None:
    pushed = centre.open.push("arm", [BASE, [file("a")]], config={"architecture": "arm64"})
    assert "image is for arm64" in centre.service.udi(ANNA, "pull", "arm:1").stderr
    assert centre.service.ask(ANNA, "pull", "--arch", "arm64", "arm:1")["id"] == pushed.id
    assert "arm:1" not in centre.service.names(BERT)
    assert centre.service.udi(ANNA, "pull", "--arch", "pdp11", "arm:1").returncode == UsageError.exit_code


def daemon_of(centre: Centre) -> Dockerd:
    daemon: Dockerd = centre.daemon  # type: ignore[attr-defined]
    return daemon


def test_the_daemon_pulls_what_the_registry_shows_the_caller(centre: Centre) -> None:
    pushed = fresh(centre.open, "by-daemon")
    answer = centre.service.ask(ANNA, "pull", "docker-daemon:by-daemon:1")
    assert (answer["reference"], answer["id"]) == ("by-daemon:1", pushed.id)
    assert centre.service.ask(BERT, "lookup", "by-daemon:1")["id"] == pushed.id
    secret = fresh(centre.closed, "anna/by-daemon")
    source = f"docker-daemon:{centre.closed.name}/anna/by-daemon:1"
    assert centre.service.udi(BERT, "pull", source).returncode == NotPermitted.exit_code
    centre.logged_in(ANNA)
    assert centre.service.ask(ANNA, "pull", source)["id"] == secret.id
    assert centre.service.udi(BERT, "pull", source).returncode == NotPermitted.exit_code, "though the daemon has it"
    assert f"{centre.closed.name}/anna/by-daemon:1" not in centre.service.names(BERT)


def test_what_the_daemon_has_is_for_publishers_alone(centre: Centre, tmp_path: Path) -> None:
    image_id = make_archive(tmp_path / "local.tar", [[*BASE, file("local")]], tags=["local/only:1"], style="hashes")
    daemon_of(centre).load(tmp_path / "local.tar")
    assert "local/only:1" in daemon_of(centre).names()
    assert centre.service.udi(ANNA, "pull", "docker-daemon:local/only:1").returncode == NotFound.exit_code
    assert centre.service.ask(NOBODY, "pull", "docker-daemon:local/only:1")["id"] == image_id
    assert centre.service.udi(NOBODY, "pull", "docker-daemon:local/none:1").returncode == NotFound.exit_code


def test_conversion_without_a_service(centre: Centre, tmp_path: Path) -> None:
    pushed = fresh(centre.open, "alone")
    program = [*centre.service.command()]
    program[2] = "from gateway.service.cli import main; main()"
    daemon_of(centre).client.pull(f"{centre.open.name}/alone", "1")
    for source in ("docker://alone:1", f"docker-daemon:{centre.open.name}/alone:1"):
        done = subprocess.run(
            [*program, "convert", "--json", source, str(tmp_path / "out")],
            capture_output=True, text=True, timeout=60, check=False,
        )  # fmt: skip
        assert done.returncode == 0, done.stderr
        assert json.loads(done.stdout)["id"] == pushed.id
        assert os.listdir(tmp_path) == ["out"]
        (tmp_path / "out").unlink()
