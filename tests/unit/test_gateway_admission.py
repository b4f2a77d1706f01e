"""Bounds on connections: exact over several processes, and cheap for each connection."""

from __future__ import annotations

import socket
import threading
from pathlib import Path
from types import SimpleNamespace
from typing import cast

import pytest

from gateway.service import server
from gateway.service.admission import Admission
from gateway.store.locks import Holder, Locks
from udiroot.errors import UpstreamFailed


@pytest.fixture
def locks(tmp_path: Path) -> Locks:
    return Locks(str(tmp_path / "state"))


def test_each_caller_and_all_together_are_bounded(locks: Locks) -> None:
    admission = Admission(locks, total=5, per_caller=2)
    anna = [admission.admit("anna") for _ in range(3)]
    bert = [admission.admit("bert") for _ in range(3)]
    assert [slots is not None for slots in (*anna, *bert)] == [True, True, False] * 2
    assert admission.admit("carl") is not None
    assert admission.admit("dora") is None, "five connections are all"
    for slots in bert:
        if slots:
            slots.close()
    assert admission.admit("dora") is not None
    assert admission.admit("bert") is not None


def test_processes_share_the_bounds(locks: Locks) -> None:
    one, other = Admission(locks, total=3, per_caller=2), Admission(locks, total=3, per_caller=2)
    held = [one.admit("anna"), other.admit("anna"), one.admit("bert")]
    assert all(held)
    assert one.admit("anna") is None and other.admit("bert") is None
    assert held[0]
    held[0].close()
    assert other.admit("bert") is not None


def test_a_connection_costs_two_locks(locks: Locks, monkeypatch: pytest.MonkeyPatch) -> None:
    admission = Admission(locks, total=256, per_caller=64)
    held = [admission.admit("anna") for _ in range(40)]
    tries = 0
    try_take = Holder.try_take

    def counted(*arguments: object, **more: object) -> bool:
        nonlocal tries
        tries += 1
        return try_take(*arguments, **more)  # type: ignore[arg-type]

    monkeypatch.setattr(Holder, "try_take", counted)
    held.append(admission.admit("anna"))
    assert tries == 2
    assert all(held)


def test_a_connection_counts_for_its_user_once_that_is_known(locks: Locks) -> None:
    """Many users share one address: none of them keeps the others out."""
    admission = Admission(locks, total=6, per_caller=2)
    for _ in range(2):
        held = admission.admit("address")
        assert held
        held.count_for("anna")
    third = admission.admit("address")
    assert third
    with third, pytest.raises(UpstreamFailed, match="too many connections"):
        third.count_for("anna")
    for _ in range(2):
        other = admission.admit("address")
        assert other
        other.count_for("bert")
    assert admission.admit("address") and admission.admit("address") and not admission.admit("address")


def test_a_system_without_further_threads_refuses_a_connection_and_serves_the_next(
    locks: Locks, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The loop that accepts connections goes on, and the connection's slots are free again."""
    admission = Admission(locks, total=1, per_caller=1)
    gateway = SimpleNamespace(admit=lambda connection: admission.admit("anna"), serve=lambda connection, slots: None)

    def no_thread(thread: threading.Thread) -> None:
        raise RuntimeError("can't start new thread")

    monkeypatch.setattr(threading.Thread, "start", no_thread)
    with socket.socket(socket.AF_UNIX) as listening, socket.socket(socket.AF_UNIX) as client:
        listening.bind(str(tmp_path / "socket"))
        listening.listen()
        client.connect(str(tmp_path / "socket"))
        server._accept(cast(server.Gateway, gateway), listening)
        assert b"too many connections" in client.recv(1000) and not client.recv(1)
    assert admission.admit("anna")
