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
    return {form: (top / form).read_bytes() for form in set(_KINDS.values())}


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


@settings(
    max_examples=25, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow]
)
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
