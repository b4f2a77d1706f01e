"""Prolog and Epilog on one node: what they leave there, what they tell the plugin, and what they tell Slurm."""

from __future__ import annotations

import os
import signal
import time
from pathlib import Path

import pytest

from tests.slurm.hooks_node import IMAGE_ID, NODE, OTHER_ID, UID, HooksNode, has_needs, made_node, node
from xcsim.processes import wait_until

__all__ = ["made_node", "node"]
pytestmark = pytest.mark.skipif(not has_needs(), reason="needs root, and the programs that make setup installs")


def test_a_job_from_start_to_end(node: HooksNode) -> None:
    assert node.run("prolog", SPANK_UDI_VOLUMES=f"{node.directory}/scratch/alice:/data") == 0
    note = node.note()
    assert note is not None
    assert (note.state, note.uid, note.start, note.image, note.given, note.id, note.why) == (
        "ready", UID, 0, "tiny:1", "tiny:1", IMAGE_ID, "",
    )  # fmt: skip
    assert (note.root, note.label) == (f"{node.directory}/root/7", f"udi:7:{UID}:made")
    assert note.label in [mount.source for mount in node.mounts("7") if mount.point == note.root]
    assert (node.directory / "notes/7").stat().st_mode & 0o7777 == 0o644
    assert node.inside("cat /var/nodelist; ls /var/spool/slurmd; touch /data/x /tmp/x") == "n1\nn1\nn2\nn1\n"
    assert node.run("epilog") == 0
    assert node.left() == {} and node.calls() == []
    assert node.run("epilog") == 0


def test_jobs_on_one_node_have_roots_of_their_own(node: HooksNode) -> None:
    assert node.run("prolog", "7") == node.run("prolog", "8") == 0
    node.inside("echo seven >/tmp/x", "7")
    node.inside("echo eight >/tmp/x", "8")
    assert node.run("epilog", "7") == 0
    assert node.mounts("7") == [] and node.note("7") is None
    assert node.inside("cat /tmp/x", "8") == "eight\n"
    assert node.run("epilog", "8") == 0


def test_a_job_without_image_leaves_nothing(node: HooksNode) -> None:
    assert node.run("prolog", image="") == node.run("epilog") == 0
    assert node.left() == {}


def test_what_an_earlier_job_of_the_number_left_is_cleared(node: HooksNode) -> None:
    assert node.run("prolog") == 0
    assert node.run("prolog", image="") == 0
    assert node.left() == {}


@pytest.mark.parametrize(
    ("image", "volumes", "message"),
    [
        ("tiny:2", "", "image 'tiny:2' not found, or you do not have access to it (did you mean tiny:1?)"),
        ("secret:1", "", "image 'secret:1' not found, or you do not have access to it"),
        ("tiny:$(id)\n", "", "not an image name: 'tiny:$(id)'"),
        ("tiny:1", "/etc:/mnt", "source /etc is not in a directory that the site allows"),
        ("tiny:1", "{scratch}/gone:/mnt", "/scratch/gone"),
        ("tiny:1", "{scratch}/alice:/var/spool", "no volume may be mounted on /var/spool"),
    ],
)
def test_users_error_is_for_the_user(node: HooksNode, image: str, volumes: str, message: str) -> None:
    if not (node.directory / f"store/images/{OTHER_ID}.json").exists():
        node.add_image("secret:1", OTHER_ID, owners=(4242,))
    wanted = volumes.format(scratch=node.directory / "scratch")
    assert node.run("prolog", image=image, SPANK_UDI_VOLUMES=wanted) == 0
    assert message in node.why() and "site error" not in node.why()
    assert node.mounts() == [] and node.calls() == []


def test_a_pin_is_honored(node: HooksNode) -> None:
    if not (node.directory / f"store/images/{OTHER_ID}.json").exists():
        node.add_image("secret:1", OTHER_ID, owners=(4242,))
    assert node.run("prolog", SPANK_UDI_ID=OTHER_ID) == 0
    note = node.note()
    assert note is not None and note.id == IMAGE_ID, "a pin gives no access to an image of others"


