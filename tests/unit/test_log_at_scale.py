"""A prologue and an epilogue of ten thousand nodes, as pbs_mom runs them, where each kind of trouble is on some: each
cause is named once, with its nodes folded, and the log of all of it is bounded."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.unit.cray_standins import StandIns

pytestmark = pytest.mark.skipif(os.geteuid() != 0, reason="hooks are root's, and so is their configuration")
JOB = "123.sdb"
BOUND = 8192
FIRST, COUNT = 12, 10_000
NIDS = range(FIRST, FIRST + COUNT)
HUNG = frozenset(range(5001, 5009))
LOST = frozenset({777, 8888})
OLDER, NEWER = frozenset(range(100, 140)), frozenset({2000, 2002, 2004})
SLOW = frozenset({31, 6464})
READS = "plan 123.sdb begins with 'udi-plan 3'; this node reads 'udi-plan {}'"

_SILENT = "nid[00777,05001-05008,08888]"

_XTXQTCMD = f"""#!{sys.executable} -IS
# Prints the file STEP.out at once, with the nonce of this fan-out.
import os, sys
here = os.path.dirname(sys.argv[0])
step = "unsetupRoot" if " unsetupRoot " in sys.argv[2] else "setupRoot"
with open(sys.argv[1]) as names, open(f"{{here}}/xtxqtcmd.calls", "a") as calls:
    calls.write(f"{{step}} {{len(names.readlines())}}\\n")
with open(f"{{here}}/{{step}}.out") as text:
    sys.stdout.write(text.read().replace("NONCE", sys.argv[2].split()[-1]))
