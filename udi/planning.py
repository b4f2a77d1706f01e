"""Making a node plan: everything that a node will need, gathered and rendered once on the job host."""

from __future__ import annotations

import itertools
import os
from collections.abc import Iterator, Mapping, Sequence
from typing import TYPE_CHECKING

from udi.accounts import store_owner
from udi.chos import Bind
from udi.config import SiteConfig
from udi.etcfiles import SSH, node_files
from udi.facts import Facts
from udi.nodes import Node, NodeSlots
from udi.platform import NodeNames
from udi.request import JobRequest, Volume
from udi.rundata import changes_of, run_data
from udi.sitemodules import ChosenModule
from udi.store import StoreLayout
from udiroot.plan import NodePlan, NodeRun, PlanCache, PlanFile, PlanMount, PlanStep, PlanUser
from udiroot.plan_modules import PlanModule
from udiroot.sitemodules import RUN
from udiroot.software import UDI_RUN

if TYPE_CHECKING:
    from udi.sshkeys import SshKeys

_PROGRAMS = "/opt/udi/bin"


class NamedNodes:
    """Nodes that call themselves as others call them; without addresses, since there is no private sshd."""

    def identity(self, node: Node) -> str:
        """The node's name."""
        return node.name

    def address(self, node: Node) -> str:
        raise AssertionError(f"no address of {node} is needed")


def make_plan(
    site: SiteConfig,
    request: JobRequest,
    facts: Facts,
    machine: NodeNames,
    nodes: Sequence[NodeSlots],
    keys: SshKeys | None = None,
    binds: Sequence[Bind] = (),
) -> NodePlan:
    """The plan for a job on `nodes` of `machine`, in the job's order; with `keys`, each gets a private sshd. `binds`
    are mounted after the site's file systems, as they are.

    Raises ConfigError where a template of the site cannot be rendered, UpstreamFailed where the file system of a
    per-node cache cannot be made.
    """
    addresses = {each.node: machine.address(each.node) for each in nodes} if keys else {}
    user = request.user
    store_uid, store_gid = store_owner(site.store.account)
    rendered = dict(node_files(site, user, addresses))
    client = PlanFile(f"{_PROGRAMS}/{SSH}", 0o755, rendered.pop(SSH))
    programs = _PROGRAMS if keys else ""
    data = run_data(
        facts,
        site.environment,
        user,
        str(request.reference),
        programs,
        with_modules=bool(request.modules),
        changes=request.run,
    )
    return NodePlan(
        job=request.job,
        user=PlanUser(user.name, user.uid, user.gid, user.groups, user.home, user.shell),
        store_uid=store_uid,
        store_gid=store_gid,
        root=site.node.root,
        run=site.node.run,
        image_format=facts.format,
        image_path=StoreLayout(site.node_store_path).content(facts.id, facts.format),
        image_id=facts.id,
        tmp_bytes=site.node.tmp_bytes,
        deadline=site.node.deadline,
        sites=(
            *(PlanMount(fs.source, fs.target or fs.source, fs.read_only) for fs in site.node.filesystems),
            *(PlanMount(bind.source, bind.target, bind.read_only) for bind in binds),
        ),
        allowed=site.volumes.allowed,
        volumes=tuple(PlanMount(v.source, v.target, v.read_only) for v in request.volumes if not v.per_node),
        caches=tuple(_cache(site, request, volume) for volume in request.volumes if volume.per_node),
        etc=tuple(PlanFile(name, 0o644, text) for name, text in sorted(rendered.items()) if text.strip()),
        files=(PlanFile(RUN, 0o444, data), *((client, *keys.files()) if keys else ())),
        programs=(UDI_RUN,),
        nodes=tuple(_runs(machine, nodes, addresses)),
        ssh=keys.plan(site) if keys else None,
        modules=tuple(_kernel_module(site, name) for name in site.node.modules),
        krsip=site.node.krsip,
        steps=tuple(PlanStep(step.when, step.kind, step.source, step.target) for step in site.node.steps),
        site_modules=tuple(_site_module(site, chosen) for chosen in request.modules),
    )


def _kernel_module(site: SiteConfig, name: str) -> str:
    return os.path.normpath(os.path.join(site.node.module_path, name))


def _site_module(site: SiteConfig, chosen: ChosenModule) -> PlanModule:
    module = site.modules[chosen.name]
    parts = [("present", path, "") for path in module.present]
    parts += [("device", path, "") for path in module.devices]
    parts += [("kernel", _kernel_module(site, name), "") for name in module.kernel_modules]
    parts += [("ro" if bind.read_only else "rw", bind.source, bind.target) for bind in module.binds]
    parts += [("link", text, path) for path, text in module.links.items()]
    parts += [(keyword, text, "") for keyword, text in changes_of(module.environment)]
    return PlanModule(chosen.name, chosen.asked, tuple(parts))


def _cache(site: SiteConfig, request: JobRequest, volume: Volume) -> PlanCache:
    from udi.cachefs import cache_template  # few jobs have one

    template = cache_template(site, volume.per_node, request.user.uid, request.user.gid)
    return PlanCache(volume.source, volume.target, volume.per_node, template)


def _runs(machine: NodeNames, nodes: Sequence[NodeSlots], addresses: Mapping[Node, str]) -> Iterator[NodeRun]:
    """Runs of nodes with the same number of slots, in the job's order."""
    for slots, run in itertools.groupby(nodes, key=lambda each: each.slots):
        members = [each.node for each in run]
        yield NodeRun(
            slots,
            tuple(map(machine.identity, members)),
            tuple(node.name for node in members),
            tuple(addresses[node] for node in members) if addresses else (),
        )
