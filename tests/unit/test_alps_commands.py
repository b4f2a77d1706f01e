"""Cray's commands as they are run: late, wrong, broken, hanging."""

from __future__ import annotations

import dataclasses
from pathlib import Path

import pytest

from alps.machine import Alps
from alps.nodestates import read_states, set_state
from alps.reservation import find_reservation
from alps.settings import AlpsConfig
from tests.unit.cray_standins import DETAIL, StandIns
from udi.command import Deadline
from udi.fanout import FanOutResult
from udi.nodes import named, numbered
from udi.platform import Host
from udiroot.errors import NotFound, UpstreamFailed

NONCE = "ab" * 16
SETUP = f"setupRoot {NONCE}"
INVENTORY = """\
<BasilResponse protocol="1.3"><ResponseData status="SUCCESS" method="QUERY"><Inventory><NodeArray>
<Node node_id="40"><ProcessorAllocation reservation_id="9"/></Node></NodeArray>
<ReservationArray><Reservation reservation_id="9" batch_id="{job}"/></ReservationArray></Inventory>
</ResponseData></BasilResponse>
"""


@pytest.fixture
def cray(tmp_path: Path) -> StandIns:
    return StandIns(tmp_path)


def settings(cray: StandIns) -> AlpsConfig:
    return cray.site.table(AlpsConfig)


def fan_out(cray: StandIns, nids: list[int], seconds: float = 5) -> FanOutResult:
    return Alps(cray.site).run([numbered(nid) for nid in nids], SETUP, NONCE, Deadline(seconds))


def test_reservation(cray: StandIns) -> None:
    found = find_reservation(settings(cray), "123.sdb", Deadline(5))
    assert (found.id, found.slots) == (524, {12: 2, 13: 2})


def test_late_reservation(cray: StandIns) -> None:
    cray.tell("apstat.late", "2")
    assert find_reservation(settings(cray), "123.sdb", Deadline(5)).id == 524
    assert cray.calls("apstat").count("-r") == 3


@pytest.mark.parametrize("fault", ["apstat.exit", "apstat.hang", "garbage", "never"])
def test_basil_where_apstat_cannot_say(cray: StandIns, fault: str) -> None:
    cray.tell(*{"garbage": ("apstat.524", "\0garbage"), "never": ("apstat.rows", "")}.get(fault, (fault, "1")))
    cray.tell("apbasil.out", INVENTORY.format(job="123.sdb"))
    assert find_reservation(settings(cray), "123.sdb", Deadline(9)).slots == {40: 1}
    assert (cray.bin / "apbasil.stdin").read_text().count("BasilRequest protocol='1.3' method='QUERY'") == 1


def test_a_protocol_without_batch_ids_is_not_asked(cray: StandIns) -> None:
    old = dataclasses.replace(settings(cray), basil_protocol="1.0", sources=("basil", "apstat"))
    assert find_reservation(old, "123.sdb", Deadline(5), 0).id == 524
    assert cray.calls("apbasil") == []
    with pytest.raises(UpstreamFailed, match="does not report the batch ids") as raised:
        find_reservation(dataclasses.replace(old, sources=("basil",)), "123.sdb", Deadline(5), 0)
    assert 'add "apstat" to alps.sources' in raised.value.hint


def test_both_sources_give_one_answer(cray: StandIns) -> None:
    """Two ranks a node, each of which is six processors deep."""
    allocated = '<ProcessorAllocation reservation_id="524"/>' * 12
    nodes = "".join(f'<Node node_id="{nid}">{allocated}</Node>' for nid in (12, 13))
    command = '<Application><Command width="4" depth="6" nppn="2" cmd="BASIL"/></Application>'
    reservation = f'<Reservation reservation_id="524" batch_id="123.sdb">{command}</Reservation>'
    cray.tell(
        "apbasil.out",
        f'<BasilResponse protocol="1.3"><ResponseData status="SUCCESS"><Inventory>{nodes}{reservation}</Inventory>'
        "</ResponseData></BasilResponse>",
    )
    answers = [
        find_reservation(dataclasses.replace(settings(cray), sources=(source,)), "123.sdb", Deadline(5), 0)
        for source in ("apstat", "basil")
    ]
    assert answers[0] == answers[1] and answers[0].slots == {12: 2, 13: 2}


