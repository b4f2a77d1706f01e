"""What `udi-admin check-config` tries of the machine that a configuration names."""

from __future__ import annotations

from collections.abc import Sequence

from admin.checks.check import Check
from admin.seams.machines import DEFAULT
from udi.config import SiteConfig


def machine_trials(site: SiteConfig) -> Sequence[Check]:
    """Trials of the machine that `machine` names: what its own commands and names say on this host."""
    import admin.checks.alps
    import admin.checks.clusters

    trials = {"alps": admin.checks.alps.trials, "clusters": admin.checks.clusters.trials}
    return trials[site.machine or DEFAULT](site)
