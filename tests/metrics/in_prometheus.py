"""`make test-metrics`: jobs on xcsim and pulls by its gateway, watched by a real Prometheus.

Every query of the board, and every expression of the alert file, is run on the figures of that one run.
"""

from __future__ import annotations

import os
import re
from collections.abc import Iterator
from dataclasses import dataclass

import pytest

from gateway.service.counted import families
from gateway.service.metrics import FILE as GATEWAY_FILE
from gateway.service.metrics import GAUGES
from jobs.metrics import FAMILIES
from jobs.metrics import FILE as HOOKS_FILE
from tests.metrics.documents import ALERTS, alert_expressions, board_queries, metrics_in
from tests.metrics.prometheus import Prometheus, running
from tests.system import images
from tests.system.cray import B, Cray
from udi.registries import RegistryConfig
from xcsim import registry
from xcsim.machine import Machine

_PLACE = "/var/lib/node-exporter"
_RANGE = "5m"
"""What Grafana puts in place of its variables."""
_STORE_ACCOUNT = 990


@dataclass
class Watched:
    """A machine after a day's work in a minute, and the Prometheus that watched it."""

    cray: Cray
    prometheus: Prometheus

    def collect(self, code: int = 0) -> None:
        """What udi-gateway-metrics.timer does."""
        words = ["/opt/udi/bin/udi-gateway", "metrics", "--write"]
        done = self.cray.machine.run_as("udi", words)
        assert done.returncode == code, done.stderr


@pytest.fixture(scope="module")
def watched(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Watched]:
    cray = Cray(Machine(tmp_path_factory.mktemp("cray") / "state"))
    try:
        cray.up()
        place = cray.machine.path(_PLACE)
        place.mkdir(parents=True)
        os.chown(place, 0, _STORE_ACCOUNT)
        place.chmod(0o775)
        with cray.configured({"metrics": {"directory": _PLACE}}):
            cray.run("alice")  # the first hook makes the file, and all its series are 0 but for this job's
            names = (HOOKS_FILE, GATEWAY_FILE)
            work = tmp_path_factory.mktemp("prometheus")
            with running(place, work, ALERTS, names) as prometheus:
                made = Watched(cray, prometheus)
                made.collect()
                prometheus.wait(lambda: prometheus.value("sum(up)") == len(names))
                _work(cray)
                made.collect()
                prometheus.wait(lambda: prometheus.value('udi_dirty_nodes{state="out_of_service"}') == 1)
                prometheus.wait(lambda: prometheus.value("sum(udi_gateway_layers_total)"))
                yield made
    finally:
        cray.machine.down()


def _work(cray: Cray) -> None:
    """Jobs that run, one that its user has to mend, one that the site has to; a node that is lost; pulls."""
    for reference in ("team/app:1", "team/more:1"):
        archive = cray.machine.state / "pushed.tar"
        images.save(archive, images.tiny(cray.marker("pushed")), reference, (0, 0))
        registry.push(cray.machine, archive, reference)
        archive.unlink()
        cray.udi("alice", "pull", reference)
    cray.udi("alice", "pull", "team/none:1", code=3)
    cray.run("bob", image="tools:1", nodes=3)
    with cray.without_filter():
        assert cray.run("alice", image="absent:1").state == "C"
    _broken_store(cray)
    cray.machine.set_fault("dead-node", node=B)
    job = cray.run("alice")
    assert job.codes == [2], job.log
    cray.machine.clear_faults()


def _broken_store(cray: Cray) -> None:
    """No image can be found, for two starts: the job is held, and then removed."""
    refs, away = (cray.machine.path(f"/scratch/udi/{name}") for name in ("refs", "away"))
    with cray.without_filter():
        refs.rename(away)
        try:
            ended = cray.run("bob", image="tools:1")
        finally:
            away.rename(refs)
    assert (ended.state, ended.codes) == ("H", [2, 2])
    cray.machine.run_as("root", ["qdel", ended.id])


