"""What is soaked the same way on every machine: users and their images, the gateway and its munged, what is quiet."""

from __future__ import annotations

import collections
import os
import random
import signal
import time
import traceback
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Self

from tests.soak import stores
from tests.soak.actors import Act, Actor, Role, play
from tests.soak.jobs import NOT_PINNED, Expected, Submitted, Tag, always
from tests.soak.large import HOW, large
from tests.soak.leftovers import Census, keep_evidence
from tests.soak.machine import UIDS, Soaked, signal_all, without_traceback
from tests.soak.memory import Memory
from tests.soak.wishes import FILE_TEXT, VOLUMES, Wish, wish
from tests.system import images
from xcsim.processes import children, wait_until

_FETCHED = "fetched:1"
"""It comes from a registry."""
_IMAGES = {
    "alice": ("tiny:1", "tools:1", "moving:1", "shared:1", _FETCHED),
    "bob": ("secret:1", "tools:1", "shared:1", "short:1", "short:2"),
}
_REMOVED = ("short:1", "short:2")
"""Their images are removed while jobs wait for them, which then start in what the name has got since."""
_MOVING = ("moving:1", "shared:1", _FETCHED, *_REMOVED)
_QUIET_SECONDS = 120.0
_PROBE_SECONDS = 90.0
_ENDING_SECONDS = 30.0
_ROUGH_ROUNDS = 4
"""One round of so many kills the gateway; in between it lives long enough for its memory to be measured."""


