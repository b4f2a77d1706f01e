"""Running one command on many hosts by ssh, in ClusterShell's own task: its window, its event loop, its ssh worker.

Judged by nothing but the nodes' own reports (`udi.fanout`); a host can report for itself only.

ClusterShell (1.10) keeps a line of any length in memory, waits without limit for an ssh that closed its output, and
leaves ssh running when the caller is killed: `_Client` changes these three. It also takes what a signal handler raises
for an error of its own, so signals are held while its task runs, and a timer looks for them and for the deadline (a
task's own timeout starts again with each event). Its timers follow the wall clock: one that is set back meanwhile
delays both, and the limits of the caller apply.
"""

from __future__ import annotations

import contextlib
import os
import shlex
import signal
from collections.abc import Iterator, Sequence, Set
from typing import Any

from ClusterShell.Defaults import Defaults
from ClusterShell.Event import EventHandler
from ClusterShell.NodeSet import RESOLVER_NOGROUP, NodeSet
from ClusterShell.Task import Task, task_self
from ClusterShell.Worker.EngineClient import E_READ, E_WRITE, EngineClientEOF
from ClusterShell.Worker.fastsubprocess import PIPE, STDOUT, Popen
from ClusterShell.Worker.Ssh import SshClient, WorkerSsh

from clusters.settings import ClustersConfig
from udi.command import ENVIRONMENT, Deadline
from udi.fanout import Answers, FanOutResult
from udi.nodes import Node
from udi.oserrors import reason
from udi.parentdeath import die_with_caller
from udiroot.errors import UpstreamFailed, printable

_MAX_BYTES = 256 << 10
"""Bytes of output that are read from one host: a report has less than 512."""
_PAUSE = 0.05
"""Seconds between two looks at the clock and for signals."""


def fan_out(settings: ClustersConfig, answers: Answers, command_line: str, deadline: Deadline) -> FanOutResult:
    """Run `command_line`, made by `udi.nodecommand`, on each node; at most as long as a fan-out may take.

    Ends as soon as all have answered; no ssh is left when it returns or raises. Raises UpstreamFailed when the ssh
    program does not exist, so that nothing can have happened on any node; any other failure is in the result.
    """
    if not os.access(settings.ssh[0], os.X_OK):
        raise UpstreamFailed(f"{settings.ssh[0]} is not an executable program", "see clusters.ssh in udi.toml")
    limit = Deadline(deadline.left(settings.fanout_deadline))
    if limit.passed:
        return answers.result("no time left")
    with _signals_held() as held:
        listener = _Listener(answers, limit, held)
        cause = _run(settings, answers.asked, command_line, listener)
    return answers.result(cause, listener.causes())


def _run(settings: ClustersConfig, nodes: Sequence[Node], command_line: str, listener: _Listener) -> str:
    """Run the task to its end; why it ended."""
    task = task_self(Defaults([]))  # no configuration files of ClusterShell
    worker = _worker(nodes, command_line, listener)
    try:
        _configure(task, settings)
        task.schedule(worker)
        task.timer(_PAUSE, listener, interval=_PAUSE, autoclose=True)
        task.resume()
    except OSError as error:  # no more processes, memory or descriptors
        return f"ssh cannot be started: {reason(error)}"
    finally:
        task.abort(kill=True)
        worker.end()
    return listener.stopped or "ssh ended without a report"


def _configure(task: Task, settings: ClustersConfig) -> None:
    task.set_default("stdout_msgtree", False)  # nothing is to be gathered beyond the reports
    for key, value in (
        ("fanout", settings.window),
        ("ssh_path", shlex.join(settings.ssh)),
        ("ssh_user", settings.user),
        ("connect_timeout", 0),  # an option of `clusters.ssh`
    ):
        task.set_info(key, value)


def _worker(nodes: Sequence[Node], command_line: str, listener: _Listener) -> _Worker:
    names = NodeSet.fromlist([node.name for node in nodes], resolver=RESOLVER_NOGROUP)
    worker = _Worker(names, command=command_line, handler=listener, timeout=None, stderr=False)
    worker.set_write_eof()
    return worker


