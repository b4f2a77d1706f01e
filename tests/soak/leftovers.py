"""Files that a run has added to directories where software keeps its state."""

from __future__ import annotations

import contextlib
import os
import re
import shutil
from collections.abc import Iterable
from pathlib import Path


class Census:
    """The files below directories of one host as they are now, but for those whose whole path matches `expected`."""

    def __init__(self, root: Path, directories: Iterable[str], expected: str) -> None:
        self._root = root
        self._directories = tuple(directories)
        self._expected = re.compile(expected)
        self._before = self._now()

    def added(self) -> list[str]:
        """What is there in addition since then, sorted."""
        return sorted(self._now() - self._before)

    def _now(self) -> set[str]:
        found = set()
        for top in self._directories:
            for directory, directories, names in os.walk(f"{self._root}{top}"):
                inside = directory[len(str(self._root)) :]
                found |= {f"{inside}/{name}" for name in (*directories, *names)}
        return {path for path in found if not self._expected.fullmatch(path)}


def keep_evidence(place: Path, kept: dict[str, Path]) -> None:
    """Copy files and directories, by name, into `place`, so that what was found can be followed to its cause."""
    for name, path in kept.items():
        with contextlib.suppress(OSError, shutil.Error):
            if path.is_dir():
                shutil.copytree(path, place / name, dirs_exist_ok=True, ignore_dangling_symlinks=True, symlinks=True)
            elif path.exists():
                place.mkdir(parents=True, exist_ok=True)
                shutil.copy(path, place / name)
