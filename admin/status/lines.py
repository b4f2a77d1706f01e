"""`udi-admin status` as text: one sentence a line for scripts and logs, and columns for a terminal."""

from __future__ import annotations

from collections.abc import Iterator

from rich.console import RenderableType

from admin.console.screen import age, at, columns, styled, title
from admin.status.status import Status
from udi.nodes import folded
from udi.platform import IN_SERVICE
from udiroot.errors import counted, printable


def lines(status: Status) -> Iterator[str]:
    """Sentences, each of one thing."""
    for job in status.jobs:
        where = f"{folded(job.nodes)}, since {_minute(job.since)}"
        yield f"job {job.job}: {job.phase}, {job.image}, user {job.user}, {where}"
    for hold in status.held:
        yield f"job {hold.job}: held{_since(hold.since)}: {hold.reason}"
    for group in status.groups():
        jobs = f"{', job ' if group.jobs else ''}{', '.join(group.jobs)}"
        yield f"{folded(group.nodes)}: {group.state}, dirty{_since(group.since)}{jobs}: {group.reason}"
    yield from status.errors
    if not (status.jobs or status.held or status.nodes or status.errors):
        yield "no jobs with images here, no dirty nodes"
    yield from _gateway_lines(status)


def _gateway_lines(status: Status) -> Iterator[str]:
    gateway = status.gateway
    if "trouble" in gateway:
        yield str(gateway["trouble"])
        return
    yield f"store: {_store(status)}"
    for pull in gateway["queue"]:
        yield f"pull: {printable(pull['reference'])}, uid {pull['uid']}, since {_minute(pull['since'])}"
    for failed in gateway["errors"]:
        who = f"{printable(failed['reference'])}, uid {failed['uid']}"
        yield f"failed: {who}, {_minute(failed['until'])}: {printable(failed['error'])}"


def tables(status: Status) -> Iterator[RenderableType]:
    """Sections of columns, those with something in them."""
    yield title(f"shifter-xc, {at(status.at)}")
    if status.nodes:
        yield from _section(f"{counted(len(status.nodes), 'node')} not clean", _nodes(status))
    if status.jobs:
        yield from _section(counted(len(status.jobs), "job with an image", "jobs with images"), _jobs(status))
    if status.held:
        yield from _section(counted(len(status.held), "job") + " held", _held(status))
    if not (status.jobs or status.held or status.nodes or status.errors):
        yield title("no jobs with images here, no dirty nodes", "good")
    for error in status.errors:
        yield title(error, "warning")
    yield from _gateway(status)


def _section(head: str, table: RenderableType) -> Iterator[RenderableType]:
    yield title("")
    yield title(head)
    yield table


def _nodes(status: Status) -> RenderableType:
    table = columns("NODES", "STATE", "FOR", "JOBS", "REASON", cut=("NODES", "JOBS"))
    for group in status.groups():
        kind = "warning" if group.state == IN_SERVICE else "bad"
        since, jobs = age(group.since, status.at), ", ".join(group.jobs)
        table.add_row(folded(group.nodes), styled(group.state, kind), since, jobs, group.reason)
    return table


def _jobs(status: Status) -> RenderableType:
    table = columns("JOB", "USER", "PHASE", "FOR", "NODES", "IMAGE", cut=("JOB", "USER", "NODES"))
    for job in status.jobs:
        since = age(job.since, status.at)
        table.add_row(job.job, job.user, job.phase, since, folded(job.nodes), printable(job.image))
    return table


def _held(status: Status) -> RenderableType:
    table = columns("JOB", "FOR", "REASON")
    for hold in status.held:
        table.add_row(hold.job, age(hold.since, status.at), hold.reason)
    return table


def _gateway(status: Status) -> Iterator[RenderableType]:
    gateway = status.gateway
    yield title("")
    if "trouble" in gateway:
        yield title(f"gateway: {gateway['trouble']}", "bad")
        return
    yield title(
        f"gateway: reachable; {_store(status)}; {counted(len(gateway['queue']), 'pull')} running or queued", "good"
    )
    if gateway["queue"]:
        table = columns("PULL", "UID", "FOR", cut=("PULL",))
        for pull in gateway["queue"]:
            table.add_row(printable(pull["reference"]), str(pull["uid"]), age(pull["since"], status.at))
        yield table
    if gateway["errors"]:
        table = columns("FAILED PULL", "UID", "AGO", "ERROR", cut=("FAILED PULL",))
        for failed in gateway["errors"]:
            ago = age(failed["until"], status.at)
            table.add_row(printable(failed["reference"]), str(failed["uid"]), ago, printable(failed["error"], 400))
        yield table


def _store(status: Status) -> str:
    return f"{counted(status.gateway['images'], 'image')}, {status.gateway['bytes'] / (1 << 30):.1f} GiB"


def _since(seconds: int) -> str:
    """Since when; nothing where nobody knows."""
    return f" since {_minute(seconds)}" if seconds else ""


def _minute(seconds: int) -> str:
    return at(seconds).replace(at(seconds)[-7:], " UTC") if seconds else "?"
