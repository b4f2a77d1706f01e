"""Versions of the project as a site gets them: bundles of this tree, of the next version, and of its history."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

from tests.install import fresh
from tests.install.fresh import CACHE, ROOT

FIRST_WITH_KEPT_TEARDOWNS = "a4568d2"
"""The first that has a bundle, and whose jobs are taken down by what set them up. Plans are version 3, as now."""
LAST_WITH_PLANS_2 = "c33bf23"
"""The last before site modules: plans are version 2, and a job's state does not say how it is taken down."""
PYTHON = "/usr/bin/python3" if os.path.exists("/usr/bin/python3") else sys.executable
"""What the hosts have, too."""
NEXT = (
    ("udi/version.py", 'VERSION = "0.1.0"', 'VERSION = "0.2.0"'),
    ("udiroot/plan.py", 'VERSION = "3"', 'VERSION = "4"'),
    ("udiroot/record.py", '"udi-record 1"', '"udi-record 2"'),
    ("udiroot/commands.py", '"shared"', '"sharing"'),
    ("udi/nodecommand.py", '"--shared"', '"--sharing"'),
    ("packaging/interpreter.sh", '\ncp -L "$loader" ', '\ntouch "$directory/next"\ncp -L "$loader" '),
)
"""A version that understands nothing of ours on a node: other plans, other records, other arguments. It has
an interpreter of its own."""


@dataclass(frozen=True)
class Version:
    """The sources of one version, and its archive of `make bundle` where it has that."""

    name: str
    source: Path
    bundle: Path | None = None


def this() -> Version:
    """The tree that the tests are of, as `make bundle` packed it."""
    return Version("this", ROOT, next(path for path in fresh.bundle() if path.suffix == ".gz"))


def next_version(work: Path) -> Version:
    """A later version, of which this one knows nothing."""
    source = work / "next-source"
    ignored = shutil.ignore_patterns(".*", "build", "dist", "*.egg-info", "__pycache__")
    shutil.copytree(ROOT, source, symlinks=True, ignore=ignored)
    for name, old, new in NEXT:
        text = (source / name).read_text()
        assert old in text, name
        (source / name).write_text(text.replace(old, new))
    return Version("next", source, _bundle(source, CACHE, work / "next"))


def of_history(commit: str) -> Version:
    """The version of a commit, with its own `udi-run` and plugin, kept in the cache. The private sshd takes long to
    build: it is ours."""
    kept = CACHE / "versions" / commit
    source, cache = kept / "source", kept / "cache"
    if not (kept / "complete").exists():
        shutil.rmtree(kept, ignore_errors=True)
        found = subprocess.run(["git", "-C", ROOT, "archive", commit], capture_output=True, check=False)
        assert found.returncode == 0, f"needs the project's history, with commit {commit}: {found.stderr.decode()}"
        source.mkdir(parents=True)
        subprocess.run(["tar", "-x", "-C", source], input=found.stdout, check=True)
        for program, name in (("udirun/build.sh", "udi-run"), ("slurm/build.sh", "slurm")):
            _run(source / program, cache / name)
        shutil.copytree(CACHE / "sshd/bin", cache / "sshd/bin")
        if (source / "packaging/bundle.sh").exists():
            _bundle(source, cache, kept / "dist")
        (kept / "complete").touch()
    return Version(commit, source, next((kept / "dist").glob("*.tar.gz"), None))


def wheels(version: Version, work: Path) -> Path:
    """A directory with the wheels of a version and of all that it imports, as pip makes them from its checkout."""
    target = work / f"{version.name}-wheels"
    pip = work / "pip"
    if not pip.exists():
        _run(PYTHON, "-m", "venv", pip)
    copy = work / f"{version.name}-copy"
    ignored = shutil.ignore_patterns(".*", "build", "dist", "*.egg-info", "__pycache__")
    shutil.copytree(version.source, copy, symlinks=True, ignore=ignored)  # a build leaves files in its tree
    constraint = ("--constraint", version.source / "constraints.txt")
    _run(pip / "bin/pip", "--quiet", "--disable-pip-version-check", "wheel", *constraint, "--wheel-dir", target, copy)
    return target


def _bundle(source: Path, cache: Path, output: Path) -> Path:
    _run(source / "packaging/bundle.sh", PYTHON, cache, output)
    [archive] = output.glob("*.tar.gz")
    return archive


def _run(*words: str | Path) -> None:
    done = subprocess.run(words, capture_output=True, text=True, check=False)
    assert done.returncode == 0, f"{words}: {done.stderr}"