def test_a_job_without_a_pin_says_in_the_store_which_image_it_has(node: HooksNode) -> None:
    """For its other nodes, and until its end, also where its start fails; a job with a pin says nothing."""
    plans = node.directory / "store/plans"
    known = set(plans.glob("*"))
    assert node.run("prolog", SLURM_CLUSTER_NAME="c") == 0
    [agreed] = set(plans.iterdir()) - known
    assert agreed.name.startswith("7.0.") and agreed.read_text() == f"{IMAGE_ID}\n"
    assert node.run("epilog") == 0 and set(plans.iterdir()) == known
    assert node.run("prolog", SPANK_UDI_ID=IMAGE_ID) == 0 and set(plans.iterdir()) == known
    assert node.run("epilog") == 0
    node.queue("7")
    node.says("setupRoot.waits")
    assert node.end(node.start("prolog", before="import jobs.local; jobs.local._ENDS_ITSELF = -4")) == 0
    assert "did not finish within 1 s" in node.why() and set(plans.iterdir()) == known


def _broken_store(node: HooksNode) -> None:
    node.configure(store="gone")


def test_sites_error_counts_once_a_start_and_holds_in_the_end(node: HooksNode) -> None:
    _broken_store(node)
    node.queue("7")
    assert node.run("prolog") == 0
    assert "cannot be used" in node.why() and node.why().endswith("[site error (not your job's fault); job requeued]")
    comment, requeue = node.told()
    assert comment.startswith("update jobid=7 admincomment=shifter-xc: start 0 failed (1 in a row): image store")
    assert requeue == "requeue 7"
    first = comment.removeprefix("update jobid=7 admincomment=")

    node.queue("7", comment=first)  # another node of the same start
    assert node.run("prolog", SLURM_JOB_RESTART_COUNT="0") == 0
    assert node.told() == ["requeue 7"]
    node.queue("7", "COMPLETING", start=1, comment=first)  # the first one has sent it back meanwhile
    assert node.run("prolog") == 0
    assert node.told() == []

    node.queue("7", start=1, comment=first)
    assert node.run("prolog", SLURM_JOB_RESTART_COUNT="1") == 0
    second = node.told()[0].removeprefix("update jobid=7 admincomment=")
    assert second.startswith("shifter-xc: start 1 failed (2 in a row): ")
    node.queue("7", start=2, comment=f"site: x; {second}")
    assert node.run("prolog", SLURM_JOB_RESTART_COUNT="2") == 0
    third, hold = node.told()
    assert third.startswith("update jobid=7 admincomment=site: x; shifter-xc: start 2 failed (3 in a row, held): ")
    assert hold == "requeuehold 7" and node.why().endswith("; job held after 3 failed starts]")

    node.queue("7", start=3, comment=third.removeprefix("update jobid=7 admincomment="))  # released by a person
    assert node.run("prolog", SLURM_JOB_RESTART_COUNT="3") == 0
    released, requeue = node.told()
    assert "start 3 failed (1 in a row): " in released and requeue == "requeue 7"


def test_failures_with_a_good_start_between_do_not_add_up(node: HooksNode) -> None:
    _broken_store(node)
    node.queue("7", start=5, comment="shifter-xc: start 3 failed (2 in a row): old")
    assert node.run("prolog", SLURM_JOB_RESTART_COUNT="5") == 0
    assert "start 5 failed (1 in a row): " in node.told()[0]


def test_one_job_of_an_array_is_sent_back_alone(node: HooksNode) -> None:
    """By the number of the array's last job, commands would reach all of them."""
    _broken_store(node)
    node.says("squeue.7", "8|7_1|RUNNING|0|n1|(null)\n7|7_2|RUNNING|0|n1|(null)\n")
    assert node.run("prolog") == 0
    assert [call.split(" adm")[0] for call in node.told()] == ["update jobid=7_2", "requeue 7_2"]


def test_a_job_that_cannot_be_requeued_ends_with_the_reason(node: HooksNode) -> None:
    _broken_store(node)
    node.queue("7")
    node.says("refuses", "^requeue")
    assert node.run("prolog") == 0
    assert node.why().endswith("; the job ends, since it cannot be queued again]")


def test_slurmctld_that_does_not_answer_costs_the_job_and_no_node(node: HooksNode) -> None:
    _broken_store(node)
    node.says("down")
    assert node.run("prolog") == 0
    assert node.why().endswith("; the job ends, since it cannot be queued again]")


def test_configuration_that_cannot_be_read(node: HooksNode) -> None:
    (node.directory / "udi.toml").write_text("[slurm]\nmax_starts = 0\n")
    process = node.start("prolog", before=f"sys.argv += ['--notes', '{node.directory}/notes']")
    assert node.end(process) == 0
    assert "[site error (not your job's fault)" in node.why()


