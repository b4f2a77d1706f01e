"""Where a trial (`udi-admin try`) takes place: on a node of a machine, or, with native Slurm, on this node.

Both set up and take down by what the hooks call: `jobs.prepare` and `jobs.takedown`, or `jobs.local`.
"""

from __future__ import annotations

import contextlib
import dataclasses
import os
import secrets
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Protocol

from jobs.here import jobs_here
from jobs.local import LocalJob
from jobs.prepare import prepare
from jobs.state import JobDirectory, jobs_with_state
from jobs.takedown import take_down
from nodehealth.records import dirty_nodes
from udi.accounts import Account
from udi.command import Deadline
from udi.config import SiteConfig
from udi.nodecommand import check_command, enter_command
from udi.nodes import NodeSlots, named
from udi.platform import Allocation, Machine
from udi.request import JobRequest
from udiroot import processes
from udiroot.enter import as_words
from udiroot.errors import NotFound, SetupFailed, TeardownIncomplete, UsageError
from udiroot.report import NodeReport
from udiroot.trials import PREFIX, is_trial


@dataclass(frozen=True)
class Ready:
    """A root that is set up; `notice` is what a user of the image should know."""

    image_id: str
    notice: str = ""


@dataclass(frozen=True)
class Ended:
    """A command that ran in the root: how it ended, in words and numbers (`signal` 0 for none), and what it printed."""

    words: str
    exit_code: int
    signal: int
    output: bytes


class Place(Protocol):
    """One node, and what is done there for the trial called `job`. Each method raises UdiErrors."""

    node: str

    def sweep(self) -> list[str]:
        """Take down trials of this host whose program was killed; which."""

    def require_free(self) -> str:
        """Words about a node with nothing of ours. Raises UsageError where it has a job, SetupFailed where it is not
        clean or cannot be asked."""

    def held(self, job: str) -> contextlib.AbstractContextManager[object]:
        """For the whole trial: nobody takes it for one that was left."""

    def set_up(self, request: JobRequest) -> Ready:
        """All of the root, or nothing."""

    def enter(self, job: str, user: Account, command: tuple[str, ...], seconds: int) -> Ended:
        """Run a command in it. Raises SetupFailed where the root is not the trial's any more."""

    def take_down(self, job: str) -> str:
        """Remove it; words. Nothing of it need exist. Raises TeardownIncomplete."""


def new_trial() -> str:
    """The id of a trial of this process: it tells whether that still runs."""
    pid = os.getpid()
    return f"{PREFIX}{_host()}.{pid}.{processes.start_time(pid)}"


def is_abandoned(job: str) -> bool:
    """Whether it is a trial of this host whose program has ended."""
    host, pid, start = (*job.removeprefix(PREFIX).rsplit(".", 2), "", "")[:3]
    if not is_trial(job) or host != _host() or not (pid.isdecimal() and start.isdecimal()):
        return False
    return not processes.is_running(int(pid), int(start))


def _host() -> str:
    """This host's first name, of characters that an id may have."""
    return "".join(c for c in os.uname().nodename.partition(".")[0] if c.isascii() and (c.isalnum() or c == "-"))


