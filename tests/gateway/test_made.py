"""Files that are no image yet: disks of virtual machines, file systems, archives of a tree; pulled by real users."""

from __future__ import annotations

import json
import os
import struct
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from tests.gateway.service import ANNA, BERT, Service, directory_for_all
from tests.gateway.support import convert_source, needs_root
from udiroot.errors import ImageInvalid

pytestmark = needs_root
_QEMU = "/usr/bin/qemu-img"
_KINDS = {"vm-raw": "raw", "vm-qcow2": "qcow2", "vm-vmdk": "vmdk", "vm-vdi": "vdi"}


def sh(*words: object, text: str | None = None) -> str:
    return subprocess.run([str(word) for word in words], check=True, capture_output=True, input=text, text=True).stdout


@pytest.fixture(scope="module")
def files() -> Iterator[Path]:
    """A tree as a disk with a table, in each format, as file systems, and as archives."""
    with directory_for_all("udi-made-") as top:
        tree = top / "tree"
        for name in ("etc", "usr/bin", "bin", "dev"):
            (tree / name).mkdir(parents=True)
        (tree / "etc/os-release").write_text("NAME=machine\n")
        (tree / "etc/fstab").write_text("/dev/sdb1 / ext4 defaults 0 1\n")
        (tree / "usr/bin/program").write_bytes(b"\x7fELF" + bytes(5000))
        (tree / "usr/bin/program").chmod(0o4755)
        os.mknod(tree / "dev/sda", 0o60660, os.makedev(8, 0))
        sh("truncate", "-s", "12M", top / "root.ext4")
        sh("mke2fs", "-q", "-F", "-t", "ext4", "-d", tree, top / "root.ext4")
        sh("mksquashfs", tree, top / "root.squashfs", "-quiet", "-no-progress")
        sh("tar", "-C", tree, "-czf", top / "root.tar.gz", ".")
        make_disk(top / "disk.raw", (top / "root.ext4").read_bytes())
        for form in ("qcow2", "vmdk", "vdi"):
            sh(_QEMU, "convert", "-q", "-f", "raw", "-O", form, top / "disk.raw", top / f"disk.{form}")
        yield top


def make_disk(path: Path, root: bytes, other: bytes = b"") -> None:
    """A disk of 40 MiB: swap, the root, and perhaps another one."""
    mib = 1 << 20
    path.write_bytes(b"")
    os.truncate(path, 40 * mib)
    sh(
        "sfdisk",
        "-q",
        path,
        text="label: gpt\nstart=2048,size=4096,type=S\nstart=8192,size=24576\nstart=40960,size=24576\n",
    )
    with open(path, "r+b") as disk:
        disk.seek(1 * mib + 0xFF6)
        disk.write(b"SWAPSPACE2")
        disk.seek(4 * mib)
        disk.write(root)
        disk.seek(20 * mib)
        disk.write(other)


def test_a_machine_is_one_image_whatever_its_format(files: Path, tmp_path: Path) -> None:
    found = {kind: convert_source(f"{kind}:{files}/disk.{form}", tmp_path / kind) for kind, form in _KINDS.items()}
    found["ext4"] = convert_source(f"ext4:{files}/root.ext4", tmp_path / "ext4")
    assert len({facts.id for facts in found.values()}) == 1
    listing = sh("unsquashfs", "-lln", tmp_path / "vm-vdi")
    assert "-rwsr-xr-x" in listing and "os-release" in listing
    assert "dev/sda" not in listing


def test_a_tree_has_its_own_id_and_the_words_of_its_puller(files: Path, tmp_path: Path) -> None:
    facts = convert_source(f"rootfs-archive:{files}/root.tar.gz", tmp_path / "a")
    again = convert_source(f"rootfs-archive:{files}/root.tar.gz", tmp_path / "b")
    other = convert_source(f"squashfs:{files}/root.squashfs", tmp_path / "c")
    assert facts.id == again.id != other.id
    assert (facts.env, facts.entrypoint, facts.arch) == ((), (), "amd64")


