"""Jobs wait for Torque's hooks: one that has done all its work has imported no library but Python's own, and of that
nothing which takes long and is not needed."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from tests.unit.cray_standins import StandIns

_ROOT = Path(__file__).parents[2]
_STANDARD = {
    "ast", "asyncio", "bz2", "concurrent.futures", "copy", "dataclasses", "datetime", "difflib", "dis", "email",
    "fnmatch", "http", "importlib.metadata", "inspect", "ipaddress", "lzma", "pathlib", "random", "secrets",
    "shutil", "ssl", "sysconfig", "tempfile", "tomllib", "urllib", "uuid", "xml.etree", "zipfile",
}  # fmt: skip
_OF_A_SETUP = {
    "hashlib", "jobs.image", "jobs.prepare", "shlex", "udi.chosmap", "udi.facts", "udi.planning", "udi.request",
    "udi.store", "udiroot.digest", "xml",
}  # fmt: skip
_RARE = {"udi.cachefs", "udi.sitefiles", "udi.sshkeys"}
if sys.version_info < (3, 12):  # later ones have no module of their own for `udiroot.digest` alone
    _STANDARD.add("hashlib")
_JOB = ("123.sdb", "root", "root", "run")


def _modules_of(cray: StandIns, hook: str, *arguments: str) -> set[str]:
    """Run without `site`, so that there is nothing but the standard library and ours."""
    code = (
        f"import sys; sys.path.append({str(_ROOT)!r}); from admin.entry.torque import {hook} as hook; "
        "code = hook(); print(*sys.modules); sys.exit(code)"
    )
    argv = [sys.executable, "-I", "-S", "-c", code, "--config", str(cray.config_path), *_JOB, *arguments]
    return set(subprocess.run(argv, capture_output=True, text=True, check=True).stdout.split())


@pytest.fixture
def cray(tmp_path: Path) -> StandIns:
    made = StandIns(tmp_path)
    made.qstat_job("PBS_O_HOME=/root,UDI=debian:12")
    return made


def test_what_hooks_do_not_import(cray: StandIns) -> None:
    prologue = _modules_of(cray, "prologue", "nodes=2:ppn=2", "batch", "")
    assert {"jobs.prepare", "udi.planning"} <= prologue and cray.calls("xtxqtcmd")
    assert prologue & (_STANDARD | _RARE) == set()
    epilogue = _modules_of(cray, "epilogue", "11", "nodes=2", "cput=0", "batch", "", "0", "/x.SC")
    assert "jobs.takedown" in epilogue and len(cray.calls("xtxqtcmd")) == 2
    assert epilogue & (_STANDARD | _RARE | _OF_A_SETUP) == set()
