"""What a stranger's archive may cost: work and memory are linear in its bytes, and bounded, whatever its headers claim.

Work is counted where it can be: bytes that are read, blocks of headers, rows and steps of the interpreter. Where a
single call of the interpreter could be quadratic, the processor's time has a bound that is far from what is right.
"""

from __future__ import annotations

import dataclasses
import json
import os
import sys
import tarfile
import time
import tracemalloc
from collections.abc import Callable
from pathlib import Path
from types import FrameType
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from gateway.image.budgets import HeaderBudget
from gateway.image.convert import check_words, convert
from gateway.image.manifest import MAX_LAYERS, ImageConfig, SourceImage
from gateway.image.tar_reader import BLOCK, Member, members
from gateway.image.tar_writer import TarWriter
from tests.gateway.archives import BASE, Entry, Layer, directory, file, hardlink, opaque, symlink, whiteout
from tests.gateway.support import Silent
from tests.unit.test_gateway_flatten import LIMITS, Result
from udi.accounts import Account
from udi.environment import EnvironmentConfig
from udi.facts import Facts
from udi.gatewayconfig import GatewayConfig
from udi.rundata import run_data
from udiroot.errors import ImageInvalid

END = bytes(2 * BLOCK)


class Counted:
    """A stream in memory that counts what is read, and does not go back."""

    def __init__(self, data: bytes) -> None:
        self._data = data
        self.position = 0
        self.reads = 0

    def read(self, count: int) -> bytes:
        assert count >= 0
        self.reads += 1
        piece = self._data[self.position : self.position + count]
        self.position += len(piece)
        return piece

    def skip(self, count: int) -> None:
        assert count >= 0, "a stream is read once, from its start"
        self.position += count
        if self.position > len(self._data):
            raise ImageInvalid("cut off")


def number_field(value: int | bytes) -> bytes:
    """A size of a header: octal, base 256 for what is not, or the bytes as they are."""
    if isinstance(value, bytes):
        return value.ljust(12, b"\0")[:12]
    if 0 <= value < 1 << 33:
        return b"%011o\0" % value
    return (value & ((1 << 96) - 1) | 1 << 95).to_bytes(12, "big")


def block(
    kind: bytes, size: int | bytes = 0, name: bytes = b"x", uid: bytes = b"0000000\0", more: bytes = b""
) -> bytes:
    """A header with any type and size, whose checksum is right. `more` are its bytes from 386 on (old GNU sparse)."""
    header = bytearray(BLOCK)
    header[0 : len(name)] = name
    header[100:108], header[108:116], header[116:124] = b"0000644\0", uid, uid
    header[124:136], header[136:148] = number_field(size), b"00000000000\0"
    header[156:157], header[257:265] = kind, b"ustar  \0"
    header[386 : 386 + len(more)] = more
    header[148:156] = b" " * 8
    header[148:156] = b"%06o\0 " % sum(header)
    return bytes(header)


def extension(kind: bytes, text: bytes) -> bytes:
    return block(kind, len(text)) + padded(text)


def padded(text: bytes) -> bytes:
    return text + bytes(-len(text) % BLOCK)


def record(key: bytes, value: bytes) -> bytes:
    body = b" " + key + b"=" + value + b"\n"
    length = len(body) + 1
    while len(b"%d" % length) + len(body) != length:
        length += 1
    return b"%d" % length + body


def sparse_1_0(parts: int, text: bytes | None = None) -> bytes:
    """A member whose sparse map is before its data; `text` replaces the map."""
    if text is None:
        text = b"%d\n" % parts + b"".join(b"%d\n1\n" % (2 * number) for number in range(parts))
    content = padded(text) + b"x" * parts
    keys = {b"major": b"1", b"minor": b"0", b"name": b"s", b"realsize": b"%d" % (2 * parts)}
    records = b"".join(record(b"GNU.sparse." + key, value) for key, value in keys.items())
    return extension(b"x", records) + block(b"0", len(content)) + padded(content)


def read(data: bytes, headers: HeaderBudget | None = None) -> list[Member]:
    return list(members(Counted(data), "archive", headers))


def reason(call: Callable[[], object]) -> ImageInvalid:
    with pytest.raises(ImageInvalid) as caught:
        call()
    return caught.value


def steps(call: Callable[[], object]) -> int:
    """Lines of Python that a call executes."""
    count = 0

    def line(frame: FrameType, event: str, argument: Any) -> Any:
        nonlocal count
        count += 1
        return line

    before = sys.gettrace()
    sys.settrace(line)
    try:
        call()
    finally:
        sys.settrace(before)
    return count


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
    many = b"".join(record(b"SCHILY.xattr.user.%05d" % number, b"v") for number in range(25_000))
    small = b"".join(block(b"0", name=b"f%d" % number) for number in range(3000))
    start = time.process_time()
    found = read(extension(b"g", record(b"uid", b"7") + many) + small + END)
    assert time.process_time() - start < 3
    assert len(found) == 3000 and {(member.uid, member.xattrs) for member in found} == {(7, ())}


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


