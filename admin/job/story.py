"""All that is known of one job, from its submission to its teardown, gathered for `udi-admin job`.

Each source may be gone: the workload manager forgets jobs, the state and the plan end with the job, the log is rotated.
What cannot be read is a line of `troubles`, and not the end.
"""

from __future__ import annotations

import contextlib
import dataclasses
import os
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import Any, TypeVar

from admin.job.events import Outcome, condensed, outcome
from admin.job.log import Event, JobLog, read_log
from admin.seams.asked import Asked
from jobs.state import JobDirectory, JobState, jobs_with_state
from jobs.tries import FailedStarts
from nodehealth.records import DirtyNode, dirty_nodes
from udi.accounts import account_of, store_owner
from udi.config import SiteConfig
from udi.facts import Facts
from udi.oserrors import reason
from udi.pieces import pieces
from udi.sentences import sentence
from udi.store import StoreLayout, StoreReader
from udiroot.errors import NotFound, UdiError, UsageError, printable
from udiroot.plan import NodePlan
from udiroot.rights import FileRights

_MAX_PLAN = 8 << 20
T = TypeVar("T")


@dataclass(frozen=True)
class PlanSummary:
    """What a node plan says of the job: volumes and modules as they were granted, and whether the file is there."""

    path: str
    volumes: tuple[str, ...] = ()
    modules: tuple[str, ...] = ()
    is_there: bool = False


@dataclass(frozen=True)
class JobStory:
    """One job. `image` is the reference; `image_id` is what it was at the start, or else at submission (`is_pinned`),
    and `facts` are those of that image, where the store has it."""

    job: str
    asked: Asked
    state: JobState | None = None
    log: JobLog = field(default_factory=JobLog)
    outcome: Outcome = field(default_factory=Outcome)
    failed: FailedStarts | None = None
    dirty: tuple[DirtyNode, ...] = ()
    plan: PlanSummary | None = None
    image: str = ""
    image_id: str = ""
    is_pinned: bool = False
    facts: Facts | None = None
    troubles: tuple[str, ...] = ()

    @property
    def user(self) -> str:
        return (self.state.user if self.state else "") or self.asked.user

    @property
    def is_known(self) -> bool:
        """Whether anything at all is known of the job."""
        return bool(self.asked.fate or self.state or self.log.events or self.failed or self.dirty or self.asked.failure)

    def events(self) -> list[Event]:
        """Those for a person."""
        return condensed(self.log.events)


def read_story(site: SiteConfig, asked: Asked) -> JobStory:
    """All of it. Raises NotFound where nothing is known of the job."""
    return _Reading(site).story(asked)


