"""Native Slurm: Prolog and Epilog run on each node of a job, which makes its own plan and its own root.

Every node makes the plan for itself (docs/design.md), with the image that the first one found (`jobs.agreed`): what
could make it once for all, PrologSlurmctld, runs on the controller as Slurm's own account, which cannot read private
images, and one after the other for all jobs.
"""

from __future__ import annotations

import os

from jobs.local import LocalJob, Root
from slurm_hooks.call import HookCall
from slurm_hooks.commands import Slurm
from slurm_hooks.hostlist import expand, hosts
from slurm_hooks.settings import SlurmConfig
from udi.command import Deadline
from udi.config import SiteConfig
from udi.nodeconfig import StepConfig
from udi.nodes import NodeSlots, named
from udi.platform import Host
from udi.request import JobRequest
from udi.values import replace
from udiroot.errors import ConfigError, UdiError, UpstreamFailed, UsageError, printable

_LEAST_BEYOND_NODE = 30
"""Seconds that Prolog has beyond a node's deadline: the look at the store, and undoing what failed."""


def require_native(site: SiteConfig) -> None:
    """Raises ConfigError for settings with which native Slurm cannot work."""
    slurm = site.table(SlurmConfig)
    if site.ssh.enabled:
        raise ConfigError(
            f"{site.path}: ssh.enabled is not for native Slurm: jobs share a node, and it has one ssh.port",
            "programs start others on a job's nodes by srun",
        )
    for key, seconds in (("prolog_deadline", slurm.prolog_deadline), ("epilog_deadline", slurm.epilog_deadline)):
        if seconds < site.node.deadline + _LEAST_BEYOND_NODE:
            raise ConfigError(
                f"{site.path}: slurm.{key} must be at least {_LEAST_BEYOND_NODE} more than node.deadline, not {seconds}"
                f" and {site.node.deadline} seconds"
            )


def local_job(site: SiteConfig, job: str) -> LocalJob:
    """The job on this host. Over ALPS only its lock is here: `node.run` is a path of compute nodes then."""
    if site.table(SlurmConfig).over_alps:
        return LocalJob(site, job, f"{os.path.dirname(site.jobs.state)}/locks")
    return LocalJob(site, job)


def on_node(site: SiteConfig, call: HookCall) -> SiteConfig:
    """The site with what native Slurm adds to each root: the directory in which the plugin shows a batch script."""
    slurm = site.table(SlurmConfig)
    if slurm.batch == "outside":
        return site
    spool = slurm.spool.replace("%n", call.node).replace("%h", os.uname().nodename.partition(".")[0])
    if any(step.target == spool for step in site.node.steps):
        return site
    node = replace(site.node, steps=(*site.node.steps, StepConfig(kind="directory", target=spool)))
    return replace(site, node=node)


def prepare_here(slurm: Slurm, call: HookCall, request: JobRequest, local: LocalJob, deadline: Deadline) -> Root:
    """Set up the job's root on this node. Raises the UdiError of what failed."""
    from jobs.agreed import Agreement  # what reads the store is slow to import, and an Epilog does not

    agreement = Agreement(call.cluster, call.start, call.node)
    return local.prepare(request, _nodes(slurm, call, deadline), call.node, deadline, agreement)


def _nodes(slurm: Slurm, call: HookCall, deadline: Deadline) -> tuple[NodeSlots, ...]:
    """The job's nodes in Slurm's order.

    Without PrologFlags=Alloc, a Prolog runs before a node's first step and gets the nodes of that step only; then
    slurmctld tells which nodes the job has.
    """
    try:
        found = hosts(call.nodes, call.cpus)
        if call.node_count > 0 and len(found) != call.node_count:
            found = hosts(_nodes_of_job(slurm, call, deadline) or call.nodes, call.cpus)
        if call.node not in {host.name for host in found}:
            raise UpstreamFailed(f"node {printable(call.node)} is not among those of the job: {printable(call.nodes)}")
        return tuple(NodeSlots(named(host.name), host.slots) for host in found)
    except UsageError as error:
        raise UpstreamFailed(error.message) from error


def _nodes_of_job(slurm: Slurm, call: HookCall, deadline: Deadline) -> str:
    """Where slurmctld does not answer, the step's nodes must do."""
    try:
        queued = slurm.job(call.job, deadline)
    except UdiError:
        return ""
    return queued.nodes if queued else ""


def hosts_of(call: HookCall) -> tuple[Host, ...]:
    """The job's hosts, as slurmd lists them. Raises UpstreamFailed."""
    try:
        return hosts(call.nodes, call.cpus)
    except UsageError as error:
        raise UpstreamFailed(error.message) from error


def is_on(node: str, nodes: str) -> bool:
    """Whether Slurm's list of nodes has this one."""
    try:
        return node in expand(nodes)
    except UsageError:
        return False
