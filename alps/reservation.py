"""A batch job's reservation: its id and its nodes, by `apstat` or by BASIL, in the order that the site sets.

Just-made reservations may not be listed yet (cray-reference S9), so a look-up is repeated until the wait is over. A
source that fails hands on to the next one; an answer without nodes is a failure, never an empty list.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping

from alps.apstat import ReservationRow, batch_ids, node_slots, reservation_rows
from alps.batchid import bare_number_of, is_same_job, number_of
from alps.settings import AlpsConfig
from udi.command import Deadline, run
from udi.values import Frozen
from udiroot.errors import NotFound, UdiError, UpstreamFailed, printable

_PAUSE = 0.5
"""Seconds between two look-ups."""
_BASIL_ATTEMPTS = 10
"""How often a transient failure is asked again: as often as Torque does (B50)."""


class Reservation(Frozen):
    """A confirmed reservation: slots for ranks by nid, in the order of the nids, and never without nodes."""

    id: int
    slots: Mapping[int, int]

    @classmethod
    def of(cls, reservation_id: int, slots: dict[int, int], source: str) -> Reservation:
        """The reservation with these nodes. Raises UpstreamFailed where there are none."""
        if not slots:
            raise UpstreamFailed(f"{source} lists no nodes for reservation {reservation_id}")
        return cls(reservation_id, {nid: slots[nid] for nid in sorted(slots)})


def find_reservation(settings: AlpsConfig, job: str, deadline: Deadline, wait: float | None = None) -> Reservation:
    """The reservation of batch job `job`, waited for up to `wait` seconds (default: `alps.reservation_wait`).

    The first source is asked again and again, the others where it fails, and once more when the wait is over. Raises
    NotFound where no source lists the job, UpstreamFailed (or its TimedOut) where none could answer.
    """
    patience = Deadline(deadline.left(settings.reservation_wait if wait is None else wait))
    while True:
        found, failure = _ask(settings, job, deadline, everyone=patience.passed)
        if found:
            return found
        if patience.passed:
            if failure:
                raise failure
            raise NotFound(f"ALPS lists no reservation of job {printable(job)}")
        time.sleep(min(_PAUSE, patience.left()))


def known_reservation(settings: AlpsConfig, reservation: int, job: str, deadline: Deadline) -> Reservation | None:
    """The reservation that the workload manager itself made for the job (cray-reference T22), by apstat; None where
    that does not show it as the job's, which is then looked up as for any other."""
    if "apstat" not in settings.sources:
        return None
    try:
        detail = _apstat(settings, ["-rvvv", "-R", str(reservation)], deadline)
        named = batch_ids(detail)
        if named and not any(is_same_job(name, job) for name in named):
            return None
        return Reservation.of(reservation, node_slots(detail), "apstat")
    except UdiError:
        return None


def _ask(
    settings: AlpsConfig, job: str, deadline: Deadline, everyone: bool
) -> tuple[Reservation | None, UdiError | None]:
    """One round: the reservation, or the failure where no source could answer at all."""
    failure: UdiError | None = None
    answered = False
    for name in settings.sources:
        try:
            found = _SOURCES[name](settings, job, deadline)
        except UdiError as error:
            failure = failure or error
            continue
        if found or not everyone:
            return found, None
        answered = True
    return None, None if answered else failure


def _by_apstat(settings: AlpsConfig, job: str, deadline: Deadline) -> Reservation | None:
    rows = reservation_rows(_apstat(settings, ["-r"], deadline))
    ours = [row for row in rows if row.batch in (number_of(job), job)]
    guessed = [] if ours else [row for row in rows if row.batch == bare_number_of(job)]
    # A reservation that was released while an application still ran stays listed (2.4), so the newest is the job's.
    for row in sorted(ours or guessed, key=lambda row: -row.id):
        detail = _apstat(settings, ["-rvvv", "-R", str(row.id)], deadline)
        if _is_of(job, row, detail, len(guessed)):
            return Reservation.of(row.id, node_slots(detail), "apstat")
    return None


def _is_of(job: str, row: ReservationRow, detail: str, rivals: int) -> bool:
    """Whether a listed reservation is the job's: as its detail says, where it says anything.

    How the tasks of a job array are listed is not known (S5): where all of them go by the bare number, only the detail
    can tell them apart, and another task's nodes must never be taken.
    """
    named = batch_ids(detail)
    if named:
        return any(is_same_job(name, job) or name == bare_number_of(job) for name in named)
    if rivals > 1:
        raise UpstreamFailed(f"apstat lists several reservations as batch:{row.batch}, and not which is of {job}")
    return True


def _apstat(settings: AlpsConfig, arguments: list[str], deadline: Deadline) -> str:
    seconds = deadline.left(settings.command_deadline)
    return run([settings.apstat, *arguments], seconds=seconds).require_success().stdout.decode("utf-8", "replace")


def _by_basil(settings: AlpsConfig, job: str, deadline: Deadline) -> Reservation | None:
    """By the inventory, asked again a few times while the failure is transient. The exit status says nothing (B4)."""
    from alps import basil  # lxml takes as long to import as half an interpreter takes to start

    if settings.basil_protocol == basil.NAMELESS:
        raise basil.nameless()
    for attempt in range(_BASIL_ATTEMPTS):
        seconds = deadline.left(settings.command_deadline)
        done = run([settings.apbasil], seconds=seconds, stdin=basil.inventory_request(settings.basil_protocol))
        try:
            found = basil.find_in_inventory(done.stdout, job)
        except basil.BasilRefused:
            raise
        except UpstreamFailed:
            if attempt == _BASIL_ATTEMPTS - 1 or deadline.left() < _PAUSE:
                raise
            time.sleep(_PAUSE)
            continue
        return Reservation.of(found.id, found.slots, "BASIL") if found else None
    raise AssertionError("the last attempt returns or raises")


_SOURCES: dict[str, Callable[[AlpsConfig, str, Deadline], Reservation | None]] = {
    "apstat": _by_apstat,
    "basil": _by_basil,
}
