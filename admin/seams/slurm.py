"""Slurm, as `udi-admin` needs it. With native Slurm, hooks run on each node: what is taken down or recovered is on the
node itself, and slurmctld knows which nodes are drained and which jobs are held. Over ALPS, hooks run on a service
node, as Torque's do."""

from __future__ import annotations

import os
import socket
import time
from collections.abc import Iterator, Mapping

import click

import admin.checks.slurm
from admin.checks.check import Check
from admin.checks.slurm import SlurmSetup
from admin.install.built import built
from admin.seams.asked import Asked
from admin.seams.jobs import Jobs, jobs_of_host
from admin.seams.nodes import check_node, mark_nodes, probe_nodes, probe_this_node, recover_nodes
from admin.seams.slurm_job import asked, placed
from jobs.here import jobs_here
from jobs.local import LocalJob
from jobs.notes import Notes
from jobs.state import JobState
from jobs.takedown import take_down
from jobs.tries import Hold
from nodehealth.records import DirtyNode
from slurm_hooks import commands, recovery
from slurm_hooks.hostlist import expand
from slurm_hooks.leaks import examine, in_words
from slurm_hooks.settings import SlurmConfig
from slurm_hooks.site_files import programs, site_files, slurm_conf
from slurm_hooks.starts import failures_in
from udi.accounts import account_of_uid
from udi.command import Deadline
from udi.config import SiteConfig
from udi.fanout import FanOutResult
from udi.nodes import folded, named
from udi.platform import Machine
from udi.sitefiles import Renderer, SiteFile
from udiroot.errors import NotFound, TeardownIncomplete, UdiError, UsageError


