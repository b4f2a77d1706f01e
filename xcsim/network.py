"""The high-speed network of a machine: a bridge in a network namespace of its own, and a wire from each node to it.

Nothing of it is in the host's network. The namespace lives as long as its holder, a process of ours; when that ends,
the kernel takes bridge and wires away.
"""

import json
import os
import signal
import subprocess
from dataclasses import dataclass
from pathlib import Path

from udiroot.errors import SetupFailed
from udiroot.plan_ssh import cluster_address
from xcsim import kernel
from xcsim.processes import ProcessId

FIRST_ADDRESS = "10.128.0.1"
"""Address of nid 0; Cray numbers the others on from it."""
_BITS = 14
_IP = "/bin/ip"
_BRIDGE, _INTERFACE = "aries", "ipogif0"
_HOLDER = ("/bin/sleep", "xcsim-network", "infinity")


@dataclass(frozen=True)
class Network:
    """The network whose holder is written down in `state`, up or not."""

    state: Path

    def start(self) -> "Network":
        """Bring it up, unless it is."""
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
        """Take it down; harmless twice."""
        holder = self._holder()
        if holder is not None:
            holder.kill(signal.SIGKILL)
            if not holder.wait_gone(5.0):
                raise SetupFailed(f"the network did not go down: its holder {holder.pid} does not end")
        self._record.unlink(missing_ok=True)

    def join(self, nid: int, pid: int) -> None:
        """Give the network namespace of `pid` a wire to the bridge, and the address of node `nid`."""
        holder = self._holder()
        if holder is None:
            raise SetupFailed("the network is not up")
        wire = f"{nid}.{pid}"  # that of an earlier life of the node may not be gone yet
        # by the nid, so that what others remember of the node stays true when it is started again
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
    return cluster_address(FIRST_ADDRESS, nid)


def hosts(nids: list[int]) -> str:
    """The lines of /etc/hosts for these nodes."""
    return "".join(f"{address(nid)} nid{nid:05d}\n" for nid in nids)


def _alone() -> None:
    os.setsid()
    kernel.unshare(kernel.CLONE_NEWNET)


def _ip(pid: int, *commands: str) -> None:
    """Run commands of ip(8) in the network namespace of a process."""

    def enter() -> None:
        with open(f"/proc/{pid}/ns/net") as namespace:
            kernel.setns(namespace.fileno())

    done = subprocess.run(
        [_IP, "-batch", "-"], input="\n".join(commands), text=True, capture_output=True, preexec_fn=enter, check=False
    )
    if done.returncode != 0:
        raise SetupFailed(f"the network of the nodes: {done.stderr.strip()}")
