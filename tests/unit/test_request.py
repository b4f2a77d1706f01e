"""User text at the edge: image references, volumes, job ids."""

from __future__ import annotations

from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from udi.accounts import Account
from udi.config import SiteConfig, parse
from udi.jobid import job_id
from udi.reference import ImageReference
from udi.registries import HUB, RegistryConfig
from udi.request import Pin, Volume, job_request, parse_volumes, require_sources
from udiroot.errors import NotPermitted, UdiError, UsageError

ALICE = Account("alice", 1001, 1001, (1001,), "/home/alice", "/bin/bash")
SITE: SiteConfig = parse('[store]\npath = "/s"\n[volumes]\nallowed = ["/scratch", "/home"]', "udi.toml")
DIGEST = "sha256:" + "ab" * 32


@pytest.mark.parametrize(
    ("text", "full"),
    [
        ("debian", "debian:latest"),
        ("docker:24", "docker:24"),
        ("team/app:v1.0_x", "team/app:v1.0_x"),
        ("localhost/app", "localhost/app:latest"),
        ("registry.example.org:5000/team/app:v1", "registry.example.org:5000/team/app:v1"),
        (f"app@{DIGEST}", f"app@{DIGEST}"),
        (f"app:1@{DIGEST}", f"app:1@{DIGEST}"),
        ("id:" + "0f" * 32, "id:" + "0f" * 32),
    ],
)
def test_references(text: str, full: str) -> None:
    reference = ImageReference.parse(text)
    assert str(reference) == full
    assert ImageReference.parse(full) == reference


CENTRE = "registry.centre:5000"


@pytest.mark.parametrize(
    ("default", "text", "one"),
    [
        (HUB, "docker.io/library/debian", "debian:latest"),
        (HUB, "index.docker.io/team/app:1", "team/app:1"),
        (HUB, "library/debian@" + DIGEST, "debian@" + DIGEST),
        (HUB, f"{CENTRE}/library/debian:1", f"{CENTRE}/library/debian:1"),
        (HUB, "library/debian/x:1", "library/debian/x:1"),
        (CENTRE, f"{CENTRE}/debian:12", "debian:12"),
        (CENTRE, "library/debian:12", "library/debian:12"),
        (CENTRE, "index.docker.io/library/debian:12", "docker.io/debian:12"),
        (CENTRE, "id:" + "0f" * 32, "id:" + "0f" * 32),
    ],
)
def test_an_image_has_one_spelling_at_a_site(default: str, text: str, one: str) -> None:
    registries = RegistryConfig(default=default)
    canonical = registries.canonical(ImageReference.parse(text))
    assert str(canonical) == one
    assert registries.canonical(canonical) == canonical


@pytest.mark.parametrize(
    "text",
    ["", " ", "Debian", "a:b:c", "$(reboot)", "a:`id`", 'a"b', "a'b", "a\nb", "a:1\n", "(complete)", "a b", "../x",
     "/x", "x/", "a//b", "a:" + "t" * 129, "a@sha256:12", "x" * 500, "a:1 -v /x:/y", "é", "a\0"],
)  # fmt: skip
def test_what_is_no_reference_is_named_in_one_line(text: str) -> None:
    with pytest.raises(UsageError) as caught:
        ImageReference.parse(text)
    assert "\n" not in caught.value.message
    assert caught.value.message.isascii()


@given(st.text())
def test_any_text_is_a_reference_or_refused(text: str) -> None:
    try:
        reference = ImageReference.parse(text)
    except UdiError:
        return
    assert ImageReference.parse(str(reference)) == reference


def test_volumes() -> None:
    assert parse_volumes("") == ()
    assert parse_volumes("/scratch/a:/out; /home/b/:/in:ro;") == (
        Volume("/scratch/a", "/out"),
        Volume("/home/b", "/in", read_only=True),
    )


@pytest.mark.parametrize(
    "text", ["/a", "/a:/b:rx", "a:/b", "/a:b", "/a/../b:/c", "/a//b:/c", "/a:/b:/c:/d", ":", "/a:", "/a\n:/b"]
)
def test_bad_volumes(text: str) -> None:
    with pytest.raises(UsageError):
        parse_volumes(text)


@given(st.text())
def test_any_text_is_volumes_or_refused(text: str) -> None:
    try:
        volumes = parse_volumes(text)
    except UsageError:
        return
    assert parse_volumes(";".join(map(str, volumes))) == volumes


@pytest.mark.parametrize(
    ("volumes", "ok"),
    [
        ("/scratch/x:/out", True),
        ("/scratch2/x:/out", False),
        ("/scratch:/out", True),
        ("/etc:/out", False),
        ("/scratch/x:/etc", False),
        ("/scratch/x:/etc/app", False),
        ("/scratch/x:/usr", False),
        ("/scratch/x:/usr/share/app", True),
        ("/scratch/x:/var", False),
        ("/scratch/x:/var/lib/app", True),
        ("/scratch/x:/opt/udi/x", False),
        ("/scratch/x:/opt/app", True),
        ("/scratch/x:/proc/x", False),
    ],
)
def test_what_the_site_and_the_root_allow(volumes: str, ok: bool) -> None:
    if ok:
        assert job_request(SITE, "1.sdb", ALICE, "debian", volumes).volumes == parse_volumes(volumes)
    else:
        with pytest.raises(NotPermitted):
            job_request(SITE, "1.sdb", ALICE, "debian", volumes)