"""
_END = ("11", "nodes=2", "cput=0", "batch", "", "0", "/x.SC")


def reported(nid: int, words: str) -> str:
    """What `xtxqtcmd` prints of a node that answers."""
    return f"UDI-REPORT NONCE {nid} {words}\nReply (complete) from nid{nid:05d} exit code: 0\n"


def well(nid: int) -> str:
    """What a node says that did what it was told, fast or late."""
    return reported(nid, f"ok {9000 if nid in SLOW else 1200 + nid % 50} 0 - - clean")


def at_odds(nid: int) -> str:
    """What the nodes say where some hang, some replies are lost, and some have another version of the software."""
    if nid in HUNG:
        return ""
    if nid in LOST:
        return f"Reply (complete) from nid{nid:05d} exit code: 0\n"
    if nid in OLDER:
        return reported(nid, f"failed 5 7 - - {READS.format(2)}")
    if nid in NEWER:
        return reported(nid, f"failed 5 7 - - {READS.format(4)}")
    return well(nid)


@pytest.fixture
def cray(tmp_path: Path) -> StandIns:
    """A job of all these nodes, on a Cray whose commands answer at once."""
    made = StandIns(tmp_path)
    made.program("xtxqtcmd", _XTXQTCMD)
    pes = (f"    PE {pe}, cmd 0, nid {nid}, CPU 0x1, map 0x1, accels 0\n" for pe, nid in enumerate(NIDS))
    made.tell("apstat.524", f"Reservation detail\nBatch System ID = {JOB}\n{''.join(pes)}")
    made.qstat_job("PBS_O_HOME=/root,UDI=debian:12", exec_host="+".join(f"{nid}/0" for nid in NIDS))
    text = made.config_path.read_text()
    for name, seconds in (("fanout_deadline", 60), ("prologue_deadline", 240), ("epilogue_deadline", 240)):
        text = re.sub(rf"^{name} = .*$", f"{name} = {seconds}", text, flags=re.MULTILINE)
    made.config_path.write_text(text.replace("command_deadline = 2\n", "command_deadline = 30\n"))
    return made


def told(cray: StandIns, step: str, say: Callable[[int], str]) -> None:
    """What all nodes say in a step."""
    cray.tell(f"{step}.out", "".join(map(say, NIDS)))


def run(cray: StandIns, hook: str, *arguments: str) -> int:
    code = f"import sys; from admin.entry.torque import {hook}; sys.exit({hook}())"
    words = [sys.executable, "-I", "-c", code, "--config", str(cray.config_path), JOB, "root", "root", "run"]
    done = subprocess.run(
        [*words, *arguments], capture_output=True, timeout=300, check=False, env={"PATH": "/bin:/usr/bin"}
    )
    return done.returncode


def logged(cray: StandIns) -> list[str]:
    """Levels and messages of the whole log, which is within its bound."""
    text = (cray.directory / "log/hooks.log").read_text()
    assert len(text) <= BOUND, text
    assert "Traceback" not in text
    return [line.split(f" job {JOB} ", 1)[1] for line in text.splitlines()]


def dirty(cray: StandIns) -> set[str]:
    return set(os.listdir(cray.directory / "spool/nodes"))


def test_a_start_with_every_kind_of_trouble_at_once(cray: StandIns) -> None:
    """Each cause is one line with its nodes. The start is undone; only the silent nodes are dirty."""
    told(cray, "setupRoot", at_odds)
    told(cray, "unsetupRoot", lambda nid: at_odds(nid) if nid in HUNG | LOST else well(nid))
    assert run(cray, "prologue", "nodes=2:ppn=2", "batch", "") == 2
    assert run(cray, "epilogue", *_END) == 0
    lines = logged(cray)
    assert [line for line in lines if line.startswith("ERROR setup: ")] == [
        f"ERROR setup: nid[00100-00139]: {READS.format(2)}",
        f"ERROR setup: {_SILENT}: no answer: xtxqtcmd exited with 0",
        f"ERROR setup: nid[02000,02002,02004]: {READS.format(4)}",
    ]
    slow = "slowest nid00031 9000 ms, nid06464 9000 ms; median"
    assert f"INFO setup: 9990 of 10000 nodes reported; {slow} 1224 ms; no answer: {_SILENT}" in lines
    assert any(line.startswith("INFO teardown: ") and line.endswith(f"{slow} 1225 ms") for line in lines)
    assert f"INFO taken down on nid[00012-10011]; dirty: {_SILENT}" in lines
    assert dirty(cray) == {f"nid{nid:05d}.json" for nid in HUNG | LOST}
    assert cray.calls("xtxqtcmd") == ["setupRoot 10000", "unsetupRoot 10000"]


def test_an_end_with_every_kind_of_trouble_at_once(cray: StandIns) -> None:
    """The same at the end of a job that had started with stragglers only."""
    told(cray, "setupRoot", well)
    told(cray, "unsetupRoot", at_odds)
    assert run(cray, "prologue", "nodes=2:ppn=2", "batch", "") == 0
    assert run(cray, "epilogue", *_END) == 0
    lines = logged(cray)
    slow = "slowest nid00031 9000 ms, nid06464 9000 ms; median"
    assert lines[0] == f"INFO image debian:12 ready on 10000 nodes; {slow} 1225 ms"
    assert lines[1].startswith("INFO teardown: nid[00012-00776,") and f": {slow} " in lines[1]
    begun = "not known to be clean: teardown of job 123.sdb:"
    assert [line for line in lines if line.startswith("ERROR ")] == [
        f"ERROR nid[00100-00139] {begun} {READS.format(2)}",
        f"ERROR {_SILENT} {begun} no answer: xtxqtcmd exited with 0",
        f"ERROR nid[02000,02002,02004] {begun} {READS.format(4)}",
    ]
    out = "nid[00100-00139,00777,02000,02002,02004,05001-05008,08888]"
    assert lines[-2:] == [
        f"WARNING {out} taken out of service",
        f"INFO taken down on nid[00012-10011]; dirty: {out}",
    ]
    assert dirty(cray) == {f"nid{nid:05d}.json" for nid in HUNG | LOST | OLDER | NEWER}
