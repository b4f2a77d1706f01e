"""pbs_server and its scheduler: the queue, holds, placement, and the consequences of each result of a start.

FIFO over the jobs that fit; a node runs one job at a time. A job that a prologue sent back is eligible again after one
short scheduling pause, without limit, unless it is held (torque-reference b).
"""

import dataclasses
import grp
import json
import pwd
import threading
import time
from collections.abc import Callable
from pathlib import Path

from xcsim import starter
from xcsim.alps import Alps
from xcsim.call import Call
from xcsim.faults import Faults
from xcsim.job import EXITED, HELD, PRERUN, QUEUED, Job
from xcsim.mom import Mom
from xcsim.node_states import NodeStates
from xcsim.qstat import UNKNOWN_JOB, find, full_id
from xcsim.qstat import run as qstat
from xcsim.settings import Settings
from xcsim.variables import server_items

QUEUES = ("batch", "debug")
_DELETED = 271

Act = Callable[[Job, str], None]


class Torque:
    """The server. Its jobs are kept in one file; completed jobs stay listed."""

    def __init__(
        self,
        path: Path,
        settings: Settings,
        alps: Alps,
        states: NodeStates,
        faults: Faults,
        lock: "threading.RLock",
    ) -> None:
        self._path = path
        self._settings = settings
        self._alps = alps
        self._states = states
        self._faults = faults
        self._lock = lock
        self._wake = threading.Condition(lock)
        self._mom = Mom(settings, faults, lock, self.save)
        self._last = 0
        self._orphaned: dict[int, float] = {}
        """Since when a reservation has been nobody's."""
        self._ended: dict[str, str] = {}
        """What is kept of jobs that have ended, as text: they do not change any more, and they are most of all jobs."""
        self.jobs: dict[str, Job] = {}
        if path.exists():
            saved = json.loads(path.read_text())
            self._last = saved["last"]
            self.jobs = {job.id: job for job in (Job(**one) for one in saved["jobs"])}

    def start(self) -> None:
        """Begin scheduling; jobs that were running when the daemon died are cleaned up."""
        for job in self.jobs.values():
            if job.state in "RE":
                threading.Thread(target=self._end_leftover, args=(job,), daemon=True).start()
        threading.Thread(target=self._schedule, daemon=True).start()

    def look_again(self) -> None:
        """Schedule again: something that placement depends on has changed."""
        with self._wake:
            self._wake.notify_all()

    def save(self) -> None:
        listed = ", ".join(self._ended.get(job.id) or self._text(job) for job in self.jobs.values())
        temporary = self._path.with_suffix(".new")
        temporary.write_text(f'{{"last": {self._last}, "jobs": [{listed}]}}', errors="surrogateescape")
        temporary.rename(self._path)

    def _text(self, job: Job) -> str:
        text = json.dumps(dataclasses.asdict(job))
        if job.state == "C":
            self._ended[job.id] = text
        return text

    # -- commands of users --------------------------------------------------------------------------------------------

    def submit(self, call: Call) -> int:
        wanted, script = json.loads(call.arguments[0]), call.arguments[1]
        if wanted["queue"] not in QUEUES:
            call.write_error("qsub: submit error (Unknown queue MSG=requested queue not found)\n")
            return 170
        person = pwd.getpwuid(call.uid)
        resources: dict[str, str] = {}
        for part in wanted["resources"]:  # the command line comes first and takes precedence
            name, _, value = part.partition("=")
            resources.setdefault(name, value)
        with self._wake:
            self._last += 1
            job = Job(
                number=self._last,
                server=self._settings.server_name,
                host=self._settings.login_name,
                name=wanted["name"],
                user=person.pw_name,
                group=grp.getgrgid(person.pw_gid).gr_name,
                uid=call.uid,
                gid=person.pw_gid,
                queue=wanted["queue"],
                account=wanted["account"],
                script=script,
                resources=resources,
                variables=server_items(wanted["variables"]),
                output=wanted["output"],
                error=wanted["error"],
                join=wanted["join"],
                shell=wanted["shell"],
                workdir=wanted["workdir"],
                submit_args=wanted["submit_args"],
                hold=wanted["hold"],
                state="Q" if wanted["hold"] == "n" else "H",
                substate=QUEUED if wanted["hold"] == "n" else HELD,
            )
            tasks, slots = wanted["array"]
            if script:  # an empty script gets an id but no job
                self.jobs |= {each.id: each for each in (_tasks(job, tasks, slots) if tasks else [job])}
            self.save()
            self._wake.notify_all()
        call.write(f"{job.number}[].{job.server}\n" if tasks else f"{job.id}\n")
        return 0

    def qstat(self, call: Call) -> int:
        if "--version" in call.arguments:
            return self.look(call)  # asks no server (cray-reference T51)
        if self._faults.strikes("qstat-hangs"):
            call.wait_gone()
            return 1
        if self._faults.strikes("qstat-down"):
            server = self._settings.server_name
            call.write_error(f"qstat: cannot connect to server {server} (errno=111) Connection refused\n")
            return 111
        return self.look(call)

    def look(self, call: Call) -> int:
        """qstat without its faults, for observers of the machine."""
        with self._lock:
            code, out, err = qstat(call.arguments, self.jobs, self._settings)
        call.write(out)
        call.write_error(err)
        return code

    def qhold(self, call: Call) -> int:
        """Set a hold. A running job continues; the hold takes effect when it is queued again."""
        return self._each(call, "qhold", lambda job, kind: self._hold(job, kind, held=True))

    def qrls(self, call: Call) -> int:
        return self._each(call, "qrls", lambda job, kind: self._hold(job, kind, held=False))

    def qdel(self, call: Call) -> int:
        return self._each(call, "qdel", lambda job, _: self._delete(job))

    def _each(self, call: Call, name: str, act: Act) -> int:
        kind, code, words = "u", 0, list(call.arguments)
        while words and words[0].startswith("-"):
            option = words.pop(0)
            if option.startswith("-h"):
                kind = option[2:] or (words.pop(0) if words else "u")
            elif option in ("-m", "-W") and words:
                words.pop(0)
        for word in words:
            with self._wake:
                jobs = find(word, self.jobs, self._settings)
                if not jobs:
                    call.write_error(f"{name}: Unknown Job Id Error {full_id(word, self._settings)}\n")
                    code = UNKNOWN_JOB
                left = [job for job in jobs if job.state != "C"]
                for job in left or jobs:
                    code = self._act(call, name, act, job, kind) or code
        return code

    def _act(self, call: Call, name: str, act: Act, job: Job, kind: str) -> int:
        if call.uid not in (0, job.uid) or (call.uid != 0 and kind not in ("u", "n")):
            call.write_error(f"{name}: Unauthorized Request  {job.id}\n")
            return 159
        if job.state == "C":
            call.write_error(f"{name}: Request invalid for state of job MSG=job in complete state {job.id}\n")
            return 168
        act(job, kind)
        job.changed = time.time()
        self.save()
        self._wake.notify_all()
        return 0

    def _hold(self, job: Job, kind: str, *, held: bool) -> None:
        kinds = set(job.hold) - {"n"}
        kinds = kinds | (set(kind) - {"n"}) if held else kinds - set(kind)
        job.hold = "".join(sorted(kinds)) or "n"
        if job.state in "QH":
            self._queue_up(job)

    def _queue_up(self, job: Job) -> None:
        job.state, job.substate = ("Q", QUEUED) if job.hold == "n" else ("H", HELD)

    def _delete(self, job: Job) -> None:
        if job.state in "QH":
            job.exit_status = _DELETED
            self._complete(job)
        else:
            self._mom.cancel(job)

    def _complete(self, job: Job) -> None:
        job.state, job.substate, job.ended = "C", EXITED, time.time()

    # -- the scheduler ------------------------------------------------------------------------------------------------

    def _schedule(self) -> None:
        with self._wake:
            while True:
                self._release_orphans()
                for job in list(self.jobs.values()):
                    self._try(job)
                self._wake.wait(self._settings.schedule_delay)

    def _release_orphans(self) -> None:
        """Reservations of jobs that do not run, as a MOM that was killed in a prologue leaves them (TORQUE 6,
        src/server/process_alps_status.c, check_if_orphaned)."""
        running = {job.id for job in self.jobs.values() if job.state in "RE"}
        held = [one for one in self._alps.reservations.values() if not one.released]
        found = [one.id for one in held if one.batch_id not in running]
        now = time.monotonic()
        self._orphaned = {number: self._orphaned.get(number, now) for number in found}
        for number, since in self._orphaned.items():
            if now - since > self._settings.orphan_delay:
                self._alps.release(number)

    def _try(self, job: Job) -> None:
        if job.state != "Q" or job.eligible > time.time():
            return
        beside = [one for one in self.jobs.values() if one.number == job.number and one.state in "RE"]
        if job.slots and len(beside) >= job.slots:
            return
        busy = {nid for one in self.jobs.values() if one.state in "RE" for nid in one.nids}
        busy |= {nid for one in self._alps.reservations.values() for nid in one.nids}
        free = sorted(self._states.free() - busy)
        if len(free) < job.node_count:
            return
        job.nids = free[: job.node_count]
        job.state, job.substate = "R", PRERUN
        job.start_count += 1
        job.reservation = job.session = 0
        job.started = job.changed = time.time()
        self.save()
        threading.Thread(target=self._run, args=(job,), daemon=True).start()

    def _run(self, job: Job) -> None:
        outcome = self._mom.run(job)
        with self._wake:
            job.exit_status = outcome.status
            job.changed = time.time()
            if outcome.start_failed and outcome.status != starter.ABORTED and not job.deleted:
                job.nids = []
                job.eligible = time.time() + self._settings.schedule_delay
                self._queue_up(job)
            else:
                if job.deleted:
                    job.exit_status = _DELETED
                self._complete(job)
            self.save()
            self._wake.notify_all()

    def _end_leftover(self, job: Job) -> None:
        self._mom.end_leftover(job)
        with self._wake:
            job.exit_status = _DELETED
            self._complete(job)
            self.save()
            self._wake.notify_all()


def _tasks(template: Job, tasks: list[int], slots: int) -> list[Job]:
    """The jobs of an array (torque-reference i)."""
    return [
        dataclasses.replace(
            template,
            name=f"{template.name}-{task}",
            variables=[*template.variables, f"PBS_ARRAYID={task}"],
            task=task,
            slots=slots,
        )
        for task in tasks
    ]
