"""What Slurm's hooks count on a node: its own part of each job."""

from __future__ import annotations

import pytest

from jobs.metrics import FILE
from tests.metrics.samples import risen
from tests.slurm.hooks_node import HooksNode, has_needs, made_node, node

__all__ = ["made_node", "node"]
pytestmark = pytest.mark.skipif(not has_needs(), reason="needs root, and the programs that make setup installs")


def test_starts_ends_failures_and_drains_of_a_node(node: HooksNode) -> None:
    prom = node.directory / "prom"
    prom.mkdir(exist_ok=True)
    metrics = f'[metrics]\ndirectory = "{prom}"'
    node.configure(more=metrics)
    assert node.run("prolog") == 0
    node.says("unsetupRoot.says", "failed 5 8 7 mounts=3 held by 12 (vi)")
    assert node.run("epilog") == 0
    node.done("unsetupRoot.says")
    assert node.run("epilog") == 0
    assert node.run("prolog", image="absent:1") == 0
    node.configure(more=metrics, store="gone")
    node.queue("7")
    assert node.run("prolog") == 0
    node.says("refuses", "^requeue")
    assert node.run("prolog") == 0
    node.done("refuses")
    assert risen(prom / FILE) == {
        ("udi_job_starts_total", "ready"): 1,
        ("udi_job_starts_total", "refused"): 1,
        ("udi_job_starts_total", "requeued"): 1,
        ("udi_job_starts_total", "ended"): 1,
        ("udi_job_failures_total", "start", "not_found", "user"): 1,
        ("udi_job_failures_total", "start", "upstream_failed", "site"): 2,
        ("udi_job_failures_total", "end", "teardown_incomplete", "node"): 1,
        ("udi_job_ends_total", "clean"): 1,
        ("udi_job_ends_total", "dirty"): 1,
        ("udi_nodes_taken_out_total",): 1,
        ("udi_job_setup_seconds_count",): 1,
        ("udi_node_setup_seconds_count",): 1,
        ("udi_job_teardown_seconds_count",): 2,
        ("udi_node_teardown_seconds_count",): 1,
    }
    assert "udi_dirty_nodes" not in (prom / FILE).read_text(), "Slurm knows which nodes are drained"
