"""`udi run`: an image on the user's own workstation, as a job would see it."""

from __future__ import annotations

import dataclasses
import os
from collections.abc import Sequence
from pathlib import Path

from outside import userns
from outside.engine import find_engine
from outside.local_images import LocalImage, LocalImages
from udi.accounts import Account, account_of_uid
from udi.carried import RunChanges, asked
from udi.config import SiteConfig, StoreConfig, VolumesConfig, load
from udi.facts import Facts
from udi.nodeconfig import FilesystemConfig
from udi.nodes import NodeSlots, named
from udi.planning import NamedNodes, make_plan
from udi.registries import RegistryHostConfig
from udi.request import JobRequest, job_request, parse_volumes, require_sources
from udi.runfile import carry
from udi.sentences import report
from udiroot.errors import NotFound, UsageError, printable
from udiroot.plan import NodePlan, PlanFile
from udiroot.software import UDI_RUN

_JOB = "desktop"
_BUILT = Path(__file__).parents[1] / ".cache/udi-run/udi-run"


def _oneself() -> Account:
    """The caller, with the groups that this process has."""
    account = account_of_uid(os.getuid())
    groups = (os.getgid(), *(gid for gid in os.getgroups() if gid != os.getgid()))
    return dataclasses.replace(account, gid=os.getgid(), groups=groups)


def run(
    config_path: str, image: str, volumes: Sequence[str], words: Sequence[str], *, engine: str = "", pull: bool = False
) -> int:
    """Run udi-run with these words in the image, by an engine or else by namespaces of users; the exit code.

    Raises UdiError for what cannot be run.
    """
    image, typed, changes = _asked(image, ";".join(volumes))
    site = _site(config_path, typed)
    request = dataclasses.replace(job_request(site, _JOB, _oneself(), image, typed), run=changes)
    _require_here(site, request)
    reference, cwd = str(request.reference), os.getcwd()
    found = find_engine(engine)
    if found is not None:
        facts = found.facts(reference, pull=pull)
        return found.run(_plan(site, request, facts, ""), reference, words, cwd)
    here = _unpacked(site if os.path.exists(config_path) else _with_registry(site, request), reference, pull=pull)
    return userns.run(_plan(site, request, here.facts, here.tree), words, dict(os.environ), cwd)


def _require_here(site: SiteConfig, request: JobRequest) -> None:
    """Raises UsageError and NotPermitted for what only a node of the site has, or what the caller cannot read."""
    if any(volume.per_node for volume in request.volumes):
        raise UsageError("a file system of each node's own is for jobs", "name a directory: /source:/target")
    require_sources(request.volumes, site.volumes)
    if request.reference.id or request.reference.scheme:
        raise UsageError(
            f"{request.reference} is in the store of the site alone", "udi shell, or a job, finds it there"
        )


def _unpacked(site: SiteConfig, reference: str, *, pull: bool) -> LocalImage:
    """The image in the user's cache, fetched where it is not there, or in any case where a `pull` was asked for."""
    local = LocalImages(_cache())
    here = None if pull else local.find(reference)
    if here is None:
        from gateway.client.progress import Shown

        with Shown() as shown:
            here = local.fetch(site, reference, reference, shown)
    return here


def _asked(image: str, volumes: str) -> tuple[str, str, RunChanges]:
    """What was typed, or an environment file says. Site modules are those of a machine, which a run here has not."""
    found = asked(image, volumes, carried=carry(image, os.environ))
    if found.modules:
        report("udi", f"without modules {printable(found.modules)}: this host has none")
    return found.image, found.volumes, found.run


def _plan(site: SiteConfig, request: JobRequest, facts: Facts, tree: str) -> NodePlan:
    """The plan of a node that is this host: udi-run is one of its files, since there is no software of nodes."""
    plan = make_plan(site, request, facts, NamedNodes(), (NodeSlots(named(os.uname().nodename), 1),))
    program = PlanFile(UDI_RUN, 0o755, _udi_run(site).read_bytes().decode("utf-8", "surrogateescape"))
    plan.files, plan.programs = (*plan.files, program), ()
    plan.image_format, plan.image_path = "directory", tree or "/"
    return plan


def _udi_run(site: SiteConfig) -> Path:
    for path in (Path(site.install.udi_run_built), _BUILT):
        if path.is_file():
            return path
    raise NotFound(
        "udi-run was not built on this host", f"make udi-run builds it; install it as {site.install.udi_run_built}"
    )


def _site(config_path: str, volumes: str) -> SiteConfig:
    """The site's configuration, as far as it is for this host; on a workstation without one, the user's home directory
    and whatever the user may read."""
    uid = os.getuid()
    own = StoreConfig(path="/var/empty", account=str(uid))
    if os.path.exists(config_path):
        site = load(config_path)
        there = tuple(each for each in site.node.filesystems if os.path.exists(each.source))
        node = dataclasses.replace(site.node, filesystems=there, modules=(), krsip="", steps=())
        ssh = dataclasses.replace(site.ssh, enabled=False)
        return dataclasses.replace(site, store=own, node=node, ssh=ssh, modules={})
    site = SiteConfig(store=own)
    home = account_of_uid(uid).home
    node = dataclasses.replace(
        site.node, filesystems=(FilesystemConfig(source=home),) if os.path.isdir(home) and home != "/" else ()
    )
    allowed = tuple(dict.fromkeys(os.path.realpath(volume.source) for volume in parse_volumes(volumes)))
    sources = tuple(volume.source for volume in parse_volumes(volumes))
    return dataclasses.replace(site, node=node, volumes=VolumesConfig(allowed=(*sources, *allowed)))


def _with_registry(site: SiteConfig, request: JobRequest) -> SiteConfig:
    """A workstation may fetch from whatever registry its user names; one on this host speaks plain HTTP."""
    name = request.reference.registry
    if not name or any(host.name == name for host in site.registry.hosts):
        return site
    plain = name.partition(":")[0] in ("localhost", "127.0.0.1")
    host = RegistryHostConfig(name=name, plain_http=plain)
    return dataclasses.replace(site, registry=dataclasses.replace(site.registry, hosts=(*site.registry.hosts, host)))


def _cache() -> str:
    top = os.environ.get("XDG_CACHE_HOME") or f"{account_of_uid(os.getuid()).home}/.cache"
    if not top.startswith("/"):
        raise UsageError(f"XDG_CACHE_HOME is not an absolute path: '{printable(top)}'")
    return f"{top}/udi"
