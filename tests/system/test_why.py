"""Why job X failed, by the three commands of docs/operations.md: real jobs on a machine with a real fault each."""

from __future__ import annotations

import re
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from tests.system.cray import B, Cray, Ended
from tests.system.test_operations import as_root, full, released
from udi.config import load

PAGE = Path(__file__).resolve().parents[2] / "docs/operations.md"
NODE = f"nid{B:05d}"


def three_commands(cray: Cray, job: str) -> tuple[str, str, str]:
    """The sentence that `udi-admin job` ends with, `udi-admin status`, and the file that the page names."""
    lines = PAGE.read_text().partition("## Why did job X fail?")[2].splitlines()
    commands = [line.split("#")[0].replace("X", job).split() for line in lines if line.startswith("    ")][:3]
    first, second = (cray.admin(*words) for _, *words in commands[:2])
    report = cray.machine.path(commands[2][1])
    why = re.sub(r"\s+", " ", first.partition("\nwhy ")[2])
    return why, second, report.read_text() if report.exists() else ""


def say(cray: Cray, ended: Ended, *why: str, report: str = "") -> None:
    """The commands name the cause and who must act; a job that is held is in the second one's answer."""
    sentence, status, file = three_commands(cray, ended.id)
    assert [words for words in why if words not in sentence] == [], sentence
    assert (f"job {ended.id}: held since" in status) == (ended.state == "H"), status
    assert report in file and bool(file) == bool(report), file


@contextmanager
def over(cray: Cray, path: str, *mount: str) -> Iterator[None]:
    """A mount on one of the nodes; a job of all four is there whichever they are."""
    node = cray.machine.node(B)
    node.run(["mount", *mount, path], check=True)
    try:
        yield
    finally:
        node.run(["umount", path], check=True)


def test_the_image_does_not_exist(cray: Cray) -> None:
    with cray.without_filter():
        ended = cray.run("alice", image="absent:1")
    say(cray, ended, "image 'absent:1' not found", "the user's to mend; it was not checked at submission")


def test_the_gateway_was_down_at_submission(cray: Cray) -> None:
    with cray.configured({"gateway": {"socket": "/run/udi-gateway/nobody.sock"}}):
        ended = cray.run("alice", image="absent:1")
    say(
        cray,
        ended,
        "image 'absent:1' not found",
        "the user's to mend; it was not checked at submission; udi pull shows why",
    )
    assert "its image was not checked at submission" in cray.admin("job", ended.id)


def test_the_volume_is_another_users(cray: Cray) -> None:
    as_root(cray, "install", "-d", "-o", "bob", "-m", "0700", "/scratch/bob/own")
    ended = cray.run("alice", more="UDI_VOLUMES=/scratch/bob/own:/data")
    say(cray, ended, "volume /scratch/bob/own:/data", "the user's to mend", report="volume /scratch/bob/own")


def test_a_node_does_not_have_the_store(cray: Cray) -> None:
    with over(cray, "/lus/udi", "-t", "tmpfs", "none"):
        ended = cray.run("alice", nodes=4)
        say(cray, ended, f"setup on {NODE}: ", "the node's fault", f"qrls -h s {ended.id}", report=f"{NODE}: ")
    released(cray, ended.id)


def test_a_node_does_not_have_the_interpreter(cray: Cray) -> None:
    python = load(str(cray.machine.path("/etc/udi/udi.toml"))).node.python[-1]
    with over(cray, python, "--bind", "/dev/null"):
        ended = cray.run("alice", nodes=4)
        say(cray, ended, f"setup on {NODE}: could not start: ", "the node's fault", report="4 nodes asked, 3 reported")
    as_root(cray, "qrls", "-h", "s", ended.id)
    assert cray.ended(ended.id, states="C").status == "0"


def test_no_node_has_the_interpreter(cray: Cray) -> None:
    with cray.configured({"node": {"python": ["/dsl/no/such/python"]}}):
        ended = cray.run("alice")
    why = "could not start: exit code 127", "(on all its nodes: check node.python and node.zip); the site's to mend"
    say(cray, ended, *why, report="2 nodes asked, 0 reported")
    released(cray, ended.id)


def test_the_store_takes_no_plan(cray: Cray) -> None:
    with full(cray, "/scratch/udi/plans"):
        ended = cray.run("alice")
        say(cray, ended, "the plan cannot be written to the image store", "no space left on device; the site's to mend")
    released(cray, ended.id)


def test_the_job_host_cannot_read_the_store(cray: Cray) -> None:
    with cray.without_filter():
        as_root(cray, "mount", "-t", "tmpfs", "none", "/scratch/udi")
        try:
            ended = cray.run("alice")
            say(cray, ended, "cannot be used: ", "is its file system mounted on this host", "the site's to mend")
        finally:
            as_root(cray, "umount", "/scratch/udi")
    released(cray, ended.id)
