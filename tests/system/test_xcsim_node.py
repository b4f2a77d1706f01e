"""A compute node by itself: what it has, what it has not, and that nothing of it is left when it is gone."""

import os
import subprocess
import sysconfig
from collections.abc import Iterator
from pathlib import Path

import pytest

from udiroot.errors import NotFound, SetupFailed
from xcsim.node import ComputeNode, NodeFiles, NodeMount
from xcsim.picture import mounts_of
from xcsim.processes import ProcessId, wait_until

LIBRARIES = f"/dsl/usr/lib/{sysconfig.get_config_var('MULTIARCH')}"

pytestmark = pytest.mark.skipif(os.geteuid() != 0, reason="namespaces and mounts need root")


@pytest.fixture(scope="module")
def node(tmp_path_factory: pytest.TempPathFactory) -> Iterator[ComputeNode]:
    state = tmp_path_factory.mktemp("node")
    (state / "lustre").mkdir()
    files = NodeFiles(state / "nodes", mounts=(NodeMount(str(state / "lustre"), "/scratch"),))
    with ComputeNode(12, files) as started:
        yield started


def shell(node: ComputeNode, line: str) -> str:
    return node.run(["sh", "-c", line], check=True).stdout


def test_it_is_an_initramfs(node: ComputeNode) -> None:
    assert shell(node, "cat /etc/xcsim/nid; hostname; cat /proc/1/comm") == "12\nnid00012\ninit\n"
    assert node.run(["sh", "-c", "find / -xdev -name '*.so*' -o -xdev -name 'python*'"]).stdout == ""
    with pytest.raises(FileNotFoundError):
        node.run(["python3"])


def test_python_runs_by_the_loader_of_the_shared_root(node: ComputeNode) -> None:
    loader = [f"{LIBRARIES}/ld-linux-x86-64.so.2", "--library-path", f"{LIBRARIES}:/dsl/lib/x86_64-linux-gnu"]
    done = node.run([*loader, "/dsl/usr/bin/python3", "-I", "-S", "-c", "import ctypes, os; print(os.getuid())"], uid=7)
    assert (done.returncode, done.stdout) == (0, "7\n")


def test_the_shared_root_cannot_be_written(node: ComputeNode) -> None:
    assert "Read-only" in node.run(["touch", "/dsl/x"]).stderr


def test_who_runs_and_where(node: ComputeNode) -> None:
    done = node.run(["sh", "-c", "id; pwd; cat"], uid=1001, gid=1001, groups=[2001], cwd="/scratch", input="words")
    assert done.stdout == "uid=1001 gid=1001 groups=2001\n/scratch\nwords"
    assert node.run(["pwd"], cwd="/nowhere").stdout == "/\n"


def test_exit_codes_and_signals_come_through(node: ComputeNode) -> None:
    assert node.run(["sh", "-c", "exit 7"]).returncode == 7
    assert node.run(["sh", "-c", "kill -9 $$"]).returncode == -9


def test_a_timeout_ends_the_program(node: ComputeNode) -> None:
    before = node.processes()
    with pytest.raises(subprocess.TimeoutExpired):
        node.run(["sh", "-c", "sleep 60; true"], timeout=0.1)
    assert wait_until(lambda: node.processes() == before, 30)


def test_a_picture_shows_what_was_left(node: ComputeNode) -> None:
    before = node.snapshot()
    assert before.difference(node.snapshot()) == []
    shell(node, "mkdir -m 700 /var/x; mount -t tmpfs y /var/x; echo 12 > /tmp/f; setsid sleep 60 >/dev/null 2>&1 &")
    assert wait_until(lambda: len(node.processes()) > 1, 30)
    left = before.difference(node.snapshot())
    assert [line.split()[1] for line in left] == ["mounts:", "processes:", "files:", "files:"]
    assert "+ files: /tmp/f -rw-r--r-- 0:0 3" in left
    shell(node, "umount /var/x; rmdir /var/x; rm /tmp/f; kill $(pidof sleep)")
    assert wait_until(lambda: before.difference(node.snapshot()) == [], 30)


@pytest.mark.parametrize("is_named", [True, False])
def test_its_loop_devices_are_in_the_picture_and_end_with_it(tmp_path: Path, is_named: bool) -> None:
    """As the memory of a node that is switched off: also those that do not clear themselves, and no other node's."""
    (tmp_path / "lustre").mkdir()
    files = NodeFiles(tmp_path / "nodes", mounts=(NodeMount(str(tmp_path / "lustre"), "/scratch"),))
    with ComputeNode(17, files) as other:
        shell(other, "dd if=/dev/zero of=/scratch/other bs=4096 count=8 2>/dev/null; losetup -f /scratch/other")
        with ComputeNode(16, files) as node:
            assert node.snapshot().loops == ()
            shell(node, "dd if=/dev/zero of=/scratch/one bs=4096 count=8 2>/dev/null; losetup -f /scratch/one")
            if not is_named:
                shell(node, "rm /scratch/one")
            (line,) = node.snapshot().loops
            device, path = line.split(" ", 1)
            assert path == ("/scratch/one" if is_named else "/scratch/one (deleted)")
        assert _backing(device) not in (path, path.removeprefix("/scratch"))
        (line,) = other.snapshot().loops
    assert _backing(line.split()[0]) != "/other"


def _backing(device: str) -> str:
    """The file of a loop device, as this host sees it; nothing where it has none."""
    try:
        return Path(f"/sys/block/{device}/loop/backing_file").read_text().strip()
    except OSError:
        return ""


def test_nothing_of_it_reaches_the_host(node: ComputeNode) -> None:
    before = mounts_of("self")
    shell(node, "mkdir -p /var/x; mount -t tmpfs y /var/x")
    assert mounts_of("self") == before
    shell(node, "umount /var/x; rmdir /var/x")


def test_a_stop_is_complete(tmp_path: Path) -> None:
    mounts = mounts_of("self")
    node = ComputeNode(13, NodeFiles(tmp_path / "nodes"))
    node.start()
    init = ProcessId.of(node.pid)
    node.run(["sh", "-c", "setsid sleep 60 >/dev/null 2>&1 &"])
    pids = node.processes()
    node.stop()
    node.stop()
    assert not init.alive and not node.running
    assert not any(Path(f"/proc/{pid}/ns").exists() and ProcessId.of(pid).alive for pid in pids)
    assert mounts_of("self") == mounts
    with pytest.raises(NotFound, match="nid00013 is not running"):
        node.run(["true"])


def test_a_saved_pid_of_another_process_is_not_trusted(tmp_path: Path) -> None:
    node = ComputeNode(14, NodeFiles(tmp_path))
    (tmp_path / "nid00014.json").write_text(f'{{"pid": {os.getpid()}, "start": 1}}')
    assert not node.running
    node.stop()


def test_a_failed_boot_says_why(tmp_path: Path) -> None:
    with pytest.raises(SetupFailed, match=r"nid00015 did not start: .*No such file.*/nowhere"):
        ComputeNode(15, NodeFiles(tmp_path, shared_root="/nowhere")).start()
