"""Flattening, without a packer: each image bug that other tools had is a test here (docs/lessons.md)."""

from __future__ import annotations

import contextlib
import hashlib
import os
import tarfile
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from gateway.image.blob import Blob
from gateway.image.checking import Checks
from gateway.image.flatten import flatten
from gateway.image.layers import Layer
from gateway.image.limits import Limits
from tests.gateway.archives import (
    BASE,
    Entry,
    compressed,
    directory,
    file,
    hardlink,
    layer_tar,
    symlink,
    whiteout,
)
from tests.unit.flattened import LIMITS, Result, flat, refused
from udiroot.errors import ImageInvalid
from xcsim.processes import wait_until

# Types


KINDS = {
    "file": [file("x", b"new")],
    "directory": [directory("x", 0o700), file("x/new")],
    "symlink": [symlink("x", "new")],
}
OLD = {"file": [file("x", b"old")], "directory": [directory("x"), file("x/old/deep")], "symlink": [symlink("x", "bin")]}


@pytest.mark.parametrize("new", KINDS)
@pytest.mark.parametrize("old", OLD)
def test_all_nine_type_changes(old: str, new: str) -> None:
    result = flat(OLD[old], KINDS[new])
    member = result["x"]
    assert {"file": member.isreg(), "directory": member.isdir(), "symlink": member.issym()}[new]
    kept = {"x/old", "x/old/deep"} if old == new == "directory" else set()
    assert result.below("x") == kept | ({"x/new"} if new == "directory" else set())
    assert result.below("bin") == {"bin/sh"}


def test_an_entry_below_a_file_replaces_it_by_a_directory() -> None:
    result = flat([file("a")], [file("a/b")])
    assert result["a"].isdir()
    assert "a/b" in result


def test_device_nodes_are_dropped_and_fifos_kept_wherever_they_are() -> None:
    result = flat(
        [
            file("x/file"),
            Entry(b"x/c", tarfile.CHRTYPE),
            Entry(b"dev/b", tarfile.BLKTYPE),
            Entry(b"f", tarfile.FIFOTYPE),
        ],
        [Entry(b"x/file", tarfile.CHRTYPE)],
    )
    assert not result.below("x")
    assert "dev/b" not in result
    assert result["f"].isfifo()


# Hard links


def test_hard_links_within_and_across_layers() -> None:
    result = flat([file("a", b"1"), hardlink("b", "a")], [hardlink("c", "b")])
    assert {name for name in ("a", "b", "c") if result[name].islnk()} == {"b", "c"}
    assert result["b"].linkname == result["c"].linkname == "a"
    assert result.flat.reached.inodes == result.flat.reached.entries - 2


def test_a_hard_link_is_bound_to_the_inode_not_to_the_name() -> None:
    result = flat([file("a", b"old"), hardlink("b", "a"), hardlink("c", "a")], [file("a", b"new")])
    assert result.data("a") == b"new"
    assert result.data("b") == b"old"
    assert result["c"].linkname == "b"


def test_a_hard_link_whose_target_is_removed_stays() -> None:
    result = flat([file("d/a", b"old", mode=0o640), hardlink("b", "d/a")], [whiteout("d")])
    assert result.data("b") == b"old"
    assert result["b"].isreg()
    assert result["b"].mode == 0o640


@pytest.mark.parametrize("target", ["/d/a", "d/../d/a", "../../d/a", "link/a"])
def test_hard_link_targets_are_resolved_against_the_root(target: str) -> None:
    result = flat([file("d/a", b"1"), symlink("link", "/d"), hardlink("x/b", target)])
    assert result["x/b"].linkname == "d/a"


def test_a_hard_link_to_a_symlink_is_a_symlink() -> None:
    assert flat([symlink("a", "/nowhere"), hardlink("b", "a")])["b"].linkname == "a"


def test_a_hard_link_to_itself_changes_nothing() -> None:
    assert flat([file("a", b"1"), hardlink("a", "a")]).data("a") == b"1"


def test_a_hard_link_to_a_dropped_device_is_dropped() -> None:
    assert "b" not in flat([Entry(b"a", tarfile.CHRTYPE), hardlink("b", "a")])


@pytest.mark.parametrize("target", ["missing", "bin", "", "/"])
def test_a_hard_link_to_nothing_or_to_a_directory_is_refused(target: str) -> None:
    assert "is a hard link to" in refused([hardlink("b", target)])


# Names


