"""`udi shell` on the login node, by a real sudo: who may, what they are inside, and that nothing stays."""

from __future__ import annotations

import os
import signal
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager

import pytest

from tests.system.cray import Cray
from xcsim.loops import of_node
from xcsim.processes import wait_until

RUN, ROOTS = "/run/udi-sessions", "/var/udi-sessions"
_LOOK = "echo $(cat /etc/marker) $(id -u) $(id -g) $PWD $HOME $UDI_IMAGE $TERM; cat /proc/self/status"


@pytest.fixture(scope="module")
def allowed(standing: Cray) -> Iterator[None]:
    """The machine allows sessions for alice."""
    with sessions(standing, users=["alice"], max_per_user=2, max_minutes=1):
        yield


@pytest.fixture
def login(allowed: None, cray: Cray) -> Iterator[Cray]:
    """The machine with sessions for alice; after each test nothing of any is left."""
    yield cray
    assert left(cray) == []


@contextmanager
def sessions(cray: Cray, **settings: object) -> Iterator[None]:
    with cray.configured({"sessions": {"enabled": True, **settings}}):
        cray.admin("install", "--root", "/")
        yield


def left(cray: Cray) -> list[str]:
    """Records, roots, mounts, loop devices and processes of sessions on the login node."""
    found = [*os.listdir(cray.machine.path(RUN)), *os.listdir(cray.machine.path(ROOTS))]
    found += [f"{one.name} {one.path}" for one in of_node(cray.machine.login.pid)]
    found += [line for line in open("/proc/self/mountinfo") if "session." in line]
    return [name for name in found if name != ".count"]


def test_a_command_as_oneself_without_any_right(login: Cray) -> None:
    done = login.udi("alice", "shell", "tiny:1", "--", "sh", "-c", _LOOK)
    first, *status = done.stdout.splitlines()
    uid = login.machine.path("/home/alice").stat().st_uid
    assert first.split()[:6] == [login.marker("tiny:1"), str(uid), str(uid), "/analysis", "/home/alice", "tiny:1"]
    kept = dict(line.split(":\t", 1) for line in status if ":\t" in line)
    assert kept["NoNewPrivs"] == "1"
    assert {kept[name].strip("0") for name in ("CapInh", "CapPrm", "CapEff", "CapBnd", "CapAmb")} == {""}
    assert login.udi("alice", "shell", "tiny:1").stdout == ""  # a shell, whose input is empty
    login.udi("alice", "shell", "tiny:1", "--", "sh", "-c", "exit 7", code=7)
    login.udi("alice", "shell", "tiny:1", "--", "sh", "-c", "kill -KILL $$", code=137)


def test_volumes_variables_and_the_directory(login: Cray) -> None:
    words = ("--volume", "/scratch/alice:/data:ro", "--env", "A=b c", "--workdir", "/data")
    script = 'echo "$A" $PWD; touch /data/x 2>&1; touch /tmp/mine && ls /tmp; touch /etc/x'
    done = login.udi("alice", "shell", *words, "tiny:1", "--", "sh", "-c", script, code=1)
    assert done.stdout.splitlines() == ["b c /data", "touch: /data/x: Read-only file system", "mine"]


@pytest.mark.parametrize(
    ("user", "words", "code", "message"),
    [
        ("bob", ("tiny:1",), 4, "this site does not allow sessions for bob"),
        ("alice", ("secret:1",), 3, "image 'secret:1' not found, or you do not have access to it"),
        ("alice", ("--volume", "/etc:/x", "tiny:1"), 4, "source /etc is not in a directory that the site allows"),
        ("alice", ("tiny:1", "ls"), 2, "'ls' after the image"),
        ("alice", ("Tiny:1:2",), 2, "Tiny:1:2"),
    ],
)
def test_who_may_not(login: Cray, user: str, words: tuple[str, ...], code: int, message: str) -> None:
    done = login.udi(user, "shell", *words, code=code)
    assert message in done.stderr
    assert done.stderr.startswith("udi: ")
    assert done.stdout == ""


def test_what_root_s_program_itself_refuses(login: Cray) -> None:
    """Whoever may not gets nowhere past `udi` either: what sudo lets pass is checked again."""
    session = ["sudo", "-n", "/opt/udi/bin/udi-session"]
    done = login.machine.run_as("bob", [*session, "--image", "tiny:1"])
    assert (done.returncode, done.stdout) == (1, "")
    assert "password is required" in done.stderr
    for words, message in (
        (("--image", "secret:1"), "secret:1"),
        (("--image", "tiny:1", "--id", login.ids["secret:1"], "--", "cat", "/etc/marker"), ""),
        (("--image", "tiny:1", "--config", "/home/alice/own.toml"), "/home/alice/own.toml"),
        (("--image", "tiny:1", "--volumes", "/etc:/x"), "/etc"),
        (("--image", "tiny:1", "--term", "x\n", "--cwd", "/none", "--", "echo"), ""),
        (("--image",), "invalid arguments"),
        (("--other", "x"), "invalid arguments"),
    ):
        done = login.machine.run_as("alice", [*session, *words])
        assert login.marker("secret:1") not in done.stdout
        assert (done.returncode != 0) == bool(message), done.stderr
        assert message in done.stderr
        assert done.stderr.count("\n") <= 1


def test_a_configuration_of_the_user_s_is_not_read(login: Cray) -> None:
    """The installed program names its own first; a second one is an error or of root."""
    own = login.machine.path("/home/alice/own.toml")
    own.write_text(login.machine.path("/etc/udi/udi.toml").read_text())
    os.chown(own, 1000, 1000)
    words = ("--image", "tiny:1", "--config", "/home/alice/own.toml")
    done = login.machine.run_as("alice", ["sudo", "-n", "/opt/udi/bin/udi-session", *words])
    assert done.returncode == 2, done.stderr


