"""The state of each compute node in the SDB, and `xtprocadmin`, which shows and sets it (cray-reference 5.2)."""

import json
from pathlib import Path

from xcsim.settings import Settings, cname

STATES = ("up", "down", "unavail", "route", "suspect", "admindown")
MODES = ("batch", "interactive", "other")


class NodeStates:
    """Status and mode of every node, kept in one file. A node that is being checked after a job is up but not free."""

    def __init__(self, path: Path, settings: Settings) -> None:
        self._path = path
        self._status = dict.fromkeys(settings.nids, "up")
        self._mode = dict.fromkeys(settings.nids, "batch")
        self.checking: set[int] = set()
        if path.exists():
            for nid, (status, mode) in json.loads(path.read_text()).items():
                self._status[int(nid)], self._mode[int(nid)] = status, mode

    def all(self) -> dict[int, str]:
        return dict(self._status)

    def up(self) -> set[int]:
        return {nid for nid, status in self._status.items() if status == "up" and self._mode[nid] == "batch"}

    def free(self) -> set[int]:
        """Nodes that a new job may be placed on, according to the SDB and NHC."""
        return self.up() - self.checking

    def set_status(self, nids: list[int], status: str) -> None:
        self._status.update(dict.fromkeys(nids, status))
        self._save()

    def set_mode(self, nids: list[int], mode: str) -> None:
        self._mode.update(dict.fromkeys(nids, mode))
        self._save()

    def _save(self) -> None:
        self._path.write_text(json.dumps({nid: (status, self._mode[nid]) for nid, status in self._status.items()}))

    def xtprocadmin(self, arguments: list[str], *, root: bool) -> tuple[int, str, str]:
        """Exit code, output and errors of one call. Without `-n`, `-k` applies to every node, as in reality (N22)."""
        nids = sorted(self._status)
        change: tuple[str, str] | None = None
        words = iter(arguments)
        for word in words:
            if word == "-n":
                nids = _numbers(next(words, ""))
            elif word == "-k":
                change = (next(words, ""), next(words, ""))
            elif word in ("-E", "-A"):
                continue
            else:
                return 1, "", f"xtprocadmin: unknown option {word}\n"
        unknown = [nid for nid in nids if nid not in self._status]
        if unknown or not nids:
            return 1, "", f"xtprocadmin: no such node: {', '.join(map(str, unknown)) or 'none given'}\n"
        if change is None:
            return 0, self._table(nids), ""
        return self._change(nids, *change, root=root)

    def _change(self, nids: list[int], what: str, value: str, *, root: bool) -> tuple[int, str, str]:
        if not root:
            return 1, "", "xtprocadmin: permission denied\n"
        if what == "s" and value in STATES:
            self.set_status(nids, value)
        elif what == "m" and value in MODES:
            self.set_mode(nids, value)
        else:
            return 1, "", f"xtprocadmin: bad value for -k: {what} {value}\n"
        return 0, self._table(nids), ""

    def _table(self, nids: list[int]) -> str:
        lines = [f"{'NID':>6} {'(HEX)':>8} {'NODENAME':>11} {'TYPE':>8} {'STATUS':>9} {'MODE':>11}"]
        for nid in nids:
            lines.append(
                f"{nid:6} {f'{nid:#x}':>8} {cname(nid):>11} {'compute':>8} {self._status[nid]:>9} {self._mode[nid]:>11}"
            )
        return "\n".join(lines) + "\n"


def _numbers(text: str) -> list[int]:
    """The nids in `28,30-32,nid01343`; for what is not a node, -1, which no machine has."""
    nids: list[int] = []
    for part in text.split(","):
        first, _, last = part.removeprefix("nid").partition("-")
        last = last.removeprefix("nid") or first
        nids.extend(range(int(first), int(last) + 1) if first.isdigit() and last.isdigit() else [-1])
    return nids
