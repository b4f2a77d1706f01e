"""The interpreter of a bundle: the node software names its version, and is run by that, whatever the link leads to."""

from __future__ import annotations

import os
import sys
import zipfile
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from admin.install.software import install_software
from udi import interpreters
from udi.config import SiteConfig, parse
from udi.interpreters import compiled_for, for_software
from udi.nodecommand import check_command, setup_here, teardown_here
from udi.software import current
from udi.values import replace

JOB, NONCE, SHA = "1.sdb", "ab" * 16, "0" * 64
OLD, NEW = "python-3.11.2-0123456789ab", "python-3.12.1-ba9876543210"


@pytest.fixture
def site(tmp_path: Path) -> SiteConfig:
    """A host with two interpreters of bundles, and the link to the first."""
    for name in (OLD, NEW):
        (tmp_path / name / "bin").mkdir(parents=True)
        (tmp_path / name / "bin/python3").symlink_to(sys.executable)
    (tmp_path / "python").symlink_to(OLD)
    python = f"/dsl{tmp_path}/python"
    return parse(
        f'[store]\npath = "/lus/udi"\n[install]\npython = "{tmp_path}/python/bin/python3"\n'
        f'zip = "{tmp_path}/node/udi.zip"\n'
        f'[node]\nzip = "/dsl{tmp_path}/node/udi.zip"\n'
        f'python = ["{python}/lib/ld.so", "--library-path", "{python}/lib", "{python}/bin/python3"]\n',
        "udi.toml",
    )


def run_by(monkeypatch: pytest.MonkeyPatch, site: SiteConfig, name: str) -> None:
    """This process is of the bundle that has the interpreter called `name`."""
    monkeypatch.setattr(sys, "base_prefix", f"{os.path.dirname(interpreters.link_of(site))}/{name}")


def installed(site: SiteConfig) -> list[str]:
    return install_software(site, site.install.zip, {})


def pythons(site: SiteConfig) -> set[str]:
    """By which interpreters nodes are told to run the software of now."""
    lines = (teardown_here(site, JOB), setup_here(site, "/lus/udi/plans/x", SHA, NONCE))
    words = {word for line in lines for word in line[: line.index("-I")] if word.startswith("/")}
    return {
        word.removeprefix(f"/dsl{os.path.dirname(interpreters.link_of(site))}/").partition("/")[0] for word in words
    }


def test_software_and_its_interpreter_change_with_one_link(site: SiteConfig, monkeypatch: pytest.MonkeyPatch) -> None:
    link = interpreters.link_of(site)
    run_by(monkeypatch, site, OLD)
    first = installed(site)
    assert site.install.zip in first and link not in first and pythons(site) == {OLD}
    kept = teardown_here(site, JOB)

    run_by(monkeypatch, site, NEW)
    assert pythons(site) == {OLD}, "another bundle's programs are there, and nothing more"
    os.unlink(link)
    os.symlink(NEW, link)
    assert pythons(site) == {OLD}, "what nodes run is compiled for the other one"
    os.unlink(link)
    os.symlink(OLD, link)
    assert link in installed(site) and os.readlink(link) == NEW and pythons(site) == {NEW}
    assert OLD in kept[0] and NEW not in kept[0]
    assert installed(site) == []

    run_by(monkeypatch, site, OLD)
    assert site.install.zip in installed(site) and pythons(site) == {OLD} and teardown_here(site, JOB) == kept


def test_programs_of_no_bundle_leave_the_link_alone(site: SiteConfig) -> None:
    """As those of a bundle from before each had an interpreter of its own: there the link is what is run."""
    assert interpreters.link_of(site) not in installed(site)
    assert compiled_for(f"{os.path.dirname(site.install.zip)}/{os.readlink(site.install.zip)}") == ""
    assert pythons(site) == {"python"}


def test_an_interpreter_that_was_removed_is_not_named(site: SiteConfig, monkeypatch: pytest.MonkeyPatch) -> None:
    run_by(monkeypatch, site, OLD)
    installed(site)
    os.rename(f"{os.path.dirname(interpreters.link_of(site))}/{OLD}", f"{interpreters.link_of(site)}-away")
    assert pythons(site) == {"python"}


def test_nodes_with_a_copy_run_what_they_have(site: SiteConfig, monkeypatch: pytest.MonkeyPatch) -> None:
    run_by(monkeypatch, site, OLD)
    installed(site)
    copied = replace(site, node=replace(site.node, zip="/usr/lib/udi.zip"))
    assert current(copied) == "/usr/lib/udi.zip" and pythons(copied) == {"python"}


def test_what_stays_in_a_file_goes_by_the_links(site: SiteConfig, monkeypatch: pytest.MonkeyPatch) -> None:
    run_by(monkeypatch, site, OLD)
    installed(site)
    assert "/python/bin/python3 -I" in check_command(site, "") and OLD not in check_command(site, "")


@given(st.binary(max_size=300))
def test_any_file_may_be_in_the_place_of_the_software(tmp_path_factory: pytest.TempPathFactory, data: bytes) -> None:
    path = tmp_path_factory.getbasetemp() / "any.zip"
    for content in (data, b"PK\3\4" + data):
        path.write_bytes(content)
        assert compiled_for(str(path)) == ""


@pytest.mark.parametrize("name", ["../python", "a/b", "", "-x", "a b", "x" * 200])
def test_a_name_that_is_none(tmp_path: Path, name: str) -> None:
    with zipfile.ZipFile(tmp_path / "udi.zip", "w") as archive:
        archive.writestr(zipfile.ZipInfo(interpreters.ENTRY), name)
    assert compiled_for(str(tmp_path / "udi.zip")) == ""


def test_software_that_is_not_there(site: SiteConfig) -> None:
    assert for_software(site, "/nowhere/udi.zip") == site.node.python
