"""Jobs with roots of their own on one node: what one of them needs is not taken away by the end of another."""

from __future__ import annotations

import itertools
from collections.abc import Iterator

import pytest

from tests.node import faults
from tests.node.faults import KRSIP, MODULES, Fault
from tests.node.rig import ALICE, BOB, Rig
from tests.node.test_together import stopped
from udi.cachefs import cache_template
from udiroot.plan import NodePlan, PlanCache, PlanUser

_LOADED = ["first_one 16384 0 - Live 0x0", "second 16384 0 - Live 0x0"]
"""The simulated kernel counts no users, so that it would unload a module that a job needs."""


@pytest.fixture
def shared(rig: Rig) -> Iterator[Rig]:
    """A node for several jobs, whose kernel has no modules yet, and a switch."""
    before = rig.picture()
    for name in ("first-one", "second"):
        (rig.directory / f"software/{name}.ko").write_text("not a module\n")
    for path in ("/var/udi", "/var/run/udi"):
        faults.node_file(rig, path).mkdir(parents=True)
    faults.node_file(rig, KRSIP).write_text("ccm off")
    yield rig
    for path in (KRSIP, MODULES):
        faults.node_file(rig, path).unlink(missing_ok=True)
    for path in ("/var/udi", "/var/run/udi"):
        faults.node_file(rig, path).rmdir()
    assert before.difference(rig.picture()) == []


def plan(rig: Rig, job: str, user: PlanUser = ALICE, **changes: object) -> NodePlan:
    modules = ("/lus/software/first-one.ko", "/lus/software/second.ko")
    own = {"root": f"/var/udi/{job}", "run": f"/var/run/udi/{job}", "modules": modules, "krsip": KRSIP}
    return rig.plan(job, user, **{**own, "volumes": (), **changes})


def loaded(rig: Rig) -> list[str]:
    path = faults.node_file(rig, MODULES)
    return sorted(path.read_text().splitlines()) if path.exists() else []


def is_switched_on(rig: Rig) -> bool:
    return faults.node_file(rig, KRSIP).read_text() == "ccm on"


def set_up(rig: Rig, wanted: NodePlan) -> None:
    outcome = faults.set_up(rig, wanted)
    assert outcome.report and outcome.report.ok, outcome


def tear_down(rig: Rig, wanted: NodePlan) -> None:
    outcome = faults.tear_down(rig, wanted.job, plan=wanted)
    assert outcome.report and outcome.report.ok, outcome


@pytest.mark.parametrize("order", list(itertools.permutations("789")), ids="".join)
def test_the_last_job_unloads_whoever_loaded(shared: Rig, order: tuple[str, ...]) -> None:
    plans = {job: plan(shared, job, BOB if job == "8" else ALICE) for job in "789"}
    for job in "789":
        set_up(shared, plans[job])
        assert loaded(shared) == _LOADED
    for job in order[:-1]:
        tear_down(shared, plans[job])
        assert loaded(shared) == _LOADED and is_switched_on(shared), f"after the end of {job}"
    tear_down(shared, plans[order[-1]])
    assert loaded(shared) == [] and not is_switched_on(shared)


def test_what_others_loaded_stays(shared: Rig) -> None:
    faults.node_file(shared, MODULES).write_text(f"{_LOADED[1]}\n")
    first, second = plan(shared, "7"), plan(shared, "8")
    set_up(shared, first)
    set_up(shared, second)
    tear_down(shared, first)
    assert loaded(shared) == _LOADED
    tear_down(shared, second)
    assert loaded(shared) == _LOADED[1:]


def test_a_set_up_on_its_way_keeps_what_it_relies_on(shared: Rig) -> None:
    """It found the modules loaded, and its image is not mounted yet, so that the kernel counts no user."""
    first, second = plan(shared, "7"), plan(shared, "8")
    calls = faults.set_up(shared, second).calls
    tear_down(shared, second)
    for name in ("load_module", "ioctl"):
        set_up(shared, first)
        with stopped(shared, second, calls.index(name) + 1) as on_its_way:
            tear_down(shared, first)
            assert loaded(shared) == _LOADED and is_switched_on(shared)
            outcome = on_its_way.go_on()
        assert outcome.report and outcome.report.ok, outcome
        tear_down(shared, second)
        assert loaded(shared) == []


def test_a_killed_job_keeps_them_until_it_is_taken_down(shared: Rig) -> None:
    first, second = plan(shared, "7"), plan(shared, "8")
    calls = faults.set_up(shared, first).calls
    tear_down(shared, first)
    assert faults.set_up(shared, first, Fault(calls.index("ioctl") + 1, "before")).killed
    set_up(shared, second)
    tear_down(shared, second)
    assert loaded(shared) == _LOADED
    tear_down(shared, first)
    assert loaded(shared) == []


def test_each_job_has_a_cache_of_its_own_in_one_directory(shared: Rig) -> None:
    scratch = shared.directory / "scratch/alice"
    before = set(scratch.iterdir())
    template = cache_template(shared.site, 16 << 20, ALICE.uid, ALICE.gid)
    caches = (PlanCache("/scratch/alice", "/cache", 16 << 20, template),)
    first, second = (plan(shared, job, caches=caches) for job in "78")
    set_up(shared, first)
    set_up(shared, second)
    for own in (first, second):
        shared.node.run(["/bin/sh", "-c", f"echo {own.job} >/cache/x"], uid=ALICE.uid, gid=ALICE.gid, root=own.root)
    tear_down(shared, first)
    done = shared.node.run(["/bin/sh", "-c", "cat /cache/x"], uid=ALICE.uid, gid=ALICE.gid, root=second.root)
    assert done.stdout == "8\n"
    tear_down(shared, second)
    assert set(scratch.iterdir()) == before
