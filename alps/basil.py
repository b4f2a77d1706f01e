"""BASIL's inventory by `apbasil`: which nodes a batch job's reservation has.

The inventory is the whole machine, tens of megabytes on a large one. Shapes of protocols 1.0 to 1.3 and 1.7 are
understood (cray-reference 3.2, 3.5): a node's reservation is found from the allocations of its processors, however
deeply they lie (B42), or from the reserved nodes that the reservation itself lists.
"""

from __future__ import annotations

import re

from ClusterShell.NodeSet import RangeSet, RangeSetParseError
from lxml import etree

from alps.batchid import is_same_job
from alps.numbers import is_number
from udi.values import Frozen
from udiroot.errors import UpstreamFailed, printable

NAMELESS = "1.0"
"""The protocol whose reservations have no batch id."""
_LONGER_THAN_A_NID = re.compile(r"[0-9]{7}")
"""Nids have five digits, rarely six; a range of more would fill the memory."""


class BasilRefused(UpstreamFailed):
    """ALPS answered, and the answer will not change by asking again."""


class BasilReservation(Frozen):
    """A reservation of the inventory, with the slots that each of its nodes has."""

    id: int
    slots: dict[int, int]


def nameless() -> BasilRefused:
    """The error of a protocol whose reservations have no batch id (3.2): a job's own cannot be found in them."""
    return BasilRefused(
        f"BASIL protocol {NAMELESS} does not report the batch ids of reservations",
        'set alps.basil_protocol to "1.1" or later, or add "apstat" to alps.sources',
    )


def inventory_request(protocol: str) -> bytes:
    """The request, as Torque writes it."""
    return (
        f"<?xml version='1.0'?><BasilRequest protocol='{protocol}' method='QUERY' type='INVENTORY'></BasilRequest>\n"
    ).encode()


def find_in_inventory(answer: bytes, job: str) -> BasilReservation | None:
    """The reservation of batch job `job` in an inventory; the newest, where a released one still lingers.

    Raises BasilRefused for a permanent failure, and where the answer cannot tell; UpstreamFailed for all else that is
    not an inventory, which is worth asking again (B5, B50).
    """
    data = _response_data(answer)
    if next(data.iter("Inventory"), None) is None:
        raise UpstreamFailed("apbasil answered SUCCESS without an Inventory")
    listed = list(data.iter("Reservation"))
    found = [r for r in listed if is_same_job(r.get("batch_id", ""), job) and _number(r)]
    if not found:
        if listed and _protocol(data) == NAMELESS and not any(r.get("batch_id") for r in listed):
            raise nameless()
        return None
    newest = max(found, key=_number)
    return BasilReservation(_number(newest), _slots(data, newest))


def _response_data(answer: bytes) -> etree._Element:
    """The successful answer's payload. Messages may stand anywhere, in a success too (B32)."""
    if not answer.strip():
        raise UpstreamFailed("apbasil printed nothing")
    parser = etree.XMLParser(
        resolve_entities=False, no_network=True, load_dtd=False, huge_tree=True, remove_comments=True, remove_pis=True
    )
    try:
        root: etree._Element = etree.fromstring(answer, parser)
    except etree.XMLSyntaxError as error:
        raise UpstreamFailed(f"apbasil's answer is not XML: {printable(error)}") from error
    data: etree._Element | None = next(root.iter("ResponseData"), None)
    if data is None:
        raise UpstreamFailed("apbasil's answer has no ResponseData")
    if data.get("status") == "SUCCESS":
        return data
    words = " ".join("; ".join(m.text or "" for m in root.iter("Message")).split())
    said = f"apbasil answered {printable(data.get('status', 'without a status'))}: {printable(words or 'no message')}"
    if data.get("error_class") == "PERMANENT":
        raise BasilRefused(said)
    raise UpstreamFailed(said)


class _Shape(Frozen):
    """What the reservation was requested with: PEs in all, CPUs of each PE, and PEs of each node; 0: not stated."""

    width: int
    depth: int
    per_node: int

    @classmethod
    def of(cls, reservation: etree._Element) -> _Shape:
        """The shape by the request itself, which BASIL keeps as the first application (3.5): programs that run in the
        reservation have shapes of their own. Raises BasilRefused where the request has several with other depths."""
        commands = [command for command in reservation.iter("Command") if command.get("cmd") == "BASIL"]
        if not commands:
            first = next(reservation.iter("Application"), None)
            commands = list(reservation.iter("Command") if first is None else first.iter("Command"))
        depths = {max(1, _value(command, "depth")) for command in commands} or {1}
        if len(depths) > 1:
            raise BasilRefused(
                "BASIL does not report which nodes of a reservation have which depth, and this one has several",
                'add "apstat" to alps.sources',
            )
        width = sum(_value(command, "width") for command in commands)
        return cls(width, depths.pop(), max((_value(command, "nppn") for command in commands), default=0))


def _slots(data: etree._Element, reservation: etree._Element) -> dict[int, int]:
    """Slots are PEs, as `apstat` counts them: a PE has as many processors as the reservation is deep (3.3)."""
    wanted = reservation.get("reservation_id")
    shape = _Shape.of(reservation)
    slots: dict[int, int] = {}
    for node in data.iter("Node"):
        processors = sum(1 for a in node.iter("ProcessorAllocation") if a.get("reservation_id") == wanted)
        if processors and is_number(node.get("node_id")):
            pes = -(-processors // shape.depth)
            slots[int(node.get("node_id", ""))] = min(pes, shape.per_node) if shape.per_node else pes
    return slots or _reserved_nodes(reservation, shape)


def _reserved_nodes(reservation: etree._Element, shape: _Shape) -> dict[int, int]:
    """Nodes that the reservation lists itself: one by one, or (from 1.6 on) as ranges."""
    listed = {int(n.get("node_id", "")) for n in reservation.iter("ReservedNode") if is_number(n.get("node_id"))}
    for ranges in reservation.iter("ReservedNodes"):
        text = (ranges.text or "").strip()
        try:
            if _LONGER_THAN_A_NID.search(text):
                raise ValueError(text)
            listed |= {int(nid) for nid in RangeSet(text)}
        except (RangeSetParseError, ValueError) as error:
            raise UpstreamFailed(f"apbasil lists nodes that are no ranges: {printable(text)}") from error
    per_node = shape.per_node or (-(-shape.width // len(listed)) if listed else 0)
    return dict.fromkeys(sorted(listed), max(1, per_node))


def _protocol(data: etree._Element) -> str:
    parent = data.getparent()
    return "" if parent is None else parent.get("protocol", "")


def _value(element: etree._Element, name: str) -> int:
    text = element.get(name)
    return int(text) if is_number(text) else 0


def _number(reservation: etree._Element) -> int:
    return _value(reservation, "reservation_id")
