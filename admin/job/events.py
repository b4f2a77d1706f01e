"""What the log's events of a job mean: what was set up and where, which starts failed and by whose fault, what teardown
left. The one place that knows the words of the hooks' messages."""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from itertools import groupby

from admin.job.log import Event
from jobs.nodeerrors import EVERYWHERE, LEFT_IN_SERVICE
from torque_hooks.exit_codes import ABORT
from udi.nodes import folded, named
from udiroot.errors import UdiError, counted

_READY = re.compile(r"image (?P<image>\S+) ready on (?P<count>\d+) nodes?\b(?P<rest>.*)")
_STEP = re.compile(r"(?P<step>setup|teardown): (?P<node>[A-Za-z0-9][\w.-]*): (?P<ms>\d+) ms(?P<rest>.*)")
_REPORTED = re.compile(r"setup: (?P<words>\d+ of \d+ nodes? reported\b.*)")
"""Of a set-up that failed: the slowest nodes, and those that gave no answer."""
_HERE = re.compile(r"(?P<step>setup|teardown): (?P<ms>\d+) ms(?P<rest>.*)")
_FAILED = re.compile(r"(?:start failed|takedown failed)(?:, exit code (?P<code>\d+))?: (?P<why>.*)")
_NOT_BEGUN = re.compile(r"(?:the prologue|Prolog) cannot be run: (?P<why>.*)")
_TAKEN = re.compile(r"taken down on (?P<nodes>\S+?)(?:; dirty: (?P<dirty>\S+))?")
_UNCHECKED = "its image was not checked at submission"
_ON_NODES = re.compile(r"setup on (?P<nodes>\S+?): ")
_OWNERS = {kind.exit_code: kind.owner for kind in UdiError.__subclasses__()}


@dataclass(frozen=True)
class Failure:
    """A start or a teardown that failed: when, why, and who must act (`user`, `site` or `node`)."""

    time: float
    why: str
    owner: str

    @property
    def nodes(self) -> str:
        """On which nodes, folded and shortened as the log has them; empty where it was no fault of single ones."""
        on = _ON_NODES.match(self.why)
        return on["nodes"] if on else ""


@dataclass(frozen=True)
class Outcome:
    """What the events come to. `ready` is when the image was ready for the last time, 0 where it never was; `taken` is
    when the job was taken down after that; `dirty` are nodes that the last teardown left so, as a folded text;
    `is_unchecked` is whether its image was not found, and nobody had looked for it at submission."""

    image: str = ""
    nodes: str = ""
    ready: float = 0.0
    setup: str = ""
    taken: float = 0.0
    teardown: str = ""
    dirty: str = ""
    is_unchecked: bool = False
    starts: tuple[Failure, ...] = ()
    teardowns: tuple[Failure, ...] = ()

    @property
    def last_failure(self) -> Failure | None:
        """The failed start that no successful one followed."""
        last = self.starts[-1] if self.starts else None
        return last if last and last.time >= self.ready else None


def outcome(events: Iterable[Event]) -> Outcome:
    """What they come to; the oldest comes first."""
    found = Outcome()
    for event in events:
        if event.level != "DEBUG":
            found = _after(found, event)
    return found


def _after(found: Outcome, event: Event) -> Outcome:
    message = event.message
    if match := _READY.fullmatch(message):
        setup = f"{counted(int(match['count']), 'node')}{match['rest']}"
        return replace(found, image=match["image"], ready=event.time, setup=setup, taken=0.0, teardown="", dirty="")
    if match := _HERE.fullmatch(message):
        words = f"{match['ms']} ms{match['rest']}"
        if match["step"] == "setup":
            return replace(found, ready=event.time, setup=words, taken=0.0, teardown="", dirty="")
        return replace(found, taken=event.time, teardown=words)
    if match := _REPORTED.fullmatch(message):
        return replace(found, setup=match["words"])
    if match := _TAKEN.fullmatch(message):
        dirty = match["dirty"] or ""
        words = f"{match['nodes']} not clean: {dirty}" if dirty else f"{match['nodes']} clean"
        return replace(found, nodes=match["nodes"], taken=event.time, teardown=words, dirty=dirty)
    if message.startswith(_UNCHECKED):
        return replace(found, is_unchecked=True)
    if match := _NOT_BEGUN.fullmatch(message):
        return replace(found, starts=(*found.starts, Failure(event.time, match["why"], "site")))
    if match := _FAILED.fullmatch(message):
        failure = Failure(event.time, match["why"], _owner(event, match["code"], match["why"]))
        if message.startswith("takedown"):
            return replace(found, teardowns=(*found.teardowns, failure))
        return replace(found, starts=(*found.starts, failure), nodes=failure.nodes or found.nodes)
    return found


def _owner(event: Event, code: str | None, why: str) -> str:
    """Who must act. Torque's prologue logs what Torque does, the others the exit code of the error, or none where it is
    the user's. What no node of several could do is the site's."""
    if event.program == "udi-prologue":
        owner = "user" if code == str(ABORT) else "node" if why.startswith("setup on ") else "site"
    else:
        owner = "user" if code is None else _OWNERS.get(int(code), "site")
    everywhere = f"({EVERYWHERE}" in why or f"({LEFT_IN_SERVICE}" in why
    return "site" if owner == "node" and everywhere else owner


def condensed(events: Sequence[Event]) -> list[Event]:
    """The events for a person: without what nodes printed, and one for a step that succeeded alike on many nodes."""
    kept = [event for event in events if event.level != "DEBUG"]
    found: list[Event] = []
    for step, group in groupby(kept, key=_step):
        several = list(group)
        found += [_folded(several)] if step and len(several) > 1 else several
    return found


def _step(event: Event) -> str:
    match = _STEP.fullmatch(event.message)
    return f"{event.program} {match['step']} {match['rest']}" if match else ""


def _folded(events: Sequence[Event]) -> Event:
    matches = [match for event in events if (match := _STEP.fullmatch(event.message))]
    times = [int(match["ms"]) for match in matches]
    nodes = [named(match["node"]) for match in matches]
    span = f"{min(times)} to {max(times)} ms" if min(times) < max(times) else f"{times[0]} ms"
    message = f"{matches[0]['step']}: {folded(nodes)} ({counted(len(nodes), 'node')}): {span}{matches[0]['rest']}"
    return replace(events[-1], message=message)
