"""Progress on stderr: bars on a terminal, one per layer where layers are reported separately; else a line per stage."""

from __future__ import annotations

import sys
import time
from types import TracebackType
from typing import TYPE_CHECKING, Self

from udiroot.errors import printable

if TYPE_CHECKING:
    from rich.progress import Progress as Bars
    from rich.progress import TaskID

    from gateway.wire.events import Event


class Shown:
    """Progress of a conversion, by this process or by the service. A context manager."""

    def __init__(self, *, quiet: bool = False) -> None:
        self._quiet = quiet
        self._bar: Bars | None = None
        self._task: TaskID | None = None
        self._layers: dict[str, TaskID] = {}
        self._done = 0
        self._started = time.monotonic()
        self._stage = ""
        if not quiet and sys.stderr.isatty():
            self._bar = _bars()

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
        """A stage of `total` bytes begins; 0 means that its length is not known."""
        if name == self._stage:
            return
        self._end_stage()
        self._stage, self._done, self._started = name, 0, time.monotonic()
        if self._bar:
            for task in (self._task, *self._layers.values()):
                if task is not None:
                    self._bar.remove_task(task)
            self._layers = {}
            self._task = self._bar.add_task(name, total=total or None)

    def advance(self, count: int) -> None:
        """`count` more bytes of the stage are done."""
        self.reached(self._done + count)

    def reached(self, done: int) -> None:
        """`done` bytes of the stage are done in all."""
        self._done = done
        if self._bar and self._task is not None:
            self._bar.update(self._task, completed=done)

    def layer(self, name: str, done: int, total: int) -> None:
        """`done` bytes of one layer are done in all."""
        if not self._bar:
            return
        new = name not in self._layers
        if new:
            self._layers[name] = self._bar.add_task(f"  {name}", total=total or None)
        self._bar.update(self._layers[name], completed=done, refresh=new)

    def note(self, text: str) -> None:
        """Print a line of text."""
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


def _bars() -> Bars:
    """The bars of a terminal; rich is imported only where there is one."""
    from rich import progress
    from rich.console import Console

    return progress.Progress(
        progress.TextColumn("{task.description}", markup=False),  # it may hold a registry's own words
        progress.BarColumn(),
        progress.DownloadColumn(binary_units=True),
        progress.TransferSpeedColumn(),
        console=Console(stderr=True),
        transient=True,
    )


def show(shown: Shown, event: Event) -> None:
    """Show an event of the service."""
    from gateway.wire.events import Progress, Queued, Retrying, Storing  # a conversion without the service has none

    match event:
        case Progress(stage, done, total, layers):
            shown.stage(printable(stage), total)
            for name, layer_done, layer_total in layers:
                shown.layer(printable(name), layer_done, layer_total)
            shown.reached(done)
        case Queued():
            shown.stage("queued", 0)
        case Storing():
            shown.stage("storing", 0)
        case Retrying(message):
            shown.note(f"{printable(message)}; trying again")