def test_implicit_parents_are_0755_also_those_of_hard_links() -> None:
    result = flat([file("a/b/c", mode=0o600), hardlink("x/y/z", "a/b/c")])
    assert {result[name].mode for name in ("a", "a/b", "x", "x/y")} == {0o755}
    assert result["x"].uid == 0


def test_a_directory_described_after_its_contents() -> None:
    result = flat([file("d/x"), directory("d", 0o511, uid=7, gid=8)])
    assert (result["d"].mode, result["d"].uid, result["d"].gid) == (0o511, 7, 8)
    assert "d/x" in result


def test_of_duplicate_entries_the_last_wins() -> None:
    assert flat([file("a", b"1"), file("a", b"2", mode=0o600)]).data("a") == b"2"


def test_duplicate_layers() -> None:
    layer = [file("a", b"1"), hardlink("b", "a")]
    assert flat(layer, layer)["b"].linkname == "a"


@pytest.mark.parametrize("name", ["/etc/x", "../etc/x", "../../etc/x", "./etc//x", "a/../etc/x", "/../etc/./x"])
def test_names_never_leave_the_root(name: str) -> None:
    result = flat([file(name, b"inside")])
    assert result.data("etc/x") == b"inside"
    assert not any(b".." in path.split(b"/") for path in result.members)


@pytest.mark.parametrize(
    "entry",
    [
        symlink("../../x", "/etc"),
        hardlink("../../x", "../../bin/sh"),
        directory("../../x"),
        Entry(b"/../x", tarfile.FIFOTYPE),
        whiteout("../../old"),
    ],
    ids=["symlink", "hard link", "directory", "pipe", "whiteout"],
)
def test_no_kind_of_entry_leaves_the_root(entry: Entry) -> None:
    result = flat([file("old")], [entry])
    assert set(map(os.fsdecode, result.members)) - {".", "bin", "bin/sh"} == (
        set() if b".wh." in entry.name else {"old", "x"}
    )


def test_a_hard_link_never_means_a_file_of_the_gateways_host(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "planted").write_text("of the host")
    monkeypatch.chdir(tmp_path)
    for target in ("planted", "./planted", f"{tmp_path}/planted", "/proc/self/cwd/planted"):
        assert "does not exist" in refused([hardlink("x", target)])


@pytest.mark.parametrize("target", ["/etc", "../../etc", "etc", "/../etc", "loop/../etc"])
def test_names_through_a_symlink_stay_inside_the_root(target: str) -> None:
    result = flat([directory("etc"), symlink("link", target)], [file("link/x", b"1")])
    assert result.data("etc/x") == b"1"
    assert result["link"].issym()


def test_names_through_a_dangling_symlink_make_its_target() -> None:
    assert flat([symlink("link", "/no/where")], [file("link/x", b"1")]).data("no/where/x") == b"1"


def test_symlinks_in_a_circle_are_refused() -> None:
    assert "loop" in refused([symlink("a", "b"), symlink("b", "a"), file("a/x")])


def test_symlink_targets_are_data() -> None:
    assert flat([symlink("a", "/../../x"), symlink("b", "../" * 40)])["a"].linkname == "/../../x"


@pytest.mark.parametrize("name", ["/", ".", "./", "a/.."])
def test_an_entry_for_the_root_may_only_be_a_directory(name: str) -> None:
    assert flat([directory(name, 0o711, uid=5)])["."].mode == 0o711
    assert "replace the root" in refused([symlink(name, "/etc")])


def test_an_entry_without_a_name_is_passed_over() -> None:
    assert "a" in flat([file("", b""), file("a")])


def test_names_that_hold_dots_are_names() -> None:
    result = flat([file("foo..bar"), file("..x"), file("...")])
    assert "foo..bar" in result
    assert "..x" in result
    assert "..." in result


def test_names_that_are_not_utf8() -> None:
    result = flat([file(b"d/\xff\xfe", b"1"), symlink(b"d/l", b"\xe9"), hardlink(b"d/h", b"d/\xff\xfe")])
    assert result.data(b"d/\xff\xfe") == b"1"
    assert os.fsencode(result["d/l"].linkname) == b"\xe9"
    assert os.fsencode(result["d/h"].linkname) == b"d/h" or os.fsencode(result[b"d/\xff\xfe"].linkname) == b"d/h"


def test_long_names_and_link_targets() -> None:
    name = "/".join(["d" * 250] * 16)
    result = flat([file(name, b"1"), symlink("l", "t" * 4000), hardlink("h", name)])
    assert result.data("h") == b"1"
    assert result["l"].linkname == "t" * 4000


