"""What Cray's commands print, and what they might."""

from __future__ import annotations

from collections import Counter
from pathlib import Path

import pytest
from ClusterShell.NodeSet import NodeSet
from hypothesis import given
from hypothesis import strategies as st

from alps.apstat import ReservationRow, node_slots, reservation_rows
from alps.basil import BasilRefused, find_in_inventory
from alps.batchid import is_same_job
from alps.nodestates import parse_states
from tests.unit.cray_standins import DETAIL, ROWS
from udi.nodes import folded, numbered, parse_named, parse_numbered
from udiroot.errors import UpstreamFailed, UsageError

DATA = Path(__file__).parent / "data"


def test_rows() -> None:
    assert reservation_rows(ROWS) == [ReservationRow(524, "123"), ReservationRow(525, "1234")]


def test_rows_of_an_empty_machine() -> None:
    assert reservation_rows("") == reservation_rows("No reservations are present\n") == []


def test_detail() -> None:
    assert node_slots(DETAIL) == {12: 2, 13: 2}


_NIDS = st.lists(st.integers(0, 200_000), min_size=1, max_size=60)


@given(_NIDS, st.integers(0, 6), st.booleans())
def test_any_detail(nids: list[int], indent: int, comma: bool) -> None:
    end = ", CPU 0x1, map 0x1" if comma else ""
    lines = [f"{' ' * indent}PE {n},  cmd 0,   nid {nid}{end}" for n, nid in enumerate(nids)]
    assert node_slots("Reservation detail\n" + "\nPEs: 3, nid 9\n".join(lines)) == Counter(nids)


@pytest.mark.parametrize(
    "row",
    [
        "    PE {n}, cmd 0, nid {nid}, CPU 0x1, map 0x1, accels 0",
        "    cmd 0, nid {nid}, CPU 0x1, map 0x1, accels 0",
        " cmd 0,  nid {nid}, CPU 0x1",
        "    nid {nid}, CPU 0x1, map 0x1",
        "    {n}, cmd 0, nid {nid}, CPU 0x1-0x3, accels 0,",
    ],
)
def test_rows_with_and_without_the_number_of_the_slot(row: str) -> None:
    head = "Res[0]: apid 1, pagg 2, resId 524, user alice,\n     gid 100, account 100, time 0, normal\n"
    head += "Batch System ID = 123.sdb\nNumber of commands 1, PEs 4, nid 77\nCmd[0]: BASIL -n 4 -N 2 -d 6, nodes 2\n"
    rows = "\n".join(row.format(n=n, nid=nid) for n, nid in enumerate([13, 12, 100020, 12]))
    assert node_slots(head + rows) == {12: 2, 13: 1, 100020: 1}


def test_a_row_of_one_form_is_not_counted_twice() -> None:
    assert node_slots("  PE 0, cmd 0, nid 12, CPU 0x1\n  cmd 0, nid 12, CPU 0x1\n") == {12: 1}


@given(st.text())
def test_any_text_is_read(text: str) -> None:
    reservation_rows(text)
    node_slots(text)
    parse_states(text)


@pytest.mark.parametrize(
    ("shown", "job", "same"),
    [
        ("123.sdb", "123.sdb", True),
        ("123", "123.sdb", True),
        ("123.sdb", "123.sdb.site.org", True),
        ("1234.sdb", "123.sdb", False),
        ("123.other", "123.sdb", False),
        ("123[4].sdb", "123[4].sdb", True),
        ("123[4].sdb", "123[5].sdb", False),
        ("", "123.sdb", False),
    ],
)
def test_batch_ids(shown: str, job: str, same: bool) -> None:
    assert is_same_job(shown, job) is same


def _answer(inside: str, protocol: str = "1.3") -> bytes:
    return (
        f'<?xml version="1.0"?><BasilResponse protocol="{protocol}">'
        f'<ResponseData status="SUCCESS" method="QUERY">{inside}</ResponseData></BasilResponse>'
    ).encode()


_OLD = (
    '<Message severity="DEBUG">words</Message><Inventory><NodeArray>'
    '<Node node_id="32"><!-- c --><ProcessorArray><Processor ordinal="0"><ProcessorAllocation reservation_id="897"/>'
    '</Processor><Processor ordinal="1"><ProcessorAllocation reservation_id="897"/></Processor></ProcessorArray></Node>'
    '<Node node_id="33">stray<ProcessorArray><Processor><ProcessorAllocation reservation_id="8"/></Processor>'
    "</ProcessorArray></Node></NodeArray><ReservationArray>"
    '<Reservation reservation_id="8" batch_id="12.sdb"/><Reservation reservation_id="897" batch_id="123"/>'
    "</ReservationArray></Inventory>"
)
_DEEP = (
    '<Inventory><NodeArray><Node node_id="100020"><SocketArray><Socket><SegmentArray><Segment><ComputeUnitArray>'
    '<ComputeUnit><ProcessorArray><Processor><ProcessorAllocation reservation_id="7"/></Processor></ProcessorArray>'
    "</ComputeUnit></ComputeUnitArray></Segment></SegmentArray></Socket></SocketArray></Node></NodeArray>"
    '<ReservationArray><Reservation reservation_id="7" batch_id="123.sdb"/></ReservationArray></Inventory>'
)
_RANGES = (
    '<Inventory><ReservationArray><Reservation reservation_id="7" batch_id="123.sdb"><ApplicationArray><Application>'
    '<CommandArray><Command nppn="4" cmd="BASIL"/></CommandArray></Application></ApplicationArray>'
    "<ReservedNodes>1-3,7</ReservedNodes></Reservation></ReservationArray></Inventory>"
)


