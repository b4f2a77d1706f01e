"""Slurm, as `udi-admin` needs it. With native Slurm, hooks run on each node: what is taken down or recovered is on the
node itself, and slurmctld knows which nodes are drained and which jobs are held. Over ALPS, hooks run on a service
node, as Torque's do."""

from __future__ import annotations

import os
import re
import socket
import time
from collections.abc import Iterator, Mapping

import click

from admin.nodes import recover_nodes
from admin.status import Jobs, jobs_of_host
from jobs.local import LocalJob, jobs_here
from jobs.notes import Notes
from jobs.state import JobState
from jobs.takedown import take_down
from jobs.tries import Hold
from nodehealth.records import DirtyNode
from slurm_hooks import commands, recovery
from slurm_hooks.native import require_native
from slurm_hooks.settings import SlurmConfig
from slurm_hooks.site_files import plugin_arguments, programs, site_files, slurm_conf
from slurm_hooks.starts import failures_in
from udi import durable
from udi.accounts import account_of_uid
from udi.command import Deadline
from udi.config import SiteConfig
from udi.nodes import folded, named
from udi.oserrors import reason
from udi.platform import Machine
from udi.sitefiles import Renderer, SiteFile
from udiroot.errors import ConfigError, NotFound, TeardownIncomplete, UdiError, UpstreamFailed, UsageError

_PARAMETER = re.compile(r"^(\w+)\s*=\s*(.*?)\s*$", re.MULTILINE)
_LIMITS = ("PrologEpilogTimeout", "BatchStartTimeout")
"""Parameters whose value must be at least ours."""
_NO_LIMIT = (0, 65534, 65535)
"""What Slurm shows for a limit that is not set."""
_HELD = "JobHeldAdmin"