@pytest.mark.parametrize("name", ["n" * 256, "d/" + "n" * 300])
def test_a_component_above_255_bytes_is_refused(name: str) -> None:
    assert "255" in refused([file(name)])


def test_owners_modes_and_times_are_numbers_and_kept() -> None:
    member = flat([file("a", mode=0o4755, uid=3_000_000, gid=4_000_000_000, mtime=1)])["a"]
    assert (member.mode, member.uid, member.gid, member.mtime) == (0o4755, 3_000_000, 4_000_000_000, 1)


def test_times_outside_of_what_squashfs_knows_are_brought_inside() -> None:
    result = flat([file("a", mtime=-5), file("b", mtime=1 << 40)])
    assert (result["a"].mtime, result["b"].mtime) == (0, (1 << 32) - 1)


@pytest.mark.parametrize("mask", [0o000, 0o077])
def test_the_umask_does_not_leak(mask: int) -> None:
    before = os.umask(mask)
    try:
        assert flat([file("a", mode=0o666), directory("d", 0o777)])["d"].mode == 0o777
    finally:
        os.umask(before)


def test_xattrs_are_kept_but_for_security() -> None:
    result = flat([file("a", xattrs={"user.x": b"\0\xff=\n", "security.capability": b"1", "system.acl": b"2"})])
    assert b"SCHILY.xattr.user.x=\0\xff=\n\n" in result.stream
    assert b"security." not in result.stream
    assert b"system." not in result.stream


# What a node could not use


@pytest.mark.parametrize(
    "name", ["-a", "etc/-a", "etc/a\nb", "var/\x7f", "opt/a\x1b[m", "a\x85", b"opt/\xff", b"\xc3("]
)
def test_names_that_a_node_would_refuse_are_named(name: str | bytes) -> None:
    assert "invalid name " in refused([file(name)])


@pytest.mark.parametrize(
    "name", ["opt/R@4.2", "opt/foo~rc1", "a b", "a:b", "var/ä", "opt/a,b", "x;y", "etc/#x#", "日本"]
)
def test_names_that_harm_nobody(name: str) -> None:
    assert name in flat([file(name)])


def test_such_names_are_fine_deeper_down_and_behind_links() -> None:
    assert "var/lib/-b" in flat([file("var/lib/-b"), directory("real"), file("real/-b"), symlink("opt", "real")])


def test_an_image_needs_no_shell() -> None:
    assert b"program" in Result([[file("program", mode=0o755)]]).members


# Layers


@pytest.mark.parametrize("how", ["plain", "gzip", "zstd", "gzip-members", "zstd-frames"])
def test_all_compressions_give_the_same_stream(how: str) -> None:
    layers = [BASE, [file("big", os.urandom(1000) * 900), file("small", b"x")], [file("more", b"y" * 100_000)]]
    assert Result(layers, how).stream == Result(layers).stream


def test_a_layer_that_is_not_what_the_configuration_says() -> None:
    with tempfile.TemporaryFile() as source:
        data = layer_tar(BASE)
        source.write(data)
        source.flush()
        layer = Layer(Blob(source.fileno(), 0, len(data)), "sha256:" + "0" * 64, 1)
        with pytest.raises(ImageInvalid, match="layer 1 does not match the image configuration"):
            flatten([layer], LIMITS, lambda count: None)


@pytest.mark.parametrize("how", ["gzip", "zstd"])
@pytest.mark.parametrize("cut", [0.3, 0.9])
def test_a_compressed_layer_that_is_cut_off(how: str, cut: float) -> None:
    plain = layer_tar([*BASE, file("a", os.urandom(200_000))])
    stored = compressed(plain, how)
    with tempfile.TemporaryFile() as source:
        source.write(stored[: int(len(stored) * cut)])
        source.flush()
        blob = Blob(source.fileno(), 0, int(len(stored) * cut))
        with pytest.raises(ImageInvalid, match="layer 1"):
            flatten([Layer(blob, f"sha256:{hashlib.sha256(plain).hexdigest()}", 1)], LIMITS, lambda count: None)


def test_limits_of_bytes_entries_and_ratio() -> None:
    big = [BASE, [file("a", b"\0" * (80 << 20))]]
    with pytest.raises(ImageInvalid, match="more than 1000 bytes"):
        Result(big, limits=Limits(1000, 100, 1000))
    with pytest.raises(ImageInvalid, match="times its size"):
        Result(big, "zstd", limits=Limits(1 << 30, 100, 10, ratio_from=64 << 20))
    with pytest.raises(ImageInvalid, match="more than 3 entries"):
        Result([BASE, [file("a/b/c/d")]], limits=Limits(1 << 30, 3, 1000))


