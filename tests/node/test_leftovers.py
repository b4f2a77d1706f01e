"""What a job leaves running, in ways that links of /proc do not show, or faster than one can look.

`hold.c` holds the root. On a node that is the job's alone, everything of its user ends by one signal; on a shared one,
only what can be seen to hold the root. Each node is a pid namespace of its own, so no signal leaves it.
"""

from __future__ import annotations

import errno
import secrets
import subprocess
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path

import pytest

from tests.node import faults
from tests.node.faults import Fault
from tests.node.rig import ALICE, BOB, IDENTITY_FILE, STORE_UID, Rig
from udi import nodecommand
from udiroot.plan import PlanUser
from udiroot.report import NodeReport
from xcsim.entering import Entry
from xcsim.node import kill_program

_HOLD = "/lus/software/hold"
_TMP = "/var/udi/tmp"


@pytest.fixture(scope="module", autouse=True)
def program(rig: Rig) -> None:
    source = Path(__file__).with_name("hold.c")
    subprocess.run(
        ["gcc", "-O1", "-Wall", "-Werror", "-static", "-pthread", "-o", rig.directory / "software/hold", source],
        check=True,
    )


@contextmanager
def holding(rig: Rig, *words: str, user: PlanUser = ALICE, processes: int = 1) -> Iterator[subprocess.Popen[bytes]]:
    """`hold` with these arguments, from when all its processes are ready on."""
    with started(rig, [_HOLD, *words], user) as process:
        assert process.stdout
        for _ in range(processes - 1):
            assert process.stdout.readline() == b"ready\n"
        yield process


@contextmanager
def started(rig: Rig, argv: list[str], user: PlanUser) -> Iterator[subprocess.Popen[bytes]]:
    """A program that has printed `ready`."""
    entry = Entry(uid=user.uid, gid=user.gid, groups=user.groups)
    process = rig.node.popen(argv, entry=entry, stdout=subprocess.PIPE)
    try:
        assert process.stdout
        assert process.stdout.readline() == b"ready\n"
        yield process
    finally:
        kill_program(process)
        process.wait()


def tear_down(rig: Rig, *, shared: bool, seconds: int = 20) -> NodeReport:
    nonce = secrets.token_hex(16)
    site = replace(rig.site, node=replace(rig.site.node, shared=shared, deadline=seconds))
    return rig.answer(nodecommand.teardown_command(site, IDENTITY_FILE, "123.sdb", nonce), nonce)


KINDS = {
    "main-exited": "working directory",
    "thread-cwd": "working directory",
    "thread-file": "open file",
    "thread-namespace": "mount namespace",
    "namespace": "mount namespace",
    "in-flight": "",
    "io_uring": "",
    "bound": "",
}
"""How `hold` holds the root → what shows that."""


@pytest.mark.parametrize("kind", KINDS)
def test_where_the_node_is_the_job_s_alone_nothing_outlasts_it(rig: Rig, kind: str) -> None:
    before = rig.picture()
    assert rig.set_up(rig.plan()).ok
    with holding(rig, kind, _TMP):
        report = tear_down(rig, shared=False)
        assert report.ok, report.words
        assert f"(hold, uid {ALICE.uid}; left running after the job)" in report.words
        assert before.difference(rig.picture()) == []
    assert rig.check() == (0, "udi: clean")


@pytest.mark.parametrize("kind", [kind for kind, word in KINDS.items() if word])
def test_on_a_shared_node_what_any_thread_shows_is_terminated(rig: Rig, kind: str) -> None:
    before = rig.picture()
    assert rig.set_up(rig.plan()).ok
    with holding(rig, kind, _TMP), holding(rig, "outside") as outside:
        report = tear_down(rig, shared=True)
        assert report.ok, report.words
        assert report.words.startswith("terminated 1 process: pid "), report.words
        assert f"(hold, uid {ALICE.uid}; {KINDS[kind]} " in report.words
        assert outside.poll() is None
    assert before.difference(rig.picture()) == []


@pytest.mark.parametrize("kind", [kind for kind, word in KINDS.items() if not word])
def test_on_a_shared_node_what_nothing_shows_is_reported_as_that(rig: Rig, kind: str) -> None:
    before = rig.picture()
    assert rig.set_up(rig.plan()).ok
    with holding(rig, kind, _TMP) as process:
        report = tear_down(rig, shared=True, seconds=1)
        assert (report.code, report.jobs) == (8, ("123.sdb",)), report.words
        assert (
            f"no process shows what holds it; other jobs share the node, so processes of uid {ALICE.uid}"
            in report.words
        )
        assert process.poll() is None
        assert rig.check()[0] == 1
    assert tear_down(rig, shared=True).ok
    assert before.difference(rig.picture()) == []


@pytest.mark.parametrize("shared", [False, True])
def test_a_chain_of_processes_that_fork_and_exit(rig: Rig, shared: bool) -> None:
    before = rig.picture()
    assert rig.set_up(rig.plan()).ok
    with holding(rig, "chain", _TMP):
        report = tear_down(rig, shared=shared)
        assert report.ok, report.words
    assert before.difference(rig.picture()) == []