class OnMachine:
    """A node that the machine reaches."""

    def __init__(self, site: SiteConfig, machine: Machine, text: str) -> None:
        """Raises UsageError for anything but one node."""
        nodes = machine.parse_nodes(text)
        if len(nodes) != 1:
            raise UsageError(f"--node takes one node, not {len(nodes)}")
        self._node = nodes[0]
        self.node = self._node.name
        # What runs as the trial's user may be the node's own, so only what holds the root is terminated.
        self._site = dataclasses.replace(site, node=dataclasses.replace(site.node, shared=True))
        self._machine = machine

    def sweep(self) -> list[str]:
        found = [each.job for each in jobs_with_state(self._site) if is_abandoned(each.job)]
        for job in found:
            self.take_down(job)
        return found

    def require_free(self) -> str:
        for directory in jobs_with_state(self._site):
            state = directory.load()
            if state and self._node in state.nodes:
                raise UsageError(f"{self.node} has job {state.job} ({state.phase})", "try another node, or wait")
        if self._node not in (states := self._machine.states((self._node,), self._deadline())):
            raise NotFound(f"the machine has no node {self.node}")
        nonce = secrets.token_hex(16)
        command = check_command(self._site, self._machine.identity_file(), nonce)
        report = self._report(command, nonce)[0]
        _require_clean(report, self.node)
        return f"{states[self._node].status}, {report.words}"

    def held(self, job: str) -> contextlib.AbstractContextManager[object]:
        """Its state names it; each step locks that for itself."""
        return contextlib.nullcontext()

    def set_up(self, request: JobRequest) -> Ready:
        chosen = Allocation((NodeSlots(self._node, 1),))
        prepared = prepare(self._site, self._machine, request, (), self._deadline(), chosen)
        state = JobDirectory(self._site, request.job).load()
        return Ready(state.image_id if state else "", prepared.notice)

    def enter(self, job: str, user: Account, command: tuple[str, ...], seconds: int) -> Ended:
        nonce = secrets.token_hex(16)
        least = max(1, min(seconds, self._machine.fanout_deadline - 1))
        line = enter_command(
            self._site, self._machine.identity_file(), job, _ids(user), as_words(command), least, nonce
        )
        with JobDirectory(self._site, job).locked(self._deadline()):
            return _ended(*self._report(line, nonce))

    def take_down(self, job: str) -> str:
        done = take_down(self._site, self._machine, job, self._deadline())
        if done.error:
            raise done.error
        if done.dirty:
            fate = f"left in service: {done.spared}" if done.spared else "taken out of service"
            raise TeardownIncomplete(f"{done.dirty.get(self._node, 'not clean')}; {fate}", "see udi-admin status")
        left = [dirty.reason for dirty in dirty_nodes(self._site) if dirty.node == self._node and job in dirty.jobs]
        if left:  # a set-up that failed has been undone already, and not completely
            raise TeardownIncomplete(f"{self.node} is not clean: {left[0]}", "see udi-admin status")
        return "clean"

    def _report(self, command_line: str, nonce: str) -> tuple[NodeReport, bytes]:
        """The node's own report. Raises SetupFailed where it makes none."""
        result = self._machine.run((self._node,), command_line, nonce, self._deadline())
        report = result.reports.get(self._node)
        if report is None:
            raise SetupFailed(f"{self.node}: {result.errors().get(self._node, 'no answer')}")
        return report, result.said

    def _deadline(self) -> Deadline:
        return Deadline(2 * self._machine.fanout_deadline + self._machine.command_deadline)


class Here:
    """This node: hooks of native Slurm run on each. Jobs have roots of their own there, as the trial has."""

    def __init__(self, site: SiteConfig, text: str) -> None:
        """Raises UsageError for any other node."""
        here = os.uname().nodename.partition(".")[0]
        if text.partition(".")[0] != here:
            raise UsageError(f"this node is {here}, not {text}", "run udi-admin try on the node, by its name")
        self._site = site
        self._seconds = 2 * site.node.deadline + 30
        self.node = here

    def sweep(self) -> list[str]:
        found = sorted(job for job in jobs_here(self._site) if is_abandoned(job))
        for job in found:
            with self.held(job):
                self.take_down(job)
        return found

    def require_free(self) -> str:
        jobs = sorted(jobs_here(self._site))
        if jobs:
            raise UsageError(f"{self.node} has jobs with images: {', '.join(jobs)}", "try another node, or wait")
        return "clean"

    @contextlib.contextmanager
    def held(self, job: str) -> Iterator[None]:
        """The health check takes a trial that nobody has locked for one that was left."""
        local = LocalJob(self._site, job)
        with local.locked(self._deadline()):
            yield
            if not local.is_left:
                local.forget()

    def set_up(self, request: JobRequest) -> Ready:
        node = NodeSlots(named(self.node), 1)
        root = LocalJob(self._site, request.job).prepare(request, (node,), self.node, self._deadline())
        return Ready(root.image_id, root.notice)

    def enter(self, job: str, user: Account, command: tuple[str, ...], seconds: int) -> Ended:
        return _ended(*LocalJob(self._site, job).enter(_ids(user), as_words(command), seconds))

    def take_down(self, job: str) -> str:
        LocalJob(self._site, job).take_down(self._deadline())
        return "clean"

    def _deadline(self) -> Deadline:
        return Deadline(self._seconds)


def _ids(user: Account) -> str:
    return ",".join(map(str, (user.uid, *user.groups)))


def _require_clean(report: NodeReport, node: str) -> None:
    if report.ok:
        return
    trials = [job for job in report.jobs if is_trial(job)]
    jobs = [job for job in report.jobs if not is_trial(job)]
    if jobs:
        raise UsageError(f"{node} has something of job {', '.join(jobs)}: {report.words}", "try another node, or wait")
    hint = f"where that trial has ended: udi-admin takedown {trials[0]} --nodes {node}" if trials else ""
    raise SetupFailed(f"{node} is not clean: {report.words}", hint or f"udi-admin recover {node}")


def _ended(report: NodeReport, output: bytes) -> Ended:
    """Raises SetupFailed where the command was not run, or its root went away meanwhile."""
    if not report.ok:
        raise SetupFailed(report.words)
    numbers = dict(part.split("=") for part in report.left)
    return Ended(report.words, int(numbers.get("exit", 0)), int(numbers.get("signal", 0)), output)
