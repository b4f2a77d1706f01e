"""The machine that a configuration names."""

from __future__ import annotations

from collections.abc import Callable, Mapping

from udi.config import SiteConfig
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
DEFAULT = "alps"


def machine_of(site: SiteConfig) -> Machine:
    """The machine that `machine` names. Raises ConfigError for an unknown one, and where its table is wrong."""
    make = _MACHINES.get(site.machine or DEFAULT)
    if make is None:
        raise ConfigError(f"machine must be {' or '.join(_MACHINES)}, not '{printable(site.machine)}'")
    return make(site)
