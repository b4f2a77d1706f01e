"""What a site declares for every root: its file systems, and steps.

A step is a directory, a link, or a read-only bind of a path of the node's own.

Declared, not scripted: no script of a site is run as root on a node.
"""

import os
import stat

from udiroot.binds import FROZEN, SAFE, bind
from udiroot.errors import SetupFailed, printable
from udiroot.fixtures import Fixture
from udiroot.layout import DIRECTORY, FILE, LINK
from udiroot.plan import NodePlan, PlanMount, PlanStep
from udiroot.rules import hides_ours


def site_fixtures(plan: NodePlan) -> "list[Fixture]":
    """All that the site has declared. Raises SetupFailed."""
    steps = [_step(step) for step in plan.steps]
    sites = [_bound(_name(site), site.source, site.target, _flags(site)) for site in plan.sites]
    for fixture in (*steps, *sites):
        if hides_ours(fixture.target):
            raise SetupFailed(f"{fixture.name}: {printable(fixture.target)} would hide what belongs to shifter-xc")
    return [*steps, *sites]


def _name(site: PlanMount) -> str:
    what = f"mount of module {printable(site.module)}" if site.module else "site file system"
    return f"{what} {printable(site.source)}"


def _flags(site: PlanMount) -> int:
    return FROZEN if site.read_only else SAFE


def _step(step: PlanStep) -> Fixture:
    name = f"site step {step.kind} {printable(step.target)}"
    if step.kind == "bind":
        return _bound(name, step.source, step.target, FROZEN)
    return Fixture(step.target, LINK if step.kind == "link" else "", name, text=step.source)


def _bound(name: str, source: str, target: str, flags: int) -> Fixture:
    """A bind of a directory with everything that is mounted below it, or of a file."""
    try:
        mode = os.stat(source).st_mode
    except OSError as error:
        raise SetupFailed(f"{name}: {error.strerror}") from error
    if not (stat.S_ISDIR(mode) or stat.S_ISREG(mode) or stat.S_ISSOCK(mode)):
        raise SetupFailed(f"{name}: neither a directory nor a file")
    kind = DIRECTORY if stat.S_ISDIR(mode) else FILE
    return Fixture(target, kind, name, lambda path: bind(source, path, flags, recursive=True))