@pytest.mark.parametrize(
    ("inside", "protocol", "reservation", "slots"),
    [
        (_OLD, "1.0", 897, {32: 2}),
        (_DEEP, "1.3", 7, {100020: 1}),
        (_RANGES, "1.7", 7, {1: 4, 2: 4, 3: 4, 7: 4}),
    ],
)
def test_inventories(inside: str, protocol: str, reservation: int, slots: dict[int, int]) -> None:
    found = find_in_inventory(_answer(inside, protocol), "123.sdb")
    assert found is not None and (found.id, found.slots) == (reservation, slots)


def _reserved(commands: str, processors: dict[int, int]) -> bytes:
    """An inventory with the job's reservation: its applications, and how many processors it has of each node."""
    nodes = "".join(
        f'<Node node_id="{nid}"><ProcessorArray>'
        + '<Processor><ProcessorAllocation reservation_id="7"/></Processor>' * count
        + "</ProcessorArray></Node>"
        for nid, count in processors.items()
    )
    return _answer(
        f"<Inventory><NodeArray>{nodes}</NodeArray><ReservationArray>"
        f'<Reservation reservation_id="7" batch_id="123.sdb">{commands}</Reservation></ReservationArray></Inventory>'
    )


def _application(*commands: str, stamp: int = 0) -> str:
    inner = "".join(f"<Command {command}/>" for command in commands)
    return f'<Application time_stamp="{stamp}"><CommandArray>{inner}</CommandArray></Application>'


@pytest.mark.parametrize(
    ("applications", "processors", "slots"),
    [
        (_application('width="4" depth="6" nppn="2" cmd="BASIL"'), {12: 12, 13: 12}, {12: 2, 13: 2}),
        (_application('width="3" depth="6" nppn="2" cmd="BASIL"'), {12: 12, 13: 6}, {12: 2, 13: 1}),
        (_application('width="4" depth="6" cmd="BASIL"'), {12: 12, 13: 12}, {12: 2, 13: 2}),
        (_application('width="4" depth="1" nppn="2" cmd="BASIL"'), {12: 48, 13: 48}, {12: 2, 13: 2}),
        (_application('width="4" depth="0" cmd="BASIL"'), {12: 4}, {12: 4}),
        (_application('width="4" depth="6" nppn="2" cmd="BASIL"')
         + _application('width="1" depth="12" nppn="1" cmd="a.out"', stamp=99), {12: 12, 13: 12}, {12: 2, 13: 2}),
        (_application('width="4" depth="6" nppn="2" cmd="BASIL"', 'width="4" depth="6" nppn="2" cmd="BASIL"'),
         {12: 12, 13: 12}, {12: 2, 13: 2}),
        (_application('width="8" depth="6" cmd="BASIL"') + "<ReservedNodes>1-4</ReservedNodes>", {},
         dict.fromkeys(range(1, 5), 2)),
        ("", {12: 3}, {12: 3}),
    ],
)  # fmt: skip
def test_slots_are_ranks_as_apstat_counts_them(
    applications: str, processors: dict[int, int], slots: dict[int, int]
) -> None:
    found = find_in_inventory(_reserved(applications, processors), "123.sdb")
    assert found is not None and found.slots == slots


def test_slots_of_several_depths_are_not_guessed() -> None:
    mixed = _application('width="2" depth="6" cmd="BASIL"', 'width="2" depth="1" cmd="BASIL"')
    with pytest.raises(BasilRefused, match="which nodes of a reservation have which depth") as raised:
        find_in_inventory(_reserved(mixed, {12: 12, 13: 2}), "123.sdb")
    assert "apstat" in raised.value.hint


def test_success_without_an_inventory() -> None:
    for inside in ("", "<Message>words</Message>", '<Engine name="ALPS" version="5.2"/>'):
        with pytest.raises(UpstreamFailed, match="SUCCESS without an Inventory") as raised:
            find_in_inventory(_answer(inside), "123.sdb")
        assert not isinstance(raised.value, BasilRefused), "it is worth another try"


