"""Inventories: the same from whichever writer made the image, and from the image itself."""

from __future__ import annotations

import dataclasses
import gzip
import json
import os
import sqlite3
import subprocess
from pathlib import Path
from typing import Any

import pytest

from gateway.audit.inventory import InventoryMaker
from gateway.audit.reading import make_inventory
from gateway.image.blob import Blob
from gateway.image.convert import convert
from gateway.sources.kinds import parse_source
from tests.gateway.archives import BASE, Entry, directory, file, hardlink, make_archive, symlink, whiteout
from tests.gateway.support import Silent
from udi.facts import Facts
from udi.gatewayconfig import GatewayConfig
from udi.registries import RegistryConfig
from udiroot.errors import UpstreamFailed

MOST = 8 << 20
STATUS = b"Package: one\nStatus: install ok installed\nVersion: 1\n\n"


def rpmdb(at: Path) -> bytes:
    """A database of one damaged header, larger than what small files share a block up to."""
    connection = sqlite3.connect(at / "db")
    connection.execute("CREATE TABLE Packages (hnum INTEGER PRIMARY KEY, blob BLOB NOT NULL)")
    connection.execute("INSERT INTO Packages (blob) VALUES (?)", (bytes(300_000),))
    connection.commit()
    connection.close()
    return (at / "db").read_bytes()


def layers(at: Path) -> list[list[Entry]]:
    first = [
        *BASE,
        file("etc/os-release", b"ID=old\n"),
        file("var/lib/dpkg/status", b"Package: old\n"),
        file("gone", b"x"),
    ]
    second = [
        file("etc/os-release", b"ID='new'\n# comment\nBAD LINE\n"),
        file("var/lib/dpkg/status", STATUS),
        file("var/lib/rpm/rpmdb.sqlite", rpmdb(at)),
        whiteout("gone"),
    ]
    third = [hardlink("var/lib/dpkg/status-old", "var/lib/dpkg/status"), directory("d", 0o2775), symlink("l", "d")]
    return [first, second, third]


def made(at: Path, how: str, compression: str, most: int = MOST) -> tuple[dict[str, Any], Facts, Path]:
    """The inventory that a conversion writes, the facts of the image, and its file."""
    archive, output, inventory = at / f"{how}.tar", at / f"{how}.squashfs", at / f"{how}.inventory"
    make_archive(archive, layers(at), how=how)
    settings = dataclasses.replace(GatewayConfig(), compression=compression)
    source = parse_source(f"docker-archive:{archive}")
    with source.image(settings, RegistryConfig(), str(at), Silent()) as image:
        onlooker = InventoryMaker(str(inventory), image.id, "amd64", most)
        facts = convert(image, str(output), settings, Silent(), onlooker)
    return json.loads(gzip.decompress(inventory.read_bytes())), facts, output


@pytest.mark.parametrize("how", ["plain", "gzip"])
@pytest.mark.parametrize("compression", ["gzip:1", "lz4"])
def test_the_final_tree_counts(tmp_path: Path, how: str, compression: str) -> None:
    found, facts, output = made(tmp_path, how, compression)
    assert found["distribution"] == {"id": "new"} and found["image"] == facts.id
    assert [(each["name"], each["version"]) for each in found["packages"]] == [("one", "1")]
    assert found["unread"] == ["/var/lib/rpm/rpmdb.sqlite: a header has no name"]
    paths = {path: (kind, mode) for path, kind, mode, _ in found["files"]}
    assert paths["/d"] == ("directory", 0o2775) and paths["/l"][0] == "symlink" and "/gone" not in paths
    assert found["entries"] == len(found["files"]) and found["installed"] == 1
    again = tmp_path / "again"
    settings = dataclasses.replace(GatewayConfig(), state=str(tmp_path))
    make_inventory(str(output), facts, str(again), settings, MOST)
    assert json.loads(gzip.decompress(again.read_bytes())) == found


def test_an_image_that_cannot_be_read(tmp_path: Path) -> None:
    _, facts, output = made(tmp_path, "plain", "gzip:1")
    settings = dataclasses.replace(GatewayConfig(), state=str(tmp_path))
    output.write_bytes(output.read_bytes()[:200])
    with pytest.raises(UpstreamFailed, match="the image cannot be read: the squashfs file system is damaged"):
        make_inventory(str(output), facts, str(tmp_path / "again"), settings, MOST)
    with pytest.raises(UpstreamFailed, match="format directory has no inventory"):
        make_inventory(str(output), dataclasses.replace(facts, format="directory"), "", settings, MOST)


@pytest.mark.parametrize("form", ["squashfs", "ext4"])
def test_a_file_that_is_kept_as_it_is(tmp_path: Path, form: str) -> None:
    """Its data is not packed anew, so it is read for the inventory."""
    tree = tmp_path / "tree"
    (tree / "var/lib/dpkg").mkdir(parents=True)
    (tree / "bin").mkdir()
    (tree / "bin/sh").write_text("x")
    (tree / "var/lib/dpkg/status").write_bytes(STATUS)
    output = tmp_path / f"made.{form}"
    if form == "squashfs":
        argv = ["mksquashfs", str(tree), str(output), "-quiet", "-no-progress"]
    else:
        argv = ["mke2fs", "-q", "-F", "-t", "ext4", "-d", str(tree), str(output), "2M"]
    subprocess.run(argv, check=True, capture_output=True)
    inventory, settings = tmp_path / "inventory", dataclasses.replace(GatewayConfig(), state=str(tmp_path), format=form)
    with parse_source(f"{form}:{output}").image(settings, RegistryConfig(), str(tmp_path), Silent()) as image:
        ready = dataclasses.replace(image, ready=Blob.of_file(os.open(output, os.O_RDONLY)))
        onlooker = InventoryMaker(str(inventory), ready.id, "amd64", MOST)
        convert(ready, str(tmp_path / "image"), settings, Silent(), onlooker)
    found = json.loads(gzip.decompress(inventory.read_bytes()))
    assert [each["name"] for each in found["packages"]] == ["one"] and found["unread"] == []
