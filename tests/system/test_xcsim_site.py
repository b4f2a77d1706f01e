"""The site on the machine: our own software lies where a site has it, and its people can use it."""

import os
import stat
from collections.abc import Iterator

import pytest

from xcsim.machine import Machine
from xcsim.settings import Settings

pytestmark = pytest.mark.skipif(os.geteuid() != 0, reason="namespaces and mounts need root")


@pytest.fixture(scope="module")
def machine(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Machine]:
    made = Machine(tmp_path_factory.mktemp("xc") / "state")
    settings = Settings(nodes=2, schedule_delay=0.05, release_delay=0.05)
    try:
        yield made.up(settings, site_changes={"alps": {"fanout_deadline": 70}})
    finally:
        made.down()


def test_hooks_are_root_s_and_the_configuration_is_valid(machine: Machine) -> None:
    for name in ("prologue", "epilogue"):
        status = machine.path(f"/var/spool/torque/mom_priv/{name}").stat()
        assert status.st_uid == 0 and not stat.S_IMODE(status.st_mode) & 0o022
    done = machine.run_as("root", ["udi-admin", "check-config"])
    assert (done.returncode, done.stderr) == (0, "") and done.stdout.endswith(": OK\n"), done.stdout
    assert "fanout_deadline = 70" in machine.path("/etc/udi/udi.toml").read_text()


def test_nodes_see_the_node_software_and_the_store(machine: Machine) -> None:
    node = machine.node(20)
    assert node.run(["ls", "/dsl/opt/udi/node/udi.zip"]).returncode == 0
    assert node.run(["cat", "/etc/opt/cray/cnrte/roots.conf"]).stdout == "DSL=/dsl\nUDI=/var/udi\n"
    machine.run_as("udi", ["touch", "/scratch/udi/seen"], check=True)
    assert node.run(["stat", "-c", "%u", "/lus/udi/seen"]).stdout == "990\n"


def test_users_reach_the_gateway_and_no_checkout(machine: Machine) -> None:
    done = machine.run_as("alice", ["udi", "images"])
    assert done.returncode == 0, done.stderr
    where = "import udi, gateway; print(udi.__path__[0], gateway.__path__[0])"
    found = machine.run_as("alice", ["/opt/udi/venv/bin/python", "-I", "-c", where])
    assert found.stdout == "/opt/udi/lib/udi /opt/udi/lib/gateway\n"


def test_a_job_without_an_image_is_left_alone(machine: Machine) -> None:
    nodes = machine.nodes().values()
    before = [node.snapshot() for node in nodes]
    job = machine.qsub("alice", ["-l", "nodes=2"], "echo CRAY_ROOTFS=$CRAY_ROOTFS; aprun -q -b true; echo $?\n")
    assert machine.wait_job(job)["exit_status"] == "0"
    assert machine.output(job) == "CRAY_ROOTFS=\n0\n"
    after = [node.snapshot() for node in nodes]
    assert [one.difference(other) for one, other in zip(before, after, strict=True)] == [[], []]


def test_a_second_up_changes_nothing(machine: Machine) -> None:
    pids = [node.pid for node in machine.nodes().values()]
    machine.up()
    assert [node.pid for node in machine.nodes().values()] == pids