@contextlib.contextmanager
def _checks(layers: list[Layer]) -> Iterator[Checks]:
    with Checks() as checks:
        for layer in layers:
            checks.add(layer)
        yield checks


def test_layers_are_checked_beside_the_work_on_them(tmp_path: Path) -> None:
    plain = layer_tar([*BASE, file("a", b"x" * 100_000)])
    (tmp_path / "layer").write_bytes(plain)
    good = f"sha256:{hashlib.sha256(plain).hexdigest()}"
    with (tmp_path / "layer").open("rb") as stream:
        blob = Blob.of_file(stream.fileno())
        layers = [Layer(blob, good, 1)]
        with Checks() as checks:
            flat = flatten(layers, LIMITS, lambda count: None, checks)
            checks.finish()
        assert flat.data_bytes == 100_000 + len(BASE[1].data)
        wrong = [Layer(blob, good, 1), Layer(blob, "sha256:" + "0" * 64, 2)]
        with _checks(wrong) as checks:
            with pytest.raises(ImageInvalid, match="layer 2 does not match the image configuration"):
                checks.finish()
            with pytest.raises(ImageInvalid, match="layer 2 does not"):
                checks.look()
        cut = [Layer(Blob(stream.fileno(), 0, len(plain) + 1), good, 1)]
        with _checks(cut) as checks, pytest.raises(ImageInvalid, match=f"ends after {len(plain)} of"):
            checks.finish()
        with _checks(wrong):
            pass  # nobody waits for what nobody wants any more


@pytest.mark.parametrize("how", ["packed", "finish", "given up"])
def test_a_third_is_checked_when_all_is_packed(tmp_path: Path, how: str, monkeypatch: pytest.MonkeyPatch) -> None:
    data = bytes(30_000)
    (tmp_path / "layer").write_bytes(data)
    read: list[int] = []
    preadv = os.preadv

    def counted(descriptor: int, buffers: list[memoryview], offset: int) -> int:
        read.append(preadv(descriptor, buffers, offset))
        return read[-1]

    monkeypatch.setattr("gateway.image.checking._PIECE", 1000)
    monkeypatch.setattr("gateway.image.digesting.os.preadv", counted)
    checks = Checks()
    with (tmp_path / "layer").open("rb") as stream:
        checks.add(Layer(Blob.of_file(stream.fileno()), f"sha256:{hashlib.sha256(data).hexdigest()}", 1))
        checks.packing()
        with checks:
            assert wait_until(lambda: sum(read) == 20_000, 30, 0.01)
            time.sleep(0.05)
            assert sum(read) == 20_000
            if how == "packed":
                checks.packed()
                assert wait_until(lambda: sum(read) == 30_000, 30, 0.01)
            if how != "given up":
                checks.finish()
        assert sum(read) == (20_000 if how == "given up" else 30_000)


def test_packing_ends_as_soon_as_a_layer_turns_out_to_be_another(tmp_path: Path) -> None:
    plain = layer_tar([*BASE, file("a", b"x" * 3_000_000)])
    (tmp_path / "layer").write_bytes(plain)
    good = f"sha256:{hashlib.sha256(plain).hexdigest()}"
    with (tmp_path / "layer").open("rb") as stream, open(os.devnull, "wb") as sink:
        blob = Blob.of_file(stream.fileno())
        with _checks([Layer(blob, "sha256:" + "0" * 64, 1)]) as checks:
            with pytest.raises(ImageInvalid):
                checks.finish()
            flat = flatten([Layer(blob, good, 1)], LIMITS, lambda count: None)
            flat.checks = checks
            with pytest.raises(ImageInvalid, match="layer 1 does not match the image configuration"):
                flat.write(sink.fileno(), lambda count: None)


@pytest.mark.parametrize("flag", [0x04, 0x08, 0x10, 0x1F])
def test_a_gzip_header_without_an_end(flag: int) -> None:
    """Its extra field, name or comment."""
    header = b"\x1f\x8b\x08" + bytes([flag]) + bytes(6) + b"\xff\xff" + b"n" * (2 << 20)
    with tempfile.TemporaryFile() as source:
        source.write(header)
        source.flush()
        layer = Layer(Blob.of_file(source.fileno()), f"sha256:{0:064}", 1)
        with pytest.raises(ImageInvalid, match="layer 1 is damaged"):
            flatten([layer], LIMITS, lambda count: None)
