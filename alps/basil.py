"""BASIL's inventory by `apbasil`: which nodes a batch job's reservation has.

The inventory is the whole machine, tens of megabytes on a large one. Shapes of protocols 1.0 to 1.3 and 1.7 are
understood (cray-reference 3.2, 3.5): a node's reservation is found from the allocations of its processors, however
deeply they lie (B42), or from the reserved nodes that the reservation itself lists.
"""

from __future__ import annotations

from dataclasses import dataclass

from ClusterShell.NodeSet import RangeSet, RangeSetParseError
from lxml import etree

from alps.batchid import is_same_job
from udiroot.errors import UpstreamFailed, printable


class BasilRefused(UpstreamFailed):
    """ALPS answered, and the answer will not change by asking again."""


@dataclass(frozen=True)
class BasilReservation:
    """A reservation of the inventory, with the slots that each of its nodes has."""

    id: int
    slots: dict[int, int]


def inventory_request(protocol: str) -> bytes:
    """The request, as Torque writes it."""
    return (
        f"<?xml version='1.0'?><BasilRequest protocol='{protocol}' method='QUERY' type='INVENTORY'></BasilRequest>\n"
    ).encode()


def find_in_inventory(answer: bytes, job: str) -> BasilReservation | None:
    """The reservation of batch job `job` in an inventory; the newest, where a released one still lingers.

    Raises BasilRefused for a permanent failure, UpstreamFailed for all else that is no inventory; the latter is worth
    asking again (B5, B50).
    """
    data = _response_data(answer)
    found = [r for r in data.iter("Reservation") if is_same_job(r.get("batch_id", ""), job) and _number(r)]
    if not found:
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


def _slots(data: etree._Element, reservation: etree._Element) -> dict[int, int]:
    wanted = reservation.get("reservation_id")
    slots: dict[int, int] = {}
    for node in data.iter("Node"):
        slots_here = sum(1 for a in node.iter("ProcessorAllocation") if a.get("reservation_id") == wanted)
        if slots_here and _is_number(node.get("node_id")):
            slots[int(node.get("node_id", ""))] = slots_here
    return slots or _reserved_nodes(reservation)


def _reserved_nodes(reservation: etree._Element) -> dict[int, int]:
    """Nodes that the reservation lists itself: one by one, or (from 1.6 on) as ranges."""
    per_node = max(
        (int(c.get("nppn", "")) for c in reservation.iter("Command") if _is_number(c.get("nppn"))), default=1
    )
    listed = {int(n.get("node_id", "")) for n in reservation.iter("ReservedNode") if _is_number(n.get("node_id"))}
    for ranges in reservation.iter("ReservedNodes"):
        try:
            listed |= {int(nid) for nid in RangeSet((ranges.text or "").strip())}
        except (RangeSetParseError, ValueError) as error:
            raise UpstreamFailed(f"apbasil lists nodes that are no ranges: {printable(ranges.text)}") from error
    return dict.fromkeys(sorted(listed), max(1, per_node))


def _number(reservation: etree._Element) -> int:
    text = reservation.get("reservation_id")
    return int(text or "0") if _is_number(text) else 0


def _is_number(text: str | None) -> bool:
    return bool(text) and text is not None and text.isascii() and text.isdecimal() and len(text) < 19
