"""Slurm: the plugin, its line, and slurm.conf; that slurmctld answers, and of which version it is.

What slurmctld has counts; where it does not answer, this host's slurm.conf. Whether the plugin is loaded is asked of
Slurm itself: srun's help lists the plugin's options.
"""

from __future__ import annotations

import glob
import os
import re
import stat
from collections.abc import Iterator, Mapping

from admin.checks.check import Check, Finding, of_error, raised, warning, wrong
from admin.checks.deadlines import fitting
from admin.checks.programs import Asked, versions
from slurm_hooks import commands
from slurm_hooks.native import require_native
from slurm_hooks.settings import SlurmConfig
from slurm_hooks.site_files import plugin_arguments, slurm_conf
from udi.command import Deadline, run
from udi.config import SiteConfig
from udi.oserrors import reason
from udi.platform import Machine
from udiroot.errors import UdiError, printable
from udiroot.fields import number
from udiroot.rules import is_within

_PARAMETER = re.compile(r"^\s*(\w+)(?:\[\d+\])?[ \t]*=[ \t]*(.*?)[ \t]*$", re.MULTILINE)
_LIMITS = ("PrologEpilogTimeout", "BatchStartTimeout")
"""Parameters whose value must be at least ours, in seconds."""
_NOT_SET = ("", "(null)", "65534", "65535", "65534 sec", "65535 sec")
"""What Slurm shows for a parameter that is not set."""
_PROGRAMS = ("Prolog", "Epilog", "HealthCheckProgram")
_DEFAULT_SPOOL = "/var/spool/slurmd"
_DEFAULT_CONF = "/etc/slurm/slurm.conf"
_MOST_OF_A_HOOK = 1 << 20


def checks(site: SiteConfig, machine: Machine) -> list[Check]:
    """Checks of the configuration, and of Slurm's."""
    setup, settings = SlurmSetup(site), site.table(SlurmConfig)
    where = (
        Check("slurm.deadlines", "hooks have time for their fan-outs", lambda: _deadlines(site, machine))
        if settings.over_alps
        else Check("slurm.node", "this host can be a node", setup.native)
    )
    return [
        Check("slurm.plugin", settings.plugin, setup.plugin),
        Check("slurm.plugstack", f"{settings.plugstack} has the plugin's line, and Slurm loads it", setup.plugstack),
        Check("slurm.conf", "hooks, flags and timeouts are as needed", setup.conf),
        Check("slurm.surprises", "nothing in slurm.conf that surprises users", setup.surprises),
        where,
    ]


def trials(site: SiteConfig) -> list[Check]:
    """What only slurmctld can say."""
    settings = site.table(SlurmConfig)
    asked = Asked("slurm.scontrol", settings.scontrol, ("--version",), (22, 5), "see docs/install-slurm.md")
    return [
        Check("slurm.controller", "slurmctld shows its nodes", lambda: _controller(settings)),
        *versions(asked),
    ]


def _controller(settings: SlurmConfig) -> Iterator[Finding]:
    try:
        nodes = commands.Slurm(settings).nodes(Deadline(settings.command_deadline))
    except UdiError as error:
        yield of_error(error, "slurm.scontrol")
        return
    if not nodes:
        yield warning("slurm.scontrol: slurmctld shows no nodes", "has slurm.conf any?")


def _deadlines(site: SiteConfig, machine: Machine) -> Iterator[Finding]:
    settings = site.table(SlurmConfig)
    before = ("slurm.prolog_deadline", settings.prolog_deadline)
    return fitting(site, machine, before, ("slurm.epilog_deadline", settings.epilog_deadline))