def test_a_process_that_kills_whatever_it_may(rig: Rig) -> None:
    """The sender of the signal to all is not among that, although it acts for the same user."""
    before = rig.picture()
    assert rig.set_up(rig.plan()).ok
    with holding(rig, "killer", _TMP):
        report = tear_down(rig, shared=False)
        assert report.ok, report.words
    assert before.difference(rig.picture()) == []


@pytest.mark.parametrize("kind", ["mounts", "mappings"])
@pytest.mark.parametrize("shared", [False, True])
def test_tables_of_any_length_are_read_once_and_in_time(rig: Rig, kind: str, shared: bool) -> None:
    before = rig.picture()
    assert rig.set_up(rig.plan()).ok
    with holding(rig, kind, _TMP, processes=8):
        began = time.monotonic()
        report = tear_down(rig, shared=shared)
        assert report.ok, report.words
        assert time.monotonic() - began < 10
        assert "terminated 8 processes: " in report.words
    assert before.difference(rig.picture()) == []


def test_another_user_s_holder_in_a_thread_is_named_and_left(rig: Rig) -> None:
    before = rig.picture()
    assert rig.set_up(rig.plan()).ok
    with holding(rig, "main-exited", _TMP, user=BOB):
        for shared in (False, True):
            report = tear_down(rig, shared=shared)
            assert report.code == 8
            assert "; held by pid " in report.words
            assert f"(hold, uid {BOB.uid}; working directory in image)" in report.words
            assert "processes=1" in report.left
        assert rig.check()[0] == 1
    assert tear_down(rig, shared=False).ok
    assert before.difference(rig.picture()) == []


@pytest.mark.parametrize("kind", ["namespace", "only-a-bind"])
@pytest.mark.parametrize("user", [ALICE, BOB], ids=lambda user: user.name)
def test_a_namespace_with_an_image_that_is_a_directory(rig: Rig, kind: str, user: PlanUser) -> None:
    """No loop device shows that the image is still in use."""
    before = rig.picture()
    name = "d1" * 32
    image = rig.make_image("directory", name)
    plan = rig.plan(image_format="directory", image_path=f"/lus/udi/images/{image.name}", image_id=name)
    assert rig.set_up(plan).ok
    with holding(rig, kind, "/var/udi/analysis", user=user):
        report = tear_down(rig, shared=True, seconds=4)
        if user is ALICE:
            assert report.ok, report.words
            assert f"(hold, uid {ALICE.uid}; mount namespace with image)" in report.words
        else:
            assert (report.code, f"(hold, uid {BOB.uid}; mount namespace with image)" in report.words) == (8, True)
            code, line = rig.check()
            assert (code, f"uid {BOB.uid}; mount namespace with image" in line) == (1, True), line
    assert tear_down(rig, shared=True).ok
    assert before.difference(rig.picture()) == []
    subprocess.run(["rm", "-r", image], check=True)


_AS = "import os, sys, time; os.setresuid({0}, {1}, {2}); os.write(1, b'ready\\n'); time.sleep(1000)"
_ROOT = PlanUser("root", 0, 0, (0,), "/root", "/bin/sh")


@pytest.mark.parametrize(
    ("uids", "ends"),
    [
        ((ALICE.uid, 0, 0), True),  # a set-uid program that the user started
        ((0, 0, ALICE.uid), True),
        ((0, ALICE.uid, 0), False),  # a service of root's that acts for the user
        ((BOB.uid, ALICE.uid, BOB.uid), False),
        ((BOB.uid, BOB.uid, BOB.uid), False),
    ],
)
def test_whose_processes_end_with_the_job(rig: Rig, uids: tuple[int, int, int], ends: bool) -> None:
    assert rig.set_up(rig.plan()).ok
    script = _AS.format(*(-1 if uid == 0 else uid for uid in uids))
    with started(rig, [*rig.site.node.python, "-I", "-S", "-c", script], _ROOT) as process:
        report = tear_down(rig, shared=False)
        assert report.ok, report.words
        assert (report.words != "clean") == ends, report.words
        if ends:
            process.wait(timeout=30)
        else:
            assert process.poll() is None


def test_processes_in_a_user_namespace_of_the_user_s_with_other_uids(rig: Rig) -> None:
    """As newuidmap allows: the user may signal them, since the namespace is his."""
    before = rig.picture()
    assert rig.set_up(rig.plan()).ok
    python = [*rig.site.node.python, "-I", "-S", "-c"]
    inside = (
        "import ctypes, os, sys, time; assert ctypes.CDLL(None).unshare(0x10000000) == 0; os.write(1, b'ready\\n'); "
        "sys.stdin.read(1); os.setresuid(0, 0, 0); os.chdir('/var/udi/tmp'); "
        "os.write(1, b'became\\n'); time.sleep(1000)"
    )
    entry = Entry(uid=ALICE.uid, gid=ALICE.gid, groups=ALICE.groups)
    pipe = subprocess.PIPE
    with rig.node.popen([*python, inside], entry=entry, stdin=pipe, stdout=pipe) as process:
        assert process.stdout and process.stdin
        assert process.stdout.readline() == b"ready\n"
        [pid] = [pid for pid in rig.node.processes() if b"became" in Path(f"/proc/{pid}/cmdline").read_bytes()]
        Path(f"/proc/{pid}/uid_map").write_text("0 100000 1\n")
        process.stdin.write(b"x")
        process.stdin.close()
        assert process.stdout.readline() == b"became\n"
        report = tear_down(rig, shared=False)
        assert report.ok, report.words
        process.wait(timeout=30)
    assert before.difference(rig.picture()) == []