def _damaged(files: Path, name: str, change: Callable[[bytearray], None]) -> str:
    data = bytearray((files / name).read_bytes())
    change(data)
    path = files / f"damaged-{name}"
    path.write_bytes(data)
    return str(path)


def _put(at: int, new: bytes) -> Callable[[bytearray], None]:
    def change(data: bytearray) -> None:
        data[at : at + len(new)] = new

    return change


@pytest.mark.parametrize(
    ("kind", "name", "change", "said"),
    [
        ("vm-qcow2", "disk.qcow2", _put(8, struct.pack(">QI", 200, 11)), "its backing file"),
        ("vm-qcow2", "disk.qcow2", _put(72, struct.pack(">Q", 4)), "keeps its data in another file"),
        ("vm-qcow2", "disk.qcow2", _put(72, struct.pack(">Q", 1 << 9)), "features of qcow2 that are not known"),
        ("vm-qcow2", "disk.qcow2", _put(32, struct.pack(">I", 1)), "is encrypted"),
        ("vm-qcow2", "disk.qcow2", _put(24, struct.pack(">Q", 1 << 60)), "the disk has 1152921504606846976 bytes"),
        ("vm-qcow2", "disk.qcow2", _put(40, struct.pack(">Q", 1 << 50)), ""),
        ("vm-qcow2", "disk.qcow2", lambda data: data.__delitem__(slice(70_000, None)), ""),
        ("vm-qcow2", "disk.vdi", lambda data: None, "not a disk image of the format qcow2"),
        ("vm-vmdk", "disk.vmdk", _put(12, bytes(8)), "not a disk image of the format VMware disk"),
        ("vm-vmdk", "disk.raw", lambda data: None, "not a VMware disk in one file"),
        ("vm-vdi", "disk.vdi", _put(424, b"x" * 16), "its backing file"),
        ("vm-raw", "disk.raw", _put((4 << 20) + 1024, bytes(1024)), "(partition 1: swap space, "),
        ("vm-raw", "disk.raw", _put(4 << 20, b"XFSB" + bytes(2044)), "partition 2: xfs"),
        ("vm-raw", "disk.raw", lambda data: data.__delitem__(slice(5 << 20, None)), ""),
        ("squashfs", "root.squashfs", _put(96, b"\xff" * 2000), ""),
        ("squashfs", "root.ext4", lambda data: None, "not a squashfs file system"),
        ("ext4", "root.squashfs", lambda data: None, "no ext2, ext3 or ext4"),
        ("rootfs-archive", "root.squashfs", lambda data: None, "the archive is a squashfs file system"),
        ("rootfs-archive", "root.tar.gz", lambda data: data.__delitem__(slice(300, None)), ""),
    ],
)  # fmt: skip
def test_a_bad_one_is_one_line_and_leaves_nothing(
    files: Path, tmp_path: Path, kind: str, name: str, change: Callable[[bytearray], None], said: str
) -> None:
    path = _damaged(files, name, change)
    with pytest.raises(ImageInvalid) as caught:
        convert_source(f"{kind}:{path}", tmp_path / "out")
    assert said in caught.value.message
    assert "\n" not in caught.value.message
    assert os.listdir(tmp_path) == []


