"""`make test-metrics`: pulls that run and that wait, as they are now."""

from __future__ import annotations

import os
import time
from concurrent.futures import ThreadPoolExecutor

from tests.gateway.archives import BASE, file
from tests.gateway.service import ANNA
from tests.gateway.support import needs_root
from tests.metrics.watched import WORKERS, Watched, watched

__all__ = ["watched"]
pytestmark = needs_root


def test_what_runs_and_what_waits(watched: Watched) -> None:
    service = watched.service
    for number in range(2):
        watched.registry.push(f"slow{number}", [BASE, [file("data", os.urandom(1000))]])
    service.fault("wait")
    with ThreadPoolExecutor() as pool:
        pulls = [pool.submit(service.ask, ANNA, "pull", f"slow{number}:1") for number in range(2)]
        deadline = time.monotonic() + 30
        while (figures := watched.figures())["udi_gateway_pulls_waiting",] < 1:
            assert time.monotonic() < deadline, figures
        assert figures["udi_gateway_conversions_running",] == figures["udi_gateway_workers",] == WORKERS
        assert figures["udi_gateway_pulls_running",] == 2
        service.fault("")
        for pull in pulls:
            pull.result()
    figures = watched.figures()
    keys = ("udi_gateway_conversions_running", "udi_gateway_pulls_waiting", "udi_gateway_pulls_running")
    assert [figures[key,] for key in keys] == [0, 0, 0]
