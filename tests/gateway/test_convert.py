"""`udi-gateway convert`, and conversions that cannot end well."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Callable, Sequence
from pathlib import Path

import pytest

from gateway.image.formats import ext4, packer
from gateway.image.formats.squashfs import parse_compression
from tests.gateway.archives import BASE, directory, file, hardlink, image_config, layer_tar, make_archive
from tests.gateway.support import convert_source, needs_root
from udiroot.errors import ConfigError, ImageInvalid, TimedOut, UpstreamFailed

LAYERS = [[*BASE, file("data", b"1" * 100_000)]]


@pytest.fixture
def archive(tmp_path: Path) -> str:
    make_archive(tmp_path / "image.tar", LAYERS)
    return f"docker-archive:{tmp_path}/image.tar"


def run(*words: str, uid: int | None = None) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-c", "from gateway.service.cli import main; main()", *words],
        capture_output=True,
        text=True,
        timeout=60,
        user=uid,
        check=False,
    )


def test_convert_makes_a_file_and_prints_the_id_or_the_facts(tmp_path: Path, archive: str) -> None:
    output = tmp_path / "out.squashfs"
    plain = run("convert", archive, str(output), "--compression", "zstd:3")
    assert plain.returncode == 0, plain.stderr
    as_json = run("convert", archive, str(output), "--json")
    facts = json.loads(as_json.stdout)
    assert facts["id"] == plain.stdout.strip()
    assert facts["size"] == output.stat().st_size
    assert as_json.stderr == ""
    assert os.listdir(tmp_path) == ["image.tar", "out.squashfs"] or len(os.listdir(tmp_path)) == 2


@pytest.mark.parametrize(
    ("words", "code", "said"),
    [
        (["convert", "docker://other.test/debian", "OUT"], 4, "registry other.test is not allowed"),
        (["convert", "docker-archive:/none", "OUT"], 3, "/none: no such file or directory"),
        (["convert", "ARCHIVE", "OUT", "--compression", "zip"], 2, "invalid compression 'zip'"),
        (["convert", "ARCHIVE", "OUT", "--compression", "gzip:10"], 2, "invalid compression"),
        (["convert", "ARCHIVE", "OUT", "--format", "cramfs"], 2, "unknown image format 'cramfs'"),
        (["convert", "ARCHIVE", "/none/out"], 6, "no such file or directory"),
        (["convert", "ARCHIVE"], 2, "OUTPUT"),
        (["conver"], 2, "conver"),
    ],
)
def test_errors_are_one_line_and_a_hint(tmp_path: Path, archive: str, words: list[str], code: int, said: str) -> None:
    places = {"ARCHIVE": archive, "OUT": str(tmp_path / "out")}
    done = run(*(places.get(word, word) for word in words))
    assert done.returncode == code, done.stderr
    lines = [line for line in done.stderr.splitlines() if not line.startswith(("reading", "packing"))]
    assert lines[0].startswith("udi-gateway: ")
    assert said in lines[0].lower() or said in lines[0]
    assert len(lines) <= 2
    assert os.listdir(tmp_path) == ["image.tar"]


@needs_root
def test_ext4_without_root_is_one_clear_line(tmp_path: Path) -> None:
    directory = Path("/tmp") / tmp_path.name
    directory.mkdir(mode=0o777)
    try:
        make_archive(directory / "image.tar", LAYERS)
        directory.chmod(0o777)
        done = run("convert", f"docker-archive:{directory}/image.tar", f"{directory}/out", "--format", "ext4", uid=1000)
        assert done.returncode == 4
        assert "making an ext4 image requires root" in done.stderr
        assert not (directory / "out").exists()
    finally:
        (directory / "image.tar").unlink()
        directory.rmdir()


@pytest.mark.parametrize("image_format", ["squashfs", pytest.param("ext4", marks=needs_root)])
def test_a_wrong_diff_id_leaves_nothing(tmp_path: Path, image_format: str) -> None:
    other = image_config([layer_tar([*BASE, file("other")])])
    make_archive(tmp_path / "image.tar", LAYERS, config=other)
    with pytest.raises(ImageInvalid, match="layer 1 does not match the image configuration"):
        convert_source(f"docker-archive:{tmp_path}/image.tar", tmp_path / "out", format=image_format)
    assert not (tmp_path / "out").exists()


def test_an_image_of_another_architecture_or_with_other_layers(tmp_path: Path) -> None:
    make_archive(tmp_path / "arm.tar", LAYERS, config={"architecture": "arm64"})
    with pytest.raises(ImageInvalid, match="image is for arm64, compute nodes are amd64"):
        convert_source(f"docker-archive:{tmp_path}/arm.tar", tmp_path / "out")
    make_archive(tmp_path / "two.tar", [*LAYERS, BASE], config=image_config([layer_tar(LAYERS[0])]))
    with pytest.raises(ImageInvalid, match="2 layers, its configuration names 1"):
        convert_source(f"docker-archive:{tmp_path}/two.tar", tmp_path / "out")


@needs_root
@pytest.mark.parametrize(
    ("image_format", "compression"), [("squashfs", "gzip:1"), ("squashfs", "lz4"), ("ext4", ""), ("directory", "")]
)
def test_a_full_disk(tmp_path: Path, small_disk: Path, image_format: str, compression: str) -> None:
    """One line for whatever writes the image, which names the directory: tar2sqfs itself says `I/O error`."""
    make_archive(tmp_path / "image.tar", [[*BASE, file("noise", os.urandom(8 << 20))]])
    source = f"docker-archive:{tmp_path}/image.tar"
    with pytest.raises(UpstreamFailed) as caught:
        convert_source(source, small_disk / "out", format=image_format, compression=compression or "zstd:3")
    assert caught.value.message == f"image file cannot be written to {small_disk}: no space left on device"
    assert os.listdir(small_disk) == []
    make_archive(tmp_path / "image.tar", LAYERS)
    assert convert_source(f"docker-archive:{tmp_path}/image.tar", small_disk / "out").size


@needs_root
def test_data_that_an_ext4_image_has_no_room_for(tmp_path: Path, small_disk: Path) -> None:
    """What the kernel writes out later is lost without a word of write(2) or umount(2), and e2fsck looks at no data."""
    output = small_disk / "out"
    output.touch()
    os.truncate(output, 8 << 20)
    subprocess.run(["/sbin/mke2fs", "-q", "-F", "-t", "ext4", "-O", "^has_journal", output], check=True, timeout=60)
    words = ["/usr/bin/unshare", "--mount", "--propagation", "private", "--", sys.executable, "-I"]
    done = subprocess.run(
        [*words, "-m", "gateway.image.formats.ext4_fill", output],
        input=layer_tar([file("noise", os.urandom(2 << 20))]),
        capture_output=True,
        timeout=60,
        check=False,
    )
    assert done.returncode == 1
    assert done.stderr in (b"[Errno 28] No space left on device\n", b"[Errno 5] Input/output error\n")


def test_a_packer_that_is_not_there(tmp_path: Path, archive: str) -> None:
    with pytest.raises(UpstreamFailed, match="cannot run"):
        convert_source(archive, tmp_path / "out", tar2sqfs="/none/tar2sqfs", compression="lz4")


_LIAR = """#!/usr/bin/python3
import io, struct, subprocess, sys, tarfile

