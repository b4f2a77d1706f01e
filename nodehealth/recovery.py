"""Bringing a dirty node back: teardown of every job that left something there, then the check, and only then `up`."""

from __future__ import annotations

import logging
import re
import secrets
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from alps.fanout import fan_out
from alps.nids import folded
from alps.nodestates import read_states, set_state
from nodehealth.records import dirty_nodes, forget
from udi.command import Deadline
from udi.config import SiteConfig
from udi.nodecommand import check_command, teardown_command

_log = logging.getLogger("udi.nodes")
_NAMED_JOBS = re.compile(r" of ([0-9][^ ,]*(?:, [0-9][^ ,]*)*) left\b")
"""Where the check's sentence (`udiroot.ledger.Survey.sentence`) names the jobs."""


@dataclass(frozen=True)
class Recovery:
    """What became of one node; `trouble` is empty for one that is up again."""

    nid: int
    trouble: str = ""


def recover(site: SiteConfig, nids: Sequence[int], deadline: Deadline) -> list[Recovery]:
    """Clean, check and bring back each node that we marked, or that Cray NHC marked because of what our check said.

    A node that we did not mark is left alone where it is in service, since it may hold a running job's root, and where
    it holds nothing of ours, since then it is out of service for another's reason. Raises UpstreamFailed or TimedOut
    when nodes are clean but could not be set up; their records then stay.
    """
    marked = {node.nid: node.jobs for node in dirty_nodes(site)}
    unmarked = sorted(set(nids) - set(marked))
    states = read_states(site, unmarked, deadline) if unmarked else {}
    marked |= _jobs_found_on(site, [nid for nid in states if states[nid].status == "admindown"], deadline)
    ours = {nid: marked[nid] for nid in sorted(set(nids) & set(marked))}
    troubles = dict.fromkeys(
        set(nids) - set(ours), "not marked by us, and not out of service for what we left: not ours to bring back"
    )
    troubles |= _troubles_after_cleaning(site, ours, deadline)
    clean = [nid for nid in ours if nid not in troubles]
    set_state(site, clean, "up", deadline)
    for nid in clean:
        forget(site, nid)
    if clean:
        _log.warning("%s clean and up again", folded(clean))
    return [Recovery(nid, troubles.get(nid, "")) for nid in sorted(set(nids))]


def _jobs_found_on(site: SiteConfig, nids: Sequence[int], deadline: Deadline) -> dict[int, tuple[str, ...]]:
    """The jobs whose remains our own check names, for each node where it names any."""
    if not nids:
        return {}
    nonce = secrets.token_hex(16)
    found = fan_out(site, nids, check_command(site, nonce), nonce, deadline).failed
    named = {report.nid: match for report in found if (match := _NAMED_JOBS.search(report.words))}
    return {nid: tuple(match[1].split(", ")) for nid, match in named.items()}


def _troubles_after_cleaning(
    site: SiteConfig, nodes: Mapping[int, tuple[str, ...]], deadline: Deadline
) -> dict[int, str]:
    """Nodes that are still dirty, and why: by the check, whatever teardown of their jobs said before it."""
    if not nodes:
        return {}
    torn: dict[int, str] = {}
    for job in sorted({job for jobs in nodes.values() for job in jobs}):
        nonce = secrets.token_hex(16)
        members = [nid for nid, jobs in nodes.items() if job in jobs]
        torn |= fan_out(site, members, teardown_command(site, job, nonce), nonce, deadline).troubles()
    nonce = secrets.token_hex(16)
    checked = fan_out(site, list(nodes), check_command(site, nonce), nonce, deadline).troubles()
    return {nid: reason if nid not in torn else f"{reason}; teardown: {torn[nid]}" for nid, reason in checked.items()}
