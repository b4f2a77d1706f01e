"""The workload manager that a configuration names, as `udi-admin` needs it."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Protocol

from admin.checks.check import Check
from admin.seams.asked import Asked
from admin.seams.jobs import Jobs
from udi.config import SiteConfig
from udi.fanout import FanOutResult
from udi.platform import Machine
from udi.sitefiles import Renderer, SiteFile
from udiroot.errors import ConfigError, printable


class Manager(Protocol):
    """A workload manager with its table of the configuration. `machine` is the one that the configuration names."""

    has_machine: bool
    """Whether its hooks reach nodes through a machine, and not because they run there."""

    def site_files(self, render: Renderer) -> list[SiteFile]:
        """What it needs installed. Raises ConfigError."""

    def built(self) -> Mapping[str, bytes]:
        """What was compiled for it and must be in place before its files: path → content. Raises ConfigError."""

    def advice(self) -> list[str]:
        """What a person must do after an installation, a sentence each."""

    def callers(self, prefix: str) -> list[str]:
        """What of the site's own, below `prefix`, needs ours and would fail without, beyond hooks that call ours: a
        sentence each, with what to do."""

    def programs(self) -> Mapping[str, str]:
        """The programs that a host with its hooks needs: key of the configuration → path."""

    def directories(self) -> Mapping[str, str]:
        """Where its hooks or its own files are on such a host: key of the configuration → path."""

    def checks(self, machine: Machine) -> Sequence[Check]:
        """Checks of its table, and of how it is set up on this host."""

    def trials(self) -> Sequence[Check]:
        """Trials of it: questions to its server, versions of its programs."""

    def probe(self, machine: Machine, nodes: str, facts: Mapping[str, str]) -> FanOutResult:
        """What nodes say that they have (`nodehealth.probe`), which are told `facts`.

        Raises UsageError for nodes that are not reached from here, UpstreamFailed.
        """

    def jobs(self, machine: Machine) -> Jobs:
        """Jobs with images, held ones, and nodes out of service. Raises UpstreamFailed."""

    def asked(self, machine: Machine, job: str) -> Asked:
        """What it says of one job now, whether the job has an image or not. Raises UsageError for what is no job id."""

    def take_down(self, machine: Machine, job: str, nodes: str) -> None:
        """Take down a job whose hook never ran; `nodes` are its nodes where its state is damaged or lost.

        Raises TeardownIncomplete and other UdiErrors.
        """

    def check(self, machine: Machine) -> int:
        """On a node: print in one line whether anything of shifter-xc is left there; 0 where nothing is, else 1."""

    def mark(self, machine: Machine, nodes: str, why: str) -> None:
        """Take nodes out of service for an operator's reason. Raises UsageError, UpstreamFailed, TimedOut."""

    def recover(self, machine: Machine, nodes: str) -> None:
        """Clean, check and bring back nodes; a line for each. Raises TeardownIncomplete."""


def _torque(site: SiteConfig) -> Manager:
    from admin.seams.torque import Torque

    return Torque(site)


def _slurm(site: SiteConfig) -> Manager:
    from admin.seams.slurm import Slurm

    return Slurm(site)


_MANAGERS: Mapping[str, Callable[[SiteConfig], Manager]] = {"torque": _torque, "slurm": _slurm}
_DEFAULT = "torque"


def manager_of(site: SiteConfig) -> Manager:
    """The workload manager that `workload_manager` names. Raises ConfigError for an unknown one."""
    make = _MANAGERS.get(site.workload_manager or _DEFAULT)
    if make is None:
        names = " or ".join(_MANAGERS)
        raise ConfigError(f"workload_manager must be {names}, not '{printable(site.workload_manager)}'")
    return make(site)
