"""Reading what `apstat` prints: reservation rows, and the nodes of one reservation.

Nothing of `apstat` is at fixed columns (cray-reference S8): rows are recognized by their blank-separated fields, and
lines of any other form are skipped.
"""

from __future__ import annotations

import re
from collections import Counter

from alps.numbers import is_number
from udi.values import Frozen

_PE = re.compile(r"\s*PE\s+[0-9]+\s*,(?:.*,)?\s*nid\s+([0-9]{1,9})\s*(?:,.*)?")
_FIELD = re.compile(r"\s*(?:([A-Za-z]+)\s+)?([0-9][0-9A-Fa-fx-]*)\s*")
_OF_A_SLOT = frozenset({"cmd", "CPU", "map"})
_BATCH_ID = re.compile(r"\s*Batch System ID\s*=\s*(\S+)\s*")


class ReservationRow(Frozen):
    """A confirmed reservation of a batch job: ALPS's own id, and what stands after `batch:`."""

    id: int
    batch: str


def reservation_rows(text: str) -> list[ReservationRow]:
    """The confirmed batch reservations that `apstat -r` lists.

    Rows of claims begin with `A` (S2); an unconfirmed one is `unbound` and shows its time left, such as `230Sec.`, in
    place of an ApId (S7). Neither is returned.
    """
    rows = []
    for line in text.splitlines():
        fields = line.split()
        if len(fields) < 4 or not is_number(fields[0]) or not is_number(fields[1]) or "unbound" in fields[-1]:
            continue
        if fields[2].startswith("batch:"):
            rows.append(ReservationRow(int(fields[0]), fields[2].removeprefix("batch:")))
    return rows


def node_slots(text: str) -> dict[int, int]:
    """How many slots each node has in the one reservation that `apstat -rvvv -R` was run for.

    One line a slot, a node once for each of its slots, in no order (cray-reference 2.2). Some releases begin the line
    with `PE n,`, others do not; lines of the other form do not count where there are such.
    """
    lines = text.splitlines()
    numbered = Counter(int(match[1]) for match in map(_PE.fullmatch, lines) if match)
    return dict(numbered or Counter(nid for nid in map(_nid_of_slot, lines) if nid is not None))


def _nid_of_slot(line: str) -> int | None:
    """The node of a row of `NAME VALUE` fields that are those of a slot; None for any other line."""
    fields = [_FIELD.fullmatch(field) for field in line.rstrip(" ,").split(",")]
    named = {field[1]: field[2] for field in fields if field}
    nid = named.get("nid")
    if None in fields or nid is None or not is_number(nid) or _OF_A_SLOT.isdisjoint(named):
        return None
    return int(nid)


def batch_ids(text: str) -> list[str]:
    """The full batch ids that the detail names, where this ALPS prints them."""
    return [match[1] for match in map(_BATCH_ID.fullmatch, text.splitlines()) if match]
