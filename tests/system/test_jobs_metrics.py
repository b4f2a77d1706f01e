"""What the hooks of a job host count, and that no job waits or fails for it."""

from __future__ import annotations

import fcntl

from jobs.metrics import FILE
from tests.metrics.samples import risen
from tests.system.cray import STATE, Cray
from tests.system.scripts import expected

_PLACE = "/var/lib/node-exporter"


def test_a_job_that_runs_is_counted_with_the_times_of_its_nodes(cray: Cray) -> None:
    place = cray.machine.path(_PLACE)
    place.mkdir(parents=True, exist_ok=True)
    (place / FILE).unlink(missing_ok=True)
    with cray.configured({"metrics": {"directory": _PLACE}}):
        assert cray.run("alice").status == "0"
        with cray.without_filter():
            cray.run("alice", image="absent:1")
    assert risen(place / FILE) == {
        ("udi_job_starts_total", "ready"): 1,
        ("udi_job_starts_total", "refused"): 1,
        ("udi_job_failures_total", "start", "not_found", "user"): 1,
        ("udi_job_ends_total", "clean"): 1,
        ("udi_job_setup_seconds_count",): 1,
        ("udi_job_teardown_seconds_count",): 1,
        ("udi_node_setup_seconds_count",): 2,
        ("udi_node_teardown_seconds_count",): 2,
    }


def test_what_cannot_be_counted_costs_a_line_and_no_job(cray: Cray) -> None:
    cray.machine.path(_PLACE).mkdir(parents=True, exist_ok=True)
    with (
        cray.machine.path(f"{STATE}/metrics.lock").open("w") as lock,
        cray.configured({"metrics": {"directory": _PLACE}}),
    ):
        fcntl.flock(lock, fcntl.LOCK_EX)
        ended = cray.run("alice")
    assert (ended.status, ended.starts, ended.error) == ("0", 1, "")
    assert sorted(ended.output.splitlines()) == expected(cray.marker("tiny:1"), 1001)
    told = [line for line in ended.log if " ERROR " in line]
    assert len(told) == 2, "one of each hook"
    assert all(f"nothing was added to the metrics in {_PLACE}: " in line for line in told)
