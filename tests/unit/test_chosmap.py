"""The site's map of environments: read as strictly as the configuration, and the truth about who may use what."""

from __future__ import annotations

import dataclasses
import os
from pathlib import Path

import pytest

from udi.accounts import Account
from udi.chosmap import environment_of, map_and_errors, permitted, read_map
from udi.config import SiteConfig, parse
from udi.facts import Facts
from udi.reference import ImageReference, as_taught
from udi.request import job_request
from udiroot.errors import ConfigError, NotFound, NotPermitted, UsageError

pytestmark = pytest.mark.skipif(os.geteuid() != 0, reason="the map must be root's")
ALICE = Account("alice", 1001, 1001, (1001, 0), "/home/alice", "/bin/sh")
BOB = Account("bob", 1002, 1002, (1002,), "/home/bob", "/bin/sh")
_GOOD = '[sl6]\npath = "/global/chos/sl6"\n'


def _site(tmp_path: Path, text: str = "", more: str = "", **files: str) -> SiteConfig:
    directory = tmp_path / "chos.d"
    directory.mkdir(exist_ok=True)
    directory.chmod(0o755)
    for name, content in ({"site": text} | files).items():
        (directory / f"{name}.toml").write_text(content)
        (directory / f"{name}.toml").chmod(0o644)
    return parse(f'store.path = "/s"\nchos.map = "{directory}"\n{more}', "udi.toml")


def test_what_the_site_says(tmp_path: Path) -> None:
    site = _site(
        tmp_path,
        '[sl6]\npath = "/global/chos/sl6"\nbinds = ["/global/common:/usr/common:ro", "/project"]\n'
        'env = {CHOS = "sl6"}\nusers = ["alice"]\ngroups = ["root"]\ndescription = "Scientific Linux 6"\n',
        other='[debian-12]\npath = "/images/debian.squashfs"\n',
    )
    found = read_map(site)
    assert list(found.environments) == ["debian-12", "sl6"]
    assert found.files["debian-12"].endswith("/chos.d/other.toml")
    sl6 = found.environments["sl6"]
    assert [(bind.source, bind.target, bind.read_only) for bind in sl6.mounts] == [
        ("/global/common", "/usr/common", True),
        ("/project", "/project", False),
    ]
    assert sl6.words == ("CHOS=sl6",)


def test_no_directory_is_an_empty_map(tmp_path: Path) -> None:
    site = parse(f'store.path = "/s"\nchos.map = "{tmp_path}/none"', "udi.toml")
    assert read_map(site).environments == {}
    with pytest.raises(NotFound, match="no environment sl6"):
        permitted(site, "sl6", ALICE)


@pytest.mark.parametrize(
    ("text", "said", "hint"),
    [
        ("[sl6]\n", "sl6.path is missing", ""),
        ("[sl6]\npath = 5\n", "sl6.path must be a string", ""),
        ('[sl6]\npath = "global"\n', "sl6.path must be a plain absolute path", ""),
        (_GOOD + 'bind = ["/a"]\n', "unknown key sl6.bind", "did you mean sl6.binds?"),
        (_GOOD + 'binds = "/a"\n', "sl6.binds must be a list", ""),
        (_GOOD + 'binds = ["a:/b"]\n', "sl6.binds must be /SOURCE", ""),
        (_GOOD + 'binds = ["/a:/b:rx"]\n', "sl6.binds must be /SOURCE", ""),
        (_GOOD + 'binds = ["/a/../b"]\n', "sl6.binds must be /SOURCE", ""),
        (_GOOD + 'binds = ["/a:/proc"]\n', "sl6.binds must not be mounted on /proc", ""),
        (_GOOD + 'binds = ["/a:/opt/udi/x"]\n', "sl6.binds must not be mounted on /opt/udi/x", ""),
        (_GOOD + 'binds = ["/a:/c", "/b:/c"]\n', "sl6.binds[1]: two have the target /c", ""),
        (_GOOD + 'binds = ["/var:/c"]\n', "sl6.binds[0]: source /var is shifter-xc's own, or contains /var/udi", ""),
        (_GOOD + 'binds = ["/var/udi/x:/c"]\n', "sl6.binds[0]: source /var/udi/x is shifter-xc's own", ""),
        (_GOOD + 'binds = ["/a:/old/b"]\n', "sl6.binds[0]: target /old/b lies on or below the site link /old", ""),
        (_GOOD + 'binds = ["/a:/scratch"]\n', "target /scratch would hide site file system /lus", ""),
        (_GOOD + 'binds = ["/a:/mpi"]\n', "target /mpi would hide /mpi/lib of module mpich", ""),
        (_GOOD + 'env = {HOME = "/x"}\n', "sl6.env must not have HOME", ""),
        (_GOOD + "env = {A = 1}\n", "sl6.env.A must be a string", ""),
        (_GOOD + 'users = ["a b"]\n', "sl6.users must be the name of an account", ""),
        (_GOOD + 'groups = [""]\n', "sl6.groups must be the name of a group", ""),
        (_GOOD + "description = 1\n", "sl6.description must be a string", ""),
        ('[SL6]\npath = "/a"\n', "'SL6' cannot be an environment's name", ""),
        ('["a b"]\npath = "/a"\n', "'a b' cannot be an environment's name", ""),
        ('path = "/a"\n', "path must be a table", "write [NAME], then path = ..."),
        ("[sl6\n", "not valid TOML", ""),
    ],
)
def test_a_bad_map_is_one_line(tmp_path: Path, text: str, said: str, hint: str) -> None:
    more = (
        'node.filesystems = [{source = "/lus", target = "/scratch"}]\n'
        'node.steps = [{kind = "link", target = "/old", source = "/new"}]\n'
        'modules.mpich.mounts = ["/global/mpich:/mpi/lib:ro"]\n'
    )
    site = _site(tmp_path, text, more, other='[good]\npath = "/a"\n')
    found, errors = map_and_errors(site)
    assert list(found.environments) == ["good"]
    assert len(errors) == 1
    assert said in errors[0].message and "\n" not in errors[0].message
    assert errors[0].message.startswith(f"{site.chos.map}/site.toml: ")
    assert hint in errors[0].hint
    with pytest.raises(ConfigError):
        permitted(site, "good", ALICE)


