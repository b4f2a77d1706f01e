"""Stores of the benchmark of figure 3: those that a site names, what reaches an sftp-server, and copies of images."""

from __future__ import annotations

import errno
import os
from pathlib import Path

import click
import pytest

from benchmarks.pynamic import sites
from benchmarks.pynamic.__main__ import main
from benchmarks.pynamic.image import Packing
from benchmarks.pynamic.stores import sftp_requests
from udi.commandline import run
from udiroot.errors import SetupFailed

CONTEXT, OPTION = click.Context(main), next(each for each in main.params if each.name == "given")
LOG = """\
session opened for local user root from [UNKNOWN]
debug2: compose_extension: refusing to advertise disallowed extension copy-data
debug3: request 3: lstat
lstat name "/store/request 9: open"
debug1: request 3: sent attrib have 0xf
debug3: request 5: open flags 1
debug1: request 5: sent handle handle 0
debug1: request 6: read "/store/image" (handle 0) off 0 len 261120
debug3: process_read: allocate 0 => 261120
debug1: request 6: sent data len 100000
debug1: request 7: read "/store/image" (handle 0) off 100000 len 161120
debug3: request 7: sent status 1
debug1: request 8: read "/store/image" (handle 0) off 65536 len 4096
debug1: request 8: sent data len 4096
debug3: request 9: close handle 0
"""
"""Lines of OpenSSH 9.2."""


def test_requests_of_an_sftp_server_are_counted_from_its_log() -> None:
    counts = sftp_requests(LOG)
    assert counts.kinds == {"lstat": 1, "open": 1, "read": 3, "close": 1}
    assert counts.read == 104_096
    assert sftp_requests("").operations == 0


def test_a_site_names_directories_that_exist(tmp_path: Path) -> None:
    (tmp_path / "a=b").mkdir()
    found = sites.named(CONTEXT, OPTION, [f"lustre={tmp_path}", f" site's own ={tmp_path}/a=b"])
    assert found == [("lustre", tmp_path), ("site's own", tmp_path / "a=b")]


@pytest.mark.parametrize("value", ["", "lustre", "=/tmp", "lustre=", "lustre=/not/there", "/tmp"])
def test_what_names_no_directory_is_refused(value: str) -> None:
    with pytest.raises(click.BadParameter):
        sites.named(CONTEXT, OPTION, [value])


def test_a_command_is_split_into_words() -> None:
    assert sites.words(CONTEXT, OPTION, "lctl set_param 'ldlm.*.lru_size=clear'") == [
        "lctl", "set_param", "ldlm.*.lru_size=clear"
    ]  # fmt: skip
    with pytest.raises(click.BadParameter, match="No closing quotation"):
        sites.words(CONTEXT, OPTION, "drop 'all")


@pytest.mark.parametrize(
    ("options", "words"),
    [
        (["--store=one=/", "--store=one=/tmp"], "each --store needs a name of its own"),
        (["--store=tmpfs=/"], "taken are local disk, tmpfs"),
        (["--drop=sync"], "--drop is for the caches of a --store"),
    ],
)
def test_options_that_do_not_go_together_are_refused(
    options: list[str], words: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr("sys.argv", ["benchmarks.pynamic", *options])
    with pytest.raises(SystemExit) as ended:
        run(main, "benchmarks.pynamic")
    assert ended.value.code == 2
    assert words in capsys.readouterr().err


def test_what_another_store_has_is_copied(tmp_path: Path) -> None:
    if os.geteuid() != 0:
        pytest.skip("needs root: gives files to another account")
    made: list[Path] = []

    def make(tree: Path, target: Path) -> None:
        made.append(target)
        target.write_text("packed")

    packing = Packing("squashfs gzip:1 128K", "squashfs", make)
    one, other = tmp_path / "one", tmp_path / "other"
    one.mkdir()
    other.mkdir()
    first = packing.made(tmp_path, one, one)
    second = packing.made(tmp_path, other, one)
    assert made == [first]
    assert second == other / "squashfs-gzip1-128K"
    assert second.read_text() == "packed"
    assert (second.stat().st_uid, second.stat().st_mode & 0o777) == (first.stat().st_uid, 0o444)


def test_a_file_system_that_squashes_root_is_named_and_left_clean(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refused(path: object, uid: int, gid: int) -> None:
        raise PermissionError(errno.EPERM, "Operation not permitted")

    monkeypatch.setattr("os.chown", refused)
    with (
        pytest.raises(SetupFailed, match="takes no images: Operation not permitted"),
        sites.site_store("lustre", tmp_path, ()),
    ):
        pass
    assert list(tmp_path.iterdir()) == []
