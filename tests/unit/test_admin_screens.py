"""What `udi-admin status` and `udi-admin job` show in a terminal of 80 columns, with colors and without, and in a
pipe."""

from __future__ import annotations

import contextlib
import fcntl
import json
import os
import pty
import re
import signal
import struct
import subprocess
import sys
import termios
import time
from pathlib import Path

import pytest

from admin.console.screen import age
from admin.trial.places import Ended, Ready
from jobs.state import READY, JobDirectory, JobState
from nodehealth.records import record
from tests.unit.cray_standins import IMAGE_ID, StandIns, wait_for
from udi.accounts import Account
from udi.nodes import numbered
from udi.request import JobRequest
from udiroot.errors import TeardownIncomplete

pytestmark = pytest.mark.skipif(os.geteuid() != 0, reason="the configuration must be root's")
ADMIN = (sys.executable, "-c", "from admin.cli import main; main()")
COLOR = re.compile(r"\x1b\[[0-9;]*m")
WIDTH = 80
SINCE = int(time.time()) - 9 * 86400 - 43200
"""Nine days and a half ago: how wide a column is depends on it."""
REASON = "teardown of job 122.sdb: held by pid 311 (vasp_std) of alice, which could not be terminated in time"


@pytest.fixture
def cray(tmp_path: Path) -> StandIns:
    """A job on every second node of many, and nodes that are dirty for one reason."""
    made = StandIns(tmp_path)
    nodes = tuple(numbered(nid) for nid in range(100, 200, 2))
    image = "registry.example.org/climate/a-long-name-of-an-image-of-somebody:2026-11-26"
    JobDirectory(made.site, "123.sdb").save(
        JobState("123.sdb", "alice", image, IMAGE_ID, "524", nodes, "/plans/x", READY, SINCE)
    )
    record(made.site, "122.sdb", {numbered(nid): REASON for nid in (40, 41, 42, 50)}, SINCE)
    made.tell("qstat.exit", "153")
    return made


def command(cray: StandIns, *words: str) -> list[str]:
    return [*ADMIN, "--config", str(cray.config_path), *words]


class Terminal:
    """A program in a terminal of 80 columns."""

    def __init__(self, words: list[str], **environment: str) -> None:
        master, slave = pty.openpty()
        fcntl.ioctl(slave, termios.TIOCSWINSZ, struct.pack("HHHH", 24, WIDTH, 0, 0))
        known = {name: os.environ[name] for name in ("PATH", "PYTHONPATH") if name in os.environ}
        self.process = subprocess.Popen(
            words, stdin=slave, stdout=slave, stderr=slave, env={**known, "TERM": "xterm", **environment}
        )
        os.close(slave)
        self._master = master
        self.output = ""

    def read(self) -> bool:
        """More of the output; False at its end."""
        try:
            data = os.read(self._master, 1 << 16)
        except OSError:
            return False
        self.output += data.decode()
        return bool(data)

    def ended(self, code: int = 0) -> str:
        while self.read():
            pass
        os.close(self._master)
        assert self.process.wait() == code, self.output
        return self.output


@pytest.mark.parametrize("words", [("status",), ("job", "123.sdb")])
def test_nothing_is_wider_than_the_terminal(cray: StandIns, words: tuple[str, ...]) -> None:
    shown = Terminal(command(cray, *words)).ended()
    assert COLOR.search(shown)
    plain = COLOR.sub("", shown).splitlines()
    assert max(map(len, plain)) <= WIDTH
    without = Terminal(command(cray, *words), NO_COLOR="1").ended()
    assert not re.search(r"\x1b\[[0-9;]*3[0-7]m", without)


def test_long_sets_of_nodes_are_cut_and_reasons_go_on_below(cray: StandIns) -> None:
    shown = COLOR.sub("", Terminal(command(cray, "status")).ended())
    [row] = [line for line in shown.splitlines() if line.startswith("123.sdb")]
    assert "\u2026" in row and " alice " in row and " ready " in row
    assert "nid[00040-00042,00050]  up " in shown and "could not be" in shown and "in time" in shown


def test_a_pipe_gets_sentences_without_colors(cray: StandIns) -> None:
    done = subprocess.run(command(cray, "status"), capture_output=True, text=True, check=True)
    assert "\x1b" not in done.stdout
    since = time.strftime("%Y-%m-%d %H:%M", time.gmtime(SINCE))
    assert f"nid[00040-00042,00050]: up, dirty since {since} UTC, job 122.sdb: {REASON}" in done.stdout
    assert done.stdout.startswith("job 123.sdb: ready, ")
    done = subprocess.run(command(cray, "job", "123.sdb"), capture_output=True, text=True, check=True)
    assert "\x1b" not in done.stdout
    assert any("nid[00100,00102," in line and len(line) > 200 for line in done.stdout.splitlines())


