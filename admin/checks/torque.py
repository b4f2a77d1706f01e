"""Torque: the limits of its MOM around our deadlines, that it will call our hooks, and that its server answers."""

from __future__ import annotations

import os
import re
from collections.abc import Iterator, Sequence
from functools import partial

from admin.checks.check import Check, Finding, fine, of_error, warning, wrong
from admin.checks.deadlines import fitting
from admin.checks.programs import Asked, versions
from admin.install.installing import planned
from torque_hooks.chain import HOOKS, directory_of, examine, strangers
from torque_hooks.settings import DEFAULT_PROLOGALARM, TorqueConfig
from torque_hooks.site_files import site_files
from udi.command import run
from udi.config import SiteConfig
from udi.oserrors import reason
from udi.platform import Machine
from udi.sitefiles import Renderer, SiteFile
from udiroot.errors import UdiError, printable

_PROLOGALARM = re.compile(r"^\$prologalarm[ \t]+([0-9]{1,9})[ \t]*$", re.MULTILINE)
_NO_JOB = "0"
"""No job has this number: the server says so, where it answers."""
_UNKNOWN_JOB = 153
"""15001 modulo 256 (cray-reference T46)."""


def checks(site: SiteConfig, machine: Machine) -> list[Check]:
    """Checks of the configuration."""
    found = [
        Check("torque.deadlines", "hooks have time for their fan-outs", lambda: _deadlines(site, machine)),
        Check("torque.prologalarm", "the MOM gives hooks their time", lambda: _alarm(site)),
    ]
    torque = site.table(TorqueConfig)
    if os.path.isdir(torque.mom_priv):
        found.append(Check("torque.chain", "the programs beside our hooks can run", lambda: _chain(torque)))
    return found


def trials(site: SiteConfig) -> list[Check]:
    """What only Torque can say; its version, `qstat` says without a server (T51)."""
    torque = site.table(TorqueConfig)
    asked = Asked("torque.qstat", torque.qstat, ("--version",), (2, 5), "torque.qstat names Torque's qstat")
    return [
        Check("torque.server", f"{torque.qstat} is answered by the server", lambda: _server(torque)),
        Check("torque.hooks", f"{torque.mom_priv} has both hooks", lambda: _hooks(site, torque)),
        Check("torque.filter", "qsub calls the submit filter", lambda: _filter(site, torque)),
        *versions(asked),
    ]


def _deadlines(site: SiteConfig, machine: Machine) -> Iterator[Finding]:
    torque = site.table(TorqueConfig)
    before = ("torque.prologue_deadline", torque.prologue_deadline)
    return fitting(site, machine, before, ("torque.epilogue_deadline", torque.epilogue_deadline))


def _alarm(site: SiteConfig) -> Iterator[Finding]:
    """Torque's own limit, where this host has a MOM."""
    torque = site.table(TorqueConfig)
    config = f"{torque.mom_priv}/config"
    try:
        with open(config, encoding="utf-8", errors="replace") as stream:
            given = _PROLOGALARM.findall(stream.read())
    except FileNotFoundError:
        if not os.path.isdir(torque.mom_priv):
            yield fine(f"no MOM on this host: there is no {torque.mom_priv}")
            return
        given = []
    except OSError as error:
        yield wrong(f"torque.mom_priv: {config}: {reason(error)}")
        return
    alarm = int(given[-1]) if given else DEFAULT_PROLOGALARM
    if alarm < torque.least_prologalarm:
        key = "prologue_deadline" if torque.prologue_deadline >= torque.epilogue_deadline else "epilogue_deadline"
        yield wrong(
            f"$prologalarm {alarm} in {config} is too small: Torque would kill the hooks, and start"
            f" the job without its image; torque.{key} needs {torque.least_prologalarm}",
            f"set $prologalarm {torque.least_prologalarm} there, or lower torque.{key}",
        )


def _chain(torque: TorqueConfig) -> Iterator[Finding]:
    """Programs of the site's own that run before and after ours; without a chain, that there are none to be missed."""
    if not torque.chain:
        for directory, programs in strangers(torque):
            if programs:
                yield warning(f"{directory} has {', '.join(programs)}, which nothing of ours runs", "set torque.chain")
        return
    for directory in map(partial(directory_of, torque), HOOKS):
        found = examine(directory)
        for words in found.refused:
            yield wrong(f"torque.chain: {words}", "until then no job of this host starts")
        for name in found.passed_over:
            yield warning(f"{directory} has {name}, which does not run")


def _hooks(site: SiteConfig, torque: TorqueConfig) -> Iterator[Finding]:
    """Where this host has a MOM: ours, or hooks of the site's own that call ours."""
    if not os.path.isdir(torque.mom_priv):
        yield fine(f"no MOM on this host: there is no {torque.mom_priv}")
        return
    hooks = [
        file for file in site_files(site, Renderer(site, site.path)) if file.path.startswith(f"{torque.mom_priv}/")
    ]
    yield from _called(hooks)


def _filter(site: SiteConfig, torque: TorqueConfig) -> Iterator[Finding]:
    """Where this host has a torque.cfg: its line names ours. What a filter of the site's own calls, nobody can tell."""
    path = f"{torque.server_home}/torque.cfg"
    if not os.path.exists(path):
        yield fine(f"no jobs are submitted on this host: there is no {path}")
        return
    if torque.site_filter and not os.access(torque.site_filter, os.X_OK):
        yield wrong(
            f"torque.site_filter: {torque.site_filter} is not an executable program on this host",
            "until then every qsub here is refused",
        )
    yield from _called([file for file in site_files(site, Renderer(site, site.path)) if file.path == path])


def _called(files: Sequence[SiteFile]) -> Iterator[Finding]:
    """What an installation would still do, or ask a person to do."""
    plan = planned("", files)
    for path, _, _ in plan.files:
        if not os.path.exists(path) or any(file.kind == "line" for file in files):
            yield warning(f"{path} is not as installed: jobs with images need it", "udi-admin install")
    for sentence in plan.advice:
        what, _, todo = sentence.partition(": ")
        yield warning(f"{what}, and does not call ours as far as can be seen", todo)


def _server(torque: TorqueConfig) -> Iterator[Finding]:
    """Asked for a job that cannot be, it answers that there is none."""
    if not os.access(torque.qstat, os.X_OK):
        return  # reported with the programs
    try:
        done = run([torque.qstat, "-x", _NO_JOB], seconds=torque.command_deadline)
    except UdiError as error:
        yield of_error(error, "torque.qstat")
        return
    if done.exit_code not in (0, _UNKNOWN_JOB):
        said = (done.stderr.decode("utf-8", "replace").strip().splitlines() or ["no reason given"])[-1]
        yield wrong(
            f"torque.qstat: {torque.qstat} exits with {done.exit_code}: {printable(said[:200])}",
            "hooks ask it for each job: does pbs_server answer this host?",
        )