def test_a_setup_that_fails_is_undone(node: HooksNode) -> None:
    """It works on the node, but nobody hears of it."""
    node.queue("7")
    node.says("setupRoot.says", "failed 5 7 - - no free loop device")
    node.says("setupRoot.works")
    assert node.run("prolog") == 0
    assert "no free loop device" in node.why() and "job requeued" in node.why()
    assert node.mounts() == [] and not (node.directory / "run/7").exists()


def test_users_error_on_the_node_is_the_users(node: HooksNode) -> None:
    node.says("setupRoot.says", "failed 5 4 - - volume: permission denied")
    assert node.run("prolog") == 0
    assert node.why() == "volume: permission denied" and node.calls() == []


def test_node_software_that_is_killed(node: HooksNode) -> None:
    node.queue("7")
    node.says("setupRoot.dies")
    assert node.run("prolog") == 0
    assert "was terminated by signal 9" in node.why() and "job requeued" in node.why()


def test_a_node_that_is_dirty_after_undoing_is_drained(node: HooksNode) -> None:
    node.queue("7")
    node.says("setupRoot.says", "failed 5 8 7 mounts=3 3 mounts left")
    assert node.run("prolog") == 0
    told = node.told()
    assert told[0] == f"update nodename={NODE} state=drain reason=shifter-xc: job 7: 3 mounts left"
    assert told[-1] == "requeue 7"
    node.says("refuses", "state=drain")
    assert node.run("prolog") == 1, "slurmd drains it then"
    assert "3 mounts left" in node.why()


def test_epilog_that_leaves_something_drains(node: HooksNode) -> None:
    assert node.run("prolog") == 0
    node.says("unsetupRoot.says", "failed 5 8 7 mounts=3 held by 12 (vi)")
    assert node.run("epilog") == 0
    assert node.told() == [f"update nodename={NODE} state=drain reason=shifter-xc: job 7: held by 12 (vi)"]
    assert node.note() is None and node.mounts("7")
    node.says("refuses", "state=drain")
    assert node.run("epilog") == 8
    assert node.mounts("7")


def test_epilog_without_prolog_and_with_damaged_files(node: HooksNode) -> None:
    assert node.run("epilog") == 0 and node.left() == {}
    assert node.run("prolog") == 0
    for name in ("notes/7", "run/7/job", "run/7.plan"):
        (node.directory / name).write_bytes(b"\xff\0udi-note 1\nuid")
    assert node.run("epilog") == 0 and node.left() == {} and node.calls() == []


def test_a_job_is_taken_down_by_what_set_it_up(node: HooksNode) -> None:
    """Another version, whose software does not even start here, and another directory may come while it runs."""
    link = node.directory / "software/udi.zip"
    mine = link.rename(link.with_name(f"udi-{'0' * 16}.zip"))
    link.symlink_to(mine.name)
    node.configure(more=f'[install]\nzip = "{link}"\n')
    try:
        assert node.run("prolog") == 0
        other = link.with_name(f"udi-{'1' * 16}.zip")
        other.write_bytes(b"another version")
        link.unlink()
        link.symlink_to(other.name)
        assert node.run("epilog") == 0 and node.left() == {}
        node.run("prolog", job="8")
        assert _state(node, "8") == "failed"
    finally:  # others use this node, too
        mine.rename(link)
        node.configure()


def _state(node: HooksNode, job: str) -> str:
    note = node.note(job)
    return note.state if note else ""


def test_epilog_waits_for_its_prolog(node: HooksNode) -> None:
    node.says("setupRoot.waits")
    prolog = node.start("prolog")
    assert wait_until((node.bin / "setupRoot.waiting").exists, 30, 0.02)
    epilog = node.start("epilog")
    time.sleep(0.3)
    assert epilog.poll() is None
    node.done("setupRoot.waits")
    assert node.end(prolog) == node.end(epilog) == 0
    assert node.left() == {}


def test_two_prologs_of_one_start_make_one_root(node: HooksNode) -> None:
    node.says("setupRoot.waits")
    first = node.start("prolog")
    assert wait_until((node.bin / "setupRoot.waiting").exists, 30, 0.02)
    second = node.start("prolog")
    node.done("setupRoot.waits")
    assert node.end(first) == node.end(second) == 0
    assert node.calls("python") == ["setupRoot"]
    assert node.note() is not None and len([m for m in node.mounts("7") if m.point.endswith("/root/7")]) == 1


