"""Bringing a dirty node back: teardown of every job that left something there, then the check, and only then `up`."""

from __future__ import annotations

import logging
import secrets
from collections.abc import Sequence
from dataclasses import dataclass

from alps.fanout import fan_out
from alps.nids import folded
from alps.nodestates import set_state
from nodehealth.records import DirtyNode, dirty_nodes, forget
from udi.command import Deadline
from udi.config import SiteConfig
from udi.nodecommand import check_command, teardown_command

_log = logging.getLogger("udi.nodes")


@dataclass(frozen=True)
class Recovery:
    """What became of one node; `trouble` is empty for one that is up again."""

    nid: int
    trouble: str = ""


def recover(site: SiteConfig, nids: Sequence[int], deadline: Deadline) -> list[Recovery]:
    """Clean, check and bring back each node that we marked; a node that we did not mark is left alone.

    Raises UpstreamFailed or TimedOut when nodes are clean but could not be set up; their records then stay.
    """
    marked = {node.nid: node for node in dirty_nodes(site)}
    ours = sorted(set(nids) & set(marked))
    troubles = dict.fromkeys(set(nids) - set(marked), "not marked by us, so it is not ours to bring back")
    troubles |= _troubles_after_cleaning(site, [marked[nid] for nid in ours], deadline)
    clean = [nid for nid in ours if nid not in troubles]
    set_state(site, clean, "up", deadline)
    for nid in clean:
        forget(site, nid)
    if clean:
        _log.warning("%s clean and up again", folded(clean))
    return [Recovery(nid, troubles.get(nid, "")) for nid in sorted(set(nids))]


def _troubles_after_cleaning(site: SiteConfig, nodes: Sequence[DirtyNode], deadline: Deadline) -> dict[int, str]:
    """Nodes that are still dirty, and why: by the check, whatever teardown said before it."""
    if not nodes:
        return {}
    torn: dict[int, str] = {}
    for job in sorted({job for node in nodes for job in node.jobs}):
        nonce = secrets.token_hex(16)
        members = [node.nid for node in nodes if job in node.jobs]
        torn |= fan_out(site, members, teardown_command(site, job, nonce), nonce, deadline).troubles()
    nonce = secrets.token_hex(16)
    checked = fan_out(site, [node.nid for node in nodes], check_command(site, nonce), nonce, deadline).troubles()
    return {nid: reason if nid not in torn else f"{reason}; teardown: {torn[nid]}" for nid, reason in checked.items()}
