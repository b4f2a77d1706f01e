"""The high-speed network of a machine: a bridge in a network namespace of its own, and a wire from each node to it.

Nothing of it is in the host's network. The namespace lives as long as its holder, a process of ours; when that exits,
the kernel removes bridge and wires.
"""

import ipaddress
import json
import os
import signal
import subprocess
from dataclasses import dataclass
from pathlib import Path

from udi.nodes import numbered
from udiroot.errors import SetupFailed
from xcsim import kernel, tools
from xcsim.processes import ProcessId

FIRST_ADDRESS = ipaddress.IPv4Address("10.128.0.1")
"""Address of nid 0; Cray counts up from it."""
_BITS = 14
_BRIDGE, _INTERFACE = "aries", "ipogif0"
_HOLDER = ("/bin/sleep", "xcsim-network", "infinity")


@dataclass(frozen=True)
class Network:
    """The network whose holder is recorded in `state`, up or not."""

    state: Path

    def start(self) -> "Network":
        """Bring it up, unless it is up."""
        if self._holder() is not None:
            return self
        process = subprocess.Popen(
            _HOLDER[1:],
            executable=_HOLDER[0],
            env={},
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
            preexec_fn=_alone,
        )
        holder = ProcessId.of(process.pid)
        self.state.mkdir(parents=True, exist_ok=True)
        self._record.write_text(json.dumps({"pid": holder.pid, "start": holder.start}))
        _ip(holder.pid, f"link add {_BRIDGE} type bridge", f"link set {_BRIDGE} up")
        return self

    def stop(self) -> None:
        """Take it down; safe to repeat."""
        holder = self._holder()
        if holder is not None:
            holder.kill(signal.SIGKILL)
            if not holder.wait_gone(30.0):
                raise SetupFailed(f"the network did not go down: its holder {holder.pid} does not exit")
        self._record.unlink(missing_ok=True)

    def join(self, nid: int, pid: int) -> None:
        """Give the network namespace of `pid` a wire to the bridge, and the address of node `nid`."""
        holder = self._holder()
        if holder is None:
            raise SetupFailed("the network is not up")
        wire = f"{nid}.{pid}"  # the wire of an earlier start of the node may not be gone yet
        # derived from the nid, so that what other nodes have cached stays true when this one is started again
        station = "02:00:00:" + nid.to_bytes(3, "big").hex(":")
        _ip(
            holder.pid,
            f"link add name {wire} type veth peer name {_INTERFACE} address {station} netns {pid}",
            f"link set dev {wire} master {_BRIDGE} up",
        )
        _ip(pid, f"addr add {address(nid)}/{_BITS} dev {_INTERFACE}", f"link set dev {_INTERFACE} up")

    @property
    def _record(self) -> Path:
        return self.state / "network.json"

    def _holder(self) -> ProcessId | None:
        try:
            saved = json.loads(self._record.read_text())
        except FileNotFoundError:
            return None
        known = ProcessId(saved["pid"], saved["start"])
        return known if known.alive else None


def address(nid: int) -> str:
    """The address of a node."""
    return str(FIRST_ADDRESS + nid)


def hosts(nids: list[int]) -> str:
    """The lines of /etc/hosts for these nodes."""
    return "".join(f"{address(nid)} {numbered(nid).name}\n" for nid in nids)


def _alone() -> None:
    os.setsid()
    kernel.unshare(kernel.CLONE_NEWNET)


def _ip(pid: int, *commands: str) -> None:
    """Run commands of ip(8) in the network namespace of a process. Raises SetupFailed."""
    tools.run(
        *("nsenter", f"--net=/proc/{pid}/ns/net", "ip", "-batch", "-"),
        input="\n".join(commands),
        failure="the network of the nodes could not be set up",
    )