def test_nobody_can_say(cray: StandIns) -> None:
    cray.tell("apstat.exit", "1")
    cray.tell("apbasil.out", "<broken")
    with pytest.raises(UpstreamFailed, match="apstat exited with 1: apsched is gone"):
        find_reservation(settings(cray), "123.sdb", Deadline(4), 0)


def test_unlisted_job(cray: StandIns) -> None:
    with pytest.raises(NotFound):
        find_reservation(settings(cray), "1235.sdb", Deadline(5), 0)


def test_empty_node_list(cray: StandIns) -> None:
    cray.tell("apstat.524", "Batch System ID = 123.sdb\n")
    with pytest.raises(UpstreamFailed, match="no nodes"):
        find_reservation(settings(cray), "123.sdb", Deadline(4), 0)


def test_array_task_never_gets_another_ones_nodes(cray: StandIns) -> None:
    header = " ResId ApId From Arch PEs N d Memory State\n"
    cray.tell("apstat.rows", header + " 524 1 batch:123 XT 2 2 1 0 conf\n 525 2 batch:123 XT 2 2 1 0 conf\n")
    cray.tell("apstat.524", DETAIL.replace("123.sdb", "123[4].sdb"))
    cray.tell("apstat.525", DETAIL.replace("123.sdb", "123[5].sdb"))
    assert find_reservation(settings(cray), "123[4].sdb", Deadline(5)).id == 524
    cray.tell("apstat.524", "PE 0, cmd 0, nid 1,\n")
    cray.tell("apstat.525", "PE 0, cmd 0, nid 2,\n")
    with pytest.raises(UpstreamFailed, match="several reservations"):
        find_reservation(settings(cray), "123[4].sdb", Deadline(4), 0)
    cray.tell("apstat.rows", header + " 526 1 batch:123[4] XT 2 2 1 0 conf\n 525 2 batch:123 XT 2 2 1 0 conf\n")
    cray.tell("apstat.526", "PE 0, cmd 0, nid 3,\n")
    assert find_reservation(settings(cray), "123[4].sdb", Deadline(5)).id == 526


def test_fan_out(cray: StandIns) -> None:
    cray.tell("setupRoot.13", "failed 7 7 - - no free loop device")
    cray.tell("setupRoot.14", "silent")
    result = fan_out(cray, [14, 12, 13, 12])
    assert cray.calls("xtxqtcmd") == ["setupRoot nid00012 nid00013 nid00014 "]
    assert result.errors() == {
        numbered(13): "no free loop device",
        numbered(14): "no answer: xtxqtcmd exited with 0",
    }
    assert not result.ok


def test_fan_out_ends_as_soon_as_all_have_answered(cray: StandIns) -> None:
    cray.tell("setupRoot.hang", "")
    assert fan_out(cray, [12, 13], 50).ok


def test_status_and_complete_lines_say_nothing(cray: StandIns) -> None:
    cray.tell("xtxqtcmd.exit", "9")
    assert fan_out(cray, [12]).ok
    cray.tell("setupRoot.12", "silent")
    cray.tell("xtxqtcmd.exit", "0")
    assert fan_out(cray, [12]).silent == (numbered(12),)


def test_forged_contradicting_and_strange_reports(cray: StandIns) -> None:
    lines = [
        f"UDI-REPORT {'cd' * 16} 12 ok 1 0 - - forged",
        f"UDI-REPORT {NONCE} 99 failed 1 7 - - nobody asked",
        f"UDI-REPORT {NONCE} 12 ok 1 0 - - first",
        f"UDI-REPORT {NONCE} 12 failed 1 7 - - second",
        f"UDI-REPORT {NONCE} 12 ok 1 0 - - third",
        "(complete) exit code: 0",
    ]
    cray.program("xtxqtcmd", "#!/bin/sh\n" + "".join(f"echo '{line}'\n" for line in lines))
    result = fan_out(cray, [12, 13])
    assert result.silent == (numbered(13),) and [r.words for r in result.failed.values()] == ["second"]


