"""pbs_mom on the login node: one job from its start to its last epilogue (cray-reference 4.2, torque-reference b).

The starter is a separate process; this side reads its reports, runs the epilogues, releases the reservation and
delivers the output. After a failed prologue the starter's RELEASE and the epilogues race, as they do in reality.
"""

import contextlib
import dataclasses
import json
import os
import pwd
import signal
import subprocess
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from xcsim import hooks, starter
from xcsim.faults import Faults
from xcsim.hooks import JobContext
from xcsim.job import RUNNING, Job
from xcsim.processes import kill_session
from xcsim.settings import Settings
from xcsim.shared_root import SOFTWARE
from xcsim.variables import environment_of

STARTER = f"{SOFTWARE}/bin/pbs_mom_starter"
KILL_DELAY = 2.0


@dataclasses.dataclass
class Outcome:
    """The result of a start or a job: `status` as Torque keeps it, `start_failed` as in torque-reference b."""

    status: int
    start_failed: bool = False


class Mom:
    """Runs jobs; `changed` is called (under the lock) after each change of a job."""

    def __init__(
        self, settings: Settings, faults: Faults, lock: "threading.RLock", changed: Callable[[], None]
    ) -> None:
        self._settings = settings
        self._faults = faults
        self._lock = lock
        self._changed = changed
        self._running: dict[str, subprocess.Popen[bytes]] = {}

    def run(self, job: Job) -> Outcome:
        """One start of one job, epilogues included."""
        context = self._context(job)
        outcome = self._start_and_wait(job, context)
        self._epilogues(job, context, outcome.status)
        if job.reservation and not outcome.start_failed:
            starter.release(job.reservation, self._settings.release_delay)
        if outcome.status != starter.ABORTED or not outcome.start_failed:
            self._deliver(job, context)
        self._remove_files(context)
        return outcome

    def end_leftover(self, job: Job) -> None:
        """After a restart of this daemon: kill what still runs of a job, and run its epilogues (again)."""
        if job.session:
            kill_session(job.session)
        context = self._context(job)
        self._epilogues(job, context, 256 + signal.SIGKILL)
        if job.reservation:
            starter.release(job.reservation, self._settings.release_delay, tries=2)
        self._deliver(job, context)
        self._remove_files(context)

    def cancel(self, job: Job) -> None:
        """qdel of a running job: SIGTERM to its session, SIGKILL shortly after. A prologue runs to completion."""
        with self._lock:
            job.deleted = True
            if job.substate != RUNNING:
                return
            session = job.session
        threading.Thread(target=self._end_session, args=(job, session), daemon=True).start()

    def _end_session(self, job: Job, session: int) -> None:
        """`epilogue.precancel` as the user, its output discarded; then the signals."""
        context = self._context(job)
        arguments = dataclasses.replace(context, requested="").epilogue_arguments(session, "", 0)
        call = context.call("epilogue.user", arguments, 0o022)
        hooks.run(dataclasses.replace(call, name="epilogue.precancel", output="/dev/null", error="/dev/null"))
        kill_session(session, signal.SIGTERM)
        threading.Timer(KILL_DELAY, self._kill, args=(job, session)).start()

    def _kill(self, job: Job, session: int) -> None:
        if job.id in self._running and job.session == session:
            kill_session(session)

    # -- the start ---------------------------------------------------------------------------------------------

    def _start_and_wait(self, job: Job, context: JobContext) -> Outcome:
        self._lay_out(job, context)
        fault = self._faults.strikes("kill-prologue")
        given = {
            "context": dataclasses.asdict(context),
            "release_delay": self._settings.release_delay,
            "kill_after": fault.seconds(0.1) if fault else None,
            "environment": self._job_environment(job, context),
        }
        reader, writer = os.pipe()
        process = subprocess.Popen(
            [STARTER, str(writer)],
            env={"PATH": "/bin:/usr/bin", "LANG": "C.UTF-8"},
            cwd=hooks.MOM_PRIV,
            stdin=subprocess.PIPE,
            pass_fds=(writer,),
            start_new_session=True,
        )
        os.close(writer)
        with self._lock:
            job.session = process.pid
            self._running[job.id] = process
        try:
            return self._follow(job, process, given, reader)
        finally:
            with self._lock:
                del self._running[job.id]

    def _follow(self, job: Job, process: "subprocess.Popen[bytes]", given: dict[str, Any], reader: int) -> Outcome:
        assert process.stdin is not None
        with contextlib.suppress(BrokenPipeError):
            process.stdin.write(json.dumps(given).encode() + b"\n")
            process.stdin.flush()
        outcome = Outcome(starter.RETRY, start_failed=True)
        with os.fdopen(reader) as steps:
            for line in steps:
                step = json.loads(line)
                with self._lock:
                    job.reservation = step.get("reserved", job.reservation)
                if "failed" in step:
                    # The starter continues with the release while the epilogues run.
                    threading.Thread(target=process.wait, daemon=True).start()
                    process.stdin.close()
                    return Outcome(step["failed"], start_failed=True)
                if "started" in step:
                    outcome = self._start_script(job, process)
                    break
        if outcome.start_failed:
            process.stdin.close()
            process.wait()
            return outcome
        return self._wait(job, process)

    def _start_script(self, job: Job, process: "subprocess.Popen[bytes]") -> Outcome:
        assert process.stdin is not None
        with self._lock:
            job.substate = RUNNING
            job.started = time.time()
            if job.reservation:
                job.variables.insert(0, f"BATCH_PARTITION_ID={job.reservation}")
            self._changed()
            deleted = job.deleted
        with contextlib.suppress(BrokenPipeError):
            process.stdin.write(b"" if deleted else b"go\n")
            process.stdin.close()
        return Outcome(0)

    def _wait(self, job: Job, process: "subprocess.Popen[bytes]") -> Outcome:
        try:
            code = process.wait(job.wall_seconds)
        except subprocess.TimeoutExpired:
            self.cancel(job)
            code = process.wait()
        kill_session(process.pid)
        if job.deleted:
            return Outcome(256 + signal.SIGTERM)
        return Outcome(256 - code if code < 0 else code)

    # -- around the start -------------------------------------------------------------------------------------

    def _context(self, job: Job) -> JobContext:
        person = pwd.getpwuid(job.uid)
        output = f"{hooks.SPOOL}/{job.prefix}.OU"
        error = output if job.join in ("oe", "eo") else f"{hooks.SPOOL}/{job.prefix}.ER"
        return JobContext(
            id=job.id,
            prefix=job.prefix,
            user=job.user,
            group=job.group,
            name=job.name,
            requested=job.requested,
            queue=job.queue,
            account=job.account,
            workdir=job.workdir,
            uid=job.uid,
            gid=job.gid,
            groups=os.getgrouplist(job.user, job.gid),
            home=person.pw_dir,
            shell=job.shell or person.pw_shell,
            output=output,
            error=error,
            first=str(job.nids[0]) if job.nids else self._settings.login_name,
            node_count=job.node_count,
            per_node=job.per_node,
            asked_nodes=job.resources.get("nodes", ""),
            seconds=self._settings.hook_seconds,
            script_argument=self._settings.script_argument,
            nids=job.nids,
        )

    def _lay_out(self, job: Job, context: JobContext) -> None:
        """Script, node file and spool files, each belonging to the user."""
        listed = [f"{nid}\n" for nid in job.nids for _ in range(job.per_node)] or [f"{self._settings.login_name}\n"]
        Path(hooks.NODE_FILES, job.id).write_text("".join(listed))
        script = Path(context.script)
        script.unlink(missing_ok=True)
        for path, mode in ((context.script, 0o700), (context.output, 0o600), (context.error, 0o600)):
            descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_NOFOLLOW, mode)
            os.fchown(descriptor, job.uid, job.gid)
            if path == context.script:
                os.write(descriptor, job.script.encode(errors="surrogateescape"))
            os.close(descriptor)

    def _job_environment(self, job: Job, context: JobContext) -> dict[str, str]:
        """The environment of the job's shell: the submitted list and Torque's own variables."""
        count, per_node = str(job.node_count), str(job.per_node)
        return environment_of([item for item in job.variables if not item.startswith("BATCH_PARTITION_ID=")]) | {
            "PATH": "/bin:/usr/bin",
            "LANG": "C.UTF-8",
            "HOME": context.home,
            "LOGNAME": job.user,
            "USER": job.user,
            "SHELL": context.shell,
            "HOSTNAME": self._settings.login_name,
            "ENVIRONMENT": "BATCH",
            "PBS_ENVIRONMENT": "PBS_BATCH",
            "PBS_JOBID": job.id,
            "PBS_JOBNAME": job.name,
            "PBS_QUEUE": job.queue,
            "PBS_NODEFILE": f"{hooks.NODE_FILES}//{job.id}",
            "PBS_NODENUM": "0",
            "PBS_NUM_NODES": count,
            "PBS_NUM_PPN": per_node,
            "PBS_NP": str(job.node_count * job.per_node),
            "PBS_TASKNUM": "1",
            "PBS_VNODENUM": "0",
            "PBS_VERSION": f"TORQUE-{self._settings.torque_version}",
        }

    def _epilogues(self, job: Job, context: JobContext, status: int) -> None:
        used = ",".join(f"{name}={value}" for name, value in job.used.items())
        arguments = context.epilogue_arguments(job.session, used, status)
        for name in ("epilogue.user", "epilogue"):
            hooks.run(context.call(name, arguments, 0o022))

    def _deliver(self, job: Job, context: JobContext) -> None:
        """Copy the spooled output to where the user wants it, as the user; what cannot be delivered is kept."""
        kinds = [("o", context.output)]
        if context.error != context.output:
            kinds.append(("e", context.error))
        for kind, source in kinds:
            target = job.path_of(kind).split(":", 1)[1]
            done = subprocess.run(
                ["/bin/cp", "--", source, target],
                user=job.uid,
                group=job.gid,
                extra_groups=context.groups,
                capture_output=True,
                check=False,
            )
            if done.returncode == 0:
                os.unlink(source)
            else:
                os.replace(source, f"/var/spool/torque/undelivered/{os.path.basename(source)}")

    def _remove_files(self, context: JobContext) -> None:
        Path(context.script).unlink(missing_ok=True)
        Path(hooks.NODE_FILES, context.id).unlink(missing_ok=True)
