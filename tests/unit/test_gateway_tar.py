"""Reading what other archivers write, and refusing what none writes."""

from __future__ import annotations

import ast
import io
import os
import subprocess
import tarfile
import tempfile
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from gateway.image.blob import Blob
from gateway.image.layers import BlobStream, Budget, Layer, chunks
from gateway.image.tar_reader import BLOCK, Member, members
from tests.gateway.archives import BASE, Entry, compressed, directory, file, layer_tar, symlink
from tests.unit.flattened import Result
from udiroot.errors import ImageInvalid


def read(data: bytes, tmp_path: Path) -> list[Member]:
    path = tmp_path / "archive.tar"
    path.write_bytes(data)
    descriptor = os.open(path, os.O_RDONLY)
    try:
        return list(members(BlobStream(Blob.of_file(descriptor), "archive"), "archive"))
    finally:
        os.close(descriptor)


@pytest.mark.parametrize("form", ["gnu", "oldgnu", "posix", "ustar", "v7"])
def test_archives_of_gnu_tar(tmp_path: Path, form: str) -> None:
    (tmp_path / "in" / "d").mkdir(parents=True)
    (tmp_path / "in" / "d" / "file").write_bytes(b"x" * 1000)
    (tmp_path / "in" / "link").symlink_to("d/file")
    os.link(tmp_path / "in" / "d" / "file", tmp_path / "in" / "hard")
    data = subprocess.check_output(["tar", "-c", f"--format={form}", "-C", tmp_path / "in", "."], timeout=60)
    found = {os.path.normpath(member.name): member for member in read(data, tmp_path)}
    assert {found[b"d/file"].kind, found[b"hard"].kind} == {b"0", b"1"}
    assert found[b"d"].kind == b"5"
    assert found[b"link"].linkname == b"d/file"