def test_prolog_again_keeps_a_root_in_use_and_another_start_gets_its_own(node: HooksNode) -> None:
    """slurmd that was restarted runs Prolog again; a job that was requeued has the same id."""
    assert node.run("prolog") == 0
    node.inside("touch /tmp/mine")
    assert node.run("prolog") == 0
    assert node.inside("ls /tmp") == "mine\n"
    assert node.run("prolog", SLURM_JOB_RESTART_COUNT="1") == 0
    assert node.inside("ls /tmp") == ""
    note = node.note()
    assert note is not None and note.start == 1


def test_full_disk_of_notes_drains_the_node(node: HooksNode) -> None:
    """Without a note the plugin might take the job for one without an image."""
    notes = node.directory / "notes"
    notes.mkdir(exist_ok=True)
    node.shell(f"mount -t tmpfs -o size=4k,nr_inodes=1 full {notes}")
    try:
        assert node.run("prolog") == 1
    finally:
        node.shell(f"umount {notes}")
    assert node.mounts() == []


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGHUP])
def test_a_signal_undoes(node: HooksNode, number: int) -> None:
    node.queue("7")
    node.says("setupRoot.waits")
    prolog = node.start("prolog")
    assert wait_until((node.bin / "setupRoot.waiting").exists, 30, 0.02)
    node.kill(prolog, number)
    assert node.end(prolog) == 0
    assert "interrupted by" in node.why() and node.told()[-1] == "requeue 7"
    assert node.mounts() == []


def test_a_setup_that_does_not_end(node: HooksNode, monkeypatch: pytest.MonkeyPatch) -> None:
    node.queue("7")
    node.says("setupRoot.waits")
    before = "import jobs.local; jobs.local._ENDS_ITSELF = -4"
    assert node.end(node.start("prolog", before=before)) == 0
    assert "did not finish within 1 s" in node.why() and "job requeued" in node.why()


@pytest.mark.skipif(not os.path.exists("/usr/bin/strace"), reason="needs strace, which make setup installs")
def test_how_often_a_node_asks_the_image_store(node: HooksNode) -> None:
    """The figures of docs/design.md: a few reads a node, and one write a job."""
    of_first = node.store_calls("prolog", "n1")
    assert node.run("epilog") == 0
    of_other, of_end = node.store_calls("prolog", "n2"), node.store_calls("epilog", "n2")
    assert sorted(of_first) == sorted([*of_other, "utimensat"])
    assert (of_other.count("openat"), len(of_other), of_end) == (4, 8, [])


_KILLED = """
import os, subprocess
left = {point}
def watched(module, name):
    real = getattr(module, name)
    def call(*args, **kwargs):
        global left
        if name == "open" and not args[1] & (os.O_CREAT | os.O_RDWR | os.O_WRONLY):
            return real(*args, **kwargs)
        left -= 1
        here = left == 0
        if here and not {after}:
            os.kill(os.getpid(), 9)
        try:
            return real(*args, **kwargs)
        finally:
            if here:
                os.kill(os.getpid(), 9)
    setattr(module, name, call)
for module, names in ((os, "mkdir unlink rename open"), (subprocess, "Popen")):
    for name in names.split():
        watched(module, name)
"""


@pytest.mark.long
@pytest.mark.parametrize("hook", ["prolog", "epilog"])
def test_killed_at_any_call_leaves_what_epilog_removes(node: HooksNode, hook: str) -> None:
    """slurmd drains a node whose hook was killed; Epilog, or an operator, then finds all that was made."""
    point, after, killed = 1, False, 0
    while True:
        if hook == "epilog":
            assert node.run("prolog") == 0
        code = node.end(node.start(hook, before=_KILLED.format(point=point, after=after)))
        killed += code == -signal.SIGKILL
        assert wait_until(lambda: not _children(node), 30, 0.02), _children(node)
        note = node.note()
        assert note is None or note.state != "ready" or node.mounts("7") or hook == "epilog"
        assert node.run("epilog") == 0
        assert node.left() == {}, f"{hook} killed at {point}, after: {after}"
        if code != -signal.SIGKILL:
            break
        point, after = (point + 1, False) if after else (point, True)
    assert killed > 8


def _children(node: HooksNode) -> bool:
    """Whether the node's software still runs: it dies with its hook, but not at once."""
    needle = str(node.directory / "software/udi.zip").encode()
    for entry in Path("/proc").glob("[0-9]*/cmdline"):
        try:
            if needle in entry.read_bytes():
                return True
        except OSError:
            continue
    return False
