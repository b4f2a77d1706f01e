"""Environments of the site's map: published by the operator, found by whom the map lets use them."""

from __future__ import annotations

import dataclasses
import json
import os
import socket
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from jobs.image import Choice, choose_image
from tests.gateway.service import ACCOUNT, Service, directory_for_all, run_as
from tests.gateway.support import needs_root
from udi.accounts import account_of_uid
from udi.config import load
from udi.request import Pin, job_request
from udiroot.errors import NotPermitted

pytestmark = needs_root
DAEMON, BIN, ROOT = 1, 2, 0
"""Accounts of every Debian, each with a group of its own name."""


class Site:
    """A service with a map, and a directory that is an environment."""

    def __init__(self, service: Service, top: Path) -> None:
        self.service, self.top = service, top
        self.tree = top / "sl6"
        for name in ("etc", "usr/bin", "private", "dev"):
            (self.tree / name).mkdir(parents=True)
        (self.tree / "etc/marker").write_text("made by the staff\n")
        (self.tree / "etc/shadow").write_text("root:x\n")
        (self.tree / "etc/shadow").chmod(0o600)
        (self.tree / "private").chmod(0o700)
        (self.tree / "usr/bin/program").write_bytes(b"\x7fELF" + bytes(5000))
        (self.tree / "usr/bin/program").chmod(0o4755)
        os.link(self.tree / "usr/bin/program", self.tree / "usr/bin/same")
        (self.tree / "bin").symlink_to("usr/bin")
        (self.tree / "outside").symlink_to(top / "udi.toml")
        os.mknod(self.tree / "dev/sda", 0o60660, os.makedev(8, 0))
        with socket.socket(socket.AF_UNIX) as left:
            left.bind(str(self.tree / "dev/log"))
        self.map = top / "chos.d"
        self.map.mkdir()
        self.map.chmod(0o755)

    def write(self, text: str) -> None:
        (self.map / "site.toml").write_text(text)
        (self.map / "site.toml").chmod(0o644)

    def gateway(self, *words: str) -> subprocess.CompletedProcess[str]:
        start = "from gateway.service.cli import main; main()"
        return run_as(ACCOUNT, [sys.executable, "-c", start, "--config", str(self.service.config), *words])

    def publish(self, *names: str) -> str:
        done = self.gateway("chos", "publish", *names)
        assert done.returncode == 0, done.stderr
        return done.stdout

    def admin(self, *words: str) -> subprocess.CompletedProcess[str]:
        start = "from admin.cli import main; main()"
        argv = [sys.executable, "-c", start, "--config", str(self.service.config), "chos", *words]
        return subprocess.run(argv, capture_output=True, text=True, check=False)


@pytest.fixture(scope="module")
def service() -> Iterator[Service]:
    with directory_for_all("udi-chos-") as directory:
        tables = f'[chos]\nmap = "{directory}/chos.d"\n[[systems]]\nname = "near"\npath = "{directory}/own/near"'
        with Service(directory, "keep_days = 1", tables) as service:
            yield service


@pytest.fixture(scope="module")
def made(service: Service) -> Site:
    return Site(service, service.directory)


@pytest.fixture
def site(made: Site) -> Iterator[Site]:
    yield made
    made.write("")
    made.publish()


