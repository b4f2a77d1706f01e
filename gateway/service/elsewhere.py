"""What a conversion needs that runs on another host: a command that starts its worker there, and files with names.

`gateway.worker_prefix` is the site's own way to start a program on some host, such as `srun -p service -N1 -n1`. Queue,
locks, limits and history stay where the service is; the image store and `gateway.spool` are on file systems that
both see. An image of the Docker daemon is converted here, where the daemon is.
"""

from __future__ import annotations

import contextlib
import os
import re
import shutil
import sys
import tempfile
import time
from collections.abc import Iterator
from dataclasses import dataclass

from gateway.image.formats.packer import FEW_ARENAS
from gateway.service.heartbeat import BEAT
from gateway.service.origins import FromDaemon, FromFiles, FromSpool, Origin
from gateway.service.pace import Pace
from gateway.service.spool import copy_to
from gateway.wire.events import EventSink, Progress
from udi.gatewayconfig import GatewayConfig
from udi.oserrors import reason
from udiroot.errors import ConfigError, UpstreamFailed, printable

_PROGRAM = ("-I", "-m", "gateway.service.worker")
_PLAIN = re.compile(r"[A-Za-z0-9_./+-]+")
_MARK = "given."
"""How the directories of files that were handed over begin."""


@dataclass(frozen=True)
class Place:
    """Where a worker runs: the command that starts it, and its origin as it finds it there."""

    command: tuple[str, ...]
    origin: Origin
    is_here: bool


@contextlib.contextmanager
def place_of(origin: Origin, settings: GatewayConfig, on_event: EventSink) -> Iterator[Place]:
    """Where the conversion of `origin` is to run; files that were handed over are copied to where both hosts see them.

    Raises ConfigError, ImageInvalid, UpstreamFailed.
    """
    if not settings.worker_prefix or isinstance(origin, FromDaemon):
        yield Place((sys.executable, *_PROGRAM), origin, is_here=True)
        return
    command = _command(settings)
    if not isinstance(origin, FromFiles):
        yield Place(command, origin, is_here=False)
        return
    with _directory(settings) as directory:
        yield Place(command, _given(origin, directory, settings, on_event), is_here=False)


def _command(settings: GatewayConfig) -> tuple[str, ...]:
    """A shell there may parse the words after the prefix again, as ssh's does."""
    if not _PLAIN.fullmatch(sys.executable):
        raise ConfigError(
            f"gateway.worker_prefix: the path of the interpreter must be a plain word: {printable(sys.executable)}"
        )
    variables = (f"{name}={value}" for name, value in FEW_ARENAS.items())
    return (*settings.worker_prefix, "/usr/bin/env", *variables, sys.executable, *_PROGRAM)


def _given(origin: FromFiles, directory: str, settings: GatewayConfig, on_event: EventSink) -> FromSpool:
    total = sum(os.fstat(descriptor).st_size for descriptor in origin.descriptors())
    done = 0
    report = Pace(BEAT / 10, lambda: on_event(Progress("copying", done, total)))

    def advance(count: int) -> None:
        nonlocal done
        done += count
        report()

    paths = []
    targets = []
    try:
        for number, (name, _) in enumerate(origin.files):
            paths.append((name, f"{directory}/{number}"))
            targets.append(os.open(paths[-1][1], os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600))
        copy_to(targets, origin.descriptors(), settings.max_image_bytes, advance)
    except OSError as error:
        raise UpstreamFailed(f"image cannot be copied to {directory}: {reason(error)}") from error
    finally:
        for target in targets:
            os.close(target)
    return FromSpool(origin.kind, origin.tag, tuple(paths), origin.words, origin.keep)


@contextlib.contextmanager
def _directory(settings: GatewayConfig) -> Iterator[str]:
    """A directory of this conversion alone. What a service that was killed left is removed when no conversion can be
    using it any more."""
    top = settings.work_directory
    try:
        _remove_old(top, time.time() - 2 * settings.conversion_seconds)
        directory = tempfile.mkdtemp(prefix=_MARK, dir=top)
    except OSError as error:
        raise UpstreamFailed(f"gateway.spool: {top}: {reason(error)}") from error
    try:
        yield directory
    finally:
        shutil.rmtree(directory, ignore_errors=True)


def _remove_old(top: str, before: float) -> None:
    os.makedirs(top, mode=0o700, exist_ok=True)
    with os.scandir(top) as entries:
        for entry in entries:
            with contextlib.suppress(FileNotFoundError):  # another one removes it
                if entry.name.startswith(_MARK) and entry.stat(follow_symlinks=False).st_mtime < before:
                    shutil.rmtree(entry.path, ignore_errors=True)