# Trees


def flattening(*layers: Layer, **limits: int) -> int:
    return steps(lambda: Result([BASE, *layers], limits=dataclasses.replace(LIMITS, **limits)))


DEEP = "/".join("d" * 400)
TREES: dict[str, Callable[[int], list[list[Entry]]]] = {
    "one name again and again": lambda n: [[file("d/a", b"")] * n],
    "a directory and a file by turns": lambda n: [[e for _ in range(n // 2) for e in (file("d/a/b/c"), file("d"))]],
    "an opaque marker for each directory": lambda n: [
        [file(f"d/{number}/f") for number in range(n // 2)],
        [opaque(f"d/{number}") for number in range(n // 2)],
    ],
    "one opaque marker again and again": lambda n: [
        [file(f"d/{number}/f") for number in range(n // 2)],
        [opaque("d"), opaque("")] * (n // 4),
    ],
    "opaque markers between entries": lambda n: [
        [file(f"d/{number}/f") for number in range(n // 2)],
        [e for number in range(n // 6) for e in (file(f"d/{number}/g"), opaque("d"), opaque(""))],
    ],
    "whiteouts between entries": lambda n: [
        [file(f"d/{number}/f") for number in range(n // 2)],
        [e for number in range(n // 6) for e in (file(f"d/{number}/g"), whiteout("d"), whiteout(f"d/{number}"))],
    ],
    "whiteouts of what is not there": lambda n: [[whiteout(f"d/{number}") for number in range(n)]],
    "many names of one file": lambda n: [[file("d/a"), *(hardlink(f"d/{number}", "d/a") for number in range(n))]],
    "chains of hard links": lambda n: [
        [file("0"), *(hardlink(f"{number + 1}", f"{number}") for number in range(n))],
    ],
    "one directory": lambda n: [[file(f"d/{number}") for number in range(n)]],
    "names that begin alike": lambda n: [[file("d/" + "p" * (number % 200) + str(number)) for number in range(n)]],
    "layers": lambda n: [[file(f"d/{number}")] for number in range(n // 10)],
}  # fmt: skip


@pytest.mark.parametrize("shape", TREES)
def test_twice_the_entries_are_twice_the_work(shape: str) -> None:
    small, large = (flattening(*TREES[shape](count)) for count in (300, 1200))
    assert large < 4.6 * small, "four times the entries"


def test_paths_have_the_kernel_s_own_limit_also_when_links_make_them_longer() -> None:
    deep = "/".join("d" * 2000)
    layer = [directory(deep), symlink("link", deep), file(f"link/{'/'.join('e' * 100)}")]
    assert "a path is longer than 4095 bytes" in reason(lambda: Result([BASE, layer])).message


def test_what_a_short_name_makes_the_packer_read_is_charged() -> None:
    """A name of 4 KB makes 2000 directories, whose names the packer gets in full."""
    layer = [file(f"{number}/{'/'.join('d' * 1900)}") for number in range(10)]
    limits = dataclasses.replace(LIMITS, max_header_bytes=10 << 20)
    assert "paths" in reason(lambda: Result([BASE, layer], limits=limits)).message
    links = [file(f"{DEEP}/f"), symlink("l", DEEP), *(hardlink(f"h{number}", "l/f") for number in range(2000))]
    limits = dataclasses.replace(LIMITS, max_header_bytes=1 << 20)
    assert "paths" in reason(lambda: Result([BASE, links], limits=limits)).message


def test_links_that_a_name_leads_through_are_charged() -> None:
    """38 links a name, each with 1600 components, within the kernel's limit of 40."""
    around = "/".join(["e/.."] * 800)
    chain = [
        directory("e"),
        *(symlink(f"l{number}", f"{around}/l{number + 1}") for number in range(38)),
        directory("l38"),
    ]
    names = [entry for number in range(500) for entry in (file(f"l0/{number}"), file(f"other/{number}"))]
    found: list[ImageInvalid] = []
    used = steps(lambda: found.append(reason(lambda: Result([BASE, [*chain, *names]]))))
    assert found[0].hint == "limit set by gateway.max_entries" and "symbolic links" in found[0].message
    assert used < 5 * 32 * LIMITS.max_entries, "some steps for each byte that may be followed"
    assert "real/0" in Result([BASE, [directory("real"), symlink("l", "real"), *(file(f"l/{n}") for n in range(2000))]])


# Bombs and honest files of zeros


@pytest.mark.parametrize("how", ["gzip", "zstd"])
def test_a_large_file_of_zeros_is_honest(how: str) -> None:
    """A lastlog: gzip makes it 1030 times smaller, zstd 30,000 times."""
    image = Result([BASE, [file("var/log/lastlog", bytes(100 << 20))]], how)
    assert image["var/log/lastlog"].size == 100 << 20


def test_the_ratio_counts_above_a_size_alone() -> None:
    zeros = [BASE, [file("a", bytes(3 << 20))]]
    limits = dataclasses.replace(LIMITS, max_ratio=100)
    assert Result(zeros, "gzip", limits=dataclasses.replace(limits, ratio_from=4 << 20))
    error = reason(lambda: Result(zeros, "gzip", limits=dataclasses.replace(limits, ratio_from=2 << 20)))
    assert "times its size" in error.message and "gateway.max_ratio" in error.hint


# The overlay's own marks


def test_marks_of_the_overlay_are_dropped() -> None:
    marks = {"trusted.overlay.opaque": b"y", "trusted.overlay.redirect": b"/etc", "user.overlay.metacopy": b""}
    kept = {"user.overlays": b"1", "trusted.other": b"2", "user.a": b"3"}
    image = Result(
        [[*BASE, directory("d", xattrs=marks | kept), file("d/f", xattrs=marks), Entry(b"d/gone", tarfile.CHRTYPE)]]
    )
    assert b"overlay." not in image.stream
    found = {key.removeprefix("SCHILY.xattr.") for key in image["d"].pax_headers if "xattr" in key}
    assert found == set(kept)
    assert "d/gone" not in image and "d/f" in image


# Extended attributes


@pytest.mark.parametrize(
    ("attributes", "said"),
    [
        ({"user." + "n" * 251: b""}, "whose name is not valid"),
        ({"user.a": bytes(65537)}, "of 65537 bytes, the limit is 65536"),
        ({f"user.{number:050}": b"" for number in range(1200)}, "names have 67200 bytes, the limit is 65536"),
        ({"user.": b"v"}, "whose name is not valid"),
        ({"user.a\0b": b"v"}, "whose name is not valid"),
    ],
)
@pytest.mark.parametrize("entry", [file("x"), directory("x"), directory("")])
def test_attributes_that_no_node_could_read_are_found_at_conversion(
    attributes: dict[str, bytes], said: str, entry: Entry
) -> None:
    error = reason(lambda: Result([BASE, [dataclasses.replace(entry, xattrs=attributes)]]))
    assert said in error.message and error.owner == "user"


def test_attributes_up_to_the_kernel_s_limits_are_kept_and_those_that_are_dropped_have_none() -> None:
    kept = {"user." + "n" * 250: bytes(65536)}
    image = Result([[*BASE, file("x", xattrs=kept | {"security." + "n" * 300: b"", "trusted.overlay.": bytes(70000)})]])
    assert {key for key in image["x"].pax_headers if "xattr" in key} == {f"SCHILY.xattr.{key}" for key in kept}


# Accounts of the image


@pytest.mark.parametrize(
    ("name", "text", "said"),
    [
        ("passwd", b"a:x:" + b"9" * 5000 + b":0::/:/bin/sh\n", "line 1: 99999999999999999999… is too large"),
        ("passwd", b"root:x:0:0::/:/bin/sh\na:x:1:4294967295::/:\n", "line 2: 4294967295 is too large"),
        ("group", b"\n\na:x:4294967296:\n", "line 3"),
        ("passwd", b"a:x:\0:0::/:\n", "not a text file"),
        ("group", bytes((1 << 20) + 1), "the limit is 1048576"),
        ("passwd", os.urandom(1 << 20) + b"\n" * 5, "the limit is 1048576"),
    ],
)
@pytest.mark.parametrize("how", ["plain", "gzip"])
def test_accounts_that_cannot_be_are_found_at_conversion(name: str, text: bytes, said: str, how: str) -> None:
    error = reason(lambda: Result([BASE, [file(f"etc/{name}", text)]], how))
    assert said in error.message and error.message.startswith(f"/etc/{name} of the image")
    assert error.owner == "user"


@pytest.mark.parametrize(
    "text",
    [b"", b"+::::::\n", b"# no account\n", b"a:x:0000000000000000000000000001:0::/:\n", b"toor:x:00:0::/:\n",
     b"a:x:4294967294:4294967294::/:\n", b":::::\n", b"a:x:-2:0::/:\n", b"\xff\xfe:x:1:1::/:", "é:x:1:1::/:".encode(),
     b"a:x:1\n" * 80_000],
)  # fmt: skip
def test_accounts_that_are_only_odd_are_the_node_s_to_pass_over(text: bytes) -> None:
    image = Result(
        [BASE, [file("etc/passwd", text), symlink("etc/group", "passwd")], [file("etc/x", b"after")]], "gzip"
    )
    assert image.data("etc/passwd") == text and image.data("etc/x") == b"after"


# Words of the configuration


@pytest.mark.parametrize("key", ["Env", "Entrypoint", "Cmd", "WorkingDir"])
@pytest.mark.parametrize("word", ["/a\0b", "/" + "x" * (1 << 17)])
def test_words_that_no_program_can_be_given_are_found_at_conversion(key: str, word: str) -> None:
    document = {"rootfs": {"diff_ids": []}, "config": {key: word if key == "WorkingDir" else [word]}}
    error = reason(lambda: check_words(ImageConfig.parse(json.dumps(document).encode())))
    assert error.message.startswith(f"image configuration: {key} ") and error.owner == "user"


@pytest.mark.parametrize("key", ["Env", "Entrypoint", "Cmd", "WorkingDir"])
@pytest.mark.parametrize("raw", [rb'"/a\ud800b"', b'"/a\xff"', rb'"/\udc00\ud800"', '"/ä\u2028 日本"'.encode()])
def test_words_that_are_kept_can_be_written_and_given(key: str, raw: bytes) -> None:
    """Half a surrogate pair would fail every job, when its environment is written."""
    value = raw if key == "WorkingDir" else b"[" + raw + b"]"
    text = b'{"rootfs": {"diff_ids": []}, "config": {"' + key.encode() + b'": ' + value + b"}}"
    try:
        config = ImageConfig.parse(text)
        check_words(config)
    except ImageInvalid:
        return
    for word in (*config.env, *config.entrypoint, *config.cmd, config.workdir):
        assert word.encode().decode() == word and "\0" not in word


def test_words_that_no_program_can_be_given_together_are_found_at_conversion() -> None:
    for words in (["x" * 100_000] * 21, [f"{number}" for number in range(120_000)], [""] * 180_000, ["ä"] * 150_000):
        document = {"rootfs": {"diff_ids": []}, "config": {"Env": words[:9], "Entrypoint": words[9:]}}
        config = ImageConfig.parse(json.dumps(document).encode())
        error = reason(lambda config=config: check_words(config))  # type: ignore[misc]
        assert "Env, Entrypoint and Cmd take" in error.message and error.owner == "user"


@pytest.mark.parametrize("key", ["Env", "Entrypoint", "Cmd"])
@pytest.mark.parametrize("word", ["", "a=ä", "=", "x" * 130_000])
def test_words_that_are_taken_a_job_can_be_started_with(key: str, word: str) -> None:
    count = 2_000_000 // (len(word.encode()) + 12)
    config = ImageConfig.parse(json.dumps({"rootfs": {"diff_ids": []}, "config": {key: [word] * count}}).encode())
    check_words(config)
    facts = Facts(
        id="0" * 64, format="ext4", size=0, sha256="", env=config.env, entrypoint=config.entrypoint, cmd=config.cmd
    )
    assert run_data(facts, EnvironmentConfig(), Account("anna", 1000, 1000, (1000,), "/home/anna", "/bin/sh"), "x:1")


def test_facts_that_no_job_could_read_are_found_at_conversion(tmp_path: Path) -> None:
    """Each byte that is not text takes six in the store."""
    text = b'{"rootfs": {"diff_ids": []}, "config": {"Labels": {"a": "' + b"\xff" * (3 << 20) + b'"}}}'
    error = reason(lambda: convert(SourceImage(text, ()), str(tmp_path / "out"), GatewayConfig(), Silent()))
    assert "in the store" in error.message and not list(tmp_path.iterdir())


def test_layers_have_a_bound_wherever_they_come_from() -> None:
    text = json.dumps({"rootfs": {"diff_ids": [f"sha256:{0:064}"] * (MAX_LAYERS + 1)}}).encode()
    assert "has 1001 layers, the limit is 1000" in reason(lambda: ImageConfig.parse(text)).message


# What is written for the packer


def test_entries_without_data_do_not_collect_in_memory() -> None:
    with open(os.devnull, "wb") as sink:
        writer = TarWriter(sink.fileno(), lambda count: None)
        tracemalloc.start()
        for number in range(10_000):
            writer.entry(b"%d" % number, b"0")
        _, most = tracemalloc.get_traced_memory()
        tracemalloc.stop()
    assert most < 2 << 20