class Slurm:
    """A site with Slurm."""

    def __init__(self, site: SiteConfig) -> None:
        self._site = site
        self._settings = site.table(SlurmConfig)
        self.has_machine = self._settings.over_alps

    def site_files(self, render: Renderer) -> list[SiteFile]:
        return site_files(self._site, render)

    def built(self) -> Mapping[str, bytes]:
        """The plugin, which must be the one for the Slurm of this cluster: built against its headers."""
        return {self._settings.plugin: built(self._settings.plugin_built, "slurm.plugin_built", "spank")}

    def advice(self) -> list[str]:
        """slurm.conf is the site's own: what it must have is said, and checked by `check-config`."""
        wanted = ", ".join(f"{name}={value}" for name, value in slurm_conf(self._site).items())
        return [f"slurm.conf needs {wanted}; restart slurmctld and each slurmd (see docs/install-slurm.md)"]

    def callers(self, prefix: str) -> list[str]:
        """slurm.conf is the site's: a Prolog that is missing drains each node that starts a job."""
        return list(SlurmSetup(self._site).callers()) if not prefix else []

    def programs(self) -> Mapping[str, str]:
        return programs(self._site)

    def directories(self) -> Mapping[str, str]:
        return {"slurm.notes": self._settings.notes}

    def checks(self, machine: Machine) -> list[Check]:
        return admin.checks.slurm.checks(self._site, machine)

    def trials(self) -> list[Check]:
        return admin.checks.slurm.trials(self._site)

    def probe(self, machine: Machine, nodes: str, facts: Mapping[str, str]) -> FanOutResult:
        """Native: the node that this is. It may have another name in Slurm than its own."""
        if self._settings.over_alps:
            return probe_nodes(self._site, machine, nodes, facts)
        if len(expand(nodes)) != 1 or not self._is_here(nodes, self._deadline()):
            raise UsageError(f"this node is {_here()}, not {nodes}", "run udi-admin check-config on the node")
        return probe_this_node(self._site, named(nodes), facts)

    def jobs(self, machine: Machine) -> Jobs:
        """On a node, the jobs that have a root here, with all their nodes; everywhere, nodes that are drained and jobs
        that are held because of shifter-xc, as slurmctld says."""
        slurm, deadline = commands.Slurm(self._settings), self._deadline()
        errors: list[str] = []
        held: tuple[Hold, ...] = ()
        nodes: dict[str, commands.NodeState] = {}
        try:
            held = tuple(_hold(job) for job in slurm.pending(deadline) if failures_in(job.comment)[1].is_held)
            nodes = {name: state for name, state in slurm.nodes(deadline).items() if state.is_ours}
        except UdiError as error:
            errors.append(f"slurmctld was not queried: {error.message}")
        if self._settings.over_alps:
            return jobs_of_host(self._site, machine, held)
        dirty = tuple(
            DirtyNode(named(name), (), state.reason.removeprefix(commands.REASON), state.since)
            for name, state in sorted(nodes.items())
        )
        states = {named(name): "+".join(sorted(state.flags)).lower() for name, state in nodes.items()}
        return Jobs(tuple(self._jobs_here(errors)), held, dirty, states, tuple(errors))

    def _jobs_here(self, errors: list[str]) -> Iterator[JobState]:
        states = list(self._states_here())
        try:
            queued = commands.Slurm(self._settings).jobs({state.job for state in states}, self._deadline())
        except UdiError as error:
            queued = {}
            if not errors:
                errors.append(f"slurmctld was not queried: {error.message}")
        for state in states:
            yield placed(state, queued.get(state.job))

    def _states_here(self) -> Iterator[JobState]:
        """Of each job's nodes, this host knows itself."""
        notes = Notes(self._settings.notes)
        for job in sorted(filter(str.isdecimal, jobs_here(self._site) | notes.jobs())):  # others may use the directory
            note = notes.read(job)
            since = _changed(f"{self._settings.notes}/{job}")
            yield JobState(
                job=job,
                user=_user(note.uid) if note else "",
                image=note.image if note else "",
                image_id=note.id if note else "",
                allocation="",
                nodes=(named(_here()),),
                plan="",
                phase=note.state if note else "left",
                since=since,
            )

    def asked(self, machine: Machine, job: str) -> Asked:
        here = None if self._settings.over_alps else next((s for s in self._states_here() if s.job == job), None)
        return asked(self._site, job, here)

    def take_down(self, machine: Machine, job: str, nodes: str) -> None:
        deadline = Deadline(self._settings.epilog_deadline)
        if not self._settings.over_alps:
            if not LocalJob(self._site, job).is_left and job not in Notes(self._settings.notes).jobs():
                raise NotFound(f"nothing of job {job} is on this node", "run it on the node that has the job's root")
            slurm = commands.Slurm(self._settings)
            found = examine(self._site, slurm, self._name_here(slurm, deadline), deadline)
            if job in found.busy and not found.unknown:
                raise UsageError(f"job {job} runs on this node", f"scancel {job}: its Epilog takes it down")
            recovery.take_down_here(self._site, job, deadline)
            return
        members = machine.parse_nodes(nodes) if nodes else ()
        done = take_down(self._site, machine, job, deadline, members)
        if done.error:
            raise done.error
        if done.dirty:
            raise TeardownIncomplete(f"{folded(done.dirty)} not clean", "see udi-admin status")

    def check(self, machine: Machine) -> int:
        """Native: a node of several jobs is clean where nothing is left of any that no longer runs there."""
        if self._settings.over_alps:
            return check_node(self._site, machine)
        deadline = self._deadline()
        slurm = commands.Slurm(self._settings)
        found = examine(self._site, slurm, self._name_here(slurm, deadline), deadline)
        if found.leaked:
            print(f"udi: {in_words(self._site, found.leaked)}")
        elif found.unknown:
            print(f"udi: jobs could not be told from what they left: {found.unknown}")
        else:
            print(f"udi: {'busy with ' + ', '.join(sorted(found.busy)) if found.busy else 'clean'}")
        return int(bool(found.leaked or found.unknown))

    def mark(self, machine: Machine, nodes: str, why: str) -> None:
        """Native: drained by slurmctld, so jobs that run there go on."""
        if self._settings.over_alps:
            mark_nodes(self._site, machine, nodes, why)
            return
        slurm = commands.Slurm(self._settings)
        for node in expand(nodes):
            slurm.drain(node, why, self._deadline())
            click.echo(f"{node} drained: {why}")

    def recover(self, machine: Machine, nodes: str) -> None:
        """Native: the node that this is. Another one is out of reach: slurmctld runs nothing as root there, a drained
        node starts no job, and hosts with Slurm need not reach each other by ssh as root."""
        if self._settings.over_alps:
            recover_nodes(self._site, machine, nodes)
            return
        here = _here()
        deadline = Deadline(self._settings.epilog_deadline)
        if len(expand(nodes)) != 1 or not self._is_here(nodes, deadline):
            raise UsageError(f"this node is {here}, not {nodes}", "run udi-admin recover on the node, by its name")
        taken = recovery.clean_here(self._site, nodes, deadline)
        still = recovery.resume(self._site, nodes, deadline)
        done = f"took down {', '.join(taken)}; " if taken else ""
        click.echo(f"{nodes}: {done}{still or 'clean and in service'}")
        if still:
            raise TeardownIncomplete(f"{nodes} not brought back into service")

    def _is_here(self, node: str, deadline: Deadline) -> bool:
        """Whether a node of Slurm's is this host: its name in Slurm may be another than its own."""
        host = commands.Slurm(self._settings).node(node, deadline).host or node
        return host.partition(".")[0] == _here()

    def _name_here(self, slurm: commands.Slurm, deadline: Deadline) -> str:
        """This node's name in Slurm; its own where slurmctld does not answer."""
        try:
            nodes = slurm.nodes(deadline)
        except UdiError:
            return _here()
        return next((name for name, state in nodes.items() if state.host.partition(".")[0] == _here()), _here())

    def _deadline(self) -> Deadline:
        return Deadline(self._settings.command_deadline)


def _hold(job: commands.QueuedJob) -> Hold:
    """Since when it is held, Slurm does not say."""
    return Hold(job.name, job.comment.partition(commands.REASON)[2], 0)


def _here() -> str:
    """What this host calls itself."""
    return socket.gethostname().partition(".")[0]


def _changed(path: str) -> int:
    try:
        return int(os.stat(path).st_mtime)
    except OSError:
        return int(time.time())


def _user(uid: int) -> str:
    try:
        return account_of_uid(uid).name
    except UdiError:
        return str(uid)
