"""`aprun` and the part of apinit on a node: an application inside the caller's own reservation (cray-reference 6).

`CRAY_ROOTFS` selects the root from the node's `roots.conf`. An unknown name, a directory that does not exist or is
not a mount fails the application: it never runs outside the root that was requested.
"""

import contextlib
import os
import shutil
import signal
import subprocess
import threading
import time
from dataclasses import dataclass, field
from typing import Any

from udiroot.errors import NotFound, UdiError
from xcsim.alps import Alps, AlpsRefused, Application, Reservation
from xcsim.basil import expand
from xcsim.call import Call
from xcsim.entering import Entry
from xcsim.initramfs import ROOTS_CONF
from xcsim.nhc import NodeHealth
from xcsim.node import ComputeNode, kill_program, program_of

_WITH_VALUE = ("-n", "-N", "-d", "-j", "-m", "-L", "-e", "-cc", "-cp", "-S", "-sl", "-sn", "-r", "-t", "-p", "-D")
_PLAIN = ("-b", "-B", "-q", "-C", "-ss", "-F")


class ApplicationFailed(UdiError):
    """The application cannot start on a node."""

    exit_code = 1


@dataclass
class Request:
    """What one aprun requests."""

    width: int = 1
    per_node: int = 0
    nodes: list[int] = field(default_factory=list)
    bypass: bool = False
    quiet: bool = False
    whole_reservation: bool = False
    environment: dict[str, str] = field(default_factory=dict)
    command: list[str] = field(default_factory=list)


def parse(arguments: list[str]) -> Request:
    """Parse aprun's command line; its own options end at the first word that is not one (A6)."""
    wanted = Request()
    words = list(arguments)
    while words and words[0].startswith("-"):
        option = words.pop(0)
        if option in _PLAIN:
            wanted.bypass |= option == "-b"
            wanted.quiet |= option == "-q"
            wanted.whole_reservation |= option == "-B"
            continue
        short = next((known for known in _WITH_VALUE if option.startswith(known)), None)
        if short is None:
            raise AlpsRefused(f"unrecognized option '{option}'")
        value = option[len(short) :] or (words.pop(0) if words else "")
        _take(wanted, short, value)
    if not words:
        raise AlpsRefused("no executable was given")
    if ":" in words:
        raise AlpsRefused("MPMD launches (a ':' between programs) are not supported on this machine")
    wanted.command = words
    return wanted


def _take(wanted: Request, option: str, value: str) -> None:
    if option == "-e":
        name, _, text = value.partition("=")
        wanted.environment[name] = text
    elif option == "-L":
        wanted.nodes = expand(value)
    elif option in ("-n", "-N"):
        if not value.isdigit() or int(value) < 1:
            raise AlpsRefused(f"invalid {option} value '{value}'")
        if option == "-n":
            wanted.width = int(value)
        else:
            wanted.per_node = int(value)


