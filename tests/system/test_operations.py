"""The procedures of docs/operations.md, by the commands that are there."""

from __future__ import annotations

import json
import os
import re
import subprocess
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path

from tests.gateway.archives import file
from tests.pages import block_of
from tests.system import images
from tests.system.cray import HOOKS_LOG, B, Cray
from tests.system.endings import held_with
from tests.system.scripts import ranks

STORE, NODE_STORE = "/scratch/udi", "/lus/udi"
_DISK = 24 << 20


@contextmanager
def full(cray: Cray, directory: str) -> Iterator[None]:
    """The directory, as the machine has it, on a file system of its own that takes nothing more."""
    status = cray.machine.path(directory).stat()
    options = f"size=4k,mode={status.st_mode & 0o7777:o},uid={status.st_uid}"
    as_root(cray, "mount", "-t", "tmpfs", "-o", options, "none", directory)
    try:
        (cray.machine.path(directory) / "filler").write_bytes(bytes(4096))
        yield
    finally:
        as_root(cray, "umount", directory)


def as_root(cray: Cray, *words: str) -> None:
    done = cray.machine.run_as("root", list(words))
    assert done.returncode == 0, done.stderr


def released(cray: Cray, job: str) -> None:
    """After that the job runs in its image."""
    as_root(cray, "qrls", "-h", "s", job)
    assert cray.ended(job, states="C").status == "0"


def test_the_plans_file_system_is_full(cray: Cray) -> None:
    with full(cray, f"{STORE}/plans"):
        ended = cray.run("alice", ranks())
        held_with(ended, "the plan cannot be written to the image store", "no space left on device")
    assert f"job {ended.id}: held since" in cray.admin("status")
    released(cray, ended.id)


@contextmanager
def on_a_small_disk(cray: Cray, disk: Path) -> Iterator[None]:
    """The store, as it is, on an ext4 of its own that the login node and all nodes have mounted."""
    with disk.open("wb") as stream:
        stream.truncate(_DISK)
    on_host("mke2fs", "-q", "-t", "ext4", "-m", "0", str(disk))
    device = on_host("losetup", "--find", "--show", str(disk))
    nodes = cray.machine.nodes().values()
    undo: list[Callable[[], object]] = [partial(on_host, "losetup", "--detach", device)]
    try:
        as_root(cray, "mount", "-t", "ext4", device, "/mnt")
        undo.append(partial(as_root, cray, "umount", "/mnt"))
        as_root(cray, "cp", "-a", f"{STORE}/.", "/mnt")
        as_root(cray, "mount", "--bind", "/mnt", STORE)
        undo.append(partial(as_root, cray, "umount", STORE))
        for node in nodes:
            node.run(["mount", "-t", "ext4", device, NODE_STORE], check=True)
            undo.append(partial(node.run, ["umount", NODE_STORE], check=True))
        yield
    finally:
        for step in reversed(undo):
            step()


def on_host(*words: str) -> str:
    return subprocess.run(words, check=True, capture_output=True, text=True, timeout=60).stdout.strip()


def unused_for_days(cray: Cray, name: str) -> None:
    """As if nobody had used that image of alice's since."""
    then = int(time.time()) - 10 * 86400
    os.utime(cray.machine.path(f"{STORE}/images/{cray.ids[name]}.json"), (then, then))
    for path in cray.machine.path(f"{STORE}/refs").glob(f"{name}~*.json"):
        path.write_text(json.dumps(json.loads(path.read_text()) | {"used": then, "created": then}))


def pull_large(cray: Cray, name: str, size: int, code: int = 0) -> str:
    """A pull by alice of an image with so many bytes that no compression makes less; what she reads."""
    home = cray.machine.path("/home/alice")
    layers = [*images.tiny(cray.marker(name)), [file("usr/data", os.urandom(size))]]
    cray.ids[name] = images.save(home / "large.tar", layers, name, (home.stat().st_uid, home.stat().st_gid))
    return cray.udi("alice", "pull", "docker-archive:/home/alice/large.tar", code=code).stderr


