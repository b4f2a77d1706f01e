"""The tables and the XML of the stand-ins, without any machine: state machine of BASIL, traps of apstat."""

from pathlib import Path

import pytest
from lxml import etree

from udiroot.errors import UsageError
from xcsim.alps import Alps, Reservation
from xcsim.apstat import Apstat
from xcsim.basil import Basil, expand
from xcsim.faults import Fault, Faults
from xcsim.job import Job
from xcsim.nhc import parse
from xcsim.node_states import NodeStates
from xcsim.qstat import run as qstat
from xcsim.settings import Settings

SETTINGS = Settings(nodes=4, first_nid=20, slots=4)


class Bench:
    def __init__(self, directory: Path) -> None:
        self.gone: list[int] = []
        self.faults = Faults(directory / "faults.json")
        self.states = NodeStates(directory / "sdb.json", SETTINGS)
        self.alps = Alps(directory / "alps.json", self.faults, lambda one: self.gone.append(one.id))
        self.basil = Basil(self.alps, self.states, self.faults, SETTINGS)
        self.apstat = Apstat(self.alps, self.states, self.faults, SETTINGS)

    def request(self, attributes: str, body: str = "", protocol: str = "1.3") -> "etree._Element":
        text = f"<?xml version='1.0'?><BasilRequest protocol='{protocol}' {attributes}>{body}</BasilRequest>"
        found = etree.fromstring(self.basil.answer(text.encode())).find("ResponseData")
        assert found is not None
        return found

    def reserve(self, batch_id: str = "74.sdb", nodes: str = "20,21") -> int:
        body = (
            f"<ReserveParamArray user_name='root' batch_id='{batch_id}'><ReserveParam architecture='XT' width='8' "
            f"nppcu='1' nppn='4'><NodeParamArray><NodeParam>{nodes}</NodeParam></NodeParamArray></ReserveParam>"
            "</ReserveParamArray>"
        )
        reserved = self.request("method='RESERVE'", body).find("Reserved")
        assert reserved is not None
        return int(str(reserved.get("reservation_id")))


@pytest.fixture
def bench(tmp_path: Path) -> Bench:
    return Bench(tmp_path)


def test_a_reservation_from_none_to_gone(bench: Bench) -> None:
    number = bench.reserve()
    assert "unbound" in bench.apstat.run(["-r"])[1]
    assert bench.request(f"method='CONFIRM' reservation_id='{number}' pagg_id='77'").get("status") == "SUCCESS"
    assert " batch:74 " in bench.apstat.run(["-r"])[1]
    released = bench.request(f"method='RELEASE' reservation_id='{number}'")
    assert released.get("status") == "SUCCESS"
    assert bench.gone == [number]
    again = bench.request(f"method='RELEASE' reservation_id='{number}'")
    assert (again.get("status"), again.get("error_class")) == ("FAILURE", "PERMANENT")
    assert f"No entry for resId {number}" in "".join(str(part) for part in again.itertext())


def test_a_claim_holds_a_released_reservation(bench: Bench) -> None:
    number = bench.reserve()
    bench.alps.confirm(number, 77)
    app = bench.alps.place(bench.alps.reservations[number], {20: 4}, "a.out")
    rows = bench.apstat.run(["-r"])[1].splitlines()
    assert rows[1].split()[-1] == "conf,claim"
    assert rows[2].startswith("A") and rows[2].split()[6:8] == ["-", "-"]
    released = bench.request(f"method='RELEASE' reservation_id='{number}'").find("Released")
    assert released is not None and released.get("claims") == "1"
    assert bench.gone == []
    bench.alps.finish(app.apid)
    assert bench.gone == [number]


def test_detail_has_a_line_a_pe_with_its_comma(bench: Bench) -> None:
    number = bench.reserve()
    bench.reserve("745.sdb", "22,23")
    text = bench.apstat.run(["-rvvv", "-R", str(number)])[1]
    pes = [line.split() for line in text.splitlines() if line.lstrip().startswith("PE ")]
    assert [words[5] for words in pes] == ["20,"] * 4 + ["21,"] * 4
    assert "Batch System ID = 74.sdb" in text


