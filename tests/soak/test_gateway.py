"""A gateway's service under some hundred requests: when it is warm it neither grows nor keeps a descriptor."""

from __future__ import annotations

import os
import shutil

import pytest

from tests.gateway.service import directory_for_all
from tests.soak.gateway import loaded, soak

_REQUESTS, _EVERY, _WARM = 400, 50, 100
_LEAST = {"done": 101, "NotFound": 21, "ImageInvalid": 11}
"""Answers of each kind that there must have been."""


@pytest.mark.long
def test_a_service_under_requests_neither_grows_nor_keeps_a_descriptor() -> None:
    if os.geteuid() != 0:
        pytest.skip("the service runs as an account of its own, which needs root")
    if not shutil.which("docker-registry"):
        pytest.skip("needs a registry (Debian: docker-registry)")
    told: list[str] = []
    with directory_for_all("soak-gateway-") as directory, loaded(directory) as load:
        found = soak(load, _REQUESTS, 8, _EVERY, told.append, _WARM)
        answers = dict(load.answers)
    assert found == [], told
    assert all(answers.get(kind, 0) >= number for kind, number in _LEAST.items()), answers
