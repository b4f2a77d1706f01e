"""What a crash, a hand or a full disk does to records: no dirty node goes unnoticed, and no traceback."""

from __future__ import annotations

import dataclasses
import json
import os
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from jobs.state import JobDirectory
from nodehealth.records import NotRecorded, dirty_nodes, record
from tests.unit.cray_standins import StandIns
from tests.unit.test_admin_commands import admin, mark, program, state
from tests.unit.test_torque_prologue import JOB, epilogue, prologue
from udi.nodes import numbered

pytestmark = pytest.mark.skipif(os.geteuid() != 0, reason="hooks are root's, and so is their configuration")

TEXTS: dict[str, str | bytes] = {
    "empty": "",
    "cut": '{"job": "123.s',
    "NULs": bytes(512),
    "not UTF-8": b'{"job": "\xff\xfe"}',
    "a list": "[]",
    "null": "null",
    "a number": "3",
    "infinite": '{"since": Infinity}',
    "deep": "[" * 100_000,
    "long": '{"job": "' + "x" * (17 << 20) + '"}',
    "no fields": "{}",
}


def replaced(path: Path, kind: str, others: dict[str, object]) -> None:
    """Damage the file at `path` in one way, of TEXTS or of those that need a file; `others` replaces single fields."""
    fields = json.loads(path.read_text())
    path.unlink()
    match kind:
        case "a directory":
            path.mkdir()
            (path / "x").write_text("")
        case "a FIFO":
            os.mkfifo(path)
        case "a dangling link":
            path.symlink_to("nowhere")
        case "one field":
            path.write_text(json.dumps(fields | others))
        case _:
            text = TEXTS[kind]
            path.write_bytes(text if isinstance(text, bytes) else text.encode())


FILES = ("a directory", "a FIFO", "a dangling link")
STATE_FIELDS: list[dict[str, object]] = [
    {"nodes": "nid00012"},
    {"nodes": [12]},
    {"nodes": ["nid00012 x"]},
    {"plan": 5},
    {"plan": "plans/x"},
    {"phase": "gone"},
    {"phase": ["ready"]},
    {"since": "now"},
    {"since": True},
    {"since": 10**18},
    {"since": -1},
    {"job": "124.sdb"},
]
DAMAGES: list[tuple[str, dict[str, object]]] = [(kind, {}) for kind in (*TEXTS, *FILES)]
STATES = [*DAMAGES, *(("one field", fields) for fields in STATE_FIELDS)]


@pytest.fixture
def cray(tmp_path: Path) -> StandIns:
    standins = StandIns(tmp_path)
    standins.qstat_job("UDI=debian:12")
    return standins


def one_line(err: str, *words: str) -> None:
    assert err.count("\n") <= 2 and "Traceback" not in err and "internal error" not in err, err
    assert all(word in err for word in words), err


@pytest.mark.parametrize(("kind", "fields"), STATES)
def test_a_damaged_state_is_shown_until_a_person_names_the_nodes(
    cray: StandIns, kind: str, fields: dict[str, object], capsys: pytest.CaptureFixture[str]
) -> None:
    directory = JobDirectory(cray.site, JOB)
    directory.save(state(cray))
    path = Path(directory.path, "state.json")
    replaced(path, kind, fields)
    code, err = epilogue(cray)
    assert code == 6
    one_line(err, str(path), f"udi-admin takedown {JOB} --nodes NODES")
    assert admin(cray, "takedown", JOB) == 6
    one_line(capsys.readouterr().err, str(path))
    assert admin(cray, "status") == 0
    shown = capsys.readouterr().out
    assert f"{path} cannot be read: " in shown and f"udi-admin takedown {JOB} --nodes NODES" in shown
    assert cray.calls("xtxqtcmd") == []
    assert admin(cray, "takedown", JOB, "--nodes", "12-13") == 0
    assert cray.calls("xtxqtcmd") == ["unsetupRoot nid00012 nid00013 "]
    assert not directory.exists


def test_a_start_after_a_damaged_state_is_sent_back(cray: StandIns) -> None:
    directory = JobDirectory(cray.site, JOB)
    directory.save(state(cray))
    Path(directory.path, "state.json").write_bytes(bytes(100))
    code, err = prologue(cray)
    assert code == 2 and cray.calls("xtxqtcmd") == []
    one_line(err, "state.json cannot be read", "job requeued")


def test_nodes_that_a_person_names_join_those_of_the_state(cray: StandIns) -> None:
    JobDirectory(cray.site, JOB).save(state(cray))
    assert admin(cray, "takedown", JOB, "--nodes", "nid00014") == 0
    assert cray.calls("xtxqtcmd") == ["unsetupRoot nid00012 nid00013 nid00014 "]


NODE_FIELDS: list[dict[str, object]] = [
    {"jobs": "123.sdb"},
    {"since": 10**17},
    {"in_service": "no"},
    {"reason": None},
    {"node": 12},
]