def test_groups_are_for_programs_too(cray: StandIns) -> None:
    done = subprocess.run(command(cray, "status", "--json"), capture_output=True, text=True, check=True)
    found = json.loads(done.stdout)
    assert [(group["nodes"], group["count"]) for group in found["groups"]] == [("nid[00040-00042,00050]", 4)]
    assert len(found["nodes"]) == 4 and found["gateway"]["reachable"] is False and found["at"] > SINCE


def test_watch_shows_it_again_until_it_is_interrupted(cray: StandIns) -> None:
    seen = Terminal(command(cray, "status", "--watch", "0.1"))
    try:
        wait_for(lambda: seen.read() and "4 nodes not clean" in seen.output)
        record(cray.site, "122.sdb", {numbered(60): "another"}, SINCE)
        wait_for(lambda: seen.read() and "5 nodes not clean" in seen.output)
        seen.process.send_signal(signal.SIGINT)
        seen.ended()
    finally:
        seen.process.kill()
    assert seen.output.startswith("\x1b[?1049h") and "\x1b[?1049l" in seen.output, "a screen of its own, given back"


def test_watch_in_a_pipe_is_one_object_a_line(cray: StandIns) -> None:
    words = command(cray, "status", "--json", "--watch", "0.1")
    with subprocess.Popen(words, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout
        looks = [json.loads(process.stdout.readline()) for _ in range(2)]
        process.send_signal(signal.SIGINT)
        assert process.wait() == 0
    assert looks[0]["jobs"] == looks[1]["jobs"]


LONG_LINE = "energy  " + "-1.234567e+02  " * 12
FAILURE = "something of job 122.sdb is left in /var/udi or /var/run/udi, and could not be removed in time"


class PretendedNode:
    """The node of a trial on which all goes well but the end."""

    node = "nid00012"

    def sweep(self) -> list[str]:
        return []

    def require_free(self) -> str:
        return "nothing of a job is on it"

    def held(self, job: str) -> contextlib.AbstractContextManager[object]:
        return contextlib.nullcontext()

    def set_up(self, request: JobRequest) -> Ready:
        return Ready(IMAGE_ID, "a volume hides what the image has at /usr/share/some/place: " + "words " * 12)

    def enter(self, job: str, user: Account, command: tuple[str, ...], seconds: int) -> Ended:
        return Ended("exit code 0", 0, 0, f"  two  blanks\n\n{LONG_LINE}\n漢字\x1b[31m\n".encode())

    def take_down(self, job: str) -> str:
        raise TeardownIncomplete(FAILURE)


TRY = (
    "import admin.trial.cli; from tests.unit.test_admin_screens import PretendedNode;"
    " admin.trial.cli._place = lambda site, node: PretendedNode(); from admin.cli import main; main()"
)


def trial(cray: StandIns) -> list[str]:
    image = "registry.example.org/climate/a-long-name-of-an-image:2026-11-26"
    words = ("--config", str(cray.config_path), "try", "--node", "12", image, "--", "model")
    return [sys.executable, "-c", TRY, *words]


def test_a_trial_goes_on_below_its_words_and_marks_each_row_of_its_command(cray: StandIns) -> None:
    shown = Terminal(trial(cray)).ended(TeardownIncomplete.exit_code)
    assert COLOR.search(shown)
    plain = COLOR.sub("", shown).splitlines()
    steps = [line for line in plain if re.match(r"(check|set up|run|tear down) +\d", line)]
    assert [line.split()[0] for line in steps] == ["check", "set", "run", "tear"]
    column = steps[0].index("nothing")
    after = plain[plain.index(steps[3]) + 1]
    assert "FAILED: something" in steps[3] and after[:column].strip() == "" and after[column:].strip()
    *plain, error = plain
    assert error == f"udi-admin: {FAILURE}", "the error's own line, on stderr"
    assert all(len(line) < WIDTH or len(line.split()) <= 2 for line in plain), "only a word that stays whole is wider"
    quoted = [line for line in plain if line.startswith("|")]
    assert quoted[:2] == ["|   two  blanks", "|"], "as the command printed it, and no blanks at the end"
    assert sum("e+02" in line for line in quoted) == 3 and quoted[-1] == r"| \u6f22\u5b57\x1b[31m"
    [notice] = [number for number, line in enumerate(plain) if line.startswith("notice: ")]
    assert plain[notice + 1].startswith("  ")


def test_a_trial_without_colors_and_in_a_pipe(cray: StandIns) -> None:
    shown = Terminal(trial(cray), NO_COLOR="1").ended(TeardownIncomplete.exit_code)
    assert not re.search(r"\x1b\[[0-9;]*3[0-7]m", shown)
    done = subprocess.run(trial(cray), capture_output=True, text=True, check=False)
    assert done.returncode == TeardownIncomplete.exit_code and "\x1b" not in done.stdout
    lines = done.stdout.splitlines()
    assert f"| {LONG_LINE}".rstrip() in lines and any(FAILURE in line for line in lines)


def test_ages_are_in_their_largest_unit() -> None:
    assert [age(since, 1_000_000) for since in (0, 999_958, 999_000, 990_000, 100_000)] == [
        "?", "42 s", "16 min", "2 h", "10 d",
    ]  # fmt: skip
