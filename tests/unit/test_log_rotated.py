"""The hooks' log and logrotate, by the file that is installed for it: no line is lost, and none is in a wrong file."""

from __future__ import annotations

import gzip
import os
import re
import shutil
import subprocess
import sys
import time
from collections import Counter
from pathlib import Path

import pytest

from xcsim.processes import wait_until

ROOT = Path(__file__).parents[2]
PATH = "/usr/sbin:/usr/bin:/sbin:/bin"
pytestmark = pytest.mark.skipif(
    os.geteuid() != 0 or not shutil.which("logrotate", path=PATH) or not shutil.which("strace", path=PATH),
    reason="needs root, logrotate and strace, which make setup installs",
)
HOOKS = """\
import logging, os, sys, time
from udi import log
from udi.config import JobsConfig, SiteConfig, StoreConfig
me, path, stop = sys.argv[1:]
site = SiteConfig(store=StoreConfig(path="/"), jobs=JobsConfig(log=path, syslog=False))
number = 0
while not os.path.exists(stop):
    log.start_log(site, "hook", me)
    for _ in range(10):
        logging.getLogger("udi").info("line %s.%d.", me, number)
        number += 1
        time.sleep(0.0005)
print(number)
"""
"""One hook after another: each opens the log, and writes ten lines."""


class Rotation:
    """A log, and logrotate with the file that `udi-admin install` writes."""

    def __init__(self, directory: Path) -> None:
        self.logs = directory / "logs"
        self.logs.mkdir()
        self.log = self.logs / "hooks.log"
        self._state = directory / "state"
        self._configuration = directory / "logrotate.conf"
        text = (ROOT / "templates/site/udi.logrotate.j2").read_text()
        self._configuration.write_text("create\n" + text.replace("{{ log }}", str(self.log)))
        self._configuration.chmod(0o644)

    def is_written(self) -> bool:
        return self.log.exists() and self.log.stat().st_size > 0

    def rotate(self, *wrapper: str) -> None:
        words = [*wrapper, "logrotate", "--force", "--state", str(self._state), str(self._configuration)]
        done = subprocess.run(words, env={"PATH": PATH}, capture_output=True, text=True, check=False)
        assert (done.returncode, done.stderr) == (0, "")

    def lines(self) -> dict[str, list[tuple[str, int]]]:
        """Each whole line of a hook by its file: whose, and which."""
        found = {}
        for path in sorted(self.logs.iterdir()):
            data = gzip.decompress(path.read_bytes()) if path.suffix == ".gz" else path.read_bytes()
            rows = [re.fullmatch(rb".* job \d INFO line (\d)\.(\d+)\.", line) for line in data.splitlines()]
            assert all(rows), path
            found[path.name] = [(row[1].decode(), int(row[2])) for row in rows if row]
        return found


def test_hooks_write_while_it_is_rotated(tmp_path: Path) -> None:
    """Renaming takes logrotate a twentieth of a second here, so that hooks surely write in the middle of it."""
    rotation, stop = Rotation(tmp_path), tmp_path / "stop"
    slowly = ("strace", "-f", "-qq", "-o", "/dev/null", "-e", "inject=rename,renameat,renameat2:delay_exit=50000")
    hooks = [
        subprocess.Popen([sys.executable, "-c", HOOKS, who, rotation.log, stop], stdout=subprocess.PIPE, cwd=ROOT)
        for who in "12"
    ]
    try:
        for wrapper in ((), slowly, (), slowly):
            assert wait_until(rotation.is_written, 30)
            time.sleep(0.2)
            rotation.rotate(*wrapper)
        assert wait_until(rotation.is_written, 30)
    finally:
        stop.touch()
        written = {who: int(hook.communicate(timeout=30)[0]) for who, hook in zip("12", hooks, strict=True)}
    files = rotation.lines()
    assert list(files) == ["hooks.log", *(f"hooks.log.{name}" for name in ("1", "2.gz", "3.gz", "4.gz"))]
    assert all(files.values())
    counts = Counter(line for lines in files.values() for line in lines)
    assert counts == Counter((who, number) for who, count in written.items() for number in range(count))
    for who in "12":
        newest_last = [number for name in reversed(files) for whose, number in files[name] if whose == who]
        assert newest_last == sorted(newest_last), "an older line is never in a newer file"
    assert {path.stat().st_mode & 0o777 for path in rotation.logs.iterdir()} == {0o600}


def test_nothing_is_rotated_where_no_hook_wrote(tmp_path: Path) -> None:
    rotation = Rotation(tmp_path)
    rotation.rotate()
    rotation.log.touch(mode=0o600)
    rotation.rotate()
    assert list(rotation.lines()) == ["hooks.log"]
