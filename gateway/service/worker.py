"""One conversion in a process of its own, so that a crash or a kill leaves the service as it was.

Started by `gateway.service.workers`, with the user's files as descriptors where the image comes in files. On its input:
a job (one line of JSON), later one word, `convert` or `verify`. On its output, lines of JSON: progress; `identified` with
the image's id and name once they are known, upon which it waits for the word; `done` with the facts; or `error`. It ends
with its parent.
"""

from __future__ import annotations

import contextlib
import ctypes
import dataclasses
import json
import os
import signal
import sys
import threading
import time
from collections.abc import Callable
from typing import Any

from gateway.image.convert import convert, verify
from gateway.image.manifest import SourceImage
from gateway.service.origins import login_of, registries_of
from gateway.service.spool import spool
from gateway.sources.fetch import Fetcher
from gateway.sources.opened import OpenedSource
from gateway.sources.registry_image import RegistryImage
from gateway.wire.protocol import error_event
from udi.config import GatewayConfig
from udiroot.errors import ImageInvalid, UdiError, UpstreamFailed, printable

_PR_SET_PDEATHSIG = 1
_INTERVAL = 0.2


class _Reported:
    """Progress as lines, a few a second. Layers that are fetched tell theirs from threads."""

    def __init__(self) -> None:
        self._stage, self._total, self._done, self._said = "", 0, 0, 0.0
        self._layers: dict[str, tuple[int, int]] = {}
        self._lock = threading.Lock()

    def stage(self, name: str, total: int) -> None:
        self.end()
        self._stage, self._total, self._done, self._layers = name, total, 0, {}
        self._say()

    def end(self) -> None:
        """How far the stage came in the end."""
        if self._done:
            self._say()

    def advance(self, count: int) -> None:
        self._done += count
        if time.monotonic() - self._said > _INTERVAL:
            self._say()

    def layer(self, digest: str, done: int, total: int) -> None:
        with self._lock:
            self._layers[digest.removeprefix("sha256:")[:12]] = (done, total)
            self._done = sum(done for done, _ in self._layers.values())
            if done == total or time.monotonic() - self._said > _INTERVAL:
                self._say()

    def _say(self) -> None:
        self._said = time.monotonic()
        event: dict[str, Any] = {
            "event": "progress",
            "stage": self._stage,
            "bytes": self._done,
            "total": self._total,
        }
        if self._layers:
            event["layers"] = [[name, done, total] for name, (done, total) in self._layers.items()]
        _say(event)


def main() -> None:
    """Run the one job. The exit code is 0 when the last event says all there is to say."""
    ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)
    job = json.loads(sys.stdin.readline())
    if os.getppid() != job["parent"]:
        sys.exit(1)  # it died before we asked to be told
    try:
        _run(job)
    except UdiError as error:
        _say(error_event(error))
    except MemoryError:
        _say(error_event(UpstreamFailed("the gateway has not enough memory for this image")))
    except OSError as error:
        _say(error_event(UpstreamFailed(f"the gateway could not convert it: {printable(error)}")))


def _run(job: dict[str, Any]) -> None:
    values: dict[str, Any] = {
        key: tuple(value) if isinstance(value, list) else value for key, value in job["settings"].items()
    }
    ways = {"docker": _from_registry, "docker-daemon": _from_daemon}
    ways.get(job["kind"], _from_files)(job, GatewayConfig(**values), _Reported())


def _from_files(job: dict[str, Any], settings: GatewayConfig, progress: _Reported) -> None:
    given = OpenedSource(job["kind"], job["tag"], job["files"])
    progress.stage("copying", sum(os.fstat(descriptor).st_size for descriptor in given.files.values()))
    copied = spool(given, settings.state, settings.max_image_bytes, progress.advance)
    given.close()
    image = copied.read(settings.architecture, settings.max_metadata_bytes)
    _finish(_word(image.id, image.name), image, job["output"], settings, progress)


def _from_registry(job: dict[str, Any], settings: GatewayConfig, progress: _Reported) -> None:
    """The id is known before a byte of a layer is fetched. What was checked in full once is not checked again."""
    remote = RegistryImage.from_json(job["image"])
    settings = dataclasses.replace(settings, architecture=remote.arch)
    with Fetcher(registries_of(job["registries"]), settings, remote, login_of(job["login"])) as fetcher:
        word = _word(remote.id, remote.reference)
        if word == "verify" and fetcher.is_known():
            _say({"event": "done", "facts": ""})
            return
        progress.stage("fetching", sum({layer.digest: layer.size for layer in remote.layers}.values()))
        image = fetcher.fetch(progress)
        try:
            _finish(word, image, job["output"], settings, progress, fetcher.remember)
        except ImageInvalid:
            fetcher.distrust()
            raise


def _from_daemon(job: dict[str, Any], settings: GatewayConfig, progress: _Reported) -> None:
    from gateway.sources.docker_daemon import DaemonImage, save  # other conversions need not wait for the SDK

    settings = dataclasses.replace(settings, architecture=job["arch"])
    progress.stage("saving", 0)
    given = DaemonImage(**job["image"])
    limit, login = settings.max_image_bytes, login_of(job["login"])
    saved = save(given, settings.state, limit, login=login, seconds=job["seconds"], progress=progress.advance)
    with contextlib.closing(saved):
        image = saved.read(settings.architecture, settings.max_metadata_bytes)
        if job["expected"] not in ("", image.id):
            raise ImageInvalid(
                f"the Docker daemon saved image {image.id}, the registry's manifest names {job['expected']}"
            )
        _finish(_word(image.id, image.name), image, job["output"], settings, progress)


def _word(image_id: str, name: str) -> str:
    """What is to be done with this image."""
    _say({"event": "identified", "id": image_id, "name": name})
    return sys.stdin.readline().strip()


def _finish(
    word: str,
    image: SourceImage,
    output: str,
    settings: GatewayConfig,
    progress: _Reported,
    checked: Callable[[], None] = lambda: None,
) -> None:
    """Convert or verify, as the word says; `checked` is called when all layers are what they must be."""
    facts = ""
    if word == "convert":
        facts = convert(image, output, settings, progress).to_json()
    elif word == "verify":
        verify(image, settings, progress)
    else:
        return  # nobody wants it any more
    checked()
    progress.end()
    _say({"event": "done", "facts": facts})


def _say(event: dict[str, Any]) -> None:
    sys.stdout.write(json.dumps(event) + "\n")
    sys.stdout.flush()


if __name__ == "__main__":
    main()