def test_refusals_are_xml(bench: Bench) -> None:
    bench.reserve()
    short = "<ReserveParam width='9' nppn='4'/>"
    for attributes, body in (
        (
            "method='RESERVE'",
            f"<ReserveParamArray user_name='root'>{short}</ReserveParamArray>",
        ),
        ("method='CONFIRM' reservation_id='9' pagg_id='1'", ""),
        ("method='QUERY' type='NONSENSE'", ""),
        ("method='DANCE'", ""),
    ):
        assert bench.request(attributes, body).get("status") == "FAILURE"
    assert b"PARSER" in bench.basil.answer(b"<BasilRequest")


@pytest.mark.parametrize("protocol", ["1.0", "1.1", "1.2", "1.3"])
def test_inventory_tells_who_holds_a_node(bench: Bench, protocol: str) -> None:
    number = bench.reserve()
    inventory = bench.request("method='QUERY' type='INVENTORY'", protocol=protocol)
    held = {
        str(node.get("node_id"))
        for node in inventory.iter("Node")
        if any(one.get("reservation_id") == str(number) for one in node.iter("ProcessorAllocation"))
    }
    assert held == {"20", "21"}
    batch = [one.get("batch_id") for one in inventory.iter("Reservation")]
    assert batch == ([None] if protocol == "1.0" else ["74.sdb"])


def test_faults_are_counted_and_named(bench: Bench) -> None:
    bench.reserve()
    bench.faults.set(Fault("reservation-late", value="2"))
    shown = ["batch:74" in bench.apstat.run(["-r"])[1] for _ in range(3)]
    assert shown == [False, False, True]
    bench.faults.clear()
    bench.faults.set(Fault("apstat-broken", count=1))
    assert [bench.apstat.run(["-r"])[0] for _ in range(2)] == [1, 0]
    with pytest.raises(UsageError, match="no such fault: fire"):
        bench.faults.set(Fault("fire"))


def test_xtprocadmin_without_n_hits_every_node(bench: Bench) -> None:
    code, table, _ = bench.states.xtprocadmin(["-k", "s", "admindown", "-n", "nid00021,23"], root=True)
    assert code == 0 and table.count("admindown") == 2
    assert bench.states.up() == {20, 22}
    bench.states.xtprocadmin(["-k", "s", "up"], root=True)
    assert bench.states.up() == {20, 21, 22, 23}
    assert bench.states.xtprocadmin(["-k", "s", "down", "-n", "99"], root=True)[0] == 1
    assert bench.states.xtprocadmin(["-k", "s", "down", "-n", "20"], root=False)[0] == 1


def test_nhc_configuration() -> None:
    text = "runtests: always\n[plugin] # ours\nCOMMAND: /dsl/x y\nAction: Admindown\nTimeout: 9\nSets: Reservation\n"
    (test,) = parse(text + "[ugni]\nAction: log\n")
    assert (test.command, test.action, test.seconds) == ("/dsl/x y", "admindown", 9.0)
    assert test.sets == {"reservation"}


def test_qstat_escapes_twice_and_on_one_line() -> None:
    job = Job(
        number=34, server="vm", host="vm", name="qs7", user="alice", group="alice", uid=1, gid=1, queue="batch",
        account="", script="x", resources={"nodes": "2:ppn=4"}, variables=['X=<a&b>"q" tick\'', "UDI=image:tag"],
        output="", error="", join="n", shell="", workdir="/home/alice", submit_args="-v 'x'", nids=[101, 102],
        state="R", substate=40, start_count=1,
    )  # fmt: skip
    code, out, _ = qstat(["-x", "34"], {"34.vm": job}, Settings(server_name="vm"))
    assert code == 0 and out.count("\n") == 2
    assert "<Variable_List>X=&lt;a&amp;b&gt;\\&quot;q\\&quot; tick\\&apos;,UDI=image:tag</Variable_List>" in out
    assert "<exec_host>101/0-3+102/0-3</exec_host>" in out
    assert "<Error_Path>vm:/home/alice/qs7.e34</Error_Path>" in out
    assert qstat(["-x", "35"], {"34.vm": job}, Settings(server_name="vm")) == (
        153, "", "qstat: Unknown Job Id Error 35.vm\n",
    )  # fmt: skip