def test_a_directory_becomes_an_image_of_whom_the_map_names(site: Site) -> None:
    service = site.service
    site.write(f'[sl6]\npath = "{site.tree}"\nenv = {{CHOS = "sl6", A = "b c"}}\nusers = ["daemon"]\n')
    waits = service.udi(DAEMON, "lookup", "chos:sl6")
    assert waits.returncode == 6
    assert "the site has not published the environment sl6 yet" in waits.stderr
    assert "udi-gateway chos publish sl6" in waits.stderr
    done = site.gateway("chos", "publish")
    assert done.returncode == 0, done.stderr
    assert "2 left out that cannot be read: /etc/shadow, /private" in done.stderr
    image_id = done.stdout.split()[1]
    assert service.udi(DAEMON, "lookup", "chos:sl6").stdout.strip() == image_id
    assert "chos:sl6" in service.names(DAEMON)
    facts = service.ask(DAEMON, "inspect", "chos:sl6")["facts"]
    assert (facts["kind"], facts["env"]) == ("chos", ["CHOS=sl6", "A=b c"])
    refused = service.udi(BIN, "lookup", "chos:sl6")
    assert (refused.returncode, "bin may not use the environment sl6" in refused.stderr) == (4, True)
    assert "chos:sl6" not in service.names(BIN)
    assert service.udi(BIN, "inspect", "chos:sl6").returncode == 4
    file = service.store / f"images/{image_id}.squashfs"
    assert file.stat().st_mode & 0o777 == 0o400
    listing = subprocess.run(["rdsquashfs", "-d", file], check=True, capture_output=True, text=True).stdout
    for kept in ("program 04755 0 0", "etc/marker ", "slink outside ", "dir private 0700"):
        assert kept in listing, listing
    for gone in ("shadow", "dev/sda", "dev/log"):
        assert gone not in listing
    assert site.publish().split()[1] == image_id, "the same files and words are the same image"
    assert service.conversions(image_id) <= 1


def test_the_map_decides_after_publication(site: Site) -> None:
    service = site.service
    text = f'[sl6]\npath = "{site.tree}"\n'
    site.write(text)
    image_id = site.publish().split()[1]
    for user in (DAEMON, BIN):
        assert service.udi(user, "lookup", "chos:sl6").returncode == 0
    submitted = service.python(BIN, "print(client.submit(site, 'chos:sl6', within=20).id)")
    assert submitted.stdout.strip() == image_id
    site.write(text + 'groups = ["daemon"]\n')
    for name in ("chos:sl6", f"id:{image_id}"):
        refused = service.udi(BIN, "lookup", name)
        assert (refused.returncode, "may not use the environment sl6" in refused.stderr) == (4, True), name
    assert service.udi(DAEMON, "lookup", "chos:sl6").returncode == 0
    told = site.admin("check").stderr
    assert "sl6: other users may use it than those it was published for" in told
    site.publish()
    assert service.udi(DAEMON, "lookup", "chos:sl6").stdout.strip() == image_id
    assert (service.store / f"images/{image_id}.squashfs").stat().st_mode & 0o777 == 0o400
    site.write("")
    assert service.udi(DAEMON, "lookup", "chos:sl6").returncode == 3
    assert site.publish() == "withdrawn chos:sl6\n"
    assert not any(name.startswith("chos") for name in os.listdir(service.store / "refs"))


def test_a_pin_on_another_name_is_no_way_round_the_map(site: Site) -> None:
    """A pin is user text: whoever is off the map does not reach the environment by writing its id behind a name."""
    site.write(f'[sl6]\npath = "{site.tree}"\n')
    image_id = site.publish().split()[1]
    subprocess.run(["tar", "-C", site.tree, "-cf", site.top / "o.tar", "etc/marker"], check=True)
    pulled = site.service.udi(ROOT, "pull", "--public", f"rootfs-archive:{site.top}/o.tar", "other:1")
    assert pulled.returncode == 0, pulled.stderr
    config, user = load(str(site.service.config)), account_of_uid(BIN)

    def chosen(name: str) -> Choice:
        pin = Pin(config.registry.parse(name), image_id)
        return choose_image(config, job_request(config, "1", user, name, pin=pin), marks_use=False)

    for name in ("other:1", "no-such:1", f"id:{image_id}"):
        assert chosen(name).facts.id == image_id, "everybody may"
    site.write(f'[sl6]\npath = "{site.tree}"\ngroups = ["daemon"]\n')
    for name in ("other:1", "no-such:1", f"id:{image_id}"):
        with pytest.raises(NotPermitted, match="bin may not use the environment sl6"):
            chosen(name)