def test_nobody_s_processes_end_where_the_job_is_unknown(rig: Rig) -> None:
    """No record and no label name a user: then there is none whose processes could be terminated."""
    with holding(rig, "outside") as process:
        assert tear_down(rig, shared=False).words == "clean"
        assert process.poll() is None


@pytest.mark.parametrize("who", ["parent", "child"])
def test_interrupted_around_the_signal_to_all(rig: Rig, who: str) -> None:
    """Whatever fails or dies there, the next teardown finishes."""
    before = rig.picture()
    assert rig.set_up(rig.plan()).ok
    with holding(rig, "outside"):
        calls = faults.tear_down(rig, "123.sdb").calls
    first = calls.index("fork") + 1
    points = [Fault(first, mode, 5) for mode in ("before", "after", "fail")]
    if who == "child":
        points = [Fault(point, mode, 1, who=who) for point in (1, 2) for mode in ("before", "after", "fail")]
    for fault in points:
        assert rig.set_up(rig.plan()).ok
        with holding(rig, "in-flight", _TMP):
            outcome = faults.tear_down(rig, "123.sdb", fault)
            assert outcome.killed or outcome.report, outcome.trace
            assert tear_down(rig, shared=False).ok, fault
        assert before.difference(rig.picture()) == [], fault


@pytest.mark.parametrize("number", [errno.EAGAIN, errno.ENOMEM])
def test_a_node_without_room_for_another_process(rig: Rig, number: int) -> None:
    """The user may have all pids that there are: then those of his processes that are seen make room."""
    before = rig.picture()
    assert rig.set_up(rig.plan()).ok
    with holding(rig, "in-flight", _TMP):
        calls = faults.tear_down(rig, "123.sdb").calls
    assert rig.set_up(rig.plan()).ok
    with holding(rig, "in-flight", _TMP):
        done = faults.tear_down(rig, "123.sdb", Fault(calls.index("fork") + 1, "fail", number)).report
        assert done
        assert done.ok, done.words
    assert before.difference(rig.picture()) == []


_RAISING = """
import os, sys
sys.path.insert(0, {archive!r})
import bundle
bundle.install({archive!r})
import udiroot.commands, udiroot.setup
def publish(*arguments):
    raise {error}
udiroot.setup.publish = publish
sys.excepthook = lambda *of: None
os._exit(udiroot.commands.run(sys.argv[1:]))
"""


@pytest.mark.parametrize(
    "error",
    ["ValueError('x' * 5000)", "MemoryError", "RecursionError", "KeyboardInterrupt", "SystemExit(3)", "GeneratorExit",
     "UnicodeDecodeError('ascii', b'x', 0, 1, 'y')", "udiroot.errors.TimedOut('late')", "AssertionError"],
)  # fmt: skip
def test_a_set_up_that_raises_anything_at_all_undoes_itself(rig: Rig, error: str) -> None:
    before = rig.picture()
    path, sha256 = rig.send(rig.plan())
    nonce = secrets.token_hex(16)
    words = ["setupRoot", "--run", "/var/run/udi", "--nid-file", IDENTITY_FILE, path, sha256, nonce]
    script = _RAISING.format(archive=rig.site.node.zip, error=error)
    done = rig.node.run([*rig.site.node.python, "-I", "-S", "-c", script, *words])
    [report] = [report for line in done.stdout.splitlines() if (report := NodeReport.parse(line, nonce))]
    assert (report.ok, done.returncode) == (False, report.code)
    assert before.difference(rig.picture()) == []


def test_an_image_whose_accounts_are_strange(rig: Rig) -> None:
    tree = rig.directory / "strange"
    subprocess.run(["cp", "-a", rig.directory / "tree", tree], check=True)
    with (tree / "etc/passwd").open("a") as stream:
        stream.write(f"big:x:{'9' * 5000}:0::/:/bin/sh\ntoor:x:00:0::/:/bin/sh\nsix:x:\uff16:6::/:/bin/sh\n")
    with (tree / "etc/group").open("a") as stream:
        stream.write(f"big:x:{'9' * 5000}:\nwheel:x:000:\n")
    name = "5a" * 32
    path = rig.make_image("squashfs", name, tree)
    assert path.stat().st_uid == STORE_UID
    done = rig.set_up(rig.plan(image_path=f"/lus/udi/images/{path.name}", image_id=name))
    assert done.ok, done.words
    seen = rig.inside("cat /etc/passwd /etc/group").stdout
    assert "toor" not in seen and "big" not in seen and "six" not in seen and "wheel" not in seen
    assert tear_down(rig, shared=False).ok
    path.unlink()
