"""A Cray XC as `udi.platform.Machine`: reservations by apstat or BASIL, fan-out by xtxqtcmd, states by xtprocadmin."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

from alps import fanout
from alps.settings import AlpsConfig
from udi.command import Deadline
from udi.config import SiteConfig
from udi.fanout import Answers, FanOutResult
from udi.nodes import Node, NodeSlots, numbered, parse_numbered
from udi.platform import IN_SERVICE, OUT_OF_SERVICE, Allocation, Host, NodeState
from udiroot.errors import ConfigError, NotFound, UpstreamFailed
from udiroot.fields import number

if TYPE_CHECKING:
    from alps.reservation import Reservation
    from udi.sitefiles import Renderer, SiteFile

_NID_HOST = r"(?:nid)?[0-9]+"
"""How a workload manager names compute nodes: by bare nids (cray-reference T2, T4) or node names."""


class Alps:
    """The Cray that the tables `[alps]`, `[node]` and `[ssh]` describe."""

    def __init__(self, site: SiteConfig) -> None:
        """Raises ConfigError where `[alps]` is wrong."""
        self._site = site
        self._settings = site.table(AlpsConfig)

    @property
    def name(self) -> str:
        return AlpsConfig.NAME

    @property
    def fanout_deadline(self) -> int:
        return self._settings.fanout_deadline

    @property
    def command_deadline(self) -> int:
        return self._settings.command_deadline

    def nodes_of(self, job: str, hosts: Sequence[Host], deadline: Deadline, allocation: str = "") -> Allocation:
        """The nodes of the job's reservation, whose id is `allocation` where the workload manager made it. A job that
        it knows no compute node of is looked up once, without waiting, and needs no reservation."""
        from alps.reservation import find_reservation, known_reservation  # a teardown asks for none

        known = number(allocation)
        if known > 0 and (made := known_reservation(self._settings, known, job, deadline)) is not None:
            return _allocation(made)
        has_nodes = any(re.fullmatch(_NID_HOST, host.name) for host in hosts)
        try:
            found = find_reservation(self._settings, job, deadline, None if has_nodes else 0)
        except NotFound as error:
            if has_nodes:
                raise UpstreamFailed(error.message, "the job has nodes, so ALPS should have a reservation") from error
            return Allocation(())
        return _allocation(found)

    def run(
        self, nodes: Sequence[Node], command_line: str, nonce: str, deadline: Deadline, directory: str = ""
    ) -> FanOutResult:
        answers = Answers(nodes, self.identity, nonce)
        return fanout.fan_out(self._settings, answers, command_line, deadline, directory)

    def take_out_of_service(self, nodes: Sequence[Node], reasons: Mapping[Node, str], deadline: Deadline) -> None:
        """`xtprocadmin` keeps no reasons; `nodehealth.records` does."""
        from alps import nodestates  # most jobs leave the states as they are

        nodestates.set_state(self._settings, nodes, OUT_OF_SERVICE, deadline)

    def bring_into_service(self, nodes: Sequence[Node], deadline: Deadline) -> None:
        from alps import nodestates

        nodestates.set_state(self._settings, nodes, IN_SERVICE, deadline)

    def states(self, nodes: Sequence[Node], deadline: Deadline) -> dict[Node, NodeState]:
        from alps import nodestates

        return nodestates.read_states(self._settings, nodes, deadline)

    def parse_nodes(self, text: str) -> tuple[Node, ...]:
        return parse_numbered(text)

    def identity(self, node: Node) -> str:
        """The nid, as the node finds it in `node.nid_file`."""
        return str(node.number)

    def address(self, node: Node) -> str:
        """Addresses follow nids in order from that of nid 0."""
        import ipaddress  # only a job with a private sshd needs addresses

        try:
            return str(ipaddress.IPv4Address(self._site.ssh.first_address) + (node.number or 0))
        except ValueError as error:
            raise ConfigError(
                f"ssh.first_address: no address for {node} follows {self._site.ssh.first_address}"
            ) from error

    def identity_file(self) -> str:
        return self._site.node.nid_file

    def programs(self) -> Mapping[str, str]:
        settings = self._settings
        return {
            "alps.xtxqtcmd": settings.xtxqtcmd,
            "alps.xtprocadmin": settings.xtprocadmin,
            **({"alps.apstat": settings.apstat} if "apstat" in settings.sources else {}),
            **({"alps.apbasil": settings.apbasil} if "basil" in settings.sources else {}),
        }

    def site_files(self, render: Renderer) -> Sequence[SiteFile]:
        from alps.site_files import site_files  # only an installation needs it, and jobs wait for this module

        return site_files(self._site, render)


def _allocation(found: Reservation) -> Allocation:
    return Allocation(tuple(NodeSlots(numbered(nid), slots) for nid, slots in found.slots.items()), str(found.id))
