"""ALPS: reservations, and the applications that claim them (cray-reference sections 2 and 3).

A reservation is reserved, then confirmed, then released. It is gone once it is released and its last application has
exited; only then are its nodes checked (`on_gone`) and free again. The daemon's one lock guards every method.
"""

import dataclasses
import json
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

from udiroot.errors import UdiError
from xcsim.faults import Faults


class AlpsRefused(UdiError):
    """ALPS refused a request; message and class are BASIL's (cray-reference B30)."""

    exit_code = 1

    def __init__(self, message: str, *, error_class: str = "PERMANENT", source: str = "BACKEND") -> None:
        super().__init__(message)
        self.error_class = error_class
        self.source = source


@dataclass
class Application:
    """One running `aprun`: how many PEs on which node."""

    apid: int
    reservation: int
    user: str
    uid: int
    command: str
    pes: dict[int, int]
    started: float


@dataclass
class Reservation:
    """One reservation: `per_node` PEs on each of `nids`, `width` in total."""

    id: int
    user: str
    uid: int
    gid: int
    batch_id: str
    nids: list[int]
    width: int
    per_node: int
    depth: int = 1
    apid: int = 0
    pagg: int = 0
    released: bool = False
    queries: int = 0
    made: float = field(default_factory=time.time)

    @property
    def confirmed(self) -> bool:
        return self.pagg != 0

    @property
    def number(self) -> str:
        """The part of the batch id that apstat shows: its leading number (cray-reference S4)."""
        digits = self.batch_id.split(".", 1)[0].split("[", 1)[0]
        return digits or "0"

    def placement(self) -> list[int]:
        """The nid of each PE, in order."""
        return [nid for nid in self.nids for _ in range(self.per_node)][: self.width]


UNCONFIRMED_SECONDS = 300


class Alps:
    """The state of ALPS, kept in one file."""

    def __init__(self, path: Path, faults: Faults, on_gone: Callable[[Reservation], None]) -> None:
        self._path = path
        self._faults = faults
        self._on_gone = on_gone
        self._last_id = 100
        self._last_apid = 4000
        self.reservations: dict[int, Reservation] = {}
        self.applications: dict[int, Application] = {}
        if path.exists():
            saved = json.loads(path.read_text())
            self._last_id, self._last_apid = saved["last_id"], saved["last_apid"]
            self.reservations = {one["id"]: Reservation(**one) for one in saved["reservations"]}

    def reserve(self, wanted: Reservation, machine: set[int]) -> Reservation:
        """Reserve the nodes and assign an id. Raises AlpsRefused for a node that is taken, down or unknown."""
        if self._faults.strikes("reserve-refused"):
            raise AlpsRefused("ALPS error: apsched: no resources available", error_class="TRANSIENT")
        if not wanted.nids or len(wanted.nids) * wanted.per_node < wanted.width:
            raise AlpsRefused("ALPS error: at least one command's user NID list is short")
        taken = {nid for one in self.reservations.values() for nid in one.nids}
        for nid in wanted.nids:
            if nid not in machine or nid in taken:
                raise AlpsRefused(f"ALPS error: apsched: node {nid} is not available")
        self._last_id += 1
        self._last_apid += 1
        made = dataclasses.replace(wanted, id=self._last_id, apid=self._last_apid)
        self.reservations[made.id] = made
        self.save()
        return made

    def confirm(self, number: int, pagg: int) -> Reservation:
        one = self.reservations.get(number)
        if one is None:
            raise AlpsRefused(f"ALPS error: apsched: cannot find resId {number}")
        if one.released:
            raise AlpsRefused(f"ALPS error: apsched: resId {number} is being released")
        one.pagg = pagg
        self.save()
        return one

    def release(self, number: int) -> int:
        """Release; returns how many applications still claim it (cray-reference B51: SUCCESS first, then no entry)."""
        one = self.reservations.get(number)
        if one is None:
            raise AlpsRefused(f"ALPS error: apsched: No entry for resId {number}")
        one.released = True
        claims = len(self.claims(number))
        self._end_if_free(one)
        self.save()
        return claims

    def claims(self, number: int) -> list[Application]:
        return [one for one in self.applications.values() if one.reservation == number]

    def place(self, reservation: Reservation, pes: dict[int, int], command: str) -> Application:
        """Start an application's claim."""
        self._last_apid += 1
        one = Application(self._last_apid, reservation.id, reservation.user, reservation.uid, command, pes, time.time())
        self.applications[one.apid] = one
        self.save()
        return one

    def finish(self, apid: int) -> None:
        """End an application's claim, and its reservation if that was only waiting for it."""
        one = self.applications.pop(apid)
        reservation = self.reservations.get(one.reservation)
        if reservation is not None:
            self._end_if_free(reservation)
        self.save()

    def listed(self) -> list[Reservation]:
        """The reservations that a query shows now; counts as one query."""
        self._drop_unconfirmed()
        if self._faults.strikes("reservation-gone"):
            return []
        shown = []
        late = self._faults.strikes("reservation-late")
        for one in self.reservations.values():
            one.queries += 1
            if late is None or one.queries > late.seconds(3):
                shown.append(one)
        return shown

    def of_pagg_or_batch(self, batch_id: str) -> Reservation | None:
        return next((one for one in self.reservations.values() if one.batch_id == batch_id), None)

    def _drop_unconfirmed(self) -> None:
        now = time.time()
        for one in list(self.reservations.values()):
            if not one.confirmed and now - one.made > UNCONFIRMED_SECONDS:
                one.released = True
                self._end_if_free(one)

    def _end_if_free(self, one: Reservation) -> None:
        if one.released and not self.claims(one.id) and self.reservations.pop(one.id, None) is not None:
            self._on_gone(one)

    def save(self) -> None:
        """Write what must outlive the daemon; running applications do not."""
        text = json.dumps(
            {
                "last_id": self._last_id,
                "last_apid": self._last_apid,
                "reservations": [dataclasses.asdict(one) for one in self.reservations.values()],
            },
            indent=1,
        )
        temporary = self._path.with_suffix(".new")
        temporary.write_text(text)
        temporary.rename(self._path)
