"""Torque, as `udi-admin` needs it: hooks run on a job host, which reaches the nodes of its machine."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping

import admin.checks.torque
import torque_hooks.site_files
from admin.checks.check import Check
from admin.seams.asked import Asked
from admin.seams.jobs import Jobs, jobs_of_host
from admin.seams.nodes import check_node, mark_nodes, probe_nodes, recover_nodes
from admin.seams.torque_job import asked
from jobs.takedown import take_down
from jobs.tries import forget_hold, holds
from torque_hooks.chain import strangers
from torque_hooks.held import fates
from torque_hooks.settings import TorqueConfig
from udi.command import Deadline
from udi.config import SiteConfig
from udi.fanout import FanOutResult
from udi.nodes import folded
from udi.platform import Machine
from udi.sitefiles import Renderer, SiteFile
from udiroot.errors import TeardownIncomplete


class Torque:
    """A site with Torque."""

    has_machine = True

    def __init__(self, site: SiteConfig) -> None:
        self._site = site

    def site_files(self, render: Renderer) -> list[SiteFile]:
        return torque_hooks.site_files.site_files(self._site, render)

    def built(self) -> Mapping[str, bytes]:
        return {}

    def advice(self) -> list[str]:
        return self._unused()

    def callers(self, prefix: str) -> list[str]:
        """Programs that a chain runs, and a submit filter that runs ours."""
        torque = self._site.table(TorqueConfig)
        below = dataclasses.replace(torque, mom_priv=prefix + torque.mom_priv)
        found = [
            f"{', '.join(programs)} of {directory} would not run any more: put a hook of your own in the place of"
            f" {directory.removesuffix('.d')}, or move them away"
            for directory, programs in strangers(below)
            if programs and torque.chain
        ]
        return [*found, *torque_hooks.site_files.filters_that_call(self._site, prefix)]

    def programs(self) -> Mapping[str, str]:
        return torque_hooks.site_files.programs(self._site)

    def directories(self) -> Mapping[str, str]:
        torque = self._site.table(TorqueConfig)
        return {"torque.mom_priv": torque.mom_priv, "torque.server_home": torque.server_home}

    def checks(self, machine: Machine) -> list[Check]:
        return admin.checks.torque.checks(self._site, machine)

    def trials(self) -> list[Check]:
        return admin.checks.torque.trials(self._site)

    def probe(self, machine: Machine, nodes: str, facts: Mapping[str, str]) -> FanOutResult:
        return probe_nodes(self._site, machine, nodes, facts)

    def _unused(self) -> list[str]:
        """A directory of programs that nothing runs, since there is no chain."""
        torque = self._site.table(TorqueConfig)
        return [
            f"{directory} has {', '.join(programs)}, which nothing of ours runs: torque.chain is not set"
            for directory, programs in strangers(torque)
            if programs and not torque.chain
        ]

    def jobs(self, machine: Machine) -> Jobs:
        """Held ones are those that are still held, as Torque says; of those that it no longer has, nothing is kept."""
        site, torque = self._site, self._site.table(TorqueConfig)
        known = holds(site)
        fate = fates(torque, [hold.job for hold in known], Deadline(torque.command_deadline))
        for hold in known:
            if fate[hold.job] == "ended":
                forget_hold(site, hold.job)
        return jobs_of_host(site, machine, tuple(hold for hold in known if fate[hold.job] == "held"))

    def asked(self, machine: Machine, job: str) -> Asked:
        return asked(self._site, job)

    def take_down(self, machine: Machine, job: str, nodes: str) -> None:
        site = self._site
        members = machine.parse_nodes(nodes) if nodes else ()
        done = take_down(site, machine, job, Deadline(site.table(TorqueConfig).epilogue_deadline), members)
        if done.error:
            raise done.error
        if done.dirty:
            fate = f"left in service: {done.spared}" if done.spared else "taken out of service"
            raise TeardownIncomplete(f"{folded(done.dirty)} not clean; {fate}", "see udi-admin status")
        forget_hold(site, job)

    def check(self, machine: Machine) -> int:
        return check_node(self._site, machine)

    def mark(self, machine: Machine, nodes: str, why: str) -> None:
        mark_nodes(self._site, machine, nodes, why)

    def recover(self, machine: Machine, nodes: str) -> None:
        recover_nodes(self._site, machine, nodes)
