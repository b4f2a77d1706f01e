"""Deadlines of a workload manager's hooks, against those of the machine that they wait for."""

from __future__ import annotations

from collections.abc import Iterator

from admin.checks.check import Finding, raised, wrong
from jobs.deadlines import require_fitting
from udi.config import SiteConfig
from udi.platform import Machine

Deadline = tuple[str, int]
"""A key of the configuration, and its seconds."""


def fitting(site: SiteConfig, machine: Machine, before: Deadline, after: Deadline) -> Iterator[Finding]:
    """A fan-out must end before the hook that waits for it, which is run `before` a job or `after` it."""
    key, seconds = before
    yield from raised(lambda: require_fitting(site, machine, seconds, key), path=site.path)
    key, seconds = after
    if machine.fanout_deadline > seconds:
        least = f"{machine.name}.fanout_deadline"
        yield wrong(f"{key} must be at least {least}, not {seconds} and {machine.fanout_deadline} seconds")