@pytest.mark.parametrize(("kind", "fields"), [*DAMAGES[:-1], *(("one field", each) for each in NODE_FIELDS)])
def test_a_damaged_record_of_a_node_still_says_that_it_is_dirty(
    cray: StandIns, kind: str, fields: dict[str, object], capsys: pytest.CaptureFixture[str]
) -> None:
    """It is no reason to take another node for clean, and the node itself can be recovered."""
    mark(cray, "77.sdb", "busy")
    path = cray.directory / "spool/nodes/nid00012.json"
    replaced(path, kind, fields)
    JobDirectory(cray.site, JOB).save(dataclasses.replace(state(cray), nodes=(numbered(13),)))
    cray.tell("unsetupRoot.13", "failed 1 8 123.sdb mounts=1 mount busy")
    assert epilogue(cray)[0] == 0
    assert admin(cray, "status") == 0
    shown = capsys.readouterr().out.splitlines()
    assert shown[0].startswith("nid00012: admindown, dirty since ") and "cannot be read" in shown[0]
    assert shown[1].startswith("nid00013: admindown, dirty since ") and "mount busy" in shown[1]
    cray.tell("check.12", "failed 1 8 77.sdb mounts=1 left")
    admin(cray, "recover", "12")
    assert "unsetupRoot nid00012 " in cray.calls("xtxqtcmd")
    (cray.bin / "check.12").unlink()
    assert admin(cray, "recover", "12") == 0
    assert [dirty.node.name for dirty in dirty_nodes(cray.site)] == ["nid00013"]


@pytest.mark.parametrize("kind", [*TEXTS, *FILES[:-1]])
def test_a_damaged_count_is_no_traceback(cray: StandIns, kind: str, capsys: pytest.CaptureFixture[str]) -> None:
    cray.tell("setupRoot.12", "failed 1 7 - - no free loop device")
    prologue(cray)
    path = cray.directory / f"spool/tries/{JOB}.json"
    replaced(path, kind, {})
    cray.tell("qstat.out", "<Data><Job><job_state>H</job_state></Job></Data>")
    assert admin(cray, "status") == 0
    assert f"{path} cannot be read" in capsys.readouterr().out
    cray.qstat_job("UDI=debian:12")
    code, err = prologue(cray)
    assert code == 2
    one_line(err, "no free loop device", "job held" if path.is_dir() else "job requeued")


# The job host's disk


@pytest.fixture(params=["full", "read-only"])
def worn(cray: StandIns, request: pytest.FixtureRequest) -> Iterator[Callable[[], None]]:
    """Make the disk of the records full, or read-only, from then on; the log is on another one."""
    spool = cray.directory / "spool"
    spool.mkdir()
    if subprocess.run(["mount", "-t", "tmpfs", "-o", "size=256k", "udi-test", spool], check=False).returncode:
        pytest.skip("needs to mount")

    def wear() -> None:
        if request.param == "read-only":
            subprocess.run(["mount", "-o", "remount,ro", spool], check=True)
            return
        with open(spool / "filling", "wb", buffering=0) as filling, pytest.raises(OSError, match="No space"):
            while True:
                filling.write(bytes(4096))

    yield wear
    subprocess.run(["umount", spool], check=True)


def test_an_epilogue_on_a_worn_disk_cleans_and_marks(cray: StandIns, worn: Callable[[], None]) -> None:
    assert prologue(cray) == (0, "")
    worn()
    cray.tell("unsetupRoot.13", "failed 1 8 123.sdb mounts=1 mount busy")
    code, err = epilogue(cray)
    assert code == 8
    one_line(err, "cleanup failed on nid00013, taken out of service without a record")
    assert cray.calls("xtxqtcmd") == ["setupRoot nid00012 nid00013 ", "unsetupRoot nid00012 nid00013 "]
    assert cray.calls("xtprocadmin")[:1] == ["-k s admindown -n 13"]
    assert JobDirectory(cray.site, JOB).load() is not None, "the only place that still says it"


def test_a_clean_epilogue_on_a_worn_disk(cray: StandIns, worn: Callable[[], None]) -> None:
    assert prologue(cray) == (0, "")
    worn()
    code, err = epilogue(cray)
    one_line(err)
    assert cray.calls("xtxqtcmd")[-1] == "unsetupRoot nid00012 nid00013 "
    assert code == (6 if JobDirectory(cray.site, JOB).exists else 0)


def test_a_prologue_on_a_worn_disk_touches_no_node_and_holds_the_job(cray: StandIns, worn: Callable[[], None]) -> None:
    worn()
    code, err = prologue(cray)
    assert code == 2 and cray.calls("xtxqtcmd") == [] and cray.plans() == []
    one_line(err, "job held after 3 failed starts")


def test_the_commands_of_an_operator_on_a_worn_disk(
    cray: StandIns, worn: Callable[[], None], capsys: pytest.CaptureFixture[str]
) -> None:
    from admin import nodehealth_cli

    worn()
    assert program(cray, nodehealth_cli.cli, "admindown", "12") == 6
    one_line(capsys.readouterr().err, "cannot be written")
    assert cray.calls("xtprocadmin")[:1] == ["-k s admindown -n 12"]
    assert admin(cray, "status") == 0


def test_a_record_that_cannot_be_kept_costs_no_other(cray: StandIns) -> None:
    Path(cray.site.jobs.nodes, "nid00013.json").mkdir(parents=True)
    with pytest.raises(NotRecorded, match=r"nid00013\.json cannot be written: is a directory"):
        record(cray.site, JOB, {numbered(nid): "no answer" for nid in (12, 13, 14)}, 1)
    kept = {path.name for path in Path(cray.site.jobs.nodes).iterdir() if path.is_file()}
    assert kept == {"nid00012.json", "nid00014.json"}