@pytest.mark.parametrize("form", ["gnu", "posix", "0.0", "0.1", "1.0"])
@pytest.mark.parametrize("parts", [0, 1, 3, 60])
@pytest.mark.parametrize("how", ["plain", "gzip"])
def test_sparse_files(tmp_path: Path, form: str, parts: int, how: str) -> None:
    holes = tmp_path / "in" / "holes"
    holes.parent.mkdir()
    with holes.open("wb") as stream:
        stream.truncate(parts * 100_000 + 50_000)
        for number in range(parts):
            stream.seek(number * 100_000 + 8192)
            stream.write(bytes([number + 1]) * 4096)
    options = ["--format=gnu"] if form == "gnu" else ["--format=posix"]
    options += [f"--sparse-version={form}"] if form[0] in "01" else []
    words = ["tar", "-c", "--sparse", *options, "-C", str(tmp_path / "in"), "holes"]
    layer = subprocess.check_output(words, timeout=60)
    assert len(layer) < max(30_000, holes.stat().st_size // 5)
    assert Result([BASE, layer], how).data("holes") == holes.read_bytes()


def test_sizes_beyond_8_gib_are_read(tmp_path: Path) -> None:
    for form in (tarfile.GNU_FORMAT, tarfile.PAX_FORMAT):
        info = tarfile.TarInfo("big")
        info.size = 9 << 30
        with pytest.raises(ImageInvalid, match="not at 96636"):
            read(info.tobuf(form)[-512:] if form == tarfile.GNU_FORMAT else info.tobuf(form), tmp_path)


@pytest.mark.parametrize("form", [tarfile.GNU_FORMAT, tarfile.PAX_FORMAT, tarfile.USTAR_FORMAT])
def test_long_names_in_every_format(tmp_path: Path, form: int) -> None:
    name = "p" * 90 + "/" + "n" * 90
    stream = io.BytesIO()
    with tarfile.open(fileobj=stream, mode="w", format=form) as archive:
        archive.addfile(tarfile.TarInfo(name))
    assert [member.name.decode() for member in read(stream.getvalue(), tmp_path)] == [name]


def test_shared_pax_headers_hold_until_their_own(tmp_path: Path) -> None:
    stream = io.BytesIO()
    with tarfile.open(fileobj=stream, mode="w", pax_headers={"uid": "77"}) as archive:
        archive.addfile(tarfile.TarInfo("a"))
    assert [member.uid for member in read(stream.getvalue(), tmp_path)] == [77]


GOOD = layer_tar([directory("d"), file("d/a", b"x" * 3000, xattrs={"user.a": b"1"}), symlink("l", "d")])


@pytest.mark.parametrize("cut", [1, 100, 511, 513, 1000, 2600, 5000])
def test_an_archive_that_is_cut_off(tmp_path: Path, cut: int) -> None:
    with pytest.raises(ImageInvalid, match=r"cut off|ends after"):
        read(GOOD[:cut], tmp_path)


@given(st.integers(0, len(GOOD) - 1), st.binary(min_size=1, max_size=8))
@settings(max_examples=300)
def test_damage_is_an_error_of_ours_or_changes_data_only(
    tmp_path_factory: pytest.TempPathFactory, at: int, junk: bytes
) -> None:
    damaged = GOOD[:at] + junk + GOOD[at + len(junk) :]
    try:
        read(damaged, tmp_path_factory.mktemp("damaged"))
    except ImageInvalid as error:
        assert error.message


@given(st.binary(max_size=3000))
@settings(max_examples=200)
def test_noise_is_refused(tmp_path_factory: pytest.TempPathFactory, noise: bytes) -> None:
    try:
        assert read(noise, tmp_path_factory.mktemp("noise")) == [] or not noise.strip(b"\0")
    except ImageInvalid as error:
        assert error.message


def test_claims_of_headers_are_bounded(tmp_path: Path) -> None:
    info = tarfile.TarInfo("x")
    info.type, info.size = tarfile.XHDTYPE, 1 << 30
    with pytest.raises(ImageInvalid, match="the limit is"):
        read(info.tobuf(tarfile.GNU_FORMAT), tmp_path)


def test_unknown_types_are_refused_by_name(tmp_path: Path) -> None:
    with pytest.raises(ImageInvalid, match="odd is of unknown type 'Z'"):
        read(layer_tar([Entry(b"odd", b"Z")]), tmp_path)


@pytest.mark.parametrize("how", ["gzip", "zstd", "gzip-members"])
@given(at=st.floats(0, 0.999))
@settings(max_examples=30)
def test_damaged_compression_is_an_error_of_ours(how: str, at: float) -> None:
    stored = bytearray(compressed(GOOD * 3, how))
    stored[int(at * len(stored))] ^= 0x55
    with tempfile.TemporaryFile() as stream:
        stream.write(stored)
        stream.flush()
        layer = Layer(Blob(stream.fileno(), 0, len(stored)), "", 1)
        try:
            b"".join(chunks(layer, Budget.of(1 << 30, 1000, 1 << 30)))
        except ImageInvalid as error:
            assert error.message.startswith("layer 1")


@pytest.mark.parametrize("version", [b"00", b"  ", b"\0\0", b"0\0"])
@pytest.mark.parametrize("star", [False, True])
def test_a_prefix_of_ustar_whatever_the_version_and_where_star_ends_it(
    tmp_path: Path, version: bytes, star: bool
) -> None:
    """GNU tar is the oracle of the one, star's own format of the other."""
    header = bytearray(tarfile.TarInfo("name").tobuf(tarfile.USTAR_FORMAT)[:BLOCK])
    prefix = b"p" * (131 if star else 155)
    header[257:265], header[345 : 345 + len(prefix)] = b"ustar\0" + version, prefix
    if star:
        header[476:500], header[508:512] = b"00000000001 00000000002 ", b"tar\0"
    header[148:156] = b" " * 8
    header[148:156] = b"%06o\0 " % sum(header)
    data = bytes(header) + bytes(2 * BLOCK)
    assert [member.name for member in read(data, tmp_path)] == [prefix + b"/name"]
    listed = subprocess.run(["tar", "-t"], input=data, capture_output=True, timeout=60, check=True)
    assert star or listed.stdout == prefix + b"/name\n"


def test_no_library_unpacks_an_archive() -> None:
    """Its filters have had ways out."""
    used = [
        (path.name, node.attr)
        for room in ("gateway", "jobs", "outside", "udi", "udiroot")
        for path in (Path(__file__).parents[2] / room).rglob("*.py")
        for node in ast.walk(ast.parse(path.read_text()))
        if isinstance(node, ast.Attribute) and node.attr in ("extract", "extractall", "unpack_archive")
    ]
    assert used == []
