"""Partition tables, next to what sfdisk reads in them."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from gateway.disks.partitions import partitions
from gateway.image.blob import Blob
from udiroot.errors import ImageInvalid

SFDISK = shutil.which("sfdisk", path="/usr/sbin:/sbin:/usr/bin") or ""
needs_sfdisk = pytest.mark.skipif(not SFDISK, reason="needs sfdisk (Debian: fdisk)")
_MIB = 1 << 20


def read(image: Path) -> list[tuple[int, int]]:
    descriptor = os.open(image, os.O_RDONLY)
    try:
        return [(part.offset, part.size) for part in partitions(Blob.of_file(descriptor))]
    finally:
        os.close(descriptor)


def make(image: Path, script: str, size: int = 64 * _MIB) -> Path:
    image.write_bytes(b"")
    os.truncate(image, size)
    subprocess.run([SFDISK, "-q", image], input=script, text=True, check=True, capture_output=True)
    return image


@needs_sfdisk
@pytest.mark.parametrize(
    "script",
    [
        "label: dos\n,20M,L,*\n,10M,82\n,,L\n",
        "label: dos\n,8M,L\n,,E\n,4M,L\n,4M,L\n,4M,L\n,4M,L\n",
        "label: gpt\n,1M,21686148-6449-6E6F-744E-656564454649\n,20M,U\n,,L\n",
        "label: gpt\ntable-length: 16\n,,L\n",
        "label: dos\n,,L\n",
    ],
)
def test_what_sfdisk_reads(tmp_path: Path, script: str) -> None:
    image = make(tmp_path / "disk", script)
    table = json.loads(subprocess.run([SFDISK, "--json", image], capture_output=True, check=True).stdout)
    listed = [part for part in table["partitiontable"]["partitions"] if part.get("type") not in ("5", "f")]
    assert read(image) == [(part["start"] * 512, part["size"] * 512) for part in listed]


@needs_sfdisk
def test_one_that_is_cut_after_its_last_file_system(tmp_path: Path) -> None:
    image = make(tmp_path / "disk", "label: dos\nstart=2048,size=40960,type=83\nstart=43008,size=40960,type=83\n")
    os.truncate(image, 30 * _MIB)
    assert read(image) == [(_MIB, 20 * _MIB), (21 * _MIB, 9 * _MIB)]
    os.truncate(image, 20 * _MIB)
    assert read(image) == [(_MIB, 19 * _MIB)]


def test_a_disk_without_a_table_is_one_file_system(tmp_path: Path) -> None:
    (tmp_path / "disk").write_bytes(b"\0" * 10_000)
    assert read(tmp_path / "disk") == [(0, 10_000)]
    (tmp_path / "disk").write_bytes(b"\0" * 100)
    with pytest.raises(ImageInvalid, match="only 100 bytes"):
        read(tmp_path / "disk")


def _table(kind: int, following: int = -1) -> bytes:
    """A sector with one partition of a sector, right after it, and the place of the next table."""
    entries = _entry(kind, 1) + (_entry(0x05, following) if following >= 0 else bytes(16)) + bytes(32)
    return bytes(446) + entries + b"\x55\xaa"


def _entry(kind: int, begin: int) -> bytes:
    return bytes(4) + bytes([kind]) + bytes(3) + begin.to_bytes(4, "little") + (1).to_bytes(4, "little")


def test_a_chain_of_partitions_in_a_circle(tmp_path: Path) -> None:
    start = bytes(446) + _entry(0x05, 4) + bytes(48) + b"\x55\xaa" + bytes(3 * 512)
    end = bytes(9 * 512)
    (tmp_path / "disk").write_bytes(start + _table(0x83) + end)
    assert read(tmp_path / "disk") == [(5 * 512, 512)]
    (tmp_path / "disk").write_bytes(start + _table(0x83, 2) + bytes(512) + _table(0x83) + end)
    assert read(tmp_path / "disk") == [(5 * 512, 512), (7 * 512, 512)]
    for chain in (_table(0x83, 0), _table(0x83, 2) + bytes(512) + _table(0x83, 0)):
        (tmp_path / "disk").write_bytes(start + chain + end)
        with pytest.raises(ImageInvalid, match="circle"):
            read(tmp_path / "disk")


@settings(max_examples=200, suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow])
@given(st.binary(min_size=64, max_size=64), st.binary(min_size=92, max_size=92), st.binary(max_size=2048))
def test_any_table_names_parts_of_the_disk(tmp_path: Path, entries: bytes, header: bytes, rest: bytes) -> None:
    for gpt in (b"EFI PART", b""):
        data = bytes(446) + entries + b"\x55\xaa" + (gpt + header[len(gpt) :] if gpt else bytes(92)) + rest
        (tmp_path / "disk").write_bytes(data)
        try:
            found = read(tmp_path / "disk")
        except ImageInvalid:
            continue
        assert all(offset >= 0 and size > 0 and offset + size <= len(data) for offset, size in found)