def filled(query: str) -> str:
    """A query as Grafana sends it."""
    return re.sub(r"\$__(rate_interval|range)\b", _RANGE, query)


@pytest.mark.parametrize("panel", board_queries())
def test_a_query_of_the_board_gives_series(watched: Watched, panel: str) -> None:
    assert watched.prometheus.query(filled(board_queries()[panel]))


@pytest.mark.parametrize("alert", alert_expressions())
def test_an_alert_can_be_evaluated_on_series_that_exist(watched: Watched, alert: str) -> None:
    expression = alert_expressions()[alert]
    watched.prometheus.query(expression)
    for name in metrics_in(expression):
        assert watched.prometheus.query(name), name
    watched.prometheus.wait(lambda: watched.prometheus.alerts()[alert]["health"] == "ok")


def test_what_happened_is_what_is_shown(watched: Watched) -> None:
    value = watched.prometheus.value
    assert value('udi_job_starts_total{outcome="ready"}') == 3
    assert value('udi_job_starts_total{outcome="refused"}') == 1
    assert value('udi_job_starts_total{outcome="requeued"}') == 2, "by the store, then by the dead node"
    assert value('udi_job_starts_total{outcome="held"}') == 1
    assert value('udi_job_failures_total{phase="start", cause="not_found", owner="user"}') == 1
    assert value('udi_job_failures_total{phase="start", cause="upstream_failed", owner="site"}') == 2
    assert value('udi_job_failures_total{phase="start", cause="setup_failed", owner="node"}') == 1
    assert value("udi_job_setup_seconds_count") == 3
    assert value("udi_node_setup_seconds_count") == 2 + 3 + 2 + 1, "the dead node's neighbour had begun, too"
    assert value("udi_nodes_taken_out_total") == 1
    assert value('sum(udi_gateway_pulls_total{result="done"})') == 5
    assert value('sum(udi_gateway_errors_total{cause="not_found"})') == 1
    assert value("udi_gateway_up") == 1
    assert value("sum(udi_gateway_fetched_bytes_total)")


def test_alerts_that_should_are_under_way_and_no_others(watched: Watched) -> None:
    """Some wait for their time (`for`): they are pending."""
    prometheus = watched.prometheus
    raised = {"UdiNodesOutOfService", "UdiJobsHeld", "UdiStartsFailBySite"}

    def under_way() -> set[str]:
        return {name for name, rule in prometheus.alerts().items() if rule["state"] != "inactive"}

    prometheus.wait(lambda: under_way() - {"UdiStoreNearlyFull", "UdiGatewayDiskNearlyFull"} == raised)
    assert prometheus.alerts()["UdiJobsHeld"]["state"] == "firing"


def test_no_series_is_without_a_use(watched: Watched) -> None:
    """Whatever is exported is on the board or in an alert."""
    used = set[str]().union(*map(metrics_in, [*board_queries().values(), *alert_expressions().values()]))
    bases = {re.sub("_(bucket|count|sum)$", "", name) for name in used}
    every = (*FAMILIES, *GAUGES, *families(RegistryConfig()))
    assert {family.name for family in every} <= used | bases


def test_at_last_the_node_is_back_and_the_gateway_is_gone(watched: Watched) -> None:
    """`udi-admin recover` takes the alert back, without waiting for another job."""
    cray, value = watched.cray, watched.prometheus.value
    cray.admin("recover", str(B))
    watched.prometheus.wait(lambda: value('udi_dirty_nodes{state="out_of_service"}') == 0)
    directory = cray.machine.path("/run/udi-gateway")
    directory.rename(directory.with_name("away"))
    try:
        watched.collect()
    finally:
        directory.with_name("away").rename(directory)
    watched.prometheus.wait(lambda: value("udi_gateway_up") == 0)
    watched.prometheus.wait(lambda: watched.prometheus.alerts()["UdiGatewayDown"]["state"] == "pending")
    cray.reset()
    cray.assert_clean()
