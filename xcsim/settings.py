"""What can differ between two machines: size, names, versions, and the few wordings that no reference settles."""

import dataclasses
import json
from dataclasses import dataclass
from pathlib import Path

STATE_INSIDE = "/var/lib/xcsim"
"""The machine's state directory, as its own login node sees it."""

SOCKET = "/run/xcsim.sock"
"""Where the daemon listens, on the login node."""


@dataclass(frozen=True)
class Settings:
    """One machine. Written once by `up`, read by the daemon and by later commands."""

    nodes: int = 4
    first_nid: int = 20
    slots: int = 16
    login_name: str = "login1"
    server_name: str = "sdb"
    torque_version: str = "6.1"
    prologalarm: int = 300
    schedule_delay: float = 0.2
    release_delay: float = 0.2
    # In reality a reservation without a job is seen with the next report of the nodes' states, within a minute.
    orphan_delay: float = 20.0
    libplugin: bool = True
    # cray-reference X11: the line fits both patterns that callers search for; no capture was found.
    reply_line: str = "Reply (complete) from {name} exit code: {code}"

    @property
    def nids(self) -> list[int]:
        return list(range(self.first_nid, self.first_nid + self.nodes))

    @property
    def hook_seconds(self) -> float:
        """How long MOM lets one hook run (cray-reference 4.6)."""
        if self.torque_version.startswith("4.2"):
            return float(min(self.prologalarm, 290))
        return float(self.prologalarm - 10 if self.prologalarm > 10 else self.prologalarm)

    @property
    def script_argument(self) -> bool:
        """Whether hooks get the path of the job script (Torque 5.1 and later)."""
        return tuple(int(part) for part in self.torque_version.split(".")[:2]) >= (5, 1)

    def write(self, state: Path) -> None:
        (state / "settings.json").write_text(json.dumps(dataclasses.asdict(self), indent=1))

    @classmethod
    def read(cls, state: Path) -> "Settings":
        return cls(**json.loads((state / "settings.json").read_text()))


def cname(nid: int) -> str:
    """The location of a node in the cabinets: four nodes per slot, sixteen slots per cage, three cages per cabinet."""
    slot, node = divmod(nid, 4)
    cage, slot = divmod(slot, 16)
    cabinet, cage = divmod(cage, 3)
    return f"c{cabinet}-0c{cage}s{slot}n{node}"