class Launcher:
    """Places applications in reservations and runs them on nodes."""

    def __init__(
        self, nodes: dict[int, ComputeNode], alps: Alps, health: NodeHealth, lock: "threading.RLock", slots: int
    ) -> None:
        self._nodes = nodes
        self._alps = alps
        self._health = health
        self._lock = lock
        self._slots = slots

    def run(self, call: Call) -> int:
        """Run one aprun; returns its exit status (A10)."""
        try:
            wanted = parse(call.arguments)
            with self._lock:
                reservation = self._reservation_of(call)
                pes = self._place(wanted, reservation)
                if not wanted.bypass and not _on_login_node(wanted.command[0], call):
                    raise AlpsRefused(f"file {wanted.command[0]} not found")
                application = self._alps.place(reservation, pes, os.path.basename(wanted.command[0]))
        except AlpsRefused as refused:
            who = "apsched" if "reservation" in refused.message else "aprun"
            call.write_error(f"{who}: {refused.message}\n")
            return 1
        try:
            return _Run(self._nodes, application, wanted, call).to_completion()
        finally:
            with self._lock:
                self._alps.finish(application.apid)
            nids = list(application.pes)
            threading.Thread(
                target=self._health.check, args=("application", application.apid, nids), daemon=True
            ).start()

    def _reservation_of(self, call: Call) -> Reservation:
        """By process aggregate: the session of the caller or of an ancestor. PBS_JOBID serves `xcsim aprun`."""
        sessions = _sessions_above(call.pid)
        batch = call.environment.get("PBS_JOBID", "")
        for one in self._alps.reservations.values():
            mine = one.uid == call.uid and not one.released and one.confirmed
            if mine and (one.pagg in sessions or one.batch_id == batch):
                return one
        raise AlpsRefused("no reservation: aprun runs only inside a batch job of the same user")

    def _place(self, wanted: Request, reservation: Reservation) -> dict[int, int]:
        nids = wanted.nodes or reservation.nids
        if any(nid not in reservation.nids for nid in nids):
            raise AlpsRefused("claim exceeds reservation's nodes")
        if wanted.whole_reservation:
            wanted.width, wanted.per_node = reservation.width, reservation.per_node
        per_node = wanted.per_node or min(self._slots, max(reservation.per_node, 1))
        if per_node > reservation.per_node:
            raise AlpsRefused("claim exceeds reservation's CPUs")
        busy = {nid for app in self._alps.claims(reservation.id) for nid in app.pes}
        free = [nid for nid in nids if nid not in busy]
        pes: dict[int, int] = {}
        left = wanted.width
        for nid in free:
            if left:
                pes[nid] = min(per_node, left)
                left -= pes[nid]
        if left:
            raise AlpsRefused("claim exceeds reservation's node-count")
        return pes


