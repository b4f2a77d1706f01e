"""What the headers of a stranger's archive may cost: each is read once, in steps and memory that follow its bytes."""

from __future__ import annotations

import dataclasses
import time
import tracemalloc

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from gateway.image.budgets import HeaderBudget
from gateway.image.tar_reader import BLOCK, members
from tests.effort import assert_linear
from tests.gateway.archives import BASE
from tests.unit.flattened import LIMITS, Result
from tests.unit.headers import (
    END,
    Counted,
    block,
    extension,
    padded,
    read,
    reason,
    record,
    sparse_1_0,
    steps,
)
from udiroot.errors import ImageInvalid

# Sizes

SIZES = (-1, -512, -(1 << 40), 1 << 62, 1 << 63, (1 << 94) - 512, b"-0000001000", b"\x80" + b"\xff" * 11, b"\xff" * 12)


@pytest.mark.parametrize("size", SIZES)
@pytest.mark.parametrize("kind", b"0xgLKXVSMND7")
def test_a_size_that_is_none(kind: int, size: int | bytes) -> None:
    """Of any header: none makes the reader go back, read for ever, or set memory aside."""
    stream = Counted(block(bytes([kind]), size) + block(b"0") + END)
    assert reason(lambda: list(members(stream, "archive"))).message
    assert stream.reads < 5


@pytest.mark.parametrize("size", ["-1", "-512", str(1 << 62), "9" * 19, "9" * 400, "1e9", "0x10", ""])
def test_a_size_in_an_extension(size: str) -> None:
    data = extension(b"x", record(b"size", size.encode())) + block(b"0") + block(b"0", name=b"after") + END
    if not size:
        assert [member.size for member in read(data)] == [0, 0], "nothing said: what the header says"
    else:
        assert reason(lambda: read(data)).message


@pytest.mark.parametrize("kind", ["0", "x", "V", "L"])
def test_a_size_beyond_the_archive(kind: str) -> None:
    assert reason(lambda: read(block(kind.encode(), 5000) + bytes(100))).message


@settings(max_examples=300)
@given(
    st.lists(
        st.one_of(
            st.builds(block, st.binary(min_size=1, max_size=1), st.integers(-(1 << 95), 1 << 94) | st.binary()),
            st.builds(block, st.sampled_from([b"0", b"1", b"5", b"V", b"S"]), st.integers(0, 2000)),
            st.builds(extension, st.sampled_from([b"x", b"g", b"L", b"K"]), st.binary(max_size=600)),
            st.builds(
                lambda pairs: extension(b"x", b"".join(record(*pair) for pair in pairs)),
                st.lists(
                    st.tuples(
                        st.sampled_from(
                            [b"path", b"size", b"uid", b"mtime", b"GNU.sparse.map", b"GNU.sparse.major",
                             b"GNU.sparse.offset", b"GNU.sparse.numbytes", b"GNU.sparse.realsize",
                             b"SCHILY.xattr.user.a"]
                        ),
                        st.one_of(st.binary(max_size=20), st.integers(-5, 1 << 65).map(lambda number: b"%d" % number)),
                    ),
                    max_size=6,
                ),
            ),
            st.binary(max_size=1500).map(padded),
        ),
        max_size=12,
    )
)  # fmt: skip
def test_any_headers_are_read_once_in_steps_that_follow_their_bytes(pieces: list[bytes]) -> None:
    data = b"".join(pieces)
    stream = Counted(data)

    def all_members() -> None:
        try:
            list(members(stream, "archive"))
        except ImageInvalid as error:
            assert error.message and "\n" not in error.message

    assert steps(all_members) < 400 + len(data)
    assert stream.reads <= 2 + 2 * len(data) // BLOCK


# Extension headers


def test_a_global_header_is_not_applied_anew_to_each_file() -> None:
    def files(count: int) -> None:
        many = b"".join(record(b"SCHILY.xattr.user.%05d" % number, b"v") for number in range(8 * count))
        small = b"".join(block(b"0", name=b"f%d" % number) for number in range(count))
        found = read(extension(b"g", record(b"uid", b"7") + many) + small + END)
        assert len(found) == count and {(member.uid, member.xattrs) for member in found} == {(7, ())}

    assert_linear(files, 3000)


def test_extension_headers_of_one_member_have_one_limit() -> None:
    each = extension(b"x", b"".join(record(b"SCHILY.xattr.user.%05d" % number, b"v" * 60) for number in range(5000)))
    assert "extension headers of one member claim more" in reason(lambda: read(each * 4 + block(b"0") + END)).message
    assert len(read((extension(b"L", b"n" * 200) + block(b"0")) * 9000 + END)) == 9000, "of one member, not of all"


def test_unused_records_are_not_kept() -> None:
    unused = extension(b"x", b"".join(record(b"LIBARCHIVE.%05d" % number, b"v" * 60) for number in range(5000)))
    data = (unused + block(b"0")) * 20 + END
    tracemalloc.start()
    kept = read(data)
    size, _ = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert len(kept) == 20 and size < 1 << 20