class _Reading:
    def __init__(self, site: SiteConfig) -> None:
        self._site = site
        self._troubles: list[str] = []

    def story(self, asked: Asked) -> JobStory:
        site = self._site
        log = read_log(site.jobs.log, asked.job)
        job = log.events[-1].job if log.events else self._id_of_state(asked.job)
        state = self._tried(lambda: JobDirectory(site, job).load()) or asked.state
        dirty = self._tried(lambda: tuple(each for each in dirty_nodes(site) if job in each.jobs)) or ()
        found = JobStory(job, asked, state, log, outcome(log.events), asked.failed, dirty)
        if not found.is_known:
            raise NotFound(f"nothing is known of job {printable(job)} on this host", self._where_else(found))
        found = self._with_image(found)
        plan = self._plan(state.plan) if state and state.plan else None
        remarks = [text for text in (asked.trouble, log.remark) if text]
        return dataclasses.replace(found, plan=plan, troubles=(*remarks, *self._troubles))

    def _id_of_state(self, text: str) -> str:
        """The whole id, where `text` is the number of a job that has a state here."""
        names = self._tried(lambda: [each.job for each in jobs_with_state(self._site)]) or []
        return next((name for name in names if name.startswith(f"{text}.")), text)

    def _where_else(self, found: JobStory) -> str:
        remarks = "; ".join(text for text in (found.asked.trouble, found.log.remark, *self._troubles) if text)
        return remarks or "its log may be gone, or on the host whose hooks ran it"

    def _with_image(self, found: JobStory) -> JobStory:
        state, asked = found.state, found.asked
        image = (state.image if state else "") or asked.image or found.outcome.image
        known = state.image_id if state else ""
        found = dataclasses.replace(found, image=image, image_id=known or asked.pin, is_pinned=bool(asked.pin))
        if not image:
            return found
        with self._store() as reader:
            if not found.image_id:
                found = self._named_now(found)
            if found.image_id:
                return dataclasses.replace(found, facts=reader.facts_of(found.image_id))
        return found

    def _named_now(self, found: JobStory) -> JobStory:
        """A job that waits: what its name means now, and whether its user has pinned that. Raises UdiError."""
        if found.asked.fate not in ("queued", "held"):
            return found
        try:
            account = account_of(found.user)
            reference = self._site.registry.parse(found.image)
        except UsageError:
            return found  # such as a file, which the job's own script carries
        reader = StoreReader(StoreLayout(self._site.store.path), account.uid, account.groups, reads_all=True)
        image_id = reader.resolve(reference)
        return dataclasses.replace(found, image_id=image_id, is_pinned=reader.has_pin(image_id))

    @contextlib.contextmanager
    def _store(self) -> Iterator[StoreReader]:
        """The store with its account's rights; what goes wrong there is a trouble."""
        try:
            with FileRights(*store_owner(self._site.store.account)):
                yield StoreReader(StoreLayout(self._site.store.path), 0, reads_all=True)
        except UdiError as error:
            self._troubles.append(f"image: {sentence(error)}")
        except OSError as error:
            self._troubles.append(f"image store: {reason(error)}")

    def _plan(self, path: str) -> PlanSummary:
        """What the plan says; the file is gone with the job, and may be on a store that this host cannot read."""
        try:
            with FileRights(*store_owner(self._site.store.account)):
                descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NOFOLLOW | os.O_NONBLOCK)
            with os.fdopen(descriptor, "rb") as stream:
                plan = NodePlan.parse(stream.read(_MAX_PLAN))
        except FileNotFoundError:
            return PlanSummary(path)
        except (OSError, UdiError) as error:
            words = reason(error) if isinstance(error, OSError) else error.message
            self._troubles.append(f"plan {path}: {words}")
            return PlanSummary(path)
        volumes = [f"{each.source}:{each.target}{':ro' if each.read_only else ''}" for each in plan.volumes]
        volumes += [f"{each.source}:{each.target}:per-node={each.size}" for each in plan.caches]
        modules = tuple(each.name for each in plan.site_modules)
        return PlanSummary(path, tuple(volumes), modules, is_there=True)

    def _tried(self, read: Callable[[], T]) -> T | None:
        try:
            return read()
        except UdiError as error:
            self._troubles.append(sentence(error))
            return None


def as_document(story: JobStory, why: dict[str, str]) -> dict[str, Any]:
    """The keys of `udi-admin job --json`, which `udi-admin job --help` lists."""
    state, facts, asked = story.state, story.facts, story.asked
    return {
        "job": story.job,
        "user": story.user,
        "image": story.image,
        "image_id": story.image_id,
        "pinned": story.is_pinned,
        "facts": {"format": facts.format, "size": facts.size, "kind": facts.kind, "arch": facts.arch} if facts else {},
        "volumes": list(story.plan.volumes) if story.plan and story.plan.is_there else list(pieces(asked.volumes)),
        "modules": list(story.plan.modules) if story.plan and story.plan.is_there else list(pieces(asked.modules)),
        "phase": state.phase if state else "",
        "since": state.since if state else 0,
        "nodes": [node.name for node in state.nodes] if state else [],
        "allocation": state.allocation if state else "",
        "plan": story.plan.path if story.plan and story.plan.is_there else "",
        "setup": story.outcome.setup,
        "teardown": story.outcome.teardown,
        "failed_starts": dataclasses.asdict(story.failed) if story.failed else {},
        "failures": [dataclasses.asdict(each) for each in (*story.outcome.starts, *story.outcome.teardowns)],
        "dirty": [each.as_json() for each in story.dirty],
        "manager": {"fate": asked.fate, **asked.said},
        "events": [dataclasses.asdict(event) for event in story.events()],
        "why": why,
        "troubles": list(story.troubles),
    }
