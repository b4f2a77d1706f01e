"""A prologue that dies by SIGKILL counts as a success for Torque: the job starts, and its aprun never runs outside."""

from __future__ import annotations

import time

import pytest

from tests.system.cray import B, Cray
from tests.system.scripts import expected, ranks

ALICE = 1001
LOOK = "cat /etc/xcsim/nid; ls /dsl | head -3; echo rank $ALPS_APP_PE in $(cat /etc/marker || echo OUTSIDE) as $(id -u)"

_TOO_EARLY = "the prologue cannot be run: the process that pbs_mom started was killed\n"


@pytest.mark.parametrize("delay", ["0", "0.1", "0.2", "0.3"])
def test_no_aprun_outside_the_image(cray: Cray, delay: str) -> None:
    """Whether the root was there by then or not: the image on every node, or a failure and not one line."""
    cray.machine.set_fault("kill-prologue", value=delay)
    ended = cray.run("alice", "echo root $CRAY_ROOTFS >&2\n" + ranks(2, LOOK))
    lines = sorted(ended.output.splitlines())
    # Killed before it had read its configuration, the prologue says so.
    assert ended.error.removeprefix(_TOO_EARLY).startswith("root UDI\n")
    if "code 0" in lines:
        assert lines == expected(cray.marker("tiny:1"), ALICE)
    else:
        assert lines == ["code 1"]
        assert "/var/udi is not available on this node" in ended.error
    assert cray.states() == []
    cray.assert_clean()
    assert set(cray.statuses().values()) == {"up"}


@pytest.mark.parametrize(("slow", "rest"), [("1.5", "sleep 3\n"), ("3", "")])
def test_a_set_up_that_is_still_on_its_way_when_the_prologue_dies(cray: Cray, slow: str, rest: str) -> None:
    """The command reaches a node after the job's aprun has failed, or after its epilogue: nothing stays there."""
    cray.machine.set_fault("slow-node", node=B, value=slow, count=1)
    cray.machine.set_fault("kill-prologue", value="0.4")
    ended = cray.run("alice", ranks(2, LOOK) + rest)
    assert ended.output == "code 1\n"
    assert "OUTSIDE" not in ended.output + ended.error
    time.sleep(0 if rest else float(slow))
    cray.assert_clean()
