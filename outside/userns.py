"""An image's root in namespaces of the user's own: by the software that sets up roots on nodes, without any right.

In a namespace of users, one may mount; what is mounted there is seen by nobody else, and goes with the last process.
Only one's own uid and primary gid have names there: the other groups count for access all the same, and their ids
show as nobody's.
"""

from __future__ import annotations

import contextlib
import ctypes
import os
import shutil
import signal
import sys
import tempfile
from collections.abc import Mapping, Sequence

from outside.namespaces import NEW_USERS, own_mounts, unshare
from udi.launch import RUN
from udi.oserrors import reason
from udiroot.compose import compose
from udiroot.errors import SetupFailed, UdiError, complain
from udiroot.plan import NodePlan

_PR_CAPBSET_DROP, _PR_SET_NO_NEW_PRIVS = 24, 38
_LABEL = "udi"
_FAILED = 125
_HINTS = {
    1: "unprivileged user namespaces are turned off on this host (kernel.unprivileged_userns_clone, AppArmor)",
    28: "there is a limit on user namespaces (user.max_user_namespaces)",
}
_prctl = ctypes.CDLL(None, use_errno=True).prctl


def run(plan: NodePlan, words: Sequence[str], environment: Mapping[str, str], cwd: str) -> int:
    """Run udi-run with these words in the plan's root; its exit code. What fails before is one line and a code, too."""
    place = tempfile.mkdtemp(prefix="udi-run-")
    try:
        sys.stdout.flush()
        sys.stderr.flush()
        child = os.fork()
        if child == 0:
            _become(plan, place, words, environment, cwd)
        for of_terminal in (signal.SIGINT, signal.SIGQUIT):
            signal.signal(of_terminal, signal.SIG_IGN)  # they are for the program
        code = os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
        return code if code >= 0 else 128 - code
    finally:
        shutil.rmtree(place, ignore_errors=True)


def _become(
    plan: NodePlan, place: str, words: Sequence[str], environment: Mapping[str, str], cwd: str
) -> None:  # in the child: never returns
    try:
        _enter_namespaces()
        root, warnings = compose(plan, os.uname().nodename, f"{place}/stage", _LABEL, (place,), lambda _: None)
        for warning in warnings:
            os.write(2, f"udi: warning: {warning}\n".encode())
        os.chroot(root)
        os.chdir("/")
        _give_up_rights()
        with contextlib.suppress(OSError):  # the image need not have it
            os.chdir(cwd)
        os.execve(RUN, [RUN, *words], dict(environment))  # noqa: S606 - it is what this child becomes
    except UdiError as error:
        complain("udi", error)
        os._exit(error.exit_code)
    except OSError as error:
        os.write(2, f"udi: {reason(error)}: {error.filename or 'the root cannot be entered'}\n".encode())
    except BaseException as error:  # noqa: BLE001 - the child of a fork must not go on as its parent
        os.write(2, f"udi: internal error: {type(error).__name__}\n".encode())
    os._exit(_FAILED)


def _enter_namespaces() -> None:
    """Raises SetupFailed where this host has no namespaces for users."""
    uid, gid = os.geteuid(), os.getegid()
    try:
        unshare(NEW_USERS)
        _write("setgroups", "deny")
        _write("uid_map", f"{uid} {uid} 1")
        _write("gid_map", f"{gid} {gid} 1")
        own_mounts(follows=False)
    except OSError as error:
        hint = _HINTS.get(error.errno or 0, "with a container engine, udi run uses that")
        raise SetupFailed(f"a namespace of the user's own: {reason(error)}", hint) from error


def _write(name: str, text: str) -> None:
    with open(f"/proc/self/{name}", "w", encoding="ascii") as stream:
        stream.write(text)


def _give_up_rights() -> None:
    """No capability, not even in the namespace, after the next execve."""
    for capability in range(64):
        if _prctl(ctypes.c_int(_PR_CAPBSET_DROP), ctypes.c_ulong(capability), *[ctypes.c_ulong(0)] * 3) < 0:
            break
    if _prctl(ctypes.c_int(_PR_SET_NO_NEW_PRIVS), ctypes.c_ulong(1), *[ctypes.c_ulong(0)] * 3) != 0:
        raise OSError(ctypes.get_errno(), "no_new_privs")