def test_who_could_write_it_is_looked_at(tmp_path: Path) -> None:
    site = _site(tmp_path, _GOOD)
    directory, file = Path(site.chos.map), Path(site.chos.map) / "site.toml"
    for path, change, said in (
        (directory, lambda: directory.chmod(0o775), "only root may be able to write the map"),
        (directory, lambda: os.chown(directory, 1001, 0), "owned by uid 1001"),
        (file, lambda: file.chmod(0o666), "mode 0666 lets others write it"),
        (file, lambda: os.chown(file, 1001, 0), "owned by uid 1001"),
    ):
        mode, owner = path.stat().st_mode, path.stat().st_uid
        change()  # type: ignore[no-untyped-call]
        with pytest.raises(ConfigError, match=said):
            read_map(site)
        path.chmod(mode & 0o7777)
        os.chown(path, owner, 0)
    read_map(site)
    file.unlink()
    os.mkfifo(file)
    with pytest.raises(ConfigError, match="not a regular file"):
        read_map(site)


def test_a_name_is_there_once(tmp_path: Path) -> None:
    _, errors = map_and_errors(_site(tmp_path, _GOOD, again=_GOOD))
    assert [error.message.partition(": ")[2] for error in errors] == [
        f"environment sl6 is in {tmp_path}/chos.d/again.toml too"
    ]


def test_who_may(tmp_path: Path) -> None:
    site = _site(
        tmp_path,
        '[all]\npath = "/a"\n[people]\npath = "/a"\nusers = ["alice"]\n[staff]\npath = "/a"\ngroups = ["root"]\n'
        '[gone]\npath = "/a"\ngroups = ["no-such-group"]\n',
    )
    for name in ("all", "people", "staff"):
        permitted(site, name, ALICE)
    permitted(site, "all", BOB)
    for name in ("people", "staff", "gone"):
        with pytest.raises(NotPermitted, match=f"bob may not use the environment {name}"):
            permitted(site, name, BOB)
    with pytest.raises(NotFound, match="no environment peopel") as caught:
        permitted(site, "peopel", ALICE)
    assert caught.value.hint == "did you mean chos:people?"


def test_a_request_is_judged_by_the_map(tmp_path: Path) -> None:
    more = 'volumes.allowed = ["/scratch"]'
    site = _site(tmp_path, _GOOD + 'binds = ["/a:/mnt/common/a"]\nusers = ["alice"]\n', more)
    assert str(job_request(site, "1", ALICE, "chos:sl6", "/scratch/x:/mnt/y").reference) == "chos:sl6"
    with pytest.raises(NotPermitted, match="it would hide /a of the environment"):
        job_request(site, "1", ALICE, "chos:sl6", "/scratch/x:/mnt/common")
    with pytest.raises(NotPermitted, match="bob may not use"):
        job_request(site, "1", BOB, "chos:sl6")
    with pytest.raises(NotFound):
        job_request(site, "1", ALICE, "chos:none")


def test_how_it_is_called() -> None:
    assert str(ImageReference.parse("chos:sl6")) == "chos:sl6"
    assert ImageReference.parse("chos:sl6").scheme == "chos"
    dockers = ImageReference.parse("docker:chos:sl6")
    assert (dockers.scheme, dockers.name, dockers.tag) == ("", "chos", "sl6")
    assert ImageReference.parse(str(dockers)) == dockers
    assert as_taught("docker:chos:sl6") == "docker:chos:sl6"
    for text in ("chos:", "chos:SL6", "chos:sl6:7", "chos:a/b", "chos:-a"):
        with pytest.raises(UsageError):
            ImageReference.parse(text)


def test_an_image_that_is_named_by_its_id_is_its_environment_all_the_same() -> None:
    facts = Facts(id="1" * 64, format="squashfs", size=1, sha256="2" * 64, labels={"org.shifter-xc.chos": "sl6"})
    by_id = ImageReference(id=facts.id)
    assert environment_of(by_id, dataclasses.replace(facts, kind="chos")) == "sl6"
    assert environment_of(by_id, facts) == "", "a label that a user wrote is none of the site's"
    assert environment_of(ImageReference.parse("debian"), dataclasses.replace(facts, kind="chos")) == ""
