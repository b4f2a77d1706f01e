"""`apstat`: ALPS as tables (cray-reference section 2), with the traps that they set for parsers."""

import time

from xcsim.alps import Alps, Reservation
from xcsim.faults import Faults
from xcsim.node_states import NodeStates
from xcsim.settings import Settings

_NODE_STATE = {"up": "UP", "down": "DN", "admindown": "AD", "suspect": "SU", "unavail": "UA"}


class Apstat:
    """The tables, made from the state of ALPS and of the nodes."""

    def __init__(self, alps: Alps, states: NodeStates, faults: Faults, settings: Settings) -> None:
        self._alps = alps
        self._states = states
        self._faults = faults
        self._settings = settings

    def run(self, arguments: list[str]) -> tuple[int, str, str]:
        """Exit code, output and errors of one call."""
        if self._faults.strikes("apstat-broken"):
            return 1, "", "apstat: cannot open shared appinfo file\n"
        letters, only_reservation, only_nodes, apid = "", None, None, None
        words = iter(arguments)
        for word in words:
            if not word.startswith("-"):
                apid = int(word) if word.isdigit() else -1
                continue
            for letter in word[1:]:
                if letter == "R":
                    only_reservation = int(next(words, "0") or 0)
                elif letter == "N":
                    only_nodes = int(next(words, "0") or 0)
                elif letter in "ruf":
                    letters += letter
                    if letter != "r":
                        next(words, "")
                else:
                    letters += letter
        if "n" in letters:
            return 0, self._nodes(only_reservation, only_nodes), ""
        if "r" in letters:
            return 0, self._reservations(letters.count("v"), only_reservation), ""
        return 0, self._applications(apid), ""

    # -- reservations (2.1, 2.2) ------------------------------------------------------------------------------------

    def _reservations(self, verbose: int, only: int | None) -> str:
        listed = [one for one in self._alps.listed() if only in (None, one.id)]
        if not listed:
            return " No reservations are present\n"
        lines = [" ResId     ApId From           Arch   PEs N d Memory State"]
        for one in listed:
            lines += self._rows(one)
        if verbose:
            lines += ["", "Reservation detail"]
            for index, one in enumerate(listed):
                lines += _detail(index, one, verbose)
        return "\n".join(lines) + "\n"

    def _rows(self, one: Reservation) -> list[str]:
        claims = self._alps.claims(one.id)
        source = f"batch:{one.number}"
        if not one.confirmed:
            left = max(0, 300 - int(time.time() - one.made))
            state, apid = "unbound", f"{left}Sec."
        else:
            state, apid = ("conf,claim" if claims else "conf"), str(one.apid)
        rows = [
            f"{one.id:6} {apid:>8} {source:<14} {'XT':>4} {one.width:5} {one.per_node} {one.depth} {1024:6} {state}"
        ]
        for claim in claims:
            pes = sum(claim.pes.values())
            rows.append(f"A{one.id:5} {claim.apid:8} {source:<14} {'XT':>4} {pes:5} - - {1024:6} conf,claim")
        return rows

    # -- nodes (2.3) ------------------------------------------------------------------------------------------------

    def _nodes(self, reservation: int | None, nid: int | None) -> str:
        lines = [" NID Arch State HW Rv Pl PgSz     Avl    Conf  Placed  PEs Apids"]
        held = {n: one for one in self._alps.reservations.values() for n in one.nids}
        for node, status in sorted(self._states.all().items()):
            holder = held.get(node)
            if nid not in (None, node) or (reservation is not None and (not holder or holder.id != reservation)):
                continue
            apps = [app for app in self._alps.applications.values() if node in app.pes]
            pes = sum(app.pes[node] for app in apps)
            rv = str(holder.per_node) if holder else "-"
            row = (
                f"{node:4} {'XT':>4} {_NODE_STATE.get(status, 'DN'):<2}  B {self._settings.slots:2} {rv:>2} "
                f"{pes if pes else '-':>2} {'4K':>4} {8388608:7} {8388608 if holder else 0:7} "
                f"{8388608 if pes else 0:7} {pes:4}"
            )
            lines.append(" ".join([row, *(str(app.apid) for app in apps)]))
        return "\n".join([*lines, *self._summary(held)]) + "\n"

    def _summary(self, held: dict[int, Reservation]) -> list[str]:
        statuses = self._states.all()
        up = sum(1 for status in statuses.values() if status == "up")
        used = len({nid for app in self._alps.applications.values() for nid in app.pes})
        avail = len([nid for nid, status in statuses.items() if status == "up" and nid not in held])
        return [
            "  Compute node summary",
            "      arch config     up   resv    use  avail   down rebootq",
            f"        XT {len(statuses):6} {up:6} {len(held):6} {used:6} {avail:6} {len(statuses) - up:6} {0:7}",
        ]

    # -- applications (2.4) -----------------------------------------------------------------------------------------

    def _applications(self, apid: int | None) -> str:
        apps = [app for app in self._alps.applications.values() if apid in (None, app.apid)]
        lines = ["  No pending applications are present", ""]
        if not apps:
            lines.append("  No placed applications are present")
        else:
            lines.append(f"  Total (filtered) placed applications: {len(apps)}")
            lines.append("     Apid  ResId    User PEs Nodes   Age State Command")
        for app in apps:
            minutes = int(time.time() - app.started) // 60
            age = f"{minutes // 60}h{minutes % 60:02}m"
            lines.append(
                f"{app.apid:9} {app.reservation:6} {app.user:>7} {sum(app.pes.values()):3} {len(app.pes):5} "
                f"{age:>5} {'run':>5} {app.command}"
            )
        lines += ["", "  No applications or reservations are being cleaned up"]
        return "\n".join(lines) + "\n"


def _detail(index: int, one: Reservation, verbose: int) -> list[str]:
    lines = [
        f"Res[{index}]: apid {one.apid}, pagg {one.pagg}, resId {one.id}, user {one.user},",
        f"     gid {one.gid}, account {one.gid}, time 0, normal",
        f"Batch System ID = {one.batch_id}",
        "Reservation flags = 0x200 (exclusive)",
        f"Created at {time.strftime('%a %b %e %H:%M:%S %Y', time.localtime(one.made))}",
        f"Number of commands 1, control network fanout 32, PEs {one.width}",
        f"Cmd[0]: BASIL -n {one.width} -N {one.per_node} -d {one.depth}, memory 1024MB, type XT, nodes {len(one.nids)}",
    ]
    if verbose >= 3:
        seen: dict[int, int] = {}
        for pe, nid in enumerate(one.placement()):
            cpu = seen.setdefault(nid, 0)
            seen[nid] += 1
            lines.append(f"    PE {pe}, cmd 0, nid {nid}, CPU {1 << cpu:#x}, map {1 << cpu:#x}, accels 0")
    return lines