def test_a_backing_file_that_is_named_is_not_read(files: Path, tmp_path: Path) -> None:
    """As qemu-img itself makes them: with a file of the host behind the disk."""
    for form, more in (("qcow2", ["-F", "raw"]), ("vmdk", ["-F", "vmdk"])):
        behind = files / ("disk.raw" if form == "qcow2" else "disk.vmdk")
        sh(_QEMU, "create", "-q", "-f", form, "-b", behind, *more, files / f"overlay.{form}")
        with pytest.raises(ImageInvalid, match="backing file"):
            convert_source(f"vm-{form}:{files}/overlay.{form}", tmp_path / "out")
    sh(_QEMU, "create", "-q", "-f", "qcow2", "-o", f"data_file={files}/elsewhere.raw", files / "split.qcow2", "40M")
    with pytest.raises(ImageInvalid, match="another file"):
        convert_source(f"vm-qcow2:{files}/split.qcow2", tmp_path / "out")
    (files / "flat.vmdk").write_text(
        "# Disk DescriptorFile\nversion=1\nCID=1\nparentCID=ffffffff\n"
        f'createType="monolithicFlat"\nRW 80 FLAT "{files}/disk.raw" 0\n'
    )
    with pytest.raises(ImageInvalid, match="one file"):
        convert_source(f"vm-vmdk:{files}/flat.vmdk", tmp_path / "out")


def test_two_roots_are_a_choice(files: Path, tmp_path: Path) -> None:
    root = (files / "root.ext4").read_bytes()
    make_disk(tmp_path / "two", root, root)
    with pytest.raises(ImageInvalid, match="partitions 2 and 3") as caught:
        convert_source(f"vm-raw:{tmp_path}/two", tmp_path / "out")
    assert caught.value.hint == "name one: FILE:PARTITION"
    assert convert_source(f"vm-raw:{tmp_path}/two:3", tmp_path / "out").id
    for wrong in ("4", "0", "x", "1"):
        with pytest.raises(ImageInvalid):
            convert_source(f"vm-raw:{tmp_path}/two:{wrong}", tmp_path / "out")


@pytest.fixture
def service() -> Iterator[Service]:
    with directory_for_all("udi-made-service-") as directory, Service(directory) as service:
        yield service


def test_pulled_by_a_user_a_machine_is_called_by_its_kind(service: Service, files: Path) -> None:
    pulled = service.udi(
        ANNA, "pull", "--env", "A=b c", "--entrypoint", "run 'x y'", f"vm-qcow2:{files}/disk.qcow2", "sl6:1"
    )
    assert pulled.returncode == 0, pulled.stderr
    assert pulled.stdout.split()[0] == "vm:sl6:1"
    facts = json.loads(service.udi(ANNA, "inspect", "--json", "vm:sl6:1").stdout)["facts"]
    assert (facts["env"], facts["entrypoint"]) == (["A=b c"], ["run", "x y"])
    assert service.udi(ANNA, "lookup", "vm:sl6:1").stdout.strip() == facts["id"]
    assert "vm:sl6:1" in service.udi(ANNA, "images").stdout
    assert service.udi(BERT, "lookup", "vm:sl6:1").returncode == 3
    assert service.udi(ANNA, "lookup", "sl6:1").returncode == 3
    assert service.udi(ANNA, "rm", "vm:sl6:1").returncode == 0


@pytest.mark.parametrize(
    ("words", "code", "said"),
    [
        (["vm-raw:{}/disk.raw"], 2, "no name of its own"),
        (["vm-raw:{}/disk.raw", "registry.test/x:1"], 2, "not a name of the kind vm"),
        (
            ["squashfs:{}/root.squashfs", "vm:x"],
            2,
            "made of a source of the kind squashfs",
        ),
        (["--env", "A=1", "docker://debian:12"], 2, "has a configuration of its own"),
        (["--entrypoint", "'", "vm-raw:{}/disk.raw", "x"], 2, "--entrypoint: No closing quotation"),
        (["vm:sl6"], 2, "no registry has images of the kind vm"),
        (["vm-raw:{}/none", "x"], 3, "no such file"),
        (["vm-raw:{}", "x"], 2, "is not a regular file"),
    ],
)
def test_what_is_wrong_with_a_pull(service: Service, files: Path, words: list[str], code: int, said: str) -> None:
    done = service.udi(ANNA, "pull", *(word.format(files) for word in words))
    assert (done.returncode, said in done.stderr) == (code, True), done.stderr
    assert not list(service.store.glob("images/*"))
