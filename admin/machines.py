"""The machine that a configuration names, and everybody who brings a table of the configuration."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence

from admin.checks.check import Check
from udi.config import SiteConfig, Table
from udi.platform import Machine
from udiroot.errors import ConfigError, printable


def _alps(site: SiteConfig) -> Machine:
    from alps.machine import Alps

    return Alps(site)


def _clusters(site: SiteConfig) -> Machine:
    from clusters.machine import Cluster

    return Cluster(site)


_MACHINES: Mapping[str, Callable[[SiteConfig], Machine]] = {"alps": _alps, "clusters": _clusters}
"""A job imports its own machine only."""
_DEFAULT = "alps"


def machine_of(site: SiteConfig) -> Machine:
    """The machine that `machine` names. Raises ConfigError for an unknown one, and where its table is wrong."""
    make = _MACHINES.get(site.machine or _DEFAULT)
    if make is None:
        raise ConfigError(f"machine must be {' or '.join(_MACHINES)}, not '{printable(site.machine)}'")
    return make(site)


def machine_trials(site: SiteConfig) -> Sequence[Check]:
    """Trials of the machine that `machine` names: what its own commands and names say on this host."""
    import admin.checks.alps
    import admin.checks.clusters

    trials = {"alps": admin.checks.alps.trials, "clusters": admin.checks.clusters.trials}
    return trials[site.machine or _DEFAULT](site)


def all_tables() -> tuple[type[Table], ...]:
    """The tables that machines, workload managers and sessions on login nodes bring."""
    from alps.settings import AlpsConfig
    from clusters.settings import ClustersConfig
    from outside.settings import SessionsConfig
    from slurm_hooks.settings import SlurmConfig
    from torque_hooks.settings import TorqueConfig

    return (AlpsConfig, ClustersConfig, TorqueConfig, SlurmConfig, SessionsConfig)
