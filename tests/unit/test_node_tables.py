"""Tables that a stranger may fill: accounts of an image, mounts and mappings of a process, numbers in all of them."""

from __future__ import annotations

import os
import random
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.effort import assert_linear
from udiroot import mountinfo, processes, smallfile
from udiroot.accounts import merged
from udiroot.fields import LARGEST_ID, number
from udiroot.holders import Held
from udiroot.mountinfo import Label, Mount
from udiroot.threads import with_own_descriptors

_OURS = "root:x:0:0::/root:/bin/sh\nalice:x:1001:1001::/home/alice:/bin/sh\n"


@given(st.integers(0, LARGEST_ID))
def test_numbers(value: int) -> None:
    assert number(str(value)) == number(f"00{value}") == value


@pytest.mark.parametrize(
    "text",
    ["", "-1", "+0", " 0", "0 ", "0\n", "1_0", "0x1", "\uff16", "\u0663", "\u00b2", "1e3", str(LARGEST_ID + 1),
     "9" * 20, "9" * 5000, "\udc80"],
)  # fmt: skip
def test_what_is_no_number(text: str) -> None:
    assert number(text) == -1


@given(st.text())
def test_any_text_is_a_number_or_none(text: str) -> None:
    assert -1 <= number(text) <= LARGEST_ID


def _merged(tmp_path: Path, name: str, text: str | bytes, ours: str = _OURS) -> list[str]:
    (tmp_path / name).write_bytes(text if isinstance(text, bytes) else text.encode())
    lines = merged(name, ours, str(tmp_path)).splitlines()
    assert lines[: ours.count("\n")] == ours.splitlines()
    return lines[ours.count("\n") :]


@pytest.mark.parametrize(
    "line",
    [
        "toor:x:00:0::/:/bin/sh",
        "toor:x:0000000000:0::/:/bin/sh",
        "six:x:\uff16:6::/:/bin/sh",
        f"big:x:{'9' * 5000}:0::/:/bin/sh",
        f"big:x:5:{'9' * 5000}::/:/bin/sh",
        "minus:x:-1:5::/:/bin/sh",
        "minus:x:4294967295:5::/:/bin/sh",
        "wraps:x:4294967296:5::/:/bin/sh",
        "plus:x:+0:0::/:/bin/sh",
        "blank:x: 0:0::/:/bin/sh",
        "person:x:1002:5::/:/bin/sh",
        "5:x:5:5::/:/bin/sh",
        "-x:x:5:5::/:/bin/sh",
        "+x:x:5:5::/:/bin/sh",
        "alice:x:5:5::/:/bin/sh",
        "nul:x:5:5:\0:/:/bin/sh",
        "escape:x:5:5:\x1b[0m:/:/bin/sh",
        "return:x:5:5::/:/bin/sh\r",
        f"long:x:5:5:{'x' * 5000}:/:/bin/sh",
        "few:x:5:5:/:/bin/sh",
    ],
)
def test_an_account_of_the_image_that_is_no_plain_system_account(tmp_path: Path, line: str) -> None:
    assert _merged(tmp_path, "passwd", f"{line}\ndaemon:!:0001:01::/:/bin/false\n") == ["daemon:x:1:1::/:/bin/false"]


@pytest.mark.parametrize(
    "line", ["wheel:x:00:", f"big:x:{'9' * 5000}:", "six:x:\uff16:", "minus:x:4294967295:", "a:x:5"]
)
def test_a_group_of_the_image_that_is_no_plain_system_group(tmp_path: Path, line: str) -> None:
    ours = "root:x:0:\nalice:x:1001:\n"
    assert _merged(tmp_path, "group", f"{line}\ntty:secret:05:\n", ours) == ["tty:x:5:"]


def test_the_first_account_of_a_name_or_number_counts(tmp_path: Path) -> None:
    text = "bin:x:2:2::/a:/b\nbin:x:3:3::/c:/d\nother:x:02:2::/e:/f\n"
    assert _merged(tmp_path, "passwd", text) == ["bin:x:2:2::/a:/b"]


def test_lines_of_the_site_s_own_that_are_no_accounts_stay(tmp_path: Path) -> None:
    assert _merged(tmp_path, "passwd", "bin:x:2:2::/:/b\n", "+::::::\n# note\nx\n") == ["bin:x:2:2::/:/b"]


@pytest.mark.parametrize(
    "text", [b"\n" * (1 << 20), b":\n" * (1 << 19), b"a:x:5:5::/:/b\n" * 70000, os.urandom(1 << 20)]
)
def test_accounts_of_any_bytes_are_read_in_linear_time(tmp_path: Path, text: bytes) -> None:
    def read(size: int) -> None:
        assert len(_merged(tmp_path, "passwd", text[:size])) <= 1

    assert_linear(read, 1 << 20)


def _mount(number: int, parent: int, point: str) -> Mount:
    return mountinfo.parse(f"{number} {parent} 0:40 / {point} ro - tmpfs udi:1.sdb:1001:made rw")


def test_mounts_come_before_those_that_they_are_on_whatever_the_order_of_the_table() -> None:
    mounts = [_mount(100, 7, "/r")]
    for each in range(101, 500):
        above = random.Random(each).choice(mounts)
        mounts.append(_mount(each, above.number, f"{above.point}/{each % 3}"))
    for seed in range(5):
        shuffled = random.Random(seed).sample(mounts, len(mounts))
        gone: set[int] = set()
        for mount in mountinfo.deepest_first(shuffled):
            gone.add(mount.number)
            assert mount.parent not in gone
        assert len(gone) == len(mounts)


