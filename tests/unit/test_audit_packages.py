"""The readers of package databases: of dpkg's, apk's and rpm's own making, and of nobody's."""

from __future__ import annotations

import contextlib
import shutil
import sqlite3
import struct
import subprocess
from collections.abc import Callable
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from gateway.audit import apk, dpkg, rpm, sqlite_blobs
from gateway.audit.packages import Package, Unreadable

PARTS = 60
"""Packages of rpm's: enough for several pages, and some larger than a page."""


@pytest.fixture(scope="module")
def rpms(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Packages of one source that rpmbuild made, and the database in which rpm installed them."""
    top = tmp_path_factory.mktemp("rpm")
    lines = [
        "Name: whole",
        "Version: 2.10",
        "Release: 3",
        "Epoch: 1",
        "Summary: x",
        "License: MIT",
        "BuildArch: noarch",
    ]
    lines += ["%description", *["many words"] * 900, "%files"]
    for number in range(PARTS):
        lines += [
            f"%package -n part{number:03}",
            "Summary: x",
            f"Version: {number}.1~rc1",
            f"%description -n part{number:03}",
        ]
        lines += [*["words"] * number * 30, "words", f"%files -n part{number:03}"]
    (top / "whole.spec").write_text("\n".join(lines) + "\n")
    build = ["rpmbuild", "-bb", "--define", f"_topdir {top}/build", f"{top}/whole.spec"]
    subprocess.run(build, check=True, capture_output=True, timeout=60)
    made = sorted(map(str, (top / "build/RPMS/noarch").iterdir()))
    assert len(made) == PARTS + 1
    install = ["rpm", "--define", f"_dbpath {top}/db", "-i", "--nodeps", "--justdb", *made]
    subprocess.run(install, check=True, capture_output=True, timeout=60)
    return top / "db"


@pytest.fixture(scope="module")
def listed(rpms: Path) -> list[tuple[str, str, str]]:
    """What rpm itself says is installed."""
    form = "%{NAME} %{EPOCH}:%{VERSION}-%{RELEASE} %{ARCH}\\n"
    words = ["rpm", "--define", f"_dbpath {rpms}", "-qa", "--qf", form]
    text = subprocess.run(words, check=True, capture_output=True, timeout=60, text=True).stdout
    return sorted((name, version, arch) for name, version, arch in map(str.split, text.splitlines()))


@pytest.fixture(scope="module")
def sqlite(rpms: Path) -> bytes:
    return (rpms / "rpmdb.sqlite").read_bytes()


@pytest.fixture(scope="module")
def headers(sqlite: bytes) -> list[bytes]:
    return list(sqlite_blobs.blobs(sqlite, b"", "Packages"))


def shown(packages: list[Package]) -> list[tuple[str, str, str]]:
    return [(each.name, each.version, each.arch) for each in packages]


def test_what_rpm_installed(sqlite: bytes, listed: list[tuple[str, str, str]]) -> None:
    found = rpm.from_sqlite(sqlite, b"")
    assert shown(found) == listed and len(found) == PARTS + 1
    assert {each.source for each in found} == {"whole"} and {each.source_version for each in found} == {"2.10-3"}


def test_headers_of_rpms_are_read_as_sqlite_reads_them(rpms: Path, headers: list[bytes]) -> None:
    connection = sqlite3.connect(rpms / "rpmdb.sqlite")
    try:
        assert [row[0] for row in connection.execute("SELECT blob FROM Packages ORDER BY hnum")] == headers
    finally:
        connection.close()
    assert max(map(len, headers)) > 2 * 4096, "some are in further pages"


def test_a_log_that_nobody_has_written_back(tmp_path: Path, headers: list[bytes]) -> None:
    path = tmp_path / "rpmdb.sqlite"
    connection = sqlite3.connect(path)
    try:
        connection.execute("PRAGMA journal_mode=WAL")
        connection.execute("CREATE TABLE Packages (hnum INTEGER PRIMARY KEY AUTOINCREMENT, blob BLOB NOT NULL)")
        connection.executemany("INSERT INTO Packages (blob) VALUES (?)", [(blob,) for blob in headers])
        connection.commit()
        connection.execute("DELETE FROM Packages WHERE hnum % 2")
        connection.commit()
        database, log = path.read_bytes(), (tmp_path / "rpmdb.sqlite-wal").read_bytes()
    finally:
        connection.close()
    assert list(sqlite_blobs.blobs(database, log, "Packages")) == headers[1::2]


@pytest.mark.parametrize("page_size", [512, 1024, 65536])
def test_pages_of_any_size(tmp_path: Path, headers: list[bytes], page_size: int) -> None:
    path = tmp_path / "rpmdb.sqlite"
    connection = sqlite3.connect(path)
    try:
        connection.execute(f"PRAGMA page_size={page_size}")
        connection.execute("CREATE TABLE Packages (hnum INTEGER PRIMARY KEY, blob BLOB NOT NULL)")
        connection.executemany("INSERT INTO Packages (blob) VALUES (?)", [(blob,) for blob in headers * 5])
        connection.commit()
    finally:
        connection.close()
    assert list(sqlite_blobs.blobs(path.read_bytes(), b"", "Packages")) == headers * 5


@pytest.mark.parametrize(("page_size", "order"), [(512, 1234), (4096, 1234), (16384, 4321)])
def test_what_berkeley_db_wrote(
    tmp_path: Path, headers: list[bytes], listed: list[tuple[str, str, str]], page_size: int, order: int
) -> None:
    lines = [
        "VERSION=3",
        "format=bytevalue",
        "type=hash",
        f"db_pagesize={page_size}",
        f"db_lorder={order}",
        "HEADER=END",
    ]
    lines += [" 00000000", " 2a000000"]
    for number, blob in enumerate(headers, 1):
        lines += [f" {struct.pack('<I', number).hex()}", f" {blob.hex()}"]
    text = "\n".join([*lines, "DATA=END"]) + "\n"
    subprocess.run(["db5.3_load", tmp_path / "Packages"], input=text.encode(), check=True, timeout=60)
    assert shown(rpm.from_berkeley((tmp_path / "Packages").read_bytes())) == listed


def ndb_of(blobs: list[bytes]) -> bytes:
    """A database as rpm's ndb lays it out: no program of Debian writes one."""
    slots = [struct.pack("<4sIIIIIII", b"RpmP", 0, 1, 1, len(blobs) + 1, 0, 0, 0)]
    body, at = b"", 4096
    for number, blob in enumerate(blobs, 1):
        data = struct.pack("<4sIII", b"BlbS", number, 1, len(blob)) + blob
        data += struct.pack("<III", 0, len(blob), 0x53626C42)
        data += bytes(-len(data) % 16)
        slots.append(struct.pack("<4sIII", b"Slot", number, at // 16, len(data) // 16))
        body, at = body + data, at + len(data)
    head = b"".join(slots)
    return head + struct.pack("<4sIII", b"Slot", 0, 0, 0) * ((4096 - len(head)) // 16) + body


def test_what_ndb_holds(headers: list[bytes], listed: list[tuple[str, str, str]]) -> None:
    assert shown(rpm.from_ndb(ndb_of(headers))) == listed


@pytest.mark.parametrize("kind", ["sqlite", "ndb", "header"])
@settings(max_examples=150)
@given(data=st.data())
def test_a_damaged_database_is_read_or_refused(
    sqlite: bytes, headers: list[bytes], kind: str, data: st.DataObject
) -> None:
    """Any bytes changed, cut anywhere: packages, or Unreadable."""
    whole = {"sqlite": sqlite, "ndb": ndb_of(headers[:5]), "header": ndb_of(headers[:1])}[kind]
    changed = bytearray(whole)
    span = {"sqlite": len(whole), "ndb": 8192, "header": len(whole)}[kind]
    for _ in range(data.draw(st.integers(1, 8))):
        changed[data.draw(st.integers(0, span - 1)) % len(whole)] = data.draw(st.integers(0, 255))
    cut = bytes(changed[: data.draw(st.sampled_from([len(whole), span // 2, 5000, 100, 16]))])
    reader: Callable[[bytes], list[Package]] = (
        (lambda text: rpm.from_sqlite(text, b"")) if kind == "sqlite" else rpm.from_ndb
    )
    try:
        reader(cut)
    except Unreadable as error:
        assert str(error)


@settings(max_examples=200)
@given(
    text=st.binary(max_size=3000),
    magic=st.sampled_from([b"", b"SQLite format 3\0", b"RpmP\0\0\0\0", bytes(12) + b"\x61\x15\x06\0"]),
)
def test_garbage_is_refused(text: bytes, magic: bytes) -> None:
    for reader in (lambda data: rpm.from_sqlite(data, data), rpm.from_ndb, rpm.from_berkeley):
        with pytest.raises(Unreadable):
            reader(magic + text)
    for plain in (dpkg.packages, apk.packages):
        with contextlib.suppress(Unreadable):
            plain(text)


def test_pages_in_a_circle_are_refused(sqlite: bytes) -> None:
    """An interior page whose only child is itself, and a record that goes on in its own page."""
    size = int.from_bytes(sqlite[16:18], "big")
    page = struct.pack(">BHHHBI", 5, 0, 0, size, 0, 2) + bytes(size - 12)
    schema = (
        bytes([13]) + struct.pack(">HHHB", 0, 1, size - 60, 0) + struct.pack(">H", size - 60)
    )  # one cell: table, Packages, Packages, root page 2
    record = bytes([6, 23, 29, 29, 1, 13]) + b"tablePackagesPackages" + bytes([2])
    first = bytearray(sqlite[:100] + schema).ljust(size, b"\0")
    first[size - 60 : size - 60 + len(record) + 2] = bytes([len(record), 1]) + record
    with pytest.raises(Unreadable, match="loop"):
        rpm.from_sqlite(bytes(first) + page, b"")


def test_the_same_bytes_are_no_second_package(headers: list[bytes]) -> None:
    """A hundred slots that all are of one blob cost no more than the file has bytes."""
    whole = bytearray(ndb_of(headers[:1]))
    slot = bytes(whole[32:48])
    for at in range(48, 4096, 16):
        whole[at : at + 16] = slot
    with pytest.raises(Unreadable, match="overlap"):
        rpm.from_ndb(bytes(whole))


def test_dpkg_lists_what_is_installed_with_its_source() -> None:
    """The status file of this machine, and dpkg's own words about it."""
    form = "${Package} ${Version} ${Architecture} ${source:Package} ${source:Version} ${db:Status-Status}\\n"
    text = subprocess.run(
        ["dpkg-query", "-W", "-f", form], check=True, capture_output=True, timeout=60, text=True
    ).stdout
    expected = sorted(tuple(line.split()[:5]) for line in text.splitlines() if line.endswith(" installed"))
    found = dpkg.packages(Path("/var/lib/dpkg/status").read_bytes())
    assert sorted((p.name, p.version, p.arch, p.source, p.source_version) for p in found) == expected


def test_dpkg_passes_over_what_is_not_installed() -> None:
    text = (
        b"Package: gone\nStatus: deinstall ok config-files\nVersion: 1\n\n"
        b"Package: here\nStatus: install ok installed\nVersion: 1:2-3+b1\nSource: there (2-3)\n"
        b"Description: x\n Package: no\n\n"
        b"package: small\nVERSION: 4\n"
    )
    assert [(p.name, p.version, p.source, p.source_version) for p in dpkg.packages(text)] == [
        ("here", "1:2-3+b1", "there", "2-3"),
        ("small", "4", "small", "4"),
    ]


def test_apk_lists_packages_with_their_origin() -> None:
    text = (
        b"C:Q1abc=\nP:musl\nV:1.2.4-r2\nA:x86_64\no:musl\nF:lib\nR:ld-musl-x86_64.so.1\n\n"
        b"P:libcrypto3\nV:3.1.4-r5\nA:x86_64\no:openssl\nT:Crypto library\n\n"
    )
    assert [(p.name, p.version, p.arch, p.source) for p in apk.packages(text)] == [
        ("musl", "1.2.4-r2", "x86_64", "musl"),
        ("libcrypto3", "3.1.4-r5", "x86_64", "openssl"),
    ]


def test_the_tools_are_here() -> None:
    """Without them, this file would prove nothing."""
    assert all(map(shutil.which, ("rpm", "rpmbuild", "db5.3_load")))