class _Listener(EventHandler):  # type: ignore[misc]
    """Reads what the hosts print, and stops the task once every node has reported, at the deadline, or for a signal."""

    def __init__(self, answers: Answers, deadline: Deadline, held: Set[int]) -> None:
        self.held = held
        self.stopped = ""
        self._seconds = deadline.left()
        self._answers, self._deadline = answers, deadline
        self._nodes = {node.name: node for node in answers.asked}
        self._last: dict[str, str] = {}
        self._ends: dict[str, str] = {}

    def ev_read(self, worker: Any, node: str, sname: str, msg: bytes) -> None:
        line = msg.decode("utf-8", "replace")
        self._last[node] = line
        if self._answers.read(line, self._nodes[node]):
            worker.task.abort()

    def ev_hup(self, worker: Any, node: str, rc: int) -> None:
        """Of one that has exited while the task was already stopped, the report may not have been read."""
        if self.stopped:
            return
        self._ends.setdefault(node, f"exit code {rc}: {printable(self._last.get(node, 'no output'))}")

    def ev_timer(self, timer: Any) -> None:
        if signal.sigpending() & self.held:
            self.stopped = "interrupted by a signal"
        elif self._deadline.passed:
            self.stopped = f"not within {self._seconds:.0f} seconds"
        else:
            return
        task_self().abort()

    def flooded(self, node: str) -> None:
        """The host printed more than is read."""
        self._ends[node] = f"more than {_MAX_BYTES} bytes of output"

    def causes(self) -> dict[Node, str]:
        """Why each host that ended without a report gave none: ssh's own last line, or the command's."""
        return {self._nodes[name]: end for name, end in self._ends.items()}


class _Client(SshClient):  # type: ignore[misc]
    """One ssh: it dies with its caller, has the clean environment of all external commands, and bounded output."""

    _received = 0

    def _exec_nonblock(self, commandlist: list[str], shell: bool = False, env: object = None) -> Popen:
        self.popen = Popen(
            commandlist, bufsize=0, stdin=PIPE, stdout=PIPE, stderr=STDOUT, env=ENVIRONMENT, preexec_fn=self._begin
        )
        self.streams.set_stream(self.worker.SNAME_STDOUT, self.popen.stdout, E_READ)
        self.streams.set_stream(self.worker.SNAME_STDIN, self.popen.stdin, E_WRITE, retain=False)
        return self.popen

    def _begin(self) -> None:
        """In the child."""
        os.setsid()
        signal.signal(signal.SIGPIPE, signal.SIG_DFL)
        signal.pthread_sigmask(signal.SIG_UNBLOCK, self.worker.eh.held)
        die_with_caller()

    def _read(self, sname: str, size: int = 65536) -> bytes:
        data: bytes = super()._read(sname, size)
        self._received += len(data)
        if self._received > _MAX_BYTES:
            self.worker.eh.flooded(self.key)
            raise EngineClientEOF
        return data

    def _close(self, abort: bool, timeout: bool) -> None:
        self.end()
        super()._close(abort, timeout)

    def end(self) -> None:
        """Leave nothing of ssh behind: it leads a session and process group of its own. One that has exited keeps its
        exit code."""
        if self.popen is not None and self.popen.returncode is None:
            try:
                os.killpg(self.popen.pid, signal.SIGKILL)
            except ProcessLookupError:  # it does not lead a group yet
                self.popen.kill()
            self.popen.wait()


class _Worker(WorkerSsh):  # type: ignore[misc]
    """ClusterShell's ssh worker with our client."""

    SHELL_CLASS = _Client

    def end(self) -> None:
        """End every ssh that runs, also one that the task has lost because of an error."""
        for client in self._clients:
            client.end()


@contextlib.contextmanager
def _signals_held() -> Iterator[Set[int]]:
    """Hold back the signals that have a handler in Python; it runs at the end, when no ssh is left. Gives their set."""
    held = {number for number in signal.valid_signals() if callable(signal.getsignal(number))}
    before: Any = signal.pthread_sigmask(signal.SIG_BLOCK, ())
    try:
        signal.pthread_sigmask(signal.SIG_BLOCK, held)
        yield held - before
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)