def test_protocol_1_0_has_no_batch_ids() -> None:
    nameless = _OLD.replace(' batch_id="12.sdb"', "").replace(' batch_id="123"', "")
    with pytest.raises(BasilRefused, match=r"protocol 1\.0 does not report the batch ids") as raised:
        find_in_inventory(_answer(nameless, "1.0"), "123.sdb")
    assert "alps.basil_protocol" in raised.value.hint and "apstat" in raised.value.hint
    assert find_in_inventory(_answer(nameless, "1.3"), "123.sdb") is None, "interactive reservations have none either"
    empty = "<Inventory><NodeArray/><ReservationArray/></Inventory>"
    assert find_in_inventory(_answer(empty, "1.0"), "123.sdb") is None


@pytest.mark.parametrize("text", ["0-9999999", "1,2,1000000-1000001/1", "x", "3-1", "1--2"])
def test_reserved_nodes_that_are_no_ranges(text: str) -> None:
    """A range that no machine has would fill the memory of a hook."""
    with pytest.raises(UpstreamFailed, match="lists nodes that are no ranges"):
        find_in_inventory(_answer(_RANGES.replace("1-3,7", text)), "123.sdb")


def test_inventory_without_the_job() -> None:
    assert find_in_inventory((DATA / "basil-inventory-1.3.xml").read_bytes(), "123.sdb") is None
    assert find_in_inventory(_answer(_OLD), "89.sdb") is None


def test_newest_of_two_reservations() -> None:
    two = _DEEP.replace("<ReservationArray>", '<ReservationArray><Reservation reservation_id="6" batch_id="123.sdb"/>')
    found = find_in_inventory(_answer(two), "123.sdb")
    assert found is not None and found.id == 7


def _failure(extra: str) -> bytes:
    return f'<BasilResponse protocol=""><ResponseData status="FAILURE" method="UNDEFINED" {extra}>'.encode() + (
        b"<Message>ALPS error: no\x20luck</Message></ResponseData></BasilResponse>"
    )


def test_failures() -> None:
    with pytest.raises(BasilRefused, match="no luck"):
        find_in_inventory(_failure('error_class="PERMANENT"'), "1.sdb")
    for transient in (_failure('error_class="TRANSIENT"'), _failure(""), b"", b"<a>", b"<BasilResponse/>", b"\xff\xfe"):
        with pytest.raises(UpstreamFailed) as raised:
            find_in_inventory(transient, "1.sdb")
        assert not isinstance(raised.value, BasilRefused)


@given(st.binary(max_size=200))
def test_any_answer(raw: bytes) -> None:
    with pytest.raises(UpstreamFailed):
        find_in_inventory(raw, "1.sdb")


def test_entities_are_not_resolved() -> None:
    raw = b'<!DOCTYPE d [<!ENTITY e SYSTEM "file:///etc/passwd">]>' + _answer(_OLD).split(b"?>", 1)[1].replace(
        b"stray", b"&e;"
    )
    found = find_in_inventory(raw, "123.sdb")
    assert found is not None and found.slots == {32: 2}


def test_node_states() -> None:
    text = """\
Connected to the database
   NID    (HEX)    NODENAME     TYPE    STATUS        MODE
     4      0x4  c0-0c0s1n0  compute        up       batch
100020  0x186b4  c0-0c0s1n1  compute admindown interactive
total 2
"""
    states = parse_states(text)
    assert [(s.nid, s.status, s.mode) for s in states.values()] == [
        (4, "up", "batch"),
        (100020, "admindown", "interactive"),
    ]


@pytest.mark.parametrize(
    ("text", "nids"),
    [("12-13,17", (12, 13, 17)), ("nid[00012-00013]", (12, 13)), ("nid00012,nid00014", (12, 14)), ("5", (5,))],
)
def test_nodes_of_an_operator(text: str, nids: tuple[int, ...]) -> None:
    assert parse_numbered(text) == tuple(map(numbered, nids))


@pytest.mark.parametrize("text", ["", "x12", "nid[1-", "12-", "nid12;id", "@all", "13-12", "nid00001,login1"])
def test_what_is_not_a_list_of_nodes(text: str) -> None:
    with pytest.raises(UsageError):
        parse_numbered(text)


def test_hosts_of_a_cluster() -> None:
    assert [node.name for node in parse_named("c[001-002],login1")] == ["c001", "c002", "login1"]
    for text in ("", "c[", "@all", "-x", "a b", "c1;id"):
        with pytest.raises(UsageError):
            parse_named(text)


def test_folding() -> None:
    assert folded(map(numbered, [13, 12, 14])) == "nid[00012-00014]"
    assert folded([numbered(5)]) == "nid00005"
    assert folded([numbered(100020), numbered(7)]) == "nid[00007,100020]"
    assert folded([]) == ""


@given(st.sets(st.one_of(st.integers(0, 40), st.integers(99_990, 100_010)), min_size=1))
def test_numbers_are_folded_as_clustershell_folds_names(numbers: set[int]) -> None:
    assert set(parse_numbered(folded(map(numbered, numbers)))) == set(map(numbered, numbers))
    if max(numbers) < 100_000 or min(numbers) >= 100_000:  # it folds names of two lengths apart
        assert folded(map(numbered, numbers)) == str(NodeSet.fromlist([str(numbered(each)) for each in numbers]))
