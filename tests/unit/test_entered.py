"""Whether an image was used: counted by the kernel, carried by the teardown's reports, told to the user."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from jobs.state import READY, SETTING_UP, JobDirectory, JobState
from tests.unit.cray_standins import StandIns
from udi.nodes import numbered
from udiroot import entered, mountinfo, smallfile
from udiroot.record import Record

LABEL = "udi:12:1.s"
TABLE = "30 1 0:39 / {root} rw - tmpfs udi:1.s:1:made rw\n31 30 7:{minor} /bin {root}/bin ro - squashfs /dev/loop0 ro\n"


@pytest.fixture
def kernel(monkeypatch: pytest.MonkeyPatch) -> Callable[[str, int], None]:
    """Sets the table of mounts and how much was read of every device. Device 9 is the site's, all others the job's."""

    def set_to(table: str, reads: int) -> None:
        real = smallfile.read
        monkeypatch.setattr(entered, "_is_named", lambda device, label: device != "7:9" and label == LABEL)
        lines = table.replace("{root}", "/var/udi").replace("{minor}", "5").splitlines()
        monkeypatch.setattr(mountinfo, "read", lambda pid="self": [mountinfo.parse(line) for line in lines])
        monkeypatch.setattr(
            smallfile, "read", lambda path: f" {reads} 0 9 0".encode() if "/sys/" in path else real(path)
        )

    return set_to


def record(job: str = "1.s") -> Record:
    made = Record(
        job=job, uid=1, root="/var/udi", image="/i", pid=1, start=1, since=1, boot="b", made=True,
        reads=entered.reads("/var/udi", LABEL),
    )  # fmt: skip
    read = Record.parse(made.text().encode())
    assert read is not None and read.reads == made.reads
    return read


def test_only_reads_since_set_up_count(kernel: Callable[[str, int], None]) -> None:
    kernel(TABLE, 40)
    kept = record()
    assert kept.reads == "7:5 40"
    assert entered.is_unread(kept, "1.s", "/var/udi")
    kernel(TABLE, 41)
    assert not entered.is_unread(kept, "1.s", "/var/udi")


def test_a_device_of_the_site_in_the_root_is_not_counted(kernel: Callable[[str, int], None]) -> None:
    kernel(TABLE + "32 30 7:9 / {root}/scratch rw - ext4 /dev/loop9 rw\n", 40)
    assert record().reads == "7:5 40"


def test_where_it_is_not_certain_the_image_counts_as_used(kernel: Callable[[str, int], None]) -> None:
    kernel(TABLE, 40)
    kept = record()
    assert not entered.is_unread(None, "1.s", "/var/udi")
    assert not entered.is_unread(kept, "2.s", "/var/udi")
    kernel(TABLE.replace("{minor}", "6"), 40)
    assert not entered.is_unread(kept, "1.s", "/var/udi")
    kernel("", 40)
    assert not entered.is_unread(kept, "1.s", "/var/udi")


@pytest.mark.parametrize(
    "table",
    [
        "",
        "30 1 0:39 / {root} rw - tmpfs t rw\n31 30 0:50 / {root}/bin ro - lustre x ro\n",
        TABLE + "32 30 7:8 / {root}/cache rw - ext4 /dev/loop8 rw\n",
        TABLE.replace("{minor}", "9"),
        TABLE.replace("{root}", "/var/udi2"),
    ],
)
def test_an_image_without_a_device_of_its_own_is_not_counted(kernel: Callable[[str, int], None], table: str) -> None:
    kernel(table, 40)
    kept = record()
    assert kept.reads == "" and not entered.is_unread(kept, "1.s", "/var/udi")


needs_root = pytest.mark.skipif(os.geteuid() != 0, reason="the configuration must be root's")


@needs_root
@pytest.mark.parametrize(
    ("phase", "reports", "told"),
    [
        (READY, {12: "unread=1", 13: "unread=1"}, True),
        (READY, {12: "unread=1", 13: "-"}, False),
        (READY, {12: "-", 13: "-"}, False),
        (SETTING_UP, {12: "unread=1", 13: "unread=1"}, False),
    ],
)
def test_the_user_is_told_where_no_node_used_the_image(
    tmp_path: Path, phase: str, reports: dict[int, str], told: bool
) -> None:
    cray = StandIns(tmp_path)
    nodes = (numbered(12), numbered(13))
    JobDirectory(cray.site, "123.sdb").save(
        JobState("123.sdb", "alice", "debian:12", "ab" * 32, "524", nodes, f"{cray.store}/plans/x", phase, 1)
    )
    for nid, left in reports.items():
        cray.tell(f"unsetupRoot.{nid}", f"ok 5 0 - {left} clean")
    arguments = ["--config", str(cray.config_path), "123.sdb", "root", "root", "run", "1", "", "", "batch", "", "0"]
    code, err = _epilogue(arguments)
    assert code == 0
    assert err.count("\n") == (1 if told else 0)
    assert ("no program of this job ran in its image debian:12" in err) == told


def _epilogue(arguments: list[str]) -> tuple[int, str]:
    code = "import sys; from admin.entry.torque import epilogue; sys.exit(epilogue())"
    done = subprocess.run([sys.executable, "-c", code, *arguments], capture_output=True, text=True, check=False)
    return done.returncode, done.stderr