def test_no_more_than_the_site_allows(login: Cray) -> None:
    holding = [_background(login, "sleep 30") for _ in range(2)]
    try:
        assert wait_until(lambda: len(_open(login)) == 2, 30, 0.05)
        done = login.udi("alice", "shell", "tiny:1", code=4)
        assert done.stderr == "udi: you have 2 sessions on this host, and the site allows 2\n"
    finally:
        for each in holding:
            each.send_signal(signal.SIGTERM)
    assert [each.wait(30) for each in holding] == [143, 143]


def test_what_is_left_running_ends_with_the_session(login: Cray) -> None:
    done = login.udi("alice", "shell", "tiny:1", "--", "sh", "-c", "setsid sleep 987 & sleep 986 & echo begun")
    assert done.stdout == "begun\n"
    assert subprocess.run(["pgrep", "-f", "sleep 98[67]"], check=False).returncode == 1


def test_a_session_whose_process_is_killed(login: Cray) -> None:
    """The program dies with it; what else it has left is removed when the next session is opened."""
    holding = _background(login, "setsid sleep 985 & sleep 984")
    assert wait_until(lambda: bool(_open(login)) and _runs("sleep 984"), 30, 0.05)
    for pid in _supervisors():
        os.kill(pid, signal.SIGKILL)
    holding.wait(30)
    login.udi("alice", "shell", "tiny:1", "--", "id")
    assert not _runs("sleep 98[45]")


def test_the_end_of_its_time(login: Cray) -> None:
    """As the alarm has it after `max_minutes`; a program that heeds no hangup is killed."""
    words = ["/opt/udi/bin/udi", "shell", "tiny:1", "--", "sh", "-c", "trap '' HUP; sleep 981"]
    holding = login.machine.popen_as("alice", words, stdin=subprocess.DEVNULL, stderr=subprocess.PIPE)
    assert wait_until(lambda: _runs("sleep 981"), 30, 0.05)
    for pid in _supervisors():
        os.kill(pid, signal.SIGALRM)
    _, error = holding.communicate(timeout=30)
    assert (holding.returncode, error) == (
        9,
        "udi: the session was ended: this site allows 1 minutes (jobs may run longer)\n",
    )
    assert not _runs("sleep 981")


def test_on_a_terminal(login: Cray) -> None:
    """Ctrl-C interrupts the program and not the session; the end of the terminal ends both."""
    words = ["script", "-qec", "/opt/udi/bin/udi shell tiny:1", "/dev/null"]
    shell = login.machine.popen_as(
        "alice", words, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.STDOUT
    )
    assert shell.stdin and shell.stdout

    def until(sign: str) -> None:
        seen = ""
        while sign not in seen:
            line = shell.stdout.readline()  # type: ignore[union-attr]
            assert line, f"{sign} was not seen: {seen}"
            seen += line

    def type_in(text: str) -> None:
        shell.stdin.write(text)  # type: ignore[union-attr]
        shell.stdin.flush()  # type: ignore[union-attr]

    type_in("echo up-$((40+1))\n")
    until("up-41")
    type_in("sleep 983; echo went on\n")
    assert wait_until(lambda: _runs("sleep 983"), 30, 0.05)
    type_in("\x03")
    assert wait_until(lambda: not _runs("sleep 983"), 30, 0.05)
    type_in("echo still-$((40+2))\n")
    until("still-42")
    assert len(_open(login)) == 1
    shell.kill()
    shell.communicate()
    assert wait_until(lambda: not left(login), 30, 0.05)


def test_images_that_the_site_names(cray: Cray) -> None:
    with sessions(cray, images=["tools/*", "tiny:2"]):
        done = cray.udi("bob", "shell", "tiny:1", code=4)
        line, hint = done.stderr.splitlines()
        assert line == "udi: this site does not allow image tiny:1 in sessions"
        assert hint == "hint: images that it allows: tools/*, tiny:2"
        done = cray.machine.run_as("alice", ["sudo", "-n", "/opt/udi/bin/udi-session", "--image", "tiny:1"])
        assert "does not allow image tiny:1 in sessions" in done.stderr
    assert left(cray) == []


def test_off_unless_the_site_says_so(cray: Cray) -> None:
    """After all tests that need what is allowed here."""
    with cray.configured({}):
        done = cray.udi("alice", "shell", "tiny:1", code=4)
    assert done.stderr.startswith("udi: this site allows no sessions on its login nodes")


def _supervisors() -> list[int]:
    """The processes of root's that keep sessions."""
    words = ["pgrep", "-f", "^[^ ]*python[^ ]* -I -c import sys.*udi-session"]
    return [int(pid) for pid in subprocess.run(words, capture_output=True, text=True, check=False).stdout.split()]


def _runs(pattern: str) -> bool:
    return subprocess.run(["pgrep", "-f", f"^{pattern}"], stdout=subprocess.DEVNULL, check=False).returncode == 0


def _open(cray: Cray) -> list[str]:
    return [name for name in os.listdir(cray.machine.path(ROOTS)) if name.startswith("session.")]


def _background(cray: Cray, script: str) -> subprocess.Popen[str]:
    words = ["/opt/udi/bin/udi", "shell", "tiny:1", "--", "sh", "-c", script]
    return cray.machine.popen_as("alice", words, stdin=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