stream = io.BytesIO()
with tarfile.open(fileobj=sys.stdin.buffer, mode="r|") as given, tarfile.open(fileobj=stream, mode="w") as kept:
    for member in given:
        if not (@FORGETFUL@ and member.islnk()):
            kept.addfile(member, given.extractfile(member) if member.isreg() else None)
subprocess.run(["/usr/bin/tar2sqfs", *sys.argv[1:]], input=stream.getvalue(), check=True)
if not @FORGETFUL@:
    with open(sys.argv[-1], "r+b") as made:
        made.seek(64)  # the superblock says where its inodes are
        made.seek(struct.unpack("<Q", made.read(8))[0] + 4)
        made.write(b"damage")
"""


@pytest.mark.parametrize(
    ("forgetful", "said"), [(True, "tar2sqfs stored 4 of 5 names"), (False, "rdsquashfs exited with 1")]
)
def test_a_packer_that_is_content_with_what_it_should_not_be(tmp_path: Path, forgetful: bool, said: str) -> None:
    """The exit code is 0 and the superblock right: only listing the image tells."""
    liar = tmp_path / "liar"
    liar.write_text(_LIAR.replace("@FORGETFUL@", str(forgetful)))
    liar.chmod(0o755)
    make_archive(tmp_path / "image.tar", [[*BASE, directory("d"), file("d/one"), hardlink("d/two", "d/one")]])
    with pytest.raises(UpstreamFailed, match=said):
        convert_source(f"docker-archive:{tmp_path}/image.tar", tmp_path / "out", tar2sqfs=str(liar), compression="lz4")
    assert not (tmp_path / "out").exists()


def test_a_packer_that_begins_when_its_file_was_removed(tmp_path: Path, archive: str) -> None:
    """As it may on another host, where it lives for a moment longer than the gateway waits: it makes no file anew."""
    late = tmp_path / "late"
    late.write_text(f'#!/bin/sh\nrm {tmp_path}/out\nexec /usr/bin/tar2sqfs "$@"\n')
    late.chmod(0o755)
    with pytest.raises(UpstreamFailed, match="no such file"):
        convert_source(archive, tmp_path / "out", tar2sqfs=str(late), compression="lz4")
    assert not (tmp_path / "out").exists()


@needs_root
def test_an_ext4_image_that_lacks_inodes(tmp_path: Path, archive: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """A filler that is content with half of the stream: e2fsck finds nothing wrong with the result."""
    real = packer.pack

    def half(argv: Sequence[str], feed: packer.Feed, advance: Callable[[int], None], output: str) -> None:
        real(["/bin/cat"], feed, advance, output)

    monkeypatch.setattr(ext4, "pack", half)
    with pytest.raises(UpstreamFailed, match=r"ext4 has \d+ of \d+ inodes"):
        convert_source(archive, tmp_path / "out", format="ext4")
    assert not (tmp_path / "out").exists()


def test_a_packer_that_hangs_is_ended(tmp_path: Path, archive: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(packer, "_STANDSTILL", 0.2)
    with pytest.raises(TimedOut):
        packer.pack(["/bin/sleep", "60"], lambda descriptor, wrote: None, lambda count: None)

    def endless(descriptor: int, wrote: object) -> None:
        while os.write(descriptor, bytes(1 << 16)):
            pass

    with pytest.raises(TimedOut, match="took no input"):
        packer.pack(["/bin/sleep", "60"], endless, lambda count: None)


def test_lines_of_a_program_are_counted_and_its_end_is_told() -> None:
    assert packer.count_lines(["/usr/bin/seq", "300000"], 30) == 300_000
    with pytest.raises(TimedOut, match="did not finish within"):
        packer.count_lines(["/bin/sleep", "60"], 0.2)
    with pytest.raises(UpstreamFailed, match="signal 9"):
        packer.count_lines(["/bin/sh", "-c", "kill -9 $$"], 30)
    with pytest.raises(UpstreamFailed, match="cannot run"):
        packer.count_lines(["/none/rdsquashfs"], 30)


def test_what_a_packer_said_is_printable() -> None:
    with pytest.raises(UpstreamFailed, match=r"exited with 3: b\\x1b\[31m") as caught:
        packer.pack(
            ["/bin/sh", "-c", "printf 'a\\nb\\033[31m\\n'; exit 3"], lambda descriptor, wrote: None, lambda count: None
        )
    assert "\x1b" not in caught.value.message


@pytest.mark.parametrize("text", ["", "gzip:", "gzip:0", "lz4:1", "zstd:99", "gzip -1", "zstd:3;rm"])
def test_compressions_that_squashfs_has_not(text: str) -> None:
    with pytest.raises(ConfigError):
        parse_compression(text)
