"""One job on one screen."""

from __future__ import annotations

from collections.abc import Iterator

from rich.console import RenderableType

from admin.console.screen import age, at, columns, rows, styled, title
from admin.job.story import JobStory
from admin.job.why import Why
from udi.nodes import folded
from udi.pieces import pieces
from udiroot.errors import counted, printable

_LEVELS = {"ERROR": "bad", "CRITICAL": "bad", "WARNING": "warning"}
_SHOWN_EVENTS = 40
_ID = 12
"""Hex digits of an image's id."""


def screen(story: JobStory, why: Why) -> Iterator[RenderableType]:
    """What is known, the events, and why."""
    yield title(f"job {story.job}")
    yield rows(_facts(story))
    events = story.events()
    if events:
        yield title("")
        if len(events) > _SHOWN_EVENTS:
            yield title(f"{counted(len(events) - _SHOWN_EVENTS, 'earlier event')} left out: see --json", "warning")
        table = columns("TIME (UTC)", "HOOK", "EVENT")
        for event in events[-_SHOWN_EVENTS:]:
            hook = event.program.removeprefix("udi-")
            table.add_row(at(event.time)[5:19], hook, styled(event.message, _LEVELS.get(event.level, "")))
        yield table
    for trouble in story.troubles:
        yield title(f"note: {trouble}", "warning")
    yield title("")
    yield rows([("why", why.sentence())])


def _facts(story: JobStory) -> Iterator[tuple[str, str]]:
    state, asked = story.state, story.asked
    yield "user", printable(story.user)
    yield "image", _image(story)
    plan = story.plan if story.plan and story.plan.is_there else None
    yield "volumes", ", ".join(plan.volumes) if plan else ", ".join(pieces(asked.volumes))
    yield "modules", ", ".join(plan.modules) if plan else ", ".join(pieces(asked.modules))
    if state:
        yield "phase", f"{state.phase} for {age(state.since)}, since {at(state.since)}"
        yield "nodes", f"{folded(state.nodes)} ({counted(len(state.nodes), 'node')})"
        yield "allocation", state.allocation
    else:
        yield "nodes", story.outcome.nodes
    if plan:
        yield "plan", plan.path
    yield "set-up", story.outcome.setup
    yield "teardown", story.outcome.teardown
    if story.failed:
        held = "; held" if story.failed.is_held else ""
        yield "failed", f"{counted(story.failed.count, 'start')}{held}: {story.failed.reason}"
    yield "told", asked.failure
    for dirty in story.dirty:
        since = f" for {age(dirty.since)}" if dirty.since else ""
        yield "dirty", f"{dirty.node}{since}: {dirty.reason}"
    yield "manager", ", ".join(f"{name} {value}" for name, value in asked.said.items()) or asked.fate


def _image(story: JobStory) -> str:
    if not story.image:
        return ""
    parts = [printable(story.image)]
    if story.image_id:
        parts.append(f"id {story.image_id[:_ID]}{' (pinned)' if story.is_pinned else ''}")
    if story.facts:
        parts.append(f"{story.facts.kind}, {story.facts.format}, {story.facts.size / (1 << 20):.1f} MiB")
    return ", ".join(parts)
