"""`udi-admin check-config` and the gateway: real requests, on the socket and by the address, of root and of a user."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

import pytest

from admin.checks.check import Level, Row
from admin.checks.gateway import checks, trials
from tests.gateway.munged import Munged
from tests.gateway.service import Service, directory_for_all
from tests.gateway.support import needs_root
from xcsim.ports import free_port

pytestmark = needs_root


@pytest.fixture(scope="module")
def munged() -> Iterator[Munged]:
    with directory_for_all("udi-check-munge-") as directory:
        running = Munged(directory / "munge")
        yield running
        running.stop()


@pytest.fixture(scope="module")
def listening(munged: Munged) -> Iterator[Service]:
    """A service on its socket and on the network."""
    network = f'address = "127.0.0.1:{free_port()}"\nmunge = "{munged.socket}"'
    with directory_for_all("udi-check-") as directory, Service(directory, network) as service:
        yield service


def rows(service: Service) -> list[Row]:
    return [row for check in (*checks(service.site), *trials(service.site)) for row in check.rows()]


def errors(service: Service) -> dict[str, str]:
    return {row.check: row.what for row in rows(service) if row.level is Level.ERROR}


def test_a_gateway_that_answers_everybody(listening: Service) -> None:
    found = rows(listening)
    assert [row.level for row in found] == [Level.OK] * len(found)
    assert [row.check for row in found][1:] == ["gateway.munge", "gateway.state", "gateway.socket", "gateway.address"]


def test_a_socket_that_users_cannot_reach(listening: Service) -> None:
    path = Path(listening.site.gateway.socket)
    path.chmod(0o600)
    try:
        found = errors(listening)
        assert set(found) == {"gateway.socket"} and "answers root, but no user" in found["gateway.socket"]
    finally:
        path.chmod(0o666)


def test_a_munged_with_another_key(listening: Service, munged: Munged, tmp_path: Path) -> None:
    """Credentials can be made and read here, but the gateway's host reads none of them."""
    tmp_path.chmod(0o755)
    text = listening.config.read_text()
    other = Munged(tmp_path / "other")
    listening.config.write_text(text.replace(munged.socket, other.socket))
    try:
        assert set(errors(listening)) == {"gateway.address"}
    finally:
        listening.config.write_text(text)
        other.stop()


def test_a_gateway_that_is_gone(listening: Service) -> None:
    """Its socket is left where it was killed."""
    listening.stop(9)
    try:
        found = errors(listening)
        assert set(found) == {"gateway.socket", "gateway.address"}
        assert all("not running" in what for what in found.values())
        os.unlink(listening.site.gateway.socket)
        assert "but the gateway works on this host" in errors(listening)["gateway.socket"]
    finally:
        listening.start()