def test_it_stays_while_the_map_names_it(site: Site) -> None:
    service = site.service
    site.write(f'[sl6]\npath = "{site.tree}"\n')
    image_id = site.publish().split()[1]
    facts = service.store / f"images/{image_id}.json"
    reference = service.store / "refs/chos:sl6.json"
    old = json.loads(reference.read_text()) | {"created": 1, "used": 1}
    reference.write_text(json.dumps(old))
    os.utime(facts, (1, 1))
    assert json.loads(site.gateway("expire", "--json").stdout)["expired"] == []
    site.write("")
    gone = json.loads(site.gateway("expire", "--json").stdout)["expired"]
    assert [each["references"] for each in gone] == [["chos:sl6"]]
    assert not facts.exists()


def test_further_systems_have_it(site: Site) -> None:
    """Their job hosts read the map for themselves."""
    site.write(f'[sl6]\npath = "{site.tree}"\nenv = {{A = "far"}}\nusers = ["daemon"]\n')
    image_id = site.publish().split()[1]
    near = site.service.own / "near"
    for name in (f"images/{image_id}.squashfs", "refs/chos:sl6.json"):
        assert (near / name).read_bytes() == (site.service.store / name).read_bytes()
    config = load(str(site.service.config))
    there = dataclasses.replace(config, store=dataclasses.replace(config.store, path=str(near)))
    choice = choose_image(there, job_request(there, "1", account_of_uid(DAEMON), "chos:sl6"), marks_use=False)
    assert (choice.facts.id, choice.facts.env) == (image_id, ("A=far",))
    with pytest.raises(NotPermitted):
        job_request(there, "1", account_of_uid(BIN), "chos:sl6")


def test_as_an_unpacked_tree(site: Site) -> None:
    """Where the site has that as its format; users and binds are the map's there, too."""
    site.write(f'[sl6]\npath = "{site.tree}"\nbinds = ["/etc:/mnt:ro"]\nenv = {{A = "tree"}}\n')
    config = site.service.config
    squashfs = config.read_text()
    try:
        config.write_text(squashfs.replace("[gateway]\n", '[gateway]\nformat = "directory"\n'))
        image_id = site.publish().split()[1]
        found = load(str(config))
        choice = choose_image(found, job_request(found, "1", account_of_uid(BIN), "chos:sl6"), marks_use=False)
        assert (choice.facts.format, choice.facts.kind, len(choice.binds)) == ("directory", "chos", 1)
        program = site.service.store / f"images/{image_id}.directory/tree/usr/bin/program"
        assert program.stat().st_mode & 0o7777 == 0o755, "no set-id bit in a tree of the store's account"
    finally:
        config.write_text(squashfs)


def test_files_with_a_file_system(site: Site) -> None:
    subprocess.run(["mksquashfs", site.tree, site.top / "a.squashfs", "-quiet", "-no-progress"], check=True)
    subprocess.run(["truncate", "-s", "12M", site.top / "b.ext4"], check=True)
    subprocess.run(["mke2fs", "-q", "-F", "-t", "ext4", "-d", site.tree, site.top / "b.ext4"], check=True)
    site.write(f'[a]\npath = "{site.top}/a.squashfs"\n[b]\npath = "{site.top}/b.ext4"\n')
    assert [line.split()[0] for line in site.publish().splitlines()] == ["chos:a", "chos:b"]
    assert site.service.ask(BIN, "inspect", "chos:b")["facts"]["kind"] == "chos"


@pytest.mark.parametrize(
    ("path", "code", "said"),
    [
        ("{top}/none", 2, "environment sl6: {top}/none: no such file or directory"),
        ("{top}/udi.toml", 5, "neither a squashfs nor an ext4 file system"),
        ("/dev/null", 5, "is neither a directory nor a file"),
        ("{top}/sl6/private", 4, "permission denied"),
    ],
)
def test_what_cannot_be_published_is_one_line(site: Site, path: str, code: int, said: str) -> None:
    site.write(f'[sl6]\npath = "{path.format(top=site.top)}"\n[z]\npath = "{site.tree}"\n')
    done = site.gateway("chos", "publish")
    assert done.returncode == code, done.stderr
    lines = [line for line in done.stderr.splitlines() if line.startswith("udi-gateway: environment")]
    assert len(lines) == 1 and said.format(top=site.top) in lines[0], done.stderr
    assert done.stdout.startswith("chos:z "), "the others are published all the same"
    assert not (site.service.store / "refs/chos:sl6.json").exists()