def test_qstat_lists_what_torque_lists_during_a_prologue() -> None:
    job = Job(
        number=74, server="vm", host="vm", name="qs1", user="alice", group="alice", uid=1, gid=1, queue="batch",
        account="", script="x", resources={"nodes": "2:ppn=4"}, variables=["UDI=image:tag"], output="", error="",
        join="n", shell="", workdir="/home/alice", submit_args="-N qs1", nids=[101, 102], state="R", substate=40,
        start_count=1, started=1795323084.0, session=27570, reservation=1001,
    )  # fmt: skip
    out = qstat(["-x", "74"], {"74.vm": job}, Settings(server_name="vm"))[1]
    found = etree.fromstring(out.encode()).find("Job")
    assert found is not None
    # The order of a real capture (torque-reference g).
    assert " ".join(str(element.tag) for element in found) == (
        "Job_Id Job_Name Job_Owner job_state queue server Checkpoint ctime Error_Path exec_host Hold_Types Join_Path "
        "Keep_Files Mail_Points mtime Output_Path Priority qtime Rerunable Resource_List substate Variable_List euser "
        "egroup hashname queue_rank queue_type etime submit_args start_time start_count fault_tolerant job_radix "
        "submit_host init_work_dir login_node_id nppcu login_node_key request_version"
    )


def test_qstat_shows_an_array_as_one_job_and_its_tasks_when_asked() -> None:
    def task(number: int, state: str) -> Job:
        return Job(
            number=64, server="vm", host="vm", name=f"run-{number}", user="alice", group="alice", uid=1, gid=1,
            queue="batch", account="", script="x", resources={}, variables=[f"PBS_ARRAYID={number}"], output="",
            error="/e", join="n", shell="", workdir="/home/alice", submit_args="-t 1-2", task=number, state=state,
        )  # fmt: skip

    jobs = {job.id: job for job in (task(1, "C"), task(2, "R"))}
    assert list(jobs) == ["64[1].vm", "64[2].vm"]

    def shown(*words: str) -> list[tuple[str | None, ...]]:
        code, out, _ = qstat(["-x", *words], jobs, Settings(server_name="vm"))
        assert code == 0
        names = ("Job_Id", "Job_Name", "job_state", "Output_Path", "Error_Path")
        return [tuple(job.findtext(name) for name in names) for job in etree.fromstring(out.encode()).iter("Job")]

    first = ("64[1].vm", "run-1", "C", "vm:/home/alice/run.o64-1", "vm:/e-1")
    assert shown("64[1].vm") == [first]
    assert [row[0] for row in shown("-t")] == [row[0] for row in shown("-t", "64[]")] == list(jobs)
    assert shown() == shown("64[].vm") == [("64[].vm", "run", "R", "vm:/home/alice/run.o64", "vm:/e")]
    assert qstat(["-x", "64"], jobs, Settings(server_name="vm"))[0] == 153
    assert qstat(["-x", "64[3]"], jobs, Settings(server_name="vm"))[0] == 153


def test_nid_lists() -> None:
    assert expand("1-3,7") == [1, 2, 3, 7]


def test_unconfirmed_reservations_are_dropped(bench: Bench) -> None:
    number = bench.reserve()
    bench.alps.reservations[number].made -= 1000
    assert bench.alps.listed() == []
    assert bench.gone == [number]


def test_state_survives(bench: Bench, tmp_path: Path) -> None:
    number = bench.reserve()
    again = Alps(tmp_path / "alps.json", bench.faults, lambda one: None)
    assert isinstance(again.reservations[number], Reservation)