class SlurmSetup:
    """Slurm on this host, compared with what a configuration needs."""

    def __init__(self, site: SiteConfig) -> None:
        self._site = site
        self._settings = site.table(SlurmConfig)

    def callers(self) -> Iterator[str]:
        """Parameters of slurm.conf by which Slurm runs our hooks."""
        given = self._given()
        for name, wanted in slurm_conf(self._site).items():
            if name in _PROGRAMS and _calls(given.get(name.lower(), ""), wanted):
                yield f"{name} of slurm.conf runs {wanted}: change it, and run scontrol reconfigure"

    def plugin(self) -> Iterator[Finding]:
        """It is loaded into a process of root's."""
        path = self._settings.plugin
        try:
            status = os.stat(path)
        except OSError as error:
            yield wrong(f"slurm.plugin: {path}: {reason(error)}", "udi-admin install")
            return
        if not stat.S_ISREG(status.st_mode) or status.st_uid != 0 or status.st_mode & 0o022:
            yield wrong(
                f"slurm.plugin: {path} must be a regular file of root's that nobody else may write", "udi-admin install"
            )

    def surprises(self) -> Iterator[Finding]:
        """What is right but may surprise users."""
        given = self._given()
        program = given.get("taskprolog", "")
        if program not in _NOT_SET and not self._is_in_roots(program):
            yield warning(
                f"slurm.conf: TaskProlog={printable(program)} runs inside images, and fails tasks whose image lacks it",
                "show it there with [[node.steps]] or [[node.filesystems]]",
            )
        if not self._settings.over_alps and (owner := _owner(self._site.node.run)):
            yield warning(
                f"node.run: {self._site.node.run} is owned by uid {owner} here, so this host can be no node",
                "where it is one, choose another directory than that of gateway.socket",
            )
        if "tmpfs" in given.get("jobcontainertype", ""):
            yield warning("slurm.conf: JobContainerType=job_container/tmpfs has not been tested with images")

    def plugstack(self) -> Iterator[Finding]:
        """One line for the plugin, with the arguments of this configuration; and Slurm loads it."""
        path = self._settings.plugstack
        try:
            with open(path, encoding="utf-8", errors="replace") as stream:
                lines = [line.split() for line in stream]
        except OSError as error:
            yield wrong(f"slurm.plugstack: {path}: {reason(error)}", "udi-admin install")
            return
        wanted = ["required", self._settings.plugin, *plugin_arguments(self._site)]
        name = os.path.basename(self._settings.plugin)
        ours = [words for words in lines if any(os.path.basename(word) == name for word in words[1:2])]
        if ours != [wanted]:
            yield wrong(f"{path} must have one line for the plugin: {' '.join(wanted)}", "udi-admin install")
            return
        srun = f"{os.path.dirname(self._settings.scontrol)}/srun"
        if not os.path.exists(srun):
            return  # a node need not have Slurm's commands for users
        try:
            done = run([srun, "--help"], seconds=self._settings.command_deadline, environment=self._environment())
        except UdiError as error:
            yield wrong(f"whether Slurm loads the plugin is unknown: {error.message}")
            return
        if b"--imagevolume" not in done.stdout:
            last = (done.stderr.decode("utf-8", "replace").strip().splitlines() or [""])[-1]
            yield wrong(
                f"srun does not load {self._settings.plugin}{': ' if last else ''}{printable(last[:300])}",
                f"PlugStackConfig of slurm.conf must lead to {path}, and the plugin be built for this Slurm",
            )

    def conf(self) -> Iterator[Finding]:
        given = self._given()
        if not given:
            yield wrong("slurm.conf not checked: slurmctld does not answer", "set slurm.conf to its path")
            return
        wanted = dict(slurm_conf(self._site))
        if self._settings.batch == "inside" and not self._settings.over_alps:
            wanted["SlurmdSpoolDir"] = self._settings.spool
        for name, value in wanted.items():
            now = given.get(name.lower(), "")
            if hint := self._missing(name, value, now):
                yield wrong(f"slurm.conf: {name} is {'not set' if now in _NOT_SET else printable(now)}", hint)

    def _missing(self, name: str, wanted: str, given: str) -> str:
        """What must be done about a parameter; nothing where its value does what ours would."""
        if name in _LIMITS:
            seconds = number(given.partition(" ")[0])
            unlimited = name == "PrologEpilogTimeout" and given in _NOT_SET
            return "" if unlimited or seconds >= int(wanted) else f"{name}={wanted}, or more"
        if name in _PROGRAMS:
            return "" if _calls(given, wanted) else f"{name}={wanted}, or a program that runs it"
        if name == "PrologFlags":
            flags = {flag.strip().lower() for flag in given.split(",")}
            return "" if flags & {"alloc", "contain", "x11"} else "PrologFlags=Alloc"
        if name == "HealthCheckInterval":
            return "" if number(given.partition(" ")[0]) > 0 else f"{name}={wanted}"
        if name == "HealthCheckNodeState":
            return ""  # whichever the site wants examined; any, where it says nothing
        given = _DEFAULT_SPOOL if given in _NOT_SET else given
        return "" if os.path.normpath(given) == wanted else f"slurm.spool must be the same, not {wanted}"

    def native(self) -> Iterator[Finding]:
        """Hooks run the node software where they are."""
        yield from raised(lambda: require_native(self._site), path=self._site.path)
        node = self._site.node
        if not os.access(node.python[0], os.X_OK):
            yield wrong(f"node.python: {node.python[0]} is not an executable program on this host")
        if not os.path.isfile(node.zip):
            hint = "udi-admin install" if node.zip == self._site.install.zip else "set it to the value of install.zip"
            yield wrong(f"node.zip: {node.zip} is not a file on this host", hint)

    def _given(self) -> Mapping[str, str]:
        """The parameters of slurm.conf by their names in lower case; none where it cannot be had."""
        deadline = Deadline(self._settings.command_deadline)
        try:
            text = commands.Slurm(self._settings).configuration(deadline)
        except UdiError:
            try:
                with open(self._settings.conf or _DEFAULT_CONF, encoding="utf-8", errors="replace") as stream:
                    text = re.sub(r"#.*", "", stream.read())
            except OSError:
                return {}
        return {name.lower(): value for name, value in _PARAMETER.findall(text)}

    def _environment(self) -> dict[str, str]:
        return {"SLURM_CONF": self._settings.conf} if self._settings.conf else {}

    def _is_in_roots(self, program: str) -> bool:
        """Whether the site shows a program of the node in every root."""
        shown = [each.target or each.source for each in self._site.node.filesystems]
        shown += [step.target for step in self._site.node.steps if step.kind == "bind"]
        return any(is_within(program, target) for target in shown)


def _owner(path: str) -> int:
    """The uid of a directory's owner; 0 where there is none yet."""
    try:
        return os.stat(path).st_uid
    except OSError:
        return 0


def _calls(given: str, wanted: str) -> bool:
    """Whether a parameter that names programs, by a pattern or a list, runs ours, or one that names ours."""
    if given in _NOT_SET:
        return False
    for pattern in given.split(","):
        for path in sorted(glob.glob(pattern.strip())) or [pattern.strip()]:
            if os.path.realpath(path) == os.path.realpath(wanted) or _names(path, wanted):
                return True
    return False


def _names(path: str, wanted: str) -> bool:
    try:
        with open(path, "rb") as stream:
            lines = stream.read(_MOST_OF_A_HOOK).splitlines()
    except OSError:
        return False
    return any(wanted.encode() in line and not line.lstrip().startswith(b"#") for line in lines)