class _Run:
    """One application, from its first PE to its last line of output."""

    def __init__(self, nodes: dict[int, ComputeNode], application: Application, wanted: Request, call: Call) -> None:
        self._nodes = nodes
        self._application = application
        self._wanted = wanted
        self._call = call
        self._ranks: dict[int, tuple[int, subprocess.Popen[Any]]] = {}
        self._killed = False

    def to_completion(self) -> int:
        try:
            self._start()
        except ApplicationFailed as failed:
            self._kill()
            self._call.write_error(f"{failed.message}\n")
            self._last_line("exit codes: 1")
            return 1
        return self._report(self._wait())

    def _start(self) -> None:
        call, apid = self._call, self._application.apid
        root = call.environment.get("CRAY_ROOTFS", "")
        root = self._wanted.environment.get("CRAY_ROOTFS", root)
        roots = {nid: self._root_on(nid, root) for nid in self._application.pes}
        groups = call.groups
        rank = 0
        for nid, count in self._application.pes.items():
            entry = Entry(call.uid, call.gid, groups, roots[nid], call.cwd, no_new_privileges=True)
            for local in range(count):
                env = {**call.environment, **self._wanted.environment}
                env |= {"ALPS_APP_PE": str(rank), "ALPS_APP_ID": str(apid), "ALPS_APP_DEPTH": "1"}
                env |= {"PMI_FORK_RANK": str(rank), "ALPS_LOCAL_PE": str(local)}
                stdin = call.descriptors[0] if rank == 0 else subprocess.DEVNULL
                self._ranks[rank] = nid, self._exec(nid, entry, env, stdin)
                rank += 1

    def _exec(self, nid: int, entry: Entry, env: dict[str, str], stdin: int) -> "subprocess.Popen[Any]":
        out, err = self._call.descriptors[1:]
        try:
            return self._nodes[nid].popen(
                self._wanted.command, entry=entry, env=env, stdin=stdin, stdout=out, stderr=err
            )
        except (OSError, subprocess.SubprocessError, NotFound) as error:
            self._root_on(nid, env.get("CRAY_ROOTFS", ""))  # which may have gone since it was looked at
            reason = (error.strerror if isinstance(error, OSError) else None) or str(error)
            message = f"Exec {self._wanted.command[0]} failed: {reason}"
            raise ApplicationFailed(self._on_node(nid, message)) from error

    def _root_on(self, nid: int, name: str) -> str:
        """The application's root on this node. Raises ApplicationFailed."""
        if name in ("", "INITRAMFS"):
            return "/"
        node = self._nodes[nid]
        try:
            directory = _roots(node).get(name)
            mounted = directory is not None and _is_mount(node, directory)
        except (NotFound, OSError) as error:
            raise ApplicationFailed(self._on_node(nid, "node is not reachable")) from error
        if directory is None:
            raise ApplicationFailed(self._on_node(nid, f"CRAY_ROOTFS {name} is not in roots.conf"))
        if not mounted:
            message = f"CRAY_ROOTFS {name}: {directory} is not available on this node"
            raise ApplicationFailed(self._on_node(nid, message))
        return directory

    def _wait(self) -> dict[int, int]:
        """Exit status of each rank. The application is terminated when a signal kills a rank, or when aprun is gone."""
        codes: dict[int, int] = {}
        while len(codes) < len(self._ranks):
            for rank, (nid, process) in self._ranks.items():
                code = process.poll()
                if rank in codes or code is None:
                    continue
                codes[rank] = code
                if code < 0 and not self._killed:
                    self._call.write_error(self._on_node(nid, "initiated application termination") + "\n")
                    self._kill()
            try:
                for number in self._call.signals(0.01):
                    self._signal(number)
            except EOFError:
                self._kill()
                for _, process in self._ranks.values():
                    process.wait()
        return codes

    def _signal(self, number: int) -> None:
        for _, process in self._ranks.values():
            program = program_of(process)
            if program is not None:
                with contextlib.suppress(ProcessLookupError):
                    os.killpg(program, number)

    def _kill(self) -> None:
        self._killed = True
        for _, process in self._ranks.values():
            if process.poll() is None:
                kill_program(process)

    def _report(self, codes: dict[int, int]) -> int:
        """The last lines (A9) and the exit status (A10)."""
        signals = [-code for code in codes.values() if code < 0]
        exits = [code for code in codes.values() if code > 0]
        if signals:
            self._last_line("exit signals: " + (signal.strsignal(signals[0]) or str(signals[0])))
        elif exits:
            self._last_line("exit codes: " + ", ".join(str(code) for code in dict.fromkeys(exits)))
        self._last_line("resources: utime ~0s, stime ~0s, Rss ~4848, inblocks ~0, outblocks ~0")
        if signals:
            return 128 + signals[0]
        return exits[0] if exits else 0

    def _last_line(self, text: str) -> None:
        if not self._wanted.quiet:
            self._call.write(f"Application {self._application.apid} {text}\n")

    def _on_node(self, nid: int, message: str) -> str:
        return f"[NID {nid:05d}] {time.strftime('%Y-%m-%d %H:%M:%S')} Apid {self._application.apid}: {message}"


def _roots(node: ComputeNode) -> dict[str, str]:
    """roots.conf as the node sees it: `NAME=path` lines (A3)."""
    text = node.path(f"/dsl{ROOTS_CONF}").read_text()
    pairs = (line.split("#", 1)[0].strip().partition("=") for line in text.splitlines())
    return {name.strip(): path.strip() for name, equals, path in pairs if equals}


def _is_mount(node: ComputeNode, directory: str) -> bool:
    with open(f"/proc/{node.pid}/mountinfo") as table:
        return any(line.split()[4] == directory for line in table)


def _sessions_above(pid: int) -> set[int]:
    """The sessions of a process and of all of its ancestors."""
    sessions = set()
    while pid > 1:
        try:
            with open(f"/proc/{pid}/stat") as stat:
                fields = stat.read().rpartition(")")[2].split()
        except (FileNotFoundError, ProcessLookupError):
            break
        sessions.add(int(fields[3]))
        pid = int(fields[1])
    return sessions


def _on_login_node(program: str, call: Call) -> bool:
    """Whether aprun finds the program, which without -b it copies to the nodes."""
    path = call.environment.get("PATH", "/usr/bin:/bin")
    if "/" in program:
        return os.access(os.path.join(call.cwd, program), os.X_OK)
    return shutil.which(program, path=path) is not None
