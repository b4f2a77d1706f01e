"""Deadlines that must fit into each other: a node's, the machine's fan-out's, and the workload manager's hook's."""

from __future__ import annotations

from udi.config import SiteConfig
from udi.platform import Machine
from udiroot.errors import ConfigError


def require_fitting(site: SiteConfig, machine: Machine, hook_seconds: int, hook_key: str) -> None:
    """Raises ConfigError where a deadline does not fit into the next; `hook_key` is the key of the hook's."""
    if not site.node.deadline <= machine.fanout_deadline <= hook_seconds:
        keys = f"node.deadline, {machine.name}.fanout_deadline and {hook_key}"
        seconds = f"{site.node.deadline}, {machine.fanout_deadline} and {hook_seconds} seconds"
        raise ConfigError(f"{keys} must each fit in the next, not {seconds}")
