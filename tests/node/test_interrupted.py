"""A set-up or teardown that is killed, or whose call fails, at any point: teardown then leaves the node as it was.

Every call that changes the node is a point; at each the process is killed just before and just after, and the call
fails with each errno that the code treats differently; on kernels that have the newer calls, and on one that has none
of them. A seeded part of them is tried here, all of them by `make test-faults`.
"""

from __future__ import annotations

import os
import random
import subprocess
from collections.abc import Callable, Iterator
from dataclasses import replace

import pytest

from tests.node import faults
from tests.node.faults import KRSIP, MODULES, Fault, Outcome
from tests.node.rig import Rig
from udi.cachefs import cache_template
from udiroot.plan import NodePlan, PlanCache, PlanMount, PlanStep
from xcsim.picture import NodePicture

_SEED = 2015
_SOME = 10**6 if os.environ.get("UDI_ALL_FAULTS") else 24
"""Faults that are tried for each kernel, for set-up and for teardown."""
_KERNELS = ("new", "old")


@pytest.fixture
def plan(rig: Rig) -> Iterator[NodePlan]:
    """A plan with all that there is: modules, the krsip switch, steps, deep mounts, a cache, an image in squashfs."""
    for name in ("first-one", "second"):
        module = rig.directory / f"software/{name}.ko"
        module.write_text("not a module\n")
    faults.node_file(rig, KRSIP).write_text("ccm off")
    yield rig.plan(
        modules=("/lus/software/first-one.ko", "/lus/software/second.ko"),
        krsip=KRSIP,
        steps=(
            PlanStep("before", "directory", "", "/opt/site"),
            PlanStep("after", "bind", "/projects", "/opt/site/projects"),
            PlanStep("after", "link", "site/projects", "/opt/projects"),
        ),
        sites=(
            PlanMount("/scratch", "/scratch", False),
            PlanMount("/projects", "/usr/lib/site/deep", True),
            PlanMount("/projects", "/lib/other", True),
        ),
        caches=(PlanCache("/scratch/alice", "/cache", 16 << 20, cache_template(rig.site, 16 << 20, 1001, 1001)),),
    )
    faults.node_file(rig, KRSIP).unlink()
    faults.node_file(rig, MODULES).unlink(missing_ok=True)


def picture(rig: Rig) -> NodePicture:
    """The node's picture with the modules of its simulated kernel, and its switch."""
    modules = faults.node_file(rig, MODULES)
    lines = modules.read_text().splitlines() if modules.exists() else []
    return replace(rig.picture(), modules=(*lines, faults.node_file(rig, KRSIP).read_text()))


def _chosen(calls: tuple[str, ...], kernel: str) -> list[Fault]:
    """A seeded choice of the faults, the first and the last call always among them."""
    every = list(faults.faults_of(calls, kernel))
    some = random.Random(f"{_SEED}{kernel}").sample(every, min(_SOME, len(every)))
    ends = [fault for fault in every if fault.point in (1, len(calls)) and fault.mode != "fail"]
    print(f"{len(calls)} points, {len(every)} faults on a kernel that is {kernel}; tried: {len({*some, *ends})}")
    return sorted({*some, *ends}, key=lambda fault: (fault.point, fault.mode, fault.number))


def _strike(rig: Rig, step: Callable[[Fault], Outcome], fault: Fault, job: str, before: NodePicture) -> None:
    """A step with a fault, then a teardown, after which the node is as before."""
    outcome = step(fault)
    where = f"{fault} of {outcome}"
    assert "Traceback" not in outcome.trace or "injected" in outcome.trace, f"{where}\n{outcome.trace}"
    again = faults.tear_down(rig, job, Fault(kernel=fault.kernel))
    assert again.report, f"{where}\n{again.trace}"
    assert again.report.ok, f"{where}: {again.report.words}"
    assert before.difference(picture(rig)) == [], where


def _set_up(rig: Rig, plan: NodePlan, kernel: str) -> Outcome:
    """A set-up that goes well. Other programs may have taken all loop devices that there are, and a kernel without
    /dev/loop-control makes no further one."""
    for _ in range(20):
        done = faults.set_up(rig, plan, Fault(kernel=kernel))
        assert done.report, done.trace
        if done.report.ok:
            return done
        assert done.report.words.startswith("no free loop device "), done.report.words
        subprocess.run(["losetup", "--find"], check=True, timeout=60, stdout=subprocess.DEVNULL)  # which makes one
    raise AssertionError("other programs took each loop device that was made")


@pytest.mark.parametrize("kernel", _KERNELS)
def test_set_up_interrupted(rig: Rig, plan: NodePlan, kernel: str) -> None:
    before = picture(rig)
    first = _set_up(rig, plan, kernel)
    assert faults.node_file(rig, KRSIP).read_text() == "ccm on"
    assert [line.split()[0] for line in picture(rig).modules[:-1]] == ["second", "first_one"]
    last = faults.tear_down(rig, plan.job, Fault(kernel=kernel))
    assert last.report, last.trace
    assert before.difference(picture(rig)) == []

    def step(fault: Fault) -> Outcome:
        """A set-up that fails has undone itself, or reports that it could not."""
        outcome = faults.set_up(rig, plan, fault)
        if outcome.report and not outcome.report.ok and outcome.report.code != 8:
            assert before.difference(picture(rig)) == [], f"not undone: {fault} of {outcome}"
        return outcome

    for fault in _chosen(first.calls, kernel):
        _strike(rig, step, fault, plan.job, before)
    assert rig.check() == (0, "udi: clean")


