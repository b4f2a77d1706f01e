"""A gateway's service under some hundred requests: when it is warm it neither grows nor keeps a descriptor."""

from __future__ import annotations

import os
import shutil

import pytest

from tests.gateway.service import directory_for_all
from tests.soak.gateway import loaded, soak


@pytest.mark.parametrize(
    ("requests", "every", "warm", "least"),
    [(60, 15, 30, (15, 3, 0)), pytest.param(400, 50, 100, (101, 21, 11), marks=pytest.mark.long)],
)
def test_a_service_under_requests_neither_grows_nor_keeps_a_descriptor(
    requests: int, every: int, warm: int, least: tuple[int, int, int]
) -> None:
    """`least` are answers of each kind that there must have been."""
    if os.geteuid() != 0:
        pytest.skip("the service runs as an account of its own, which needs root")
    if not shutil.which("docker-registry"):
        pytest.skip("needs a registry (Debian: docker-registry)")
    told: list[str] = []
    with directory_for_all("soak-gateway-") as directory, loaded(directory) as load:
        found = soak(load, requests, 8, every, told.append, warm)
        answers = dict(load.answers)
    assert found == [], told
    kinds = ("done", "NotFound", "ImageInvalid")
    assert all(answers.get(kind, 0) >= number for kind, number in zip(kinds, least, strict=True)), answers
