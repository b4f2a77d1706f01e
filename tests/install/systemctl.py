#!/usr/bin/python3
"""`systemctl` of a host without systemd: what it does with the keys of a unit that say what runs, as whom, and where.

Copied onto hosts, so it has the standard library only.
"""

from __future__ import annotations

import configparser
import contextlib
import os
import pwd
import shlex
import signal
import subprocess
import sys
import time
from pathlib import Path

_UNITS = (Path("/etc/systemd/system"), Path("/lib/systemd/system"))
_RUNNING = Path("/run/units")
_SECONDS = 30.0


def main(words: list[str]) -> None:
    verb, names = words[0], [word.removesuffix(".service") for word in words[1:] if not word.startswith("-")]
    for name in names:
        if verb in ("enable", "disable"):
            _set_wanted(name, verb == "enable")
        if verb in ("stop", "restart") or (verb == "disable" and "--now" in words):
            _stop(name)
        if verb in ("start", "restart") or (verb == "enable" and "--now" in words):
            _start(name)


def _unit(name: str) -> configparser.ConfigParser:
    parser = configparser.ConfigParser(interpolation=None, strict=False)
    parser.optionxform = str  # type: ignore[assignment, method-assign]
    text = next(path.read_text() for unit in _UNITS if (path := unit / f"{name}.service").exists())
    parser.read_string(text)
    return parser


def _set_wanted(name: str, wanted: bool) -> None:
    link = _UNITS[0] / f"{_unit(name)['Install']['WantedBy']}.wants/{name}.service"
    if wanted:
        link.parent.mkdir(parents=True, exist_ok=True)
        with contextlib.suppress(FileExistsError):
            link.symlink_to(_UNITS[0] / link.name)
    else:
        link.unlink(missing_ok=True)


def _start(name: str) -> None:
    service = _unit(name)["Service"]
    account = pwd.getpwnam(service.get("User", "root"))
    for parent, key in (("/run", "RuntimeDirectory"), ("/var/lib", "StateDirectory")):
        if key in service:
            directory = Path(parent, service[key])
            directory.mkdir(exist_ok=True)
            os.chown(directory, account.pw_uid, account.pw_gid)
    command = shlex.split(os.path.expandvars(service["ExecStart"]))
    _RUNNING.mkdir(exist_ok=True)
    with (_RUNNING / f"{name}.log").open("ab") as log:
        process = subprocess.Popen(
            [word for word in command if not word.startswith("$")],
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=log,
            user=account.pw_uid,
            group=account.pw_gid,
            extra_groups=os.getgrouplist(account.pw_name, account.pw_gid),
            start_new_session=True,
            cwd="/",
        )
    (_RUNNING / name).write_text(str(process.pid))
    if "RuntimeDirectory" in service:
        _await_socket(name, process, Path("/run", service["RuntimeDirectory"]))


def _await_socket(name: str, process: subprocess.Popen[bytes], directory: Path) -> None:
    """A person's next command comes later than a script's."""
    end = time.monotonic() + _SECONDS
    while not any(path.is_socket() for path in directory.iterdir()):
        if process.poll() is not None or time.monotonic() > end:
            sys.exit(f"systemctl: {name} did not start: {(_RUNNING / f'{name}.log').read_text()}")
        time.sleep(0.05)


def _stop(name: str) -> None:
    """Its main process; what that leaves running stays, as with the units of Slurm (KillMode=process)."""
    with contextlib.suppress(FileNotFoundError, ProcessLookupError):
        pid = int((_RUNNING / name).read_text())
        os.kill(pid, signal.SIGTERM)
        end = time.monotonic() + _SECONDS
        while time.monotonic() < end:
            os.kill(pid, 0)
            time.sleep(0.05)
        sys.exit(f"systemctl: {name} does not end")


if __name__ == "__main__":
    main(sys.argv[1:])