class Soak:
    """One machine for the whole run."""

    def __init__(self, machine: Soaked, seed: str, say: Callable[[str], None], ease: float) -> None:
        self._machine = machine
        self._seed = seed
        self._say = say
        self._ease = ease
        self._is_down = False
        self._submitted = Submitted()
        self._memory = Memory()
        self._tags = {name: Tag(machine.marker(name)) for name in _MOVING}
        self._censuses: Mapping[str, Census] = {}
        self._pulls: collections.Counter[str] = collections.Counter()

    # -- rounds -------------------------------------------------------------------------------------------------

    def __enter__(self) -> Self:
        try:
            self._begin()
        except BaseException:  # SIGTERM among them
            self._machine.down()
            raise
        return self

    def _begin(self) -> None:
        self._machine.up()
        for user, uid in UIDS.items():
            path = self._machine.scratch / user / "input"
            path.write_text(f"{FILE_TEXT}\n")
            os.chown(path, uid, uid)
        self._move(random.Random(0))
        self._publish(random.Random(0))
        self._fetch(random.Random(0))
        self._censuses = self._machine.censuses()

    def __exit__(self, *_: object) -> None:
        if not self._is_down:
            self._machine.down()

    def end(self) -> list[str]:
        """Take the machine down; whatever of it is left on this host."""
        bound = self._machine.loops()
        self._machine.down()
        self._is_down = True
        return [f"{one.name} is still bound to {one.path}" for one in bound if one.is_bound]

    def round(self, number: int, seconds: float) -> list[str]:
        """Let all act for so long, then quiet; whatever does not hold."""
        kills = [*self._machine.kills(), self._kill_conversion]
        kills += [self._kill_gateway, self._freeze_gateway] if number % _ROUGH_ROUNDS == 1 else []
        roles = [
            *(Role(f"{user} {n}", [self._submit(user)]) for user in UIDS for n in range(2)),
            Role("canceler", [self._cancel], pause=6.0),
            Role("killer", kills, pause=7.0),
            Role("munge", [self._kill_munged], pause=90.0, late=True),
            Role("puller", [self._move, self._pull_and_remove], pause=3.0),
            Role("publisher", [self._publish], pause=8.0),
            Role("fetcher", [self._fetch], pause=8.0),
            Role("expiry", [self._expire], pause=6.0),
            Role("operator", [self._machine.look_after], pause=10.0),
            Role("reader", [self._read_results]),
            *self._machine.roles(),
        ]
        actors = [Actor(role, f"{self._seed} {self._machine.name} {number}", self._ease) for role in roles]
        failure = play(actors, seconds)
        found = [failure] if failure else []
        try:
            found += self._quiet()
        except Exception:  # noqa: BLE001 - what an actor met before is told all the same, and the evidence kept
            found.append(f"when all was to be quiet: {traceback.format_exc()}")
        did = sum((actor.done for actor in actors), start=collections.Counter[str]())
        told = f"{self._submitted.told}, {dict(did)}, pulls {dict(self._pulls)}, {self._memory.told}"
        self._say(f"{self._machine.name} round {number}: {told}")
        return found

    def keep(self, place: Path) -> None:
        """Copy the evidence there."""
        keep_evidence(place, self._machine.evidence())

    # -- users --------------------------------------------------------------------------------------------------

    def _submit(self, user: str) -> Act:
        def submit(dice: random.Random) -> None:
            if len(self._submitted.now()) <= self._machine.most_jobs:
                self._begin_job(user, wish(dice, user, _IMAGES[user], self._machine.most_nodes), dice)

        return submit

    def _begin_job(self, user: str, one: Wish, dice: random.Random) -> bool:
        """Submit a job; whether it was accepted."""
        tag = self._tags.get(one.image)
        oldest = tag.oldest if tag else 0
        volumes = (*one.volumes.texts, *([one.refused] if one.refused else []))
        words, script, tasks = self._machine.submission(one, volumes, dice)
        done = without_traceback(self._machine.run(user, *words, input=script))
        if done.returncode != 0:
            return False
        pinned = NOT_PINNED not in done.stderr and one.image not in _REMOVED
        markers = tag.markers(oldest, pinned=pinned) if tag else always(self._machine.marker(one.image))
        job = done.stdout.strip().partition(";")[0]
        word, refused = one.volumes.word, bool(one.refused)
        self._submitted.add(Expected(job, user, UIDS[user], markers, word, tasks, refused))
        return True

    def _read_results(self, _: random.Random) -> None:
        """Jobs that are over: what they printed was from inside their image."""
        for job in self._machine.over(self._submitted.now()):
            self._submitted.over(job, self._machine.printed(job))

    def _cancel(self, dice: random.Random) -> None:
        jobs = self._submitted.now()
        if jobs:
            self._machine.cancel(dice.choice(jobs).job)

    # -- images -------------------------------------------------------------------------------------------------

    def _move(self, dice: random.Random) -> None:
        """A tag gets another image while jobs of the old one wait and run."""
        self._pull(dice, "alice", "moving:1", *dice.choice([(), ("--format", "directory")]))

    def _publish(self, dice: random.Random) -> None:
        """So does one that is everybody's."""
        self._pull(dice, "root", "shared:1", "--public")

    def _pull_and_remove(self, dice: random.Random) -> None:
        name = dice.choice(_REMOVED)
        self._pull(dice, "bob", name)
        time.sleep(dice.uniform(0, 2))
        without_traceback(self._machine.run("bob", "/opt/udi/bin/udi", "rm", name))

    def _expire(self, _: random.Random) -> None:
        without_traceback(self._machine.run("udi", "/opt/udi/bin/udi-gateway", "expire"))

    def _pull(self, dice: random.Random, user: str, name: str, *options: str) -> None:
        archive = self._machine.scratch / f"soak-{name.replace(':', '-')}.tar"
        tag, uid = self._tags[name], UIDS.get(user, 0)
        if dice.random() < 1 / 3:
            images.save(archive, large(tag.next()), name, (uid, uid), how=HOW)
        else:
            images.save(archive, images.tiny(tag.next()), name, (uid, uid))
        self._pulled(dice, user, tag, f"docker-archive:/scratch/{archive.name}", *options)

    def _fetch(self, dice: random.Random) -> None:
        """A large image, from the registry."""
        archive, tag = self._machine.scratch / "soak-fetched.tar", self._tags[_FETCHED]
        images.save(archive, large(tag.next()), _FETCHED, (0, 0), how=HOW)
        self._machine.push(archive, f"soak/{_FETCHED}")
        self._pulled(dice, "alice", tag, f"soak/{_FETCHED}", _FETCHED)

    def _pulled(self, dice: random.Random, user: str, tag: Tag, *words: str) -> None:
        way, run = ("munge", self._machine.run_elsewhere) if dice.random() < 1 / 3 else ("socket", self._machine.run)
        done = without_traceback(run(user, "/opt/udi/bin/udi", "pull", *words)).returncode == 0
        tag.moved(surely=done)
        self._pulls[f"{way} {'done' if done else 'failed'}"] += 1

    # -- what goes wrong ----------------------------------------------------------------------------------------

    def _kill_conversion(self, dice: random.Random) -> None:
        """The worker of one, or one of its companions."""
        if self._converts():
            pids = self._machine.conversions()
            signal_all(dice.sample(pids, min(1, len(pids))), signal.SIGKILL)

    def _converts(self) -> bool:
        """Whether a conversion has begun, or does within a moment."""
        return wait_until(lambda: bool(self._machine.conversions()), 3, 0.1)

    def _kill_gateway(self, _: random.Random) -> None:
        """All processes of its conversions end with it."""
        self._pulls["cut off"] += self._converts()
        signal_all(self._machine.gateway(serving=False), signal.SIGKILL)
        wait_until(lambda: not self._machine.gateway(serving=True), 10, 0.05)
        assert wait_until(lambda: not self._machine.conversions(), _ENDING_SECONDS, 0.05), self._machine.conversions()
        self._machine.start_gateway()

    def _freeze_gateway(self, dice: random.Random) -> None:
        """It is there, and answers nobody for a while."""
        frozen = self._machine.gateway(serving=True)
        signal_all(frozen, signal.SIGSTOP)
        time.sleep(dice.uniform(0.5, 4))
        signal_all((*frozen, *children(os.getpid())), signal.SIGCONT)  # nsenter stops with what it has started

    def _kill_munged(self, dice: random.Random) -> None:
        start_again = self._machine.kill_munged(dice, dice.choice(("KILL", "TERM")))
        time.sleep(dice.uniform(0.1, 3))
        start_again()

    # -- quiet --------------------------------------------------------------------------------------------------

    def _quiet(self) -> list[str]:
        """End all jobs; what is dirty then must be named, and an operator must be able to clean it."""
        self._machine.calm()
        signal_all(children(os.getpid()), signal.SIGCONT)  # an nsenter that stopped after what it started went on
        if not self._machine.gateway(serving=True):
            self._machine.start_gateway()
        if not wait_until(self._all_over, _QUIET_SECONDS, 0.5):
            return [f"jobs do not end: {[job.job for job in self._submitted.now()]}"]
        time.sleep(3)  # a health check may still be at work
        found = [*self._machine.unnamed(), *self._machine.cleaned(), *stores.faults_of(self._machine.scratch / "udi")]
        if not wait_until(lambda: not self._machine.conversions(), _ENDING_SECONDS, 0.1):
            found.append(f"processes of conversions are left: {self._machine.conversions()}")
        wait_until(lambda: not self._added(), 5, 0.5)
        found += self._added()
        found += self._probe()
        for kind, pids in ({"gateway": self._machine.gateway(serving=True)} | self._machine.daemons()).items():
            found += self._memory.grown(pids, kind)
        return found + [f"{path} has a traceback" for path in self._machine.logs() if _has_traceback(path)]

    def _all_over(self) -> bool:
        for job in self._submitted.now():
            self._machine.cancel(job.job)
        return self._are_read()

    def _are_read(self) -> bool:
        self._read_results(random.Random(0))
        return not self._submitted.now()

    def _probe(self) -> list[str]:
        """A job of all nodes runs now: nothing holds one of them that nobody has looked at."""
        before = self._submitted.proved
        if not self._begin_job(
            "alice", Wish("tiny:1", self._machine.all_nodes, VOLUMES[0], "", "true"), random.Random(0)
        ):
            return ["a job of all nodes is refused"]
        if not wait_until(self._are_read, _PROBE_SECONDS, 0.5) or self._submitted.proved == before:
            return [f"a job of all nodes did not run: {self._submitted.now()}"]
        return []

    def _added(self) -> list[str]:
        added = {name: census.added() for name, census in self._censuses.items()}
        return [f"{path} is left over on {name}" for name, paths in added.items() for path in paths]


def _has_traceback(log: Path) -> bool:
    return log.exists() and b"Traceback" in log.read_bytes()