def test_the_store_is_full(cray: Cray, tmp_path: Path) -> None:
    """The page's commands, as they stand there, make room for pulls and for the plans of jobs."""
    page = block_of("docs/operations.md", "df -h STORE; df -i STORE")
    lines = [re.sub(r" +#.*", "", line) for line in page.splitlines() if line]
    with on_a_small_disk(cray, tmp_path / "disk"), cray.configured({"gateway": {"keep_days": 5}}):
        pull_large(cray, "old:1", _DISK // 3)
        unused_for_days(cray, "old:1")
        cray.machine.run_as("udi", ["dd", "if=/dev/zero", f"of={STORE}/filler", "bs=1024"])
        said = pull_large(cray, "new:1", _DISK // 4, code=6)
        assert f"image file cannot be written to {STORE}/images: no space left on device" in said
        with cray.without_filter():
            ended = cray.run("alice", ranks())
        held_with(ended, "the plan cannot be written to the image store", "no space left on device")
        told = {}
        for line in lines:
            typed = line.replace("STORE", STORE).replace("ACCOUNT", "udi").replace("JOB", ended.id)
            done = cray.machine.run_as("root", ["/bin/bash", "-lc", typed])
            assert done.returncode == 0, f"{typed}: {done.stdout}{done.stderr}"
            told[typed.split("; ")[0].removeprefix("runuser -u udi -- ")] = done.stdout
        assert "100%" in told[f"df -h {STORE}"]
        gone = f"{cray.ids['old:1'][:12]} (old:1): age\n"
        assert told["udi-gateway expire --dry-run"] == f"would remove {gone}"
        assert told["udi-gateway expire"] == f"removed {gone}"
        assert f"job {ended.id}: held since" in told["udi-admin status"]
        assert cray.ended(ended.id, states="C").status == "0"
        pull_large(cray, "new:1", _DISK // 4)
        assert "new:1" in cray.udi("alice", "images").stdout


def test_alps_is_down(cray: Cray) -> None:
    for fault in ("apstat-broken", "basil-empty"):
        cray.machine.set_fault(fault, value="1000")
    with cray.configured({"alps": {"reservation_wait": 1}, "torque": {"max_starts": 1}}):
        ended = cray.run("alice", ranks())
    held_with(ended, "cannot open shared appinfo file", starts=1)
    cray.machine.clear_faults()
    assert f"job {ended.id}: held since" in cray.admin("status")
    released(cray, ended.id)


def test_a_node_will_not_come_clean(cray: Cray) -> None:
    cray.machine.set_fault("dead-node", node=B)
    assert cray.ended(cray.qsub("alice", ranks())).status == "0"
    assert f"nid{B:05d}: admindown, dirty since" in cray.admin("status")
    assert "no answer" in cray.admin("recover", f"nid{B:05d}", code=8)
    cray.machine.clear_faults()
    assert cray.admin("recover", f"nid{B:05d}") == f"nid{B:05d}: clean and up\n"


def test_what_nodes_said_of_a_step_that_failed(cray: Cray) -> None:
    with cray.configured({"node": {"python": ["/bin/false"]}}):
        ended = cray.run("alice", ranks())
    text = cray.machine.path(f"/var/log/udi/reports/{ended.id}.setup").read_text()
    assert "2 nodes asked, 0 reported" in text and "could not start: exit code 1 without a message" in text


def test_the_logs_disk_is_full(cray: Cray) -> None:
    """Jobs go on, and the log is written again when there is space."""
    log = cray.machine.path(HOOKS_LOG)
    with full(cray, str(Path(HOOKS_LOG).parent)):
        assert cray.run("alice", ranks()).status == "0"
        assert not log.exists() or log.stat().st_size == 0
    assert f"job {cray.run('alice', ranks()).id} INFO" in log.read_text()
