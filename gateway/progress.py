"""Showing how far something is: a bar on a terminal, a line a stage otherwise."""

from __future__ import annotations

import sys
import time
from types import TracebackType
from typing import Self

from rich.console import Console
from rich.progress import BarColumn, DownloadColumn, Progress, TaskID, TextColumn, TransferSpeedColumn


class Shown:
    """Progress on stderr, of a conversion here or at the service. Use as a context manager."""

    def __init__(self, *, quiet: bool = False) -> None:
        self._quiet = quiet
        self._bar: Progress | None = None
        self._task: TaskID | None = None
        self._done = 0
        self._started = time.monotonic()
        self._stage = ""
        if not quiet and sys.stderr.isatty():
            self._bar = Progress(
                TextColumn("{task.description}"),
                BarColumn(),
                DownloadColumn(binary_units=True),
                TransferSpeedColumn(),
                console=Console(stderr=True),
                transient=True,
            )

    def __enter__(self) -> Self:
        if self._bar:
            self._bar.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._bar:
            self._bar.stop()
        if error is None:
            self._end_stage()

    def stage(self, name: str, total: int) -> None:
        """A stage begins; `total` 0 means that its length is not known."""
        if name == self._stage:
            return
        self._end_stage()
        self._stage, self._done, self._started = name, 0, time.monotonic()
        if self._bar:
            if self._task is not None:
                self._bar.remove_task(self._task)
            self._task = self._bar.add_task(name, total=total or None)

    def advance(self, count: int) -> None:
        """So many bytes more."""
        self.reached(self._done + count)

    def reached(self, done: int) -> None:
        """So many bytes of the stage in all."""
        self._done = done
        if self._bar and self._task is not None:
            self._bar.update(self._task, completed=done)

    def note(self, text: str) -> None:
        """A line of its own."""
        if self._quiet:
            return
        if self._bar:
            self._bar.console.print(text, markup=False, highlight=False)
        else:
            sys.stderr.write(text + "\n")
            sys.stderr.flush()

    def _end_stage(self) -> None:
        if self._stage and not self._quiet and not self._bar:
            seconds = time.monotonic() - self._started
            amount = f"{self._done / (1 << 20):.1f} MiB, " if self._done else ""
            self.note(f"{self._stage}: {amount}{seconds:.1f} s")
        self._stage = ""
