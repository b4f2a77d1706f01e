"""Files that lie: real disks and file systems, changed anywhere, and made by hand to be larger than they are."""

from __future__ import annotations

import os
import struct
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from tests.gateway.service import ANNA, Service, directory_for_all
from tests.gateway.support import convert_source, needs_root
from udiroot.errors import ImageInvalid

pytestmark = needs_root
_QEMU = "/usr/bin/qemu-img"
_KINDS = {"vm-raw": "disk", "vm-qcow2": "qcow2", "vm-vmdk": "vmdk", "vm-vdi": "vdi", "ext4": "disk", "squashfs": "sqfs",
          "rootfs-archive": "tar.gz"}  # fmt: skip
_SMALL: dict[str, object] = {"max_image_bytes": 64 << 20, "max_disk_bytes": 64 << 20, "max_entries": 2000}


class _Files(dict[str, bytes]):
    """Files by their form; what fails must not print them."""

    def __repr__(self) -> str:
        return "the files"


def run(*words: object) -> None:
    subprocess.run([str(word) for word in words], check=True, capture_output=True, timeout=60)


@pytest.fixture(scope="module")
def files(tmp_path_factory: pytest.TempPathFactory) -> dict[str, bytes]:
    """A small tree in each form."""
    top = tmp_path_factory.mktemp("damage")
    tree = top / "tree"
    for name in ("etc/deep/er", "usr/bin"):
        (tree / name).mkdir(parents=True)
    for number in range(20):
        (tree / f"etc/{number}").write_bytes(os.urandom(3000) + bytes(3000))
    (tree / "etc/link").symlink_to("x" * 200)
    os.link(tree / "etc/1", tree / "usr/bin/one")
    os.setxattr(tree / "etc/1", "user.note", b"v" * 300)
    run("truncate", "-s", "1M", top / "disk")
    run("mke2fs", "-q", "-F", "-t", "ext4", "-b", "1024", "-d", tree, top / "disk")
    run("mksquashfs", tree, top / "sqfs", "-quiet", "-no-progress")
    run("tar", "-C", tree, "-czf", top / "tar.gz", ".")
    for form in ("qcow2", "vmdk", "vdi"):
        more = ["-c"] if form == "qcow2" else []
        run(_QEMU, "convert", "-q", *more, "-f", "raw", "-O", form, top / "disk", top / form)
    return _Files({form: (top / form).read_bytes() for form in set(_KINDS.values())})


def refused_or_taken(kind: str, data: bytes, directory: Path, **limits: object) -> str:
    """What is said of such a file; nothing when it is taken. In neither case anything else is left."""
    work = directory / "work"
    work.mkdir(exist_ok=True)
    (directory / "file").write_bytes(data)
    said = ""
    try:
        convert_source(f"{kind}:{directory}/file", work / "out", **{**_SMALL, **limits})
        (work / "out").unlink()
    except ImageInvalid as error:
        said = error.message
        assert said
        assert "\n" not in said
    assert os.listdir(work) == []
    return said


@settings(max_examples=25, suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow])
@given(data=st.data())
@pytest.mark.parametrize("kind", sorted(_KINDS))
def test_damage_anywhere_is_one_line(files: dict[str, bytes], tmp_path: Path, kind: str, data: st.DataObject) -> None:
    """Changed bytes, mostly where a format keeps what it says of itself, and ends that are missing."""
    whole = bytearray(files[_KINDS[kind]])
    heads = [0, 65536, 131072, 196608, 262144, len(whole) - 2000]
    for _ in range(data.draw(st.integers(1, 5))):
        at = data.draw(st.sampled_from(heads)) + data.draw(st.integers(0, 2000))
        new = data.draw(st.binary(min_size=1, max_size=8) | st.just(b"\xff" * 8) | st.just(bytes(8)))
        whole[at : at + len(new)] = new
    cut = data.draw(st.just(len(whole)) | st.integers(0, len(whole)))
    refused_or_taken(kind, bytes(whole[:cut]), tmp_path)


