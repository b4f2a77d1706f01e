"""BASIL: the XML that `apbasil` reads and writes, protocols 1.0 to 1.3 (cray-reference section 3).

Failures are reported in the XML; the tool itself exits with 0 (cray-reference B4).
"""

import pwd
import re
import time
from typing import Any

from lxml import etree

from xcsim.alps import Alps, AlpsRefused, Reservation
from xcsim.faults import Faults
from xcsim.node_states import NodeStates
from xcsim.settings import Settings, cname

PROTOCOLS = ("1.0", "1.1", "1.2", "1.3")
_STATES = {"up": "UP", "down": "DOWN", "unavail": "UNAVAILABLE", "suspect": "SUSPECT", "admindown": "ADMIN"}


class Basil:
    """Answers one request at a time from the state of ALPS and of the nodes."""

    def __init__(self, alps: Alps, states: NodeStates, faults: Faults, settings: Settings) -> None:
        self._alps = alps
        self._states = states
        self._faults = faults
        self._settings = settings

    def answer(self, request: bytes) -> bytes:
        """The complete output of apbasil for this request."""
        protocol, method = "", "UNDEFINED"
        try:
            root = _parse(request)
            protocol, method = root.get("protocol", ""), root.get("method", "UNDEFINED")
            if protocol not in PROTOCOLS:
                raise AlpsRefused(f"unsupported protocol {protocol!r}", source="SYNTAX")
            if method == "QUERY" and self._faults.strikes("basil-empty"):
                return b""
            data = self._answer(root, protocol, method)
        except AlpsRefused as refused:
            data = etree.Element(
                "ResponseData",
                status="FAILURE",
                method=method,
                error_class=refused.error_class,
                error_source=refused.source,
            )
            etree.SubElement(data, "Message", severity="ERROR").text = refused.message
        response = etree.Element("BasilResponse", protocol=protocol)
        response.append(data)
        text: bytes = b'<?xml version="1.0"?>\n' + etree.tostring(response, pretty_print=True)
        if method == "QUERY" and self._faults.strikes("basil-broken-xml"):
            return text[: len(text) // 2]
        return text

    def _answer(self, root: Any, protocol: str, method: str) -> Any:
        data = etree.Element("ResponseData", status="SUCCESS", method=method)
        if method == "RESERVE":
            data.append(self._reserve(root, protocol))
        elif method == "CONFIRM":
            pagg = _number(root, "admin_cookie" if protocol == "1.0" else "pagg_id")
            one = self._alps.confirm(_number(root, "reservation_id"), pagg)
            etree.SubElement(data, "Confirmed", reservation_id=str(one.id), pagg_id=str(pagg))
        elif method == "RELEASE":
            number = _number(root, "reservation_id")
            claims = self._alps.release(number)
            etree.SubElement(data, "Released", reservation_id=str(number), claims=str(claims))
        elif method == "QUERY":
            data.append(self._query(root, protocol))
        else:
            raise AlpsRefused(f"unknown method {method!r}", source="SYNTAX")
        return data

    def _reserve(self, root: Any, protocol: str) -> Any:
        params = root.find("ReserveParamArray")
        if params is None or (first := params.find("ReserveParam")) is None:
            raise AlpsRefused("no ReserveParam", source="SYNTAX")
        width = _number(first, "width")
        per_node = int(first.get("nppn") or self._settings.slots)
        nodes = first.findall("NodeParamArray/NodeParam")
        if len(nodes) > 1:
            raise AlpsRefused("ALPS error: at least one command's user NID list is short")
        if nodes:
            nids = expand(nodes[0].text or "")[: -(-width // per_node)]
        else:
            taken = {nid for one in self._alps.reservations.values() for nid in one.nids}
            nids = [nid for nid in sorted(self._states.up()) if nid not in taken][: -(-width // per_node)]
        user = params.get("user_name", "")
        uid, gid = _ids(user)
        batch_id = params.get("batch_id", "")
        wanted = Reservation(0, user, uid, gid, batch_id, nids, width, per_node, int(first.get("depth") or 1))
        made = self._alps.reserve(wanted, self._states.up())
        if protocol == "1.0":
            return etree.Element("Reserved", reservation_id=str(made.id), admin_cookie="0", alloc_cookie="0")
        reserved = etree.Element("Reserved", reservation_id=str(made.id))
        array = etree.SubElement(reserved, "ReservedNodeArray")
        for nid in made.nids:
            etree.SubElement(array, "ReservedNode", node_id=str(nid))
        return reserved

    def _query(self, root: Any, protocol: str) -> Any:
        kind = root.get("type")
        if kind == "ENGINE":
            engine = etree.Element("Engine", name="ALPS", version="5.2.5")
            if protocol != "1.0":
                engine.set("basil_support", ",".join(PROTOCOLS))
            return engine
        if kind != "INVENTORY":
            raise AlpsRefused(f"unsupported query type {kind!r}", source="SYNTAX")
        return self._inventory(protocol)

    def _inventory(self, protocol: str) -> Any:
        now = str(int(time.time()))
        listed = self._alps.listed()
        inventory = etree.Element("Inventory", mpp_host="UNKNOWN", timestamp=now)
        nodes = etree.SubElement(inventory, "NodeArray")
        if protocol in ("1.2", "1.3"):
            nodes.set("changecount", "1")
        if protocol == "1.3":
            nodes.set("schedchangecount", "1")
        for nid, state in sorted(self._states.all().items(), reverse=True):
            holder = next((one for one in listed if nid in one.nids), None)
            nodes.append(self._node(nid, state, holder, protocol))
        reservations = etree.SubElement(inventory, "ReservationArray")
        for one in listed:
            reservations.append(self._reservation(one, protocol))
        return inventory

    def _node(self, nid: int, state: str, holder: Reservation | None, protocol: str) -> Any:
        node = etree.Element(
            "Node",
            node_id=str(nid),
            name=cname(nid),
            architecture="XT",
            role="BATCH",
            state=_STATES.get(state, "UNKNOWN"),
        )
        inner = _processor_array(node, protocol)
        for ordinal in range(self._settings.slots):
            parent = inner
            if protocol == "1.3":
                unit = etree.SubElement(inner, "ComputeUnit", ordinal=str(ordinal))
                parent = etree.SubElement(unit, "ProcessorArray")
            processor = etree.SubElement(parent, "Processor", ordinal=str(ordinal))
            if protocol != "1.3":
                processor.set("architecture", "x86_64")
                processor.set("clock_mhz", "2600")
            if holder is not None and ordinal < holder.per_node * holder.depth:
                etree.SubElement(processor, "ProcessorAllocation", reservation_id=str(holder.id))
        memory_parent = node if protocol == "1.0" else inner.getparent()
        memory = etree.SubElement(memory_parent, "MemoryArray")
        etree.SubElement(memory, "Memory", type="OS", page_size_kb="4", page_count="8388608")
        etree.SubElement(memory_parent, "LabelArray")
        return node

    def _reservation(self, one: Reservation, protocol: str) -> Any:
        found = etree.Element("Reservation", reservation_id=str(one.id), user_name=one.user, account_name="DEFAULT")
        if protocol == "1.0":
            return found
        found.set("batch_id", one.batch_id)
        found.set("time_stamp", str(int(one.made)))
        found.set("reservation_mode", "EXCLUSIVE")
        found.set("gpc_mode", "NONE")
        applications = etree.SubElement(found, "ApplicationArray")
        # The first entry of a batch reservation holds the request itself (cray-reference 3.5).
        entries = [(one.apid, 0, one.width, "BASIL")]
        entries += [
            (app.apid, int(app.started), sum(app.pes.values()), app.command) for app in self._alps.claims(one.id)
        ]
        for apid, stamp, width, command in entries:
            application = etree.SubElement(
                applications,
                "Application",
                application_id=str(apid),
                user_id=str(one.uid),
                group_id=str(one.gid),
                time_stamp=str(stamp),
            )
            commands = etree.SubElement(application, "CommandArray")
            etree.SubElement(
                commands,
                "Command",
                width=str(width),
                depth=str(one.depth),
                nppn=str(one.per_node),
                memory="1024",
                architecture="XT",
                cmd=command,
            )
        return found


def _parse(request: bytes) -> Any:
    parser = etree.XMLParser(resolve_entities=False, no_network=True)
    try:
        root = etree.fromstring(request.strip(), parser)
    except etree.XMLSyntaxError as error:
        raise AlpsRefused(f"not well-formed XML: {error}", source="PARSER") from error
    if root.tag != "BasilRequest":
        raise AlpsRefused(f"not a BasilRequest: {root.tag}", source="SYNTAX")
    return root


def _processor_array(node: Any, protocol: str) -> Any:
    """The element that holds processors (1.3: compute units), which is deeper with every protocol."""
    if protocol == "1.0":
        return etree.SubElement(node, "ProcessorArray")
    parent = node
    if protocol == "1.3":
        sockets = etree.SubElement(node, "SocketArray")
        parent = etree.SubElement(sockets, "Socket", ordinal="0", architecture="x86_64", clock_mhz="2600")
    segments = etree.SubElement(parent, "SegmentArray")
    segment = etree.SubElement(segments, "Segment", ordinal="0")
    return etree.SubElement(segment, "ComputeUnitArray" if protocol == "1.3" else "ProcessorArray")


def _number(element: Any, attribute: str) -> int:
    text = element.get(attribute) or ""
    if not text.isdigit():
        raise AlpsRefused(f"{attribute} is not a number: {text!r}", source="SYNTAX")
    return int(text)


def _ids(user: str) -> tuple[int, int]:
    try:
        found = pwd.getpwnam(user)
    except KeyError as error:
        raise AlpsRefused(f"ALPS error: unknown user {user}") from error
    return found.pw_uid, found.pw_gid


def expand(text: str) -> list[int]:
    """The nids in `1-3,7`, in that order. Raises AlpsRefused."""
    nids: list[int] = []
    for part in text.replace(" ", "").split(","):
        match = re.fullmatch(r"(\d+)(?:-(\d+))?", part)
        if not match:
            raise AlpsRefused(f"bad NID list {text!r}", source="SYNTAX")
        nids.extend(range(int(match[1]), int(match[2] or match[1]) + 1))
    return nids
