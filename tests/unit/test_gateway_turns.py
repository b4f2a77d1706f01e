"""Slots for workers, shared between users: whoever asks for many gets them when nobody else waits, and never all."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from gateway.service import turns
from gateway.service.turns import Turns
from gateway.store.locks import Holder, Locks

ANNA, BERT, CARL = 1000, 1001, 1002


class _GaveUp(Exception):
    pass


class Waiting:
    """Pulls that wait for slots, each on a thread of its own, in the order in which they get them."""

    def __init__(self, state: Path, workers: int) -> None:
        self._locks = Locks(str(state))
        self._turns = Turns(self._locks, str(state), workers)
        self._workers = workers
        self.order: list[int] = []
        self._holders: list[Holder] = []
        self._done = False

    def pull(self, uid: int, count: int = 1) -> None:
        for _ in range(count):
            threading.Thread(target=self._pull, args=(uid,), daemon=True).start()

    def _pull(self, uid: int) -> None:
        holder = self._locks.holder()
        try:
            self._turns.take(holder, uid, self._look)
        except _GaveUp:
            holder.close()
            return
        self.order.append(uid)
        self._holders.append(holder)

    def _look(self) -> None:
        if self._done:
            raise _GaveUp

    def until(self, condition: Callable[[], bool]) -> None:
        end = time.monotonic() + 30
        while not condition():
            assert time.monotonic() < end, self.order
            time.sleep(0.002)

    def got(self, count: int) -> list[int]:
        """Who has had slots, once there are so many, and nobody gets another by waiting a little longer."""
        self.until(lambda: len(self._holders) >= count)
        time.sleep(0.05)
        assert len(self._holders) == count
        return self.order

    def waits(self, uid: int) -> None:
        """Until this user has a turn and no slot."""
        with self._locks.holder() as probe:
            self.until(lambda: probe.is_held_by_another(self._locks.turn(uid)))

    def finish(self, number: int) -> None:
        """The conversion that started as this one ends."""
        self._holders[number].close()

    def give_up(self) -> None:
        self._done = True


@pytest.fixture(autouse=True)
def _impatient(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(turns, "_PAUSE", 0.002)


@pytest.mark.parametrize("workers", [2, 3, 5])
def test_one_user_never_has_all_slots(tmp_path: Path, workers: int) -> None:
    slots = Waiting(tmp_path, workers)
    slots.pull(ANNA, 10)
    assert slots.got(workers - 1) == [ANNA] * (workers - 1)
    slots.pull(BERT)
    assert slots.got(workers)[-1] == BERT, "who comes later finds a slot at once"
    slots.give_up()


def test_root_pulls_for_the_site_and_may_have_all(tmp_path: Path) -> None:
    slots = Waiting(tmp_path, 3)
    slots.pull(0, 4)
    assert slots.got(3) == [0, 0, 0]
    slots.give_up()


def test_one_worker_goes_round_among_users(tmp_path: Path) -> None:
    slots = Waiting(tmp_path, 1)
    slots.pull(ANNA, 5)
    slots.got(1)
    slots.pull(BERT, 2)
    slots.waits(BERT)
    slots.pull(CARL, 1)
    slots.waits(CARL)
    for number in range(7):
        slots.got(number + 1)
        slots.finish(number)
    assert slots.got(8)[:4] in ([ANNA, BERT, CARL, ANNA], [ANNA, BERT, CARL, BERT])
    assert sorted(slots.order[:5]) == [ANNA, ANNA, BERT, BERT, CARL], "nobody twice before all others once"
    assert slots.order[5:] == [ANNA] * 3
    slots.give_up()


def test_a_free_slot_goes_to_who_has_the_fewest(tmp_path: Path) -> None:
    slots = Waiting(tmp_path, 4)
    slots.pull(ANNA, 6)
    slots.got(3)
    slots.pull(BERT, 6)
    slots.got(4)
    slots.waits(BERT)
    slots.finish(0)
    assert slots.got(5)[3:] == [BERT, BERT], "though Bert had one later than Anna"
    slots.give_up()


def test_who_is_gone_is_not_waited_for(tmp_path: Path) -> None:
    locks = Locks(str(tmp_path))
    slots = Waiting(tmp_path, 1)
    slots.pull(BERT)
    slots.got(1)
    slots.finish(0)
    (tmp_path / "turns" / str(ANNA)).touch()  # as a process leaves it that was killed while it waited
    slots.pull(BERT)
    slots.got(2)
    with locks.holder() as probe:
        assert not probe.is_held_by_another(locks.turn(ANNA))
        assert probe.is_held_by_another(locks.worker(0)) and not probe.is_held_by_another(locks.turn(BERT))


def test_who_waits_and_who_works_can_be_counted(tmp_path: Path) -> None:
    """By anybody, and without a place that a killed process could leave taken."""
    waiting = Waiting(tmp_path / "state", 2)
    locks = Locks(str(tmp_path / "state"))
    seen = Turns(locks, str(tmp_path / "state"), 2)
    with locks.holder() as holder:
        assert (seen.queue(holder), seen.busy(holder)) == (0, 0)
        waiting.pull(ANNA, 3)
        waiting.pull(BERT, 2)
        waiting.until(lambda: (seen.queue(holder), seen.busy(holder)) == (3, 2))
        waiting.give_up()
        waiting.until(lambda: seen.queue(holder) == 0)
