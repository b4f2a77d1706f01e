"""Access to one machine's login node: its files as the host finds them, and programs run there as one of its accounts.

All that is needed to work on a machine that is up. What is installed on it (`registry`, `site`) builds on this, and so
does `machine`, which starts and stops it.
"""

import subprocess
from collections.abc import Mapping, Sequence
from pathlib import Path

from udiroot.errors import NotFound, SetupFailed
from xcsim import shared_root
from xcsim.entering import Entry
from xcsim.login import LoginNode
from xcsim.settings import Settings

DEFAULT_STATE = Path("/var/lib/xcsim")
_USER_PATH = "/opt/udi/bin:/usr/local/bin:/usr/bin:/bin:/opt/cray/alps/default/bin:/opt/cray/sdb/default/bin"
_ROOT_PATH = f"{_USER_PATH}:/opt/cray/nodehealth/default/bin:/usr/sbin:/sbin"


class LoginAccess:
    """The login node of the machine whose state is in one directory."""

    def __init__(self, state: Path = DEFAULT_STATE) -> None:
        self.state = state.absolute()

    @property
    def settings(self) -> Settings:
        """How the machine was started. Raises NotFound where there is none."""
        try:
            return Settings.read(self.state)
        except FileNotFoundError as error:
            raise NotFound(f"no machine in {self.state}", "xcsim up starts one") from error

    @property
    def login(self) -> LoginNode:
        return LoginNode(self.state, self.settings.login_name)

    def path(self, inside: str) -> Path:
        """Where the host finds a file of the login node."""
        return self.login.path(inside)

    def popen_as(
        self,
        user: str,
        argv: Sequence[str],
        *,
        cwd: str | None = None,
        env: Mapping[str, str] | None = None,
        stdin: int | None = subprocess.DEVNULL,
        stdout: int | None = None,
        stderr: int | None = None,
        session: bool = True,
    ) -> "subprocess.Popen[str]":
        """Start a program on the login node as that user, with a login shell's environment and what `env` adds."""
        who = shared_root.account(user)
        if who is None:
            raise NotFound(f"no account {user} on this machine")
        bare = {"HOME": who.home, "USER": user, "LOGNAME": user, "SHELL": who.shell, "LANG": "C.UTF-8"}
        bare["PATH"] = _ROOT_PATH if user == "root" else _USER_PATH
        entry = Entry(who.uid, who.uid, shared_root.groups_of(who), cwd=cwd or who.home, session=session)
        return self.login.popen(
            argv, entry=entry, env=bare | dict(env or {}), stdin=stdin, stdout=stdout, stderr=stderr, text=True
        )

    def run_as(
        self,
        user: str,
        argv: Sequence[str],
        *,
        cwd: str | None = None,
        env: Mapping[str, str] | None = None,
        input: str | None = None,
        timeout: float | None = 120.0,
        check: bool = False,
    ) -> "subprocess.CompletedProcess[str]":
        """Run a program on the login node to completion, output captured. With `check`, raises SetupFailed."""
        pipe = subprocess.PIPE
        stdin = subprocess.DEVNULL if input is None else pipe
        with self.popen_as(user, argv, cwd=cwd, env=env, stdin=stdin, stdout=pipe, stderr=pipe) as process:
            try:
                out, err = process.communicate(input, timeout)
            except BaseException:
                process.kill()
                raise
        done = subprocess.CompletedProcess(list(argv), process.returncode, out, err)
        if check and done.returncode != 0:
            raise SetupFailed(f"{argv[0]} exited with {done.returncode}: {done.stderr.strip() or done.stdout.strip()}")
        return done
