"""The one sentence that `udi-admin job` ends with: what became of the job, why, and who must act."""

from __future__ import annotations

import time
from dataclasses import dataclass, replace

from admin.console.screen import age
from admin.job.events import Failure
from admin.job.story import JobStory
from jobs.state import READY
from udi.nodes import folded
from udiroot.errors import counted
from udiroot.fields import number

_LONG = 600
"""Seconds after which no set-up or teardown still runs: hooks have shorter deadlines."""


@dataclass(frozen=True)
class Why:
    """`owner` is who must act: `user`, `site`, `node`, or `nobody`; `remedy` is what to run. The site, and who looks
    after a node, always get one; to the user the cause says what must be another way."""

    cause: str
    owner: str = "nobody"
    remedy: str = ""

    def sentence(self) -> str:
        """For a person."""
        who = {"nobody": "", "user": "the user's to mend", "site": "the site's to mend", "node": "the node's fault"}
        parts = [self.cause, who.get(self.owner, self.owner), self.remedy]
        return "; ".join(part for part in parts if part)

    def as_json(self) -> dict[str, str]:
        return {"cause": self.cause, "owner": self.owner, "remedy": self.remedy}


def why(story: JobStory) -> Why:
    """The gravest of what is known, in the order in which an operator would act on it."""
    found = _unclean(story) or _held(story) or _under_way(story) or _failed(story) or _rest(story)
    return found if found.remedy else replace(found, remedy=_look(story, found.owner))


def _look(story: JobStory, owner: str) -> str:
    """Where an operator finds what is wrong, if nothing better is known: what the hooks need is what this examines."""
    if owner not in ("site", "node"):
        return ""
    last = story.outcome.last_failure
    nodes = last.nodes if last and owner == "node" else ""
    if "+" in nodes:  # and more, which were not logged by name
        return "run udi-admin check-config --nodes NODE, for one of them"
    return f"run udi-admin check-config --nodes {nodes}" if nodes else "run udi-admin check-config"


def _unclean(story: JobStory) -> Why | None:
    """Nodes that are not known to be clean: other jobs may meet what is left there."""
    if story.dirty:
        nodes = folded(each.node for each in story.dirty)
        cause = f"{nodes} not clean after this job: {story.dirty[-1].reason}"
        return Why(cause, "node", f"run udi-admin recover {nodes}")
    failures = story.outcome.teardowns
    if failures and failures[-1].time >= max(story.outcome.ready, story.outcome.taken):
        last = failures[-1]
        remedy = f"run udi-admin takedown {story.job}" if story.state else "run udi-admin status"
        return Why(f"its teardown failed: {last.why}", last.owner, remedy)
    return None


def _held(story: JobStory) -> Why | None:
    failed = story.failed
    if not failed or not failed.is_held or story.asked.fate in ("running", "ended"):
        return None
    last = story.outcome.last_failure
    owner = last.owner if last else "site"
    cause = f"held after {counted(failed.count, 'failed start')}: {last.why if last else failed.reason}"
    owner = "site" if owner == "user" else owner
    look = _look(story, owner)
    return Why(cause, owner, f"{look}; once that is mended: {story.asked.release}" if story.asked.release else look)


def _under_way(story: JobStory) -> Why | None:
    state = story.state
    if state is None:
        return None
    if state.phase == READY:
        if story.asked.fate in ("queued", "held"):
            return Why(
                "it is queued again, and its root of the last start is still there: its epilogue has not run yet",
                *_stuck(story, state.since),
            )
        if story.asked.fate == "ended":
            return Why("it has ended, and its teardown has not run yet", *_stuck(story, state.since))
        return Why(f"it runs in its image on {folded(state.nodes)}")
    if state.phase in ("failed", "wanted", "left"):  # as notes of native Slurm say
        cause = story.asked.failure or f"its root on this node is {state.phase}"
        last = story.outcome.last_failure
        return Why(f"it could not start here: {cause}" if state.phase == "failed" else cause, _owner(last))
    cause = f"it is {state.phase} on {folded(state.nodes)}, for {age(state.since)}"
    return Why(cause, *_stuck(story, state.since))


def _stuck(story: JobStory, since: int) -> tuple[str, str]:
    """Who must act, and what is to be done, for a step that lasts too long."""
    if time.time() - since < _LONG:
        return "nobody", ""
    return "site", f"where no hook of it runs any more: udi-admin takedown {story.job}"


def _failed(story: JobStory) -> Why | None:
    last = story.outcome.last_failure
    if last is None:
        return None
    again = story.asked.fate == "queued"
    number_of = counted(len(story.outcome.starts), "start")
    cause = f"{'its last start' if again else 'it never ran: its start'} failed ({number_of} so far): {last.why}"
    unchecked = story.outcome.is_unchecked and last.owner == "user"
    return Why(cause, last.owner, "it was not checked at submission; udi pull shows why" if unchecked else "")


def _rest(story: JobStory) -> Why:
    asked, found = story.asked, story.outcome
    has_image = bool(story.image or found.ready or story.failed)
    status = number(asked.said.get("exit status", "0"))
    if asked.fate in ("queued", "held"):
        state = "is held by its user or the site" if asked.fate == "held" else "waits in the queue"
        about = f"for {story.image}" if story.image else "and shows no image here"
        return Why(f"it {state}, {about}", *_image_trouble(story))
    if asked.fate == "running" and not has_image:
        return Why("it runs, and no image is known of it here: shifter-xc has no part in it")
    if asked.fate == "running":
        return Why("it is starting, or its state is on the host that runs its hooks")
    if found.ready and found.taken:
        how = f", and its own exit status was {status}" if status else ""
        return Why(
            f"it ran in its image and was taken down{how}: nothing of shifter-xc failed", "user" if status else "nobody"
        )
    if found.ready:
        return Why("its image was ready, and no teardown is in the log", "site", "see whether its epilogue ran")
    if not has_image:
        return Why("no image is known of it here: shifter-xc had no part in it")
    return Why("it has ended, and the log does not say that it ran")


def _image_trouble(story: JobStory) -> tuple[str, str]:
    """A job that waits for an image which is not in the store will fail."""
    if story.image and not story.image_id and any(text.startswith("image: ") for text in story.troubles):
        return "user", "its image is not in the store: udi pull, before it starts"
    return "nobody", ""


def _owner(last: Failure | None) -> str:
    return last.owner if last else "user"