@pytest.mark.parametrize("source", [r"a\040b", r"a\b", "a\\", r"a\04", r"a\999"])
def test_a_source_that_its_file_system_writes_by_itself(source: str) -> None:
    made = mountinfo.parse(f"1 2 0:40 / /x\\040y ro - fuse {source} rw")
    assert (made.point, made.source) == ("/x y", "a b" if source == r"a\040b" else source)


@pytest.mark.parametrize(("kind", "is_ours"), [("tmpfs", True), ("overlay", True), ("fuse", False), ("fuse.x", False)])
def test_a_label_that_a_user_gave_a_mount_of_his_is_none(kind: str, is_ours: bool) -> None:
    made = mountinfo.parse(f"1 2 0:40 / /tmp/mine ro - {kind} udi:1.sdb:1000:made rw")
    assert (made.label is not None) == is_ours


@pytest.mark.parametrize("uid", ["9" * 3000, "\u0663", "-1", "", "4294967295"])
def test_a_label_with_a_uid_that_is_none_is_none(uid: str) -> None:
    assert Label.parse(f"udi:1.sdb:{uid}:made") is None


def _held(**changes: object) -> Held:
    values: dict[str, object] = {
        "directories": ("/var/udi", "/var/run/udi/stage"),
        "devices": {os.makedev(0, 41), os.makedev(7, 3)},
        "job": "1.sdb",
        "loops": {"/dev/loop3"},
        "image": (os.makedev(0, 50), "/udi/images/x.directory"),
    }
    return Held(**(values | changes))  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("line", "ours"),
    [
        ("1 2 0:99 / /mnt rw - tmpfs udi:1.sdb:1001:made rw", True),
        ("1 2 0:99 / /mnt rw - tmpfs udi:2.sdb:1001:made rw", False),
        ("1 2 0:41 / /mnt rw - tmpfs other rw", True),
        ("1 2 7:3 / /mnt ro - squashfs /dev/loop3 ro", True),
        ("1 2 7:9 / /mnt ro - squashfs /dev/loop3 ro", True),
        ("1 2 7:33 / /mnt ro - squashfs /dev/loop33 ro", False),
        ("1 2 0:50 /udi/images/x.directory /mnt ro - lustre a@b:/c rw", True),
        ("1 2 0:50 /udi/images/x.directory/usr /mnt ro - lustre a@b:/c rw", True),
        ("1 2 0:50 /udi/images/x.directory2 /mnt ro - lustre a@b:/c rw", False),
        ("1 2 0:50 / /lus rw - lustre a@b:/c rw", False),
        (r"1 2 0:9 / /udi:1.sdb\0400:41 rw - tmpfs x rw", False),
    ],
)
def test_our_mounts_in_another_namespace(line: str, ours: bool) -> None:
    padding = "5 6 0:5 / /proc rw - proc proc rw\n" * 3
    assert _held().is_in_mounts(f"{padding}{line}\n{padding}".encode()) == ours
    assert _held().is_in_mounts(f"{padding}{line}".encode()) == ours


@pytest.mark.parametrize(
    ("line", "ours"),
    [
        ("7f00-7f01 r--p 00000000 07:03 12                 /usr/bin/sh", True),
        ("7f00-7f01 r--p 00000000 00:29 12                 /tmp/x (deleted)", True),
        ("7f00-7f01 r--p 00000000 00:99 12                 /var/udi/usr/bin/sh", True),
        ("7f00-7f01 r--p 00000000 00:99 12                 /var/udi2/usr/bin/sh", False),
        ("7f00-7f01 rw-p 00000000 00:00 0                  [anon: 07:03 /var/udi/x]", False),
        ("7f00-7f01 rw-p 00000000 00:00 0", False),
    ],
)
def test_our_files_among_mappings(line: str, ours: bool) -> None:
    padding = "7e00-7e01 rw-p 00000000 00:00 0 \n"
    assert _held().is_in_maps(f"{padding}{line}\n{padding}".encode()) == ours


def test_a_long_table_is_searched_in_linear_time() -> None:
    """Lines that look like ours and are not."""
    line = b"1 2 0:50 /elsewhere /mnt rw - lustre udi:2.sdb:1:made rw\n"
    held = _held(image=(os.makedev(0, 50), "/x"))

    def search(lines: int) -> None:
        assert not held.is_in_mounts(line * lines)

    assert_linear(search, 40_000)


@pytest.mark.parametrize("size", [1, 50, 4096, 1 << 20])
def test_blocks_are_complete_lines(tmp_path: Path, size: int) -> None:
    lines = [b"x" * random.Random(number).randrange(300) for number in range(3000)]
    path = tmp_path / "table"
    path.write_bytes(b"\n".join(lines))
    found = list(smallfile.blocks(str(path), size))
    assert b"".join(found) == path.read_bytes() == smallfile.read(str(path))
    assert all(block.endswith(b"\n") for block in found[:-1])
    assert len(found) > 1 or size > 4096


def test_threads_of_one_table_of_descriptors_are_one() -> None:
    import threading

    stop, ready = threading.Event(), threading.Barrier(9)

    def wait() -> None:
        ready.wait()
        stop.wait()

    threads = [threading.Thread(target=wait) for _ in range(8)]
    for thread in threads:
        thread.start()
    ready.wait()
    try:
        found = processes.tasks(os.getpid())
        assert len(found) >= 9
        assert len(with_own_descriptors(found)) == 1
    finally:
        stop.set()
        for thread in threads:
            thread.join()