@pytest.mark.parametrize(
    ("size", "number"),
    [("16M", 16 << 20), ("10G", 10 << 30), ("1T", 1 << 40), ("20000K", 20000 << 10), ("33554432", 32 << 20)],
)
def test_per_node_caches(size: str, number: int) -> None:
    (volume,) = job_request(SITE, "1.sdb", ALICE, "debian", f"/scratch/a:/cache:per-node={size}").volumes
    assert volume == Volume("/scratch/a", "/cache", per_node=number)
    assert Volume.parse(str(volume)) == volume


@pytest.mark.parametrize(
    "size", ["", "0", "1", "15M", "10g", "1.5G", "-1G", "1GB", "1025T", "9" * 40, "\u0661G", " 1G"]
)
def test_sizes_that_a_cache_cannot_have(size: str) -> None:
    with pytest.raises(UsageError, match=r"is not a size|not a volume"):
        parse_volumes(f"/scratch/a:/cache:per-node={size}")


def test_the_site_limits_caches() -> None:
    with pytest.raises(NotPermitted, match="the site allows 1099511627776 bytes per node"):
        job_request(SITE, "1.sdb", ALICE, "debian", "/scratch/a:/cache:per-node=2T")


MOUNTING: SiteConfig = parse(
    """
[store]
path = "/s"
[volumes]
allowed = ["/scratch"]
[[node.filesystems]]
source = "/global/projects"
target = "/projects"
[[node.filesystems]]
source = "/home/shared/data"
[[node.steps]]
kind = "link"
target = "/site"
source = "/projects/site"
""",
    "udi.toml",
)


@pytest.mark.parametrize(
    ("volumes", "error", "words"),
    [
        (
            "/scratch/a:/out;/scratch/b:/out",
            UsageError,
            "volumes /scratch/a:/out and /scratch/b:/out have the same target",
        ),
        ("/scratch/a:/out:ro; /scratch/a:/out/", UsageError, "have the same target"),
        ("/scratch/a:/out;/scratch/b:/out:per-node=1G", UsageError, "have the same target"),
        ("/scratch/a:/projects", NotPermitted, "it would hide site file system /global/projects"),
        ("/scratch/a:/home", NotPermitted, "it would hide site file system /home/shared/data"),
        ("/scratch/a:/home/shared/data", NotPermitted, "it would hide site file system /home/shared/data"),
        ("/scratch/a:/site", NotPermitted, "it would hide site link /site"),
    ],
)
def test_two_mounts_in_one_place_are_refused_naming_both(volumes: str, error: type[UdiError], words: str) -> None:
    with pytest.raises(error, match=words):
        job_request(MOUNTING, "1.sdb", ALICE, "debian", volumes)


@pytest.mark.parametrize(
    "volumes", ["/scratch/a:/projects/mine", "/scratch/a:/out;/scratch/b:/out/in", "/scratch/a:/home2"]
)
def test_one_in_another_is_not(volumes: str) -> None:
    assert job_request(MOUNTING, "1.sdb", ALICE, "debian", volumes).volumes


def test_sources_that_this_host_can_see(tmp_path: Path) -> None:
    allowed = tmp_path / "scratch"
    (allowed / "me").mkdir(parents=True)
    (allowed / "me/file").write_text("")
    site = parse(f'[store]\npath = "/s"\n[volumes]\nallowed = ["{allowed}", "/not/here"]', "udi.toml").volumes

    def check(text: str) -> None:
        require_sources(parse_volumes(text), site)

    check(f"{allowed}/me:/a;{allowed}/me/file:/b;/not/here/x:/c;{allowed}/me:/d:per-node=1G")
    with pytest.raises(UsageError, match="scratch/none does not exist"):
        check(f"{allowed}/me:/a;{allowed}/none:/b")
    with pytest.raises(UsageError, match="not a directory"):
        check(f"{allowed}/me/file/x:/b")
    with pytest.raises(UsageError, match="is not a directory"):
        check(f"{allowed}/me/file:/b:per-node=1G")


def test_a_mount_point_without_its_file_system_shows_nothing(tmp_path: Path) -> None:
    site = parse(f'[store]\npath = "/s"\n[volumes]\nallowed = ["{tmp_path}"]', "udi.toml").volumes
    require_sources(parse_volumes(f"{tmp_path}/me:/a"), site)


def test_too_many_volumes() -> None:
    many = ";".join(f"/scratch/{n}:/v{n}" for n in range(33))
    with pytest.raises(NotPermitted, match="33 volumes"):
        job_request(SITE, "1.sdb", ALICE, "debian", many)


@pytest.mark.parametrize("text", ["123.sdb", "1", "12[3].sdb", "64[].vm", "12_3", "12.batch"])
def test_job_ids(text: str) -> None:
    assert job_id(text) == text


@pytest.mark.parametrize("text", ["", ".", "..", "-x", "1;2", "../1", "1.sdb/..", "1 2", "1.$(x)", "1\n", "1" * 121])
def test_no_job_ids(text: str) -> None:
    with pytest.raises(UsageError):
        job_id(text)


PIN = Pin(ImageReference.parse("team/app:1"), "ab" * 32)


def test_a_pin_for_another_reference_does_not_count() -> None:
    assert job_request(SITE, "1.sdb", ALICE, "team/app:2", pin=PIN).pin is None
    assert job_request(SITE, "1.sdb", ALICE, "docker.io/team/app:1", pin=PIN).pin == PIN
