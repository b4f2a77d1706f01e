"""Fixtures of the node tests: they need root, since they make namespaces, mounts and loop devices."""

from __future__ import annotations

import os
from collections.abc import Iterator

import pytest

from tests.node.pair import PROGRAMS, Pair
from tests.node.rig import ALICE, Rig
from udiroot.plan import NodePlan
from xcsim.picture import NodePicture


@pytest.fixture(scope="session")
def rig(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Rig]:
    """A running compute node, shared by all node tests; each test leaves it clean."""
    if os.geteuid() != 0:
        pytest.skip("needs root: makes namespaces, mounts and loop devices")
    made = Rig(tmp_path_factory.mktemp("rig") / "shared")
    yield made
    made.close()


@pytest.fixture(scope="session")
def pair(rig: Rig) -> Iterator[Pair]:
    """Two nodes on a network, for a site with the private sshd."""
    if not PROGRAMS.is_dir():
        pytest.skip("needs the private sshd: make sshd")
    made = Pair(rig)
    yield made
    made.close()


@pytest.fixture
def pictures(pair: Pair) -> dict[int, NodePicture]:
    return pair.pictures()


@pytest.fixture
def ssh_plan(pair: Pair) -> NodePlan:
    return pair.plan(pair.keys())


@pytest.fixture
def joined(pair: Pair, pictures: dict[int, NodePicture], ssh_plan: NodePlan) -> Iterator[Pair]:
    """Both nodes with alice's root, and as before afterwards."""
    pair.set_up(ssh_plan)
    yield pair
    pair.tear_down()
    assert pair.differences(pictures) == []


@pytest.fixture
def furnished(rig: Rig) -> Iterator[Rig]:
    """A node that is as before afterwards, with a few directories and files to mount."""
    scratch = rig.directory / "scratch"
    for name in ("mpi/lib", "spool/state", "site/inner", "alice/in", "alice/analysis/deep"):
        (scratch / name).mkdir(parents=True, exist_ok=True)
    for name in ("mpi/lib/libmpich.so", "spool/placement", "site/mark", "site/inner/mark", "site/file", "alice/file"):
        (scratch / name).write_text(f"{name}\n")
    for path in ("alice", "alice/in", "alice/analysis", "alice/analysis/deep", "alice/file"):
        os.chown(scratch / path, ALICE.uid, ALICE.gid)
    before = rig.picture()
    yield rig
    rig.tear_down()
    assert before.difference(rig.picture()) == []
