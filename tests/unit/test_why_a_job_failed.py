"""Why a job failed, in three commands: those of docs/operations.md, after real prologues that failed."""

from __future__ import annotations

import os
import re
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path

import pytest

from tests.unit.cray_standins import StandIns
from tests.unit.test_admin_commands import admin
from tests.unit.test_checks import mounted
from tests.unit.test_config_check import NOBODY, change
from tests.unit.test_torque_prologue import JOB, prologue

pytestmark = pytest.mark.skipif(os.geteuid() != 0, reason="hooks are root's, and so is their configuration")

PAGE = Path(__file__).resolve().parents[2] / "docs/operations.md"
RELEASE = f"once that is mended: qrls -h s {JOB}"


@pytest.fixture
def cray(tmp_path: Path) -> StandIns:
    made = StandIns(tmp_path)
    change(made, "torque", "max_starts = 1")
    requested(made, "UDI=debian:12")
    return made


def requested(cray: StandIns, variables: str) -> None:
    cray.qstat_job(f"PBS_O_HOME=/root,{variables}", Job_Owner="root@login")


def three_commands(cray: StandIns, capsys: pytest.CaptureFixture[str]) -> list[str]:
    """What each command of the page shows; the last is a file, which need not be there."""
    lines = PAGE.read_text().partition("## Why did job X fail?")[2].splitlines()
    commands = [line.split("#")[0].split() for line in lines if line.startswith("    ")][:3]
    assert [words[0] for words in commands] == ["udi-admin", "udi-admin", "less"]
    shown = []
    for _, *words in commands[:2]:
        assert admin(cray, *(JOB if word == "X" else word for word in words)) == 0
        shown.append(capsys.readouterr().out)
    report = Path(cray.site.jobs.reports) / Path(commands[2][1]).name.replace("X.", f"{JOB}.")
    return [*shown, report.read_text() if report.exists() else ""]


def torque_shows(cray: StandIns, code: int) -> None:
    """The job as Torque has it after that: held, or deleted."""
    shown = (cray.bin / "qstat.out").read_text()
    cray.tell("qstat.out", shown.replace("</Job_Id>", f"</Job_Id><job_state>{'H' if code == 2 else 'C'}</job_state>"))


Damage = Callable[[StandIns, ExitStack], None]


def _variables(text: str) -> Damage:
    return lambda cray, _: requested(cray, text)


def _nodes(**said: str) -> Damage:
    """What nodes answer, as setupRoot words it; `all` is every node."""

    def damage(cray: StandIns, _: ExitStack) -> None:
        for node, words in said.items():
            cray.tell(f"setupRoot.{node.lstrip('n')}", words)

    return damage


def _full(cray: StandIns, stack: ExitStack) -> None:
    stack.enter_context(mounted(cray.store / "plans", "size=4k"))
    (cray.store / "plans/filler").write_bytes(bytes(4096))


def _not_mounted(cray: StandIns, stack: ExitStack) -> None:
    stack.enter_context(mounted(cray.store, "mode=755"))


def _unreadable(cray: StandIns, _: ExitStack) -> None:
    change(cray, "store", 'account = "nobody"')
    for path in (cray.store, *cray.store.rglob("*")):
        os.chown(path, NOBODY.uid, NOBODY.gid)
    os.chown(cray.store / "images", 0, 0)
    (cray.store / "images").chmod(0o700)


@contextmanager
def damaged(cray: StandIns, damage: Damage) -> Iterator[None]:
    with ExitStack() as stack:
        damage(cray, stack)
        yield


_HIDDEN = "image /lus/udi/images/x.squashfs: no such file or directory"
Case = tuple[Damage, int, list[str], list[str]]
"""What is damaged, the prologue's exit code, words of the sentence, and words of the nodes' report."""
FAILURES: list[Case] = [
    (
        _variables("UDI=absent:1"),
        1,
        ["image 'absent:1' not found", "the user's to mend; it was not checked at submission; udi pull shows why"],
        [],
    ),
    (
        _nodes(all="failed 5 4 - - volume /scratch/bob/own:/data: permission denied"),
        1,
        ["setup on nid[00012-00013]: volume /scratch/bob/own:/data: permission denied", "the user's to mend"],
        ["nid[00012-00013]: volume /scratch/bob/own:/data: permission denied"],
    ),
    (
        _nodes(n12=f"failed 5 7 - - {_HIDDEN}"),
        2,
        [f"setup on nid00012: {_HIDDEN}; the node's fault", RELEASE],
        ["2 nodes asked, 2 reported", f"nid00012: {_HIDDEN}"],
    ),
    (
        _nodes(all="absent"),
        2,
        ["(on all its nodes: check node.python and node.zip); the site's to mend", RELEASE],
        ["2 nodes asked, 0 reported", "nid[00012-00013]: could not start: exit code 127"],
    ),
    (
        _full,
        2,
        ["the plan cannot be written to the image store: ", "no space left on device; the site's to mend", RELEASE],
        [],
    ),
]
MORE: list[Case] = [
    (
        _variables("UDI=debian:12,UDI_VOLUMES=/etc:/data"),
        1,
        ["volume /etc:/data: source /etc is not in a directory that the site allows", "the user's to mend"],
        [],
    ),
    (
        _nodes(all=f"failed 5 7 - - {_HIDDEN}"),
        2,
        [f"{_HIDDEN} (on all its nodes: look at what they share, such as the store); the site's to mend", RELEASE],
        [f"nid[00012-00013]: {_HIDDEN}"],
    ),
    (
        _nodes(n12="absent"),
        2,
        ["nid00012: could not start: exit code 127", "(check node.python and node.zip); the node's fault", RELEASE],
        ["nid00012: could not start: exit code 127: /bin/sh: /dsl/ld: not found"],
    ),
    (
        _nodes(n12="silent"),
        2,
        ["setup on nid00012: no answer: xtxqtcmd exited with 0; the node's fault", RELEASE],
        ["2 nodes asked, 1 reported", "nid00012: no answer"],
    ),
    (
        _not_mounted,
        2,
        ["cannot be used: ", "(is its file system mounted on this host", "the site's to mend", RELEASE],
        [],
    ),
    (_unreadable, 2, ["cannot be used: ", "permission denied", "the site's to mend", RELEASE], []),
]
"""Those that make test-faults has beside."""


@pytest.mark.parametrize(
    ("damage", "code", "why", "report"),
    [*FAILURES, *(pytest.param(*case, marks=pytest.mark.long) for case in MORE)],
)
def test_the_cause_and_who_must_act(
    cray: StandIns,
    capsys: pytest.CaptureFixture[str],
    damage: Damage,
    code: int,
    why: list[str],
    report: list[str],
) -> None:
    with damaged(cray, damage):
        assert prologue(cray)[0] == code
    torque_shows(cray, code)
    job, status, file = three_commands(cray, capsys)
    sentence = re.sub(r"\s+", " ", job.partition("\nwhy ")[2])
    assert [words for words in why if words not in sentence] == [], job
    assert (f"job {JOB}: held since" in status) == (code == 2), status
    assert [words for words in report if words not in file] == [] and bool(file) == bool(report), file