def test_attributes_count_with_the_memory_that_they_take() -> None:
    """Thousands of short ones take ten times the memory of their text."""
    each = extension(b"x", b"".join(record(b"SCHILY.xattr.user.%05d" % number, b"") for number in range(5000)))
    layer = b"".join(each + block(b"0", name=b"f%d" % number) for number in range(40)) + END
    limits = dataclasses.replace(LIMITS, max_header_bytes=20 << 20)
    error = reason(lambda: Result([BASE, layer], limits=limits))
    assert "attributes" in error.message and error.hint == "limit set by gateway.max_header_bytes"


def test_an_empty_value_leaves_what_the_header_says() -> None:
    empty = b"".join(record(key, b"") for key in (b"path", b"linkpath", b"uid", b"gid", b"size", b"mtime"))
    link = bytearray(block(b"1", name=b"link", uid=b"0000017\0"))
    link[157:161] = b"goal"
    link[148:156] = b" " * 8
    link[148:156] = b"%06o\0 " % sum(link)
    (found,) = read(extension(b"x", empty) + extension(b"K", b"\0") + extension(b"L", b"\0") + bytes(link) + END)
    assert (found.name, found.linkname, found.uid) == (b"link", b"goal", 15)


@pytest.mark.parametrize(
    ("number", "uid"),
    [(-2, 4294967294), (-3, 4294967293), (-(1 << 31), 1 << 31), (-1, 0), (4294967295, 0), (4294967294, 4294967294)],
)
def test_owners_below_zero_are_as_chown_takes_them(number: int, uid: int) -> None:
    base_256 = (number & ((1 << 64) - 1) | 1 << 63).to_bytes(8, "big")
    (found,) = read(block(b"0", uid=base_256) + END)
    assert (found.uid, found.gid) == (uid, uid)
    (found,) = read(extension(b"x", record(b"uid", b"%d" % number)) + block(b"0") + END)
    assert (found.uid, found.gid) == (uid, 0)


@pytest.mark.parametrize("number", [1 << 32, -(1 << 31) - 1, 1 << 62, -(1 << 62)])
def test_owners_that_chown_would_not_take(number: int) -> None:
    assert (
        "has owner" in reason(lambda: read(extension(b"x", record(b"gid", b"%d" % number)) + block(b"0") + END)).message
    )


# Sparse files


def test_a_sparse_map_is_read_in_one_pass() -> None:
    start = time.process_time()
    (found,) = read(sparse_1_0(60_000) + END)
    assert time.process_time() - start < 5
    assert found.sparse and len(found.sparse) == 60_000 and found.sparse[-1] == (119_998, 1)


@pytest.mark.parametrize(
    "text",
    [b"-1\n", b"1\n0\n", b"65537\n" + b"0\n" * 200, b"9" * 600, b"\n", b"2\n0\n1\nx\n1\n", b"1\n" + b"1" * 2000,
     b"1\n1\n", b"1\n0\n-1\n", b"1\n-5\n1\n", b"2\n0\n1\n0\n1\n", b"1 1\n", b"1\n0\n" + b"9" * 21 + b"\n"],
)  # fmt: skip
def test_sparse_maps_that_are_none(text: bytes) -> None:
    assert reason(lambda: read(sparse_1_0(1, text) + END)).message


def test_sparse_maps_count_with_the_memory_that_they_take() -> None:
    forms = {
        "1.0": sparse_1_0(5000),
        "0.1": extension(
            b"x",
            record(b"GNU.sparse.map", b",".join(b"%d,1" % (2 * number) for number in range(5000)))
            + record(b"GNU.sparse.realsize", b"10000"),
        )
        + block(b"0", 5000)
        + padded(b"x" * 5000),
        "0.0": extension(
            b"x",
            b"".join(
                record(b"GNU.sparse.offset", b"%d" % (2 * number)) + record(b"GNU.sparse.numbytes", b"1")
                for number in range(5000)
            )
            + record(b"GNU.sparse.size", b"10000"),
        )
        + block(b"0", 5000)
        + padded(b"x" * 5000),
        "old": _old_sparse(5000),
    }
    for form, member in forms.items():
        assert len(read(member + END)[0].sparse or ()) == 5000, form
        error = reason(lambda member=member: read(member * 20 + END, HeaderBudget(10 << 20)))  # type: ignore[misc]
        assert error.hint == "limit set by gateway.max_header_bytes", form


def _old_sparse(parts: int) -> bytes:
    pairs = [b"%011o\0%011o\0" % (2 * number, 1) for number in range(parts)]
    first, rest = b"".join(pairs[:4]), pairs[4:]
    blocks = [b"".join(rest[at : at + 21]).ljust(504, b"\0") for at in range(0, len(rest), 21)]
    more = b"".join(text + bytes([at + 1 < len(blocks)]) + bytes(7) for at, text in enumerate(blocks))
    header = block(b"S", parts, more=first + b"\1" + b"%011o\0" % (2 * parts))
    return header + more + padded(b"x" * parts)


def test_an_old_sparse_map_without_an_end() -> None:
    endless = (b"%011o\0%011o\0" % (0, 1)) * 21 + b"\1" + bytes(7)
    assert "sparse map" in reason(lambda: read(block(b"S", 5, more=bytes(96) + b"\1") + endless * 20_000)).message
    assert "sparse map" in reason(lambda: read(block(b"S", 5, more=bytes(96) + b"\1") + endless)).message