def _qcow2_of_one_cluster(size: int) -> bytes:
    """A disk of `size` bytes, each cluster of which is the same one of the file: its tables name it again and again."""
    cluster = 1 << 16
    tables = -(-size // (cluster * cluster // 8))
    before = (b"QFI\xfb", 3, 0, 0, 16, size, 0, tables, cluster, 2 * cluster)
    header = struct.pack(">4sIQIIQIIQQIIQQQQII", *before, 1, 0, 0, 0, 0, 0, 4, 104)
    first = struct.pack(">Q", 4 * cluster | 1 << 63) * tables
    second = struct.pack(">Q", 5 * cluster | 1 << 63) * (cluster // 8)
    counts = struct.pack(">Q", 3 * cluster)
    blocks = (header, first, counts, b"\0\1" * 6, second, b"x" * cluster)
    return b"".join(block.ljust(cluster, b"\0") for block in blocks)


def test_a_small_disk_of_very_many_bytes(tmp_path: Path) -> None:
    """393 216 bytes that name 4 GiB: qemu-img is ended long before it has written them."""
    said = refused_or_taken(
        "vm-qcow2",
        _qcow2_of_one_cluster(4 << 30),
        tmp_path,
        max_disk_bytes=8 << 30,
        ratio_from_bytes=64 << 20,
        max_ratio=1,
    )
    assert said == f"the disk has more than {64 << 20} bytes that are in use"
    assert "no root file system" in refused_or_taken("vm-qcow2", _qcow2_of_one_cluster(32 << 20), tmp_path)


@pytest.mark.parametrize("kind", ["ext4", "squashfs"])
def test_a_small_file_system_with_a_very_large_file(tmp_path: Path, kind: str) -> None:
    (tmp_path / "tree/etc").mkdir(parents=True)
    with open(tmp_path / "tree/etc/zeros", "wb") as stream:
        stream.truncate(48 << 20)
    run("truncate", "-s", "1M", tmp_path / "made")
    if kind == "ext4":
        run("mke2fs", "-q", "-F", "-t", "ext4", "-d", tmp_path / "tree", tmp_path / "made")
    else:
        run("mksquashfs", tmp_path / "tree", tmp_path / "made", "-quiet", "-no-progress", "-noappend")
    data = (tmp_path / "made").read_bytes()
    assert refused_or_taken(kind, data, tmp_path) == ""
    said = refused_or_taken(kind, data, tmp_path, ratio_from_bytes=1 << 20, max_ratio=10)
    assert said.startswith("the files have more than ")
    assert refused_or_taken(kind, data, tmp_path, max_image_bytes=1 << 20) == "the files have more than 1048576 bytes"


@pytest.mark.parametrize(
    ("command", "said"),
    [
        ("link /etc /etc/deep/again", "has two places"),  # a directory in itself
        ("link / /etc/root", "has two places"),
        ("set_inode_field /etc/1 size 0x7fffffffffff", "the files have more than"),
        ("set_inode_field /etc/1 links_count 0", ""),
        ("set_inode_field /etc/link size 5000", "symbolic link"),
        ("set_inode_field /etc size 0x7fffffff", "more blocks than there are"),
        ("set_inode_field / mode 0100644", "its root is not a directory"),
        ("set_inode_field /etc/1 block[5] 0x7ffffff", "damaged: blocks 134217727"),
        ("set_super_value blocks_count 0xffffffff", "cut off"),
        ("set_super_value inodes_count 0xffffffff", ""),
        ("set_super_value inodes_per_group 1", "file system"),
        ("set_super_value blocks_per_group 0", "superblock"),
        ("set_super_value inode_size 0", "superblock"),
        ("set_super_value log_block_size 60", "superblock"),
    ],
)
def test_file_systems_that_lie(files: dict[str, bytes], tmp_path: Path, command: str, said: str) -> None:
    """Each says a thing of itself that is not so, written by debugfs."""
    (tmp_path / "lie").write_bytes(files["disk"])
    run("debugfs", "-w", "-R", command, tmp_path / "lie")
    assert (tmp_path / "lie").read_bytes() != files["disk"]
    for kind in ("ext4", "vm-raw"):
        found = refused_or_taken(kind, (tmp_path / "lie").read_bytes(), tmp_path)
        assert said in found
        assert bool(found) == bool(said)


_MARKS = {
    "xfs": (0, b"XFSB"),
    "btrfs": (0x10040, b"_BHRfS_M"),
    "encrypted with LUKS": (0, b"LUKS\xba\xbe"),
    "a physical volume of LVM": (0x200, b"LABELONE"),
    "swap space": (0xFF6, b"SWAPSPACE2"),
    "NTFS": (3, b"NTFS"),
}


@pytest.mark.parametrize("name", sorted(_MARKS))
@pytest.mark.parametrize("table", ["no table", "dos", "gpt"])
def test_what_is_not_read_is_named(tmp_path: Path, name: str, table: str) -> None:
    disk, start = tmp_path / "disk", 0
    run("truncate", "-s", "8M", disk)
    if table != "no table":
        start = 1 << 20
        script = f"label: {table}\nstart=2048,size=8192\n"
        subprocess.run(["sfdisk", "-q", disk], input=script, text=True, check=True, capture_output=True, timeout=60)
    at, mark = _MARKS[name]
    with open(disk, "r+b") as stream:
        stream.seek(start + at)
        stream.write(mark)
    assert f"partition 1: {name}" in refused_or_taken("vm-raw", disk.read_bytes(), tmp_path)


@pytest.mark.parametrize(
    ("given", "said"), [("qcow2", "of the format qcow2"), ("vmdk", "of the format vmdk"), ("vdi", "of the format vdi")]
)
def test_a_disk_that_is_taken_for_its_plain_bytes(
    files: dict[str, bytes], tmp_path: Path, given: str, said: str
) -> None:
    assert said in refused_or_taken("vm-raw", files[given], tmp_path)
    assert "compressed with gzip" in refused_or_taken("vm-raw", files["tar.gz"], tmp_path)


@pytest.mark.parametrize("form", ["qcow2", "vmdk", "vdi"])
def test_a_disk_without_its_end_is_cut_off(tmp_path: Path, form: str) -> None:
    """QEMU takes what is missing for zeros. All of this disk is in use, so the end matters wherever it is cut."""
    (tmp_path / "plain").write_bytes(os.urandom(6 << 20))
    run(_QEMU, "convert", "-q", "-f", "raw", "-O", form, tmp_path / "plain", tmp_path / "whole")
    whole = (tmp_path / "whole").read_bytes()
    assert "no root file system" in refused_or_taken(f"vm-{form}", whole, tmp_path)
    for missing in (1 << 20, 3 << 20, 5 << 20):
        assert "cut off" in refused_or_taken(f"vm-{form}", whole[:-missing], tmp_path)


@pytest.fixture
def service() -> Iterator[Service]:
    with directory_for_all("udi-damage-") as directory, Service(directory) as service:
        yield service


def test_a_service_keeps_nothing_of_a_bad_file(service: Service, files: dict[str, bytes]) -> None:
    """Neither in its store, nor in its queue, nor on its disk."""
    with directory_for_all("udi-damage-files-") as top:
        for kind, form in _KINDS.items():
            path = top / form
            path.write_bytes(files[form][: len(files[form]) // 3])
            path.chmod(0o644)
            refused = service.udi(ANNA, "pull", f"{kind}:{path}", "bad:1")
            assert refused.returncode == 5, (kind, refused.stderr)
            assert len([line for line in refused.stderr.splitlines() if line.startswith("udi: ")]) == 1, refused.stderr
            assert "Traceback" not in refused.stderr
    assert not list(service.store.glob("images/*"))
    assert not list(service.store.glob("refs/*"))
    assert not [path for path in service.directory.rglob("*") if path.name.startswith((".udi-disk-", "tmp"))]
