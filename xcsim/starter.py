"""pbs_mom's starter of one job: reserve, confirm, prologue; then it becomes the job's own shell.

Its pid is the job's session, the process aggregate of the reservation and the prologue's parent, as on a Cray
(torque-reference g). It reads the job as JSON on stdin and reports on the descriptor that its argument names, one JSON
line per step.
"""

import json
import os
import re
import subprocess
import sys
import time

from xcsim import hooks
from xcsim.hooks import JobContext

REPORT = int(sys.argv[1]) if len(sys.argv) > 1 else 3
# Results of a start that does not lead to a job (torque-reference b).
ABORTED, RETRY, NO_RESERVATION = -2, -14, -3

_APBASIL = "/usr/bin/apbasil"
_BARE = {"PATH": "/bin:/usr/bin", "LANG": "C.UTF-8"}


def main() -> int:
    """Start one job. Returns only when the job does not start."""
    given = json.loads(sys.stdin.readline())
    context = JobContext(**given["context"])
    os.set_inheritable(REPORT, False)
    reservation = 0
    if context.nids:
        reservation = _reserve(context, given["release_delay"])
        if not reservation:
            return _fail(NO_RESERVATION)
        _report(reserved=reservation)
    _report(prologue="started")
    code = hooks.run(context.call("prologue", context.prologue_arguments(), 0o077, kill_after=given["kill_after"]))
    if code == 0:
        code = hooks.run(context.call("prologue.user", context.prologue_arguments(), 0o077))
    if code != 0:
        _fail(ABORTED if code == 1 else RETRY, hook=code)
        if reservation:
            release(reservation, given["release_delay"], tries=2)
        return 254
    _report(started=True)
    if sys.stdin.readline() != "go\n":
        return 254
    _become_job(context, given)
    return 255


def _report(**step: object) -> None:
    """Tell pbs_mom. Where that was killed there is nobody to start a job for."""
    try:
        os.write(REPORT, json.dumps(step).encode() + b"\n")
    except BrokenPipeError:
        sys.exit(254)


def _fail(status: int, hook: int | None = None) -> int:
    _report(failed=status, hook=hook)
    return 254


def _basil(attributes: str, body: str = "") -> str:
    """Send one request through a shell pipe, as pbs_mom does (B3)."""
    request = f"<?xml version='1.0'?><BasilRequest protocol='1.3' {attributes}"
    request += f">{body}</BasilRequest>" if body else "/>"
    done = subprocess.run(
        ["/bin/sh", "-c", f'echo "{request}" | {_APBASIL}'],
        env=_BARE,
        cwd=hooks.MOM_PRIV,
        stdin=subprocess.DEVNULL,
        capture_output=True,
        check=False,
    )
    return done.stdout.decode(errors="replace")


def _reserve(context: JobContext, delay: float) -> int:
    """Reserve and confirm; 0 if ALPS refuses."""
    width, nodes = context.node_count * context.per_node, ",".join(str(nid) for nid in context.nids)
    body = (
        f"<ReserveParamArray user_name='{context.user}' batch_id='{context.id}'>"
        f"<ReserveParam architecture='XT' width='{width}' nppcu='1' nppn='{context.per_node}'>"
        f"<NodeParamArray><NodeParam>{nodes}</NodeParam></NodeParamArray></ReserveParam></ReserveParamArray>"
    )
    for _ in range(10):
        answer = _basil("method='RESERVE'", body)
        found = re.search(r"<Reserved reservation_id=[\"'](\d+)", answer)
        if found:
            number = int(found[1])
            confirmed = _basil(f"method='CONFIRM' reservation_id='{number}' pagg_id='{os.getpid()}'")
            if "SUCCESS" in confirmed:
                return number
            release(number, delay, tries=2)
            return 0
        if "PERMANENT" in answer:
            return 0
    return 0


def release(number: int, delay: float, tries: int = 11) -> bool:
    """RELEASE until ALPS reports that it is gone; the pause doubles (B51)."""
    pause = delay
    for left in range(tries, 0, -1):
        answer = _basil(f"method='RELEASE' reservation_id='{number}'")
        if "PERMANENT" in answer:
            return True
        if left > 1:
            time.sleep(pause)
            pause = min(pause * 2, 64 * delay)
    return False


def _become_job(context: JobContext, given: dict[str, object]) -> None:
    """Become the login shell of the user, which reads the path of the script from stdin."""
    reader, writer = os.pipe()
    os.write(writer, f"{context.script}\n".encode())
    os.close(writer)
    os.dup2(reader, 0)
    for number, path in ((1, context.output), (2, context.error)):
        spool = os.open(path, os.O_WRONLY | os.O_APPEND)
        os.dup2(spool, number)
        os.close(spool)
    os.close(reader)
    os.umask(0o022)
    os.setgroups(context.groups)
    os.setresgid(context.gid, context.gid, context.gid)
    os.setresuid(context.uid, context.uid, context.uid)
    os.chdir(context.home if os.path.isdir(context.home) else "/")
    environment = given["environment"]
    assert isinstance(environment, dict)
    os.execve(context.shell, [f"-{os.path.basename(context.shell)}"], environment)  # noqa: S606


if __name__ == "__main__":
    sys.exit(main())