@pytest.mark.parametrize("kernel", _KERNELS)
def test_the_alarm_comes_when_something_was_just_opened(rig: Rig, plan: NodePlan, kernel: str) -> None:
    """Then no variable has the descriptor, which would keep the root busy for the undoing."""
    before = picture(rig)
    plan.deadline = 1
    calls = faults.set_up(rig, plan, Fault(mode="late", kernel=kernel)).calls
    assert faults.tear_down(rig, plan.job, Fault(kernel=kernel)).report
    opened = [n for n, name in enumerate(calls, 1) if name.startswith("open") and n > calls.index("link") + 1]
    for point in sorted(random.Random(f"{_SEED}{kernel}").sample(opened, min(_SOME, len(opened)))):
        outcome = faults.set_up(rig, plan, Fault(point, "late", kernel=kernel))
        assert outcome.report, f"{point} of {outcome}\n{outcome.trace}"
        if outcome.report.ok and len(outcome.calls) < point:  # another program took a loop device from the first set-up
            assert faults.tear_down(rig, plan.job, Fault(kernel=kernel)).report
            continue
        assert (outcome.report.code, outcome.report.words) == (9, "not finished within 1 seconds"), f"{point} {outcome}"
        assert before.difference(picture(rig)) == [], f"{point} of {outcome}"


@pytest.mark.parametrize("kernel", _KERNELS)
def test_teardown_interrupted(rig: Rig, plan: NodePlan, kernel: str) -> None:
    before = picture(rig)
    quiet = Fault(kernel=kernel)

    def step(fault: Fault) -> Outcome:
        _set_up(rig, plan, kernel)
        return faults.tear_down(rig, plan.job, fault)

    for fault in _chosen(step(quiet).calls, kernel):
        _strike(rig, step, fault, plan.job, before)


@pytest.mark.parametrize("kernel", faults.KERNELS)
def test_every_kernel_gives_the_same_root(rig: Rig, plan: NodePlan, kernel: str) -> None:
    """The same names with the same owners and flags, whichever calls the kernel has."""
    before = picture(rig)
    _set_up(rig, plan, kernel)
    seen = _seen(rig)
    assert faults.tear_down(rig, plan.job, Fault(kernel=kernel)).report
    assert rig.set_up(plan).ok
    assert seen == _seen(rig)
    assert rig.tear_down().ok
    faults.node_file(rig, KRSIP).write_text("ccm off")
    assert before.difference(picture(rig)) == []


def _seen(rig: Rig) -> list[str]:
    """Names with their owners, and for each place the flags of the mount that it lies in."""
    names = rig.inside("for d in / /*/ /etc/* /var/* /usr/lib/* /opt/*; do stat -c '%n %A %u %g' $d; done").stdout
    mounts = [line.split()[4:6] for line in rig.inside("cat /proc/self/mountinfo").stdout.splitlines()]
    flags = {}
    for path in (
        "/",
        "/etc",
        "/etc/app",
        "/usr/lib",
        "/usr/lib/site/deep",
        "/cache",
        "/scratch",
        "/tmp",
        "/opt/udi",
        "/dev/shm",
    ):
        points = [(point, given) for point, given in mounts if f"{path}/".startswith(f"{point.rstrip('/')}/")]
        given = set(max(points, key=lambda pair: len(pair[0]))[1].split(","))
        flags[path] = sorted(given & {"ro", "rw", "nosuid", "nodev", "noexec"})
    assert ["nodev", "nosuid", "ro"] == flags["/"] == flags["/etc"] == flags["/usr/lib"] == flags["/opt/udi"]
    return [*names.splitlines(), *(f"{path} {given}" for path, given in flags.items())]


def test_set_up_again_after_a_killed_one(rig: Rig) -> None:
    """A requeued job finds the remains of its own first try, and is set up all the same."""
    plan = rig.plan()
    before = rig.picture()
    assert faults.set_up(rig, plan, Fault(30, "after")).killed
    assert rig.check()[0] == 1
    assert rig.set_up(plan).ok
    assert rig.tear_down().ok
    assert before.difference(rig.picture()) == []


def test_a_module_that_another_program_uses_by_then_stays(rig: Rig, plan: NodePlan) -> None:
    modules = faults.node_file(rig, MODULES)
    modules.write_text("first_one 16384 0 - Live 0x0\n")
    assert faults.set_up(rig, plan).report
    modules.write_text(modules.read_text().replace("second 16384 0", "second 16384 1"))
    done = faults.tear_down(rig, plan.job)
    assert done.report
    assert done.report.ok
    assert modules.read_text() == "second 16384 1 - Live 0x0\nfirst_one 16384 0 - Live 0x0\n"