def test_nobody_else_publishes_one(site: Site) -> None:
    service = site.service
    site.write(f'[sl6]\npath = "{site.tree}"\n')
    subprocess.run(["tar", "-C", site.tree, "-cf", site.top / "t.tar", "."], check=True, stderr=subprocess.DEVNULL)
    for user in (ROOT, DAEMON):
        done = service.udi(user, "pull", f"rootfs-archive:{site.top}/t.tar", "chos:sl6")
        assert done.returncode == 2, done.stderr
        forged = service.python(
            user,
            "import os\nfrom gateway.wire.messages import PullFiles\nfrom udi.reference import ImageReference\n"
            "request = object.__new__(PullFiles)\nimport dataclasses\n"
            "from gateway.sources.made import NO_WORDS, Words\n"
            "values = dict(kind='rootfs-archive', tag='', files=('',), name=ImageReference.parse(sys.argv[2]),"
            " words=NO_WORDS if sys.argv[2] != 'x:1' else Words(environment='sl6'))\n"
            "for field in dataclasses.fields(PullFiles):\n"
            "    object.__setattr__(request, field.name, values.get(field.name, field.default))\n"
            "try:\n    client.ask(site, request, files=(os.open(sys.argv[3], os.O_RDONLY),))\n"
            "except Exception as error:\n    print(error)\n",
            "chos:sl6" if user else "x:1",
            f"{site.top}/t.tar",
        )
        assert "the site" in forged.stdout, forged.stderr
    assert "its operator runs udi-gateway chos publish" in service.udi(DAEMON, "pull", "chos:sl6").stderr
    site.publish()
    assert "is the site's, so only a publisher may remove it" in service.udi(DAEMON, "rm", "chos:sl6").stderr
    assert service.udi(ROOT, "rm", "chos:sl6").returncode == 0


def test_the_operator_sees_what_is_wrong(site: Site) -> None:
    site.write(
        f'[good]\npath = "{site.tree}"\ndescription = "what it is"\nbinds = ["/etc:/mnt"]\n'
        f'[bad]\npath = "{site.tree}"\nbinds = ["/no/such:/mnt"]\nusers = ["nobody-there"]\ngroups = ["none-there"]\n'
    )
    site.publish()
    listed = site.admin("list").stdout.splitlines()
    assert [line.split("\t")[0] for line in listed] == ["good", "bad"]
    assert listed[0].split("\t")[2:] == ["all", listed[0].split("\t")[3], listed[0].split("\t")[4], "what it is"]
    assert listed[1].split("\t")[2] == "nobody-there,@none-there"
    assert json.loads(site.admin("list", "--json").stdout)["environments"][0]["id"].startswith(listed[0].split("\t")[3])
    checked = site.admin("check")
    assert checked.returncode == 2
    told = checked.stderr.splitlines()
    for said in (
        "bad.binds[0]: /no/such does not exist on this host",
        "bad.users[0]: nobody-there does not exist",
        "bad.groups[0]: none-there does not exist",
    ):
        assert sum(said in line for line in told) == 1, checked.stderr
    assert not any(": good" in line for line in told)
    assert site.admin("check", "good").returncode == 0
    site.write(f'[good]\npath = "{site.tree}"\nenv = {{A = "1"}}\n[late]\npath = "{site.top}/none"\n')
    told = site.admin("check").stderr.splitlines()
    assert any("good.env: is not what was published" in line for line in told)
    assert any(f"late.path: {site.top}/none: no such file or directory" in line for line in told)
    assert any("late is not published" in line for line in told)
    unknown = site.admin("check", "none-such")
    assert (unknown.returncode, "it has: good, late" in unknown.stderr) == (3, True)
    site.tree.chmod(0o777)
    assert "users would trust" in site.admin("check", "good").stderr
    site.tree.chmod(0o755)
    site.write("")
    unknown = site.admin("check", "good")
    assert (unknown.returncode, "it has: none" in unknown.stderr) == (3, True)
    site.write("[good]\n[late\n")
    checked = site.admin("check")
    assert (checked.returncode, checked.stderr.count("not valid TOML")) == (2, 1)