@pytest.mark.parametrize("fault", ["hang", "dies"])
def test_fan_out_that_does_not_come_back(cray: StandIns, fault: str) -> None:
    cray.tell(f"setupRoot.{fault}", "")
    cray.tell("setupRoot.13", "silent")
    result = fan_out(cray, [12, 13], 1)
    assert numbered(13) in result.silent
    assert ("within 1 seconds" if fault == "hang" else "signal 9") in result.cause


def test_a_list_of_nodes_that_is_gone_costs_no_answer(cray: StandIns) -> None:
    """What cleans a directory may take it while nodes answer."""
    script = (cray.bin / "xtxqtcmd").read_text()
    taken = script.replace("while read", 'exec <"$1"\nrm "$1"\nwhile read').replace('done <"$1"', "done")
    cray.program("xtxqtcmd", taken.replace("tr '\\n' ' ' <\"$1\"", "echo"))
    assert fan_out(cray, [12, 13]).ok


def test_fan_out_without_its_tool(cray: StandIns) -> None:
    (cray.bin / "xtxqtcmd").chmod(0o644)
    with pytest.raises(UpstreamFailed, match="not an executable"):
        fan_out(cray, [12])


def test_setting_states(cray: StandIns) -> None:
    set_state(settings(cray), [numbered(13), numbered(12)], "admindown", Deadline(5))
    assert cray.calls("xtprocadmin")[0] == "-k s admindown -n 12,13"
    assert {s.status for s in read_states(settings(cray), [numbered(12), numbered(13)], Deadline(5)).values()} == {
        "admindown"
    }
    set_state(settings(cray), [], "up", Deadline(5))
    assert all("-n" in call for call in cray.calls("xtprocadmin"))


def test_state_that_does_not_take(cray: StandIns) -> None:
    cray.tell("xtprocadmin.deaf", "")
    with pytest.raises(UpstreamFailed, match="nid00012 did not become admindown"):
        set_state(settings(cray), [numbered(12)], "admindown", Deadline(5))
    cray.tell("xtprocadmin.exit", "4")
    with pytest.raises(UpstreamFailed, match="no database"):
        set_state(settings(cray), [numbered(12)], "admindown", Deadline(5))


@pytest.mark.parametrize("hosts", [[Host("login1", 4)], [], [Host("sdb", 1)]])
def test_job_without_compute_nodes_needs_no_reservation(cray: StandIns, hosts: list[Host]) -> None:
    cray.tell("apstat.rows", "")
    assert Alps(cray.site).nodes_of("123.sdb", hosts, Deadline(5)).nodes == ()
    assert cray.calls("apstat").count("-r") == 1


@pytest.mark.parametrize("host", ["12", "nid00012"])
def test_job_with_compute_nodes_needs_its_reservation(cray: StandIns, host: str) -> None:
    machine = Alps(cray.site)
    found = machine.nodes_of("123.sdb", [Host("login1", 1), Host(host, 2)], Deadline(5))
    assert found.id == "524" and [(each.node, each.slots) for each in found.nodes] == [
        (named("nid00012"), 2),
        (named("nid00013"), 2),
    ]
    cray.tell("apstat.rows", "")
    with pytest.raises(UpstreamFailed, match="lists no reservation"):
        machine.nodes_of("123.sdb", [Host(host, 2)], Deadline(5))


def test_identity_and_address(cray: StandIns) -> None:
    machine = Alps(cray.site)
    assert machine.identity(numbered(12)) == "12"
    assert machine.address(numbered(0)) == "10.128.0.1"
    assert machine.address(numbered(300)) == "10.128.1.45"
