"""A gateway's service under some hundred requests: after the first hundred it neither grows nor keeps a descriptor."""

from __future__ import annotations

import os
import shutil

import pytest

from tests.gateway.service import directory_for_all
from tests.soak.gateway import loaded, soak

pytestmark = pytest.mark.long


def test_a_service_under_requests_neither_grows_nor_keeps_a_descriptor() -> None:
    if os.geteuid() != 0:
        pytest.skip("the service runs as an account of its own, which needs root")
    if not shutil.which("docker-registry"):
        pytest.skip("needs a registry (Debian: docker-registry)")
    told: list[str] = []
    with directory_for_all("soak-gateway-") as directory, loaded(directory) as load:
        found = soak(load, 400, 8, 50, told.append)
        answers = dict(load.answers)
    assert found == [], told
    assert answers["done"] > 100 and answers["NotFound"] > 20 and answers["ImageInvalid"] > 10, answers