class Slurm:
    """A site with Slurm."""

    def __init__(self, site: SiteConfig) -> None:
        self._site = site
        self._settings = site.table(SlurmConfig)
        self.has_machine = self._settings.over_alps

    def site_files(self, render: Renderer) -> list[SiteFile]:
        return site_files(self._site, render)

    def install_programs(self, prefix: str) -> list[str]:
        """The plugin, which must be the one for the Slurm of this cluster: built against its headers."""
        built, path = self._settings.plugin_built, prefix + self._settings.plugin
        try:
            with open(built, "rb") as stream:
                content = stream.read()
        except OSError as error:
            raise ConfigError(
                f"slurm.plugin_built: {built}: {reason(error)}",
                "make spank builds it against the headers of your Slurm",
            ) from error
        try:
            durable.make_public_directory(os.path.dirname(path))
            durable.write(path, content, mode=0o755)
        except OSError as error:
            raise UpstreamFailed(f"{path} cannot be written: {reason(error)}") from error
        return [path]

    def advice(self) -> list[str]:
        """slurm.conf is the site's own: what it must have is said, and checked by `check-config`."""
        wanted = ", ".join(f"{name}={value}" for name, value in slurm_conf(self._site).items())
        return [f"slurm.conf needs {wanted}; restart slurmctld and each slurmd (see docs/install-slurm.md)"]

    def programs(self) -> Mapping[str, str]:
        return programs(self._site)

    def directories(self) -> Mapping[str, str]:
        return {"slurm.notes": self._settings.notes}

    def errors(self, machine: Machine) -> Iterator[UdiError]:
        site, settings = self._site, self._settings
        if not settings.over_alps:
            try:
                require_native(site)
            except UdiError as error:
                yield error
        if not os.path.isfile(settings.plugin):
            yield self._error(f"slurm.plugin: {settings.plugin} is not a file on this host", "udi-admin install")
        yield from self._plugstack_errors()
        yield from self._conf_errors()

    def _plugstack_errors(self) -> Iterator[UdiError]:
        path = self._settings.plugstack
        try:
            with open(path, encoding="utf-8", errors="replace") as stream:
                lines = [line.split() for line in stream]
        except OSError as error:
            yield self._error(f"slurm.plugstack: {path}: {reason(error)}", "udi-admin install")
            return
        wanted = ["required", self._settings.plugin, *plugin_arguments(self._site)]
        ours = [words for words in lines if self._settings.plugin in words[1:2]]
        if ours != [wanted]:
            yield self._error(
                f"{path} must have one line for {self._settings.plugin}, with 'required' and the arguments of this"
                " configuration",
                f"{' '.join(wanted)}",
            )

    def _conf_errors(self) -> Iterator[UdiError]:
        """What slurmctld has of slurm.conf."""
        try:
            slurm = commands.Slurm(self._settings)
            given = {name.lower(): value for name, value in _PARAMETER.findall(slurm.configuration(self._deadline()))}
        except UdiError as error:
            yield self._error(f"slurm.conf could not be checked: {error.message}")
            return
        if "prolog" not in given:
            yield self._error(f"slurm.scontrol: {self._settings.scontrol} show config does not show Prolog")
            return
        for name, value in slurm_conf(self._site).items():
            if not _fits(name, value, given.get(name.lower(), "")):
                yield self._error(
                    f"slurm.conf: {name} is {given.get(name.lower()) or '(null)'}",
                    f"{name}={value}, or a hook that calls it",
                )

    def jobs(self, machine: Machine) -> Jobs:
        """On a node, the jobs that have a root here; everywhere, nodes that are drained and jobs that are held because
        of shifter-xc, as slurmctld says."""
        slurm = commands.Slurm(self._settings)
        deadline = self._deadline()
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
            DirtyNode(named(name), (), state.reason.removeprefix(commands.REASON), int(time.time()))
            for name, state in sorted(nodes.items())
        )
        states = {named(name): "+".join(sorted(state.flags)).lower() for name, state in nodes.items()}
        return Jobs(tuple(self._jobs_here()), held, dirty, states, tuple(errors))

    def _jobs_here(self) -> Iterator[JobState]:
        notes = Notes(self._settings.notes)
        for job in sorted(jobs_here(self._site) | notes.jobs()):
            note = notes.read(job)
            since = _changed(f"{self._settings.notes}/{job}")
            yield JobState(
                job=job,
                user=_user(note.uid) if note else "",
                image=note.image if note else "",
                image_id=note.id if note else "",
                allocation="",
                nodes=(named(socket.gethostname().partition(".")[0]),),
                plan="",
                phase=note.state if note else "left",
                since=since,
            )

    def take_down(self, machine: Machine, job: str, nodes: str) -> None:
        deadline = Deadline(self._settings.epilog_deadline)
        if not self._settings.over_alps:
            if not LocalJob(self._site, job).is_left and job not in Notes(self._settings.notes).jobs():
                raise NotFound(f"nothing of job {job} is on this node", "run it on the node that has the job's root")
            recovery.take_down_here(self._site, job, deadline)
            return
        members = machine.parse_nodes(nodes) if nodes else ()
        done = take_down(self._site, machine, job, deadline, members)
        if done.error:
            raise done.error
        if done.dirty:
            raise TeardownIncomplete(f"{folded(done.dirty)} not clean", "see udi-admin status")

    def recover(self, machine: Machine, nodes: str) -> None:
        """Native: the node that this is. Nobody can clean another one, since slurmctld runs no command of root's."""
        if self._settings.over_alps:
            recover_nodes(self._site, machine, nodes)
            return
        here = socket.gethostname().partition(".")[0]
        if nodes != here:
            raise UsageError(f"this node is {here}, not {nodes}", f"run udi-admin recover {nodes} on {nodes}")
        deadline = Deadline(self._settings.epilog_deadline)
        taken = recovery.clean_here(self._site, here, deadline)
        still = recovery.resume(self._site, here, deadline)
        done = f"took down {', '.join(taken)}; " if taken else ""
        click.echo(f"{here}: {done}{still or 'clean and in service'}")
        if still:
            raise TeardownIncomplete(f"{here} not brought back into service")

    def _deadline(self) -> Deadline:
        return Deadline(self._settings.command_deadline)

    def _error(self, message: str, hint: str = "") -> ConfigError:
        return ConfigError(f"{self._site.path}: {message}", hint)


def _hold(job: commands.QueuedJob) -> Hold:
    return Hold(job.name, job.comment.removeprefix(commands.REASON), int(time.time()))


def _fits(name: str, wanted: str, given: str) -> bool:
    """Whether a parameter's value in Slurm does what ours would."""
    if name in _LIMITS:
        seconds = re.match(r"[0-9]+", given)
        return not seconds or int(seconds[0]) in _NO_LIMIT or int(seconds[0]) >= int(wanted)
    if name == "PrologFlags":
        return wanted.lower() in given.lower().split(",")
    if name.startswith("HealthCheck") and name != "HealthCheckProgram":
        return bool(given) and not given.startswith("0 ")
    return given not in ("", "(null)")


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
