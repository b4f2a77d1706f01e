"""The machine's one daemon, on the login node: ALPS, the SDB, the health checker, pbs_server and pbs_mom.

It listens on one UNIX socket; the kernel identifies the caller. Everything that must outlive it is in the state
directory.
"""

import os
import socket
import sys
import threading
import traceback
from pathlib import Path

from udiroot.errors import UdiError
from xcsim import settings as machine
from xcsim.alps import Alps, Reservation
from xcsim.application import Launcher
from xcsim.apstat import Apstat
from xcsim.basil import Basil
from xcsim.call import Call, receive
from xcsim.fanout import FanOut
from xcsim.faults import Fault, Faults
from xcsim.nhc import NodeHealth
from xcsim.node import ComputeNode, NodeFiles
from xcsim.node_states import NodeStates
from xcsim.settings import Settings
from xcsim.torque import Torque


class Service:
    """All the parts of the machine, under one lock."""

    def __init__(self, state: Path) -> None:
        settings = Settings.read(state)
        files = NodeFiles(state / "nodes")
        self._lock = threading.RLock()
        self._nodes = {nid: ComputeNode(nid, files) for nid in settings.nids}
        self._faults = Faults(state / "faults.json")
        self._states = NodeStates(state / "sdb.json", settings)
        self._alps = Alps(state / "alps.json", self._faults, self._check_after)
        self._health = NodeHealth(self._nodes, self._states, self._lock)
        self._apstat = Apstat(self._alps, self._states, self._faults, settings)
        self._basil = Basil(self._alps, self._states, self._faults, settings)
        self._fanout = FanOut(self._nodes, self._faults, settings)
        self._launcher = Launcher(self._nodes, self._alps, self._health, self._lock, settings.slots)
        self._torque = Torque(state / "torque.json", settings, self._alps, self._states, self._faults, self._lock)

    def serve(self, listener: socket.socket) -> None:
        """Serve forever, one thread per call."""
        self._torque.start()
        while True:
            connection, _ = listener.accept()
            threading.Thread(target=self._answer, args=(connection,), daemon=True).start()

    def _answer(self, connection: socket.socket) -> None:
        try:
            call = receive(connection)
        except (ConnectionError, ValueError, OSError) as error:
            sys.stderr.write(f"xcsimd: dropped a request: {error}\n")
            connection.close()
            return
        code = 1
        try:
            code = self._run(call)
        except UdiError as error:
            call.write_error(f"{call.name}: {error.message}\n")
            code = error.exit_code
        except Exception:
            call.write_error(f"{call.name}: internal error of the machine, see its log\n")
            traceback.print_exc()
            raise
        finally:
            call.finish(code)

    def _run(self, call: Call) -> int:
        match call.name:
            case "apstat":
                with self._lock:
                    answer = self._apstat.run(call.arguments)
                return _write(call, answer)
            case "apbasil":
                request = call.input()
                with self._lock:
                    text = self._basil.answer(request)
                call.write(text)
                return 0
            case "xtprocadmin":
                with self._lock:
                    answer = self._states.xtprocadmin(call.arguments, root=call.uid == 0)
                code = _write(call, answer)
                self._torque.look_again()
                return code
            case "aprun":
                return self._launcher.run(call)
            case "xtxqtcmd":
                return self._fanout.run(call)
            case "qsub":
                return self._torque.submit(call)
            case "qstat":
                return self._torque.qstat(call)
            case "look":
                return self._torque.look(call)
            case "qhold":
                return self._torque.qhold(call)
            case "qrls":
                return self._torque.qrls(call)
            case "qdel":
                return self._torque.qdel(call)
            case "fault":
                return self._fault(call)
        call.write_error(f"{call.name}: not a command of this machine\n")
        return 1

    def _fault(self, call: Call) -> int:
        """`fault set NAME NODE COUNT VALUE`, `fault clear [NAME]`, `fault list`: for `xcsim fault`, root only."""
        if call.uid != 0:
            call.write_error("fault: only root may make the machine fail\n")
            return 4
        what, *words = call.arguments
        with self._lock:
            if what == "set":
                name, node, count, value = words
                self._faults.set(Fault(name, int(node) if node else None, int(count) if count else None, value))
            elif what == "clear":
                self._faults.clear(*words)
            else:
                for fault in self._faults.list():
                    call.write(f"{fault.name}\t{fault.node or ''}\t{'' if fault.count is None else fault.count}")
                    call.write(f"\t{fault.value}\n")
        return 0

    def _check_after(self, reservation: Reservation) -> None:
        """At the end of a reservation: check its nodes before they are free again."""
        self._states.checking |= set(reservation.nids)

        def check() -> None:
            self._health.check("reservation", reservation.id, reservation.nids)
            with self._lock:
                self._states.checking -= set(reservation.nids)
            self._torque.look_again()

        threading.Thread(target=check, daemon=True).start()


def _write(call: Call, answer: tuple[int, str, str]) -> int:
    code, out, err = answer
    call.write(out)
    call.write_error(err)
    return code


def main() -> int:
    """Serve this machine until killed."""
    os.umask(0o022)
    service = Service(Path(machine.STATE_INSIDE))
    Path(machine.SOCKET).unlink(missing_ok=True)
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as listener:
        listener.bind(machine.SOCKET)
        os.chmod(machine.SOCKET, 0o666)  # noqa: S103
        listener.listen(256)
        service.serve(listener)
    return 0
