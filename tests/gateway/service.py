"""A gateway service as a site would run it, for tests: its own account, a store, users with uids of their own."""

from __future__ import annotations

import json
import os
import shutil
import signal
import socket
import stat
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Self

from gateway.sources.files import OpenedFiles
from gateway.wire import events, protocol
from gateway.wire.events import Event
from gateway.wire.messages import Found, PullFiles
from tests.gateway.archives import BASE, file, make_archive
from udi import config
from udi.reference import ImageReference

ACCOUNT = 1500
ANNA, BERT = 1000, 1001
NOBODY = 65534
"""A publisher."""

_PACKER = """#!/bin/sh
# tar2sqfs, with faults on demand: the word in the file FAULT
case "$(cat @FAULT@)" in
exit) cat >/dev/null; echo "it broke" >&2; exit 3;;
early) exit 3;;
kill) head -c 2000 >/dev/null; kill -9 $$;;
garbage) cat >/dev/null; for last; do :; done; echo junk >"$last"; exit 0;;
nothing) cat >/dev/null; exit 0;;
wait) while [ "$(cat @FAULT@)" = wait ]; do sleep 0.05; done;;
esac
exec /usr/bin/tar2sqfs "$@"
"""


def until(happened: Callable[[], object], seconds: float = 30) -> None:
    """Wait until it is so."""
    deadline = time.monotonic() + seconds
    while not happened():
        assert time.monotonic() < deadline, "it did not happen"
        time.sleep(0.02)


def mode_of(path: Path) -> int:
    return stat.S_IMODE(path.stat().st_mode)


def run_as(uid: int, argv: Sequence[str], **more: Any) -> subprocess.CompletedProcess[str]:
    """A program to its end, as a user in no further group."""
    return subprocess.run(
        argv, user=uid, group=uid, extra_groups=[], capture_output=True, text=True, timeout=60, check=False, **more
    )


def pull_of(source: OpenedFiles, name: str) -> PullFiles:
    """The request for a pull of open files."""
    reference = ImageReference.parse(name)
    return PullFiles(kind=source.source.kind, tag=source.tag, files=tuple(source.files), name=reference)


def descriptors(source: OpenedFiles) -> tuple[int, ...]:
    return tuple(source.files.values())


def next_event(connection: socket.socket, seconds: float) -> Event:
    """The next event on a connection; an answer is that of a look-up."""
    return events.from_json(protocol.LineReader(connection).next(seconds), Found)


@contextmanager
def directory_for_all(prefix: str) -> Iterator[Path]:
    """A directory that every account can enter, unlike those of pytest; gone at the end."""
    directory = Path(tempfile.mkdtemp(prefix=prefix))
    directory.chmod(0o755)
    try:
        yield directory
    finally:
        shutil.rmtree(directory, ignore_errors=True)


class Service:
    """`udi-gateway serve` in `directory`, which becomes readable for all."""

    def __init__(self, directory: Path, settings: str = "", tables: str = "", compression: str = "lz4") -> None:
        """`settings` are further lines of `[gateway]`, `tables` further tables. The packer makes lz4 only; what else
        there is, the gateway's own writer makes."""
        self.directory = directory
        directory.chmod(0o755)
        self.own = directory / "own"
        self.own.mkdir()
        os.chown(self.own, ACCOUNT, ACCOUNT)
        self.store = self.own / "store"
        self._fault = directory / "fault"
        self.fault("")
        packer = directory / "packer"
        packer.write_text(_PACKER.replace("@FAULT@", str(self._fault)))
        packer.chmod(0o755)
        self.config = directory / "udi.toml"
        self.config.write_text(
            f'store.path = "{self.store}"\nstore.account = "{ACCOUNT}"\n[gateway]\n'
            f'socket = "{self.own}/gateway.sock"\nstate = "{self.own}/state"\ntar2sqfs = "{packer}"\n'
            f'compression = "{compression}"\n'
            f'publishers = ["nobody"]\n{settings}\n{tables}\n'
        )
        self.config.chmod(0o644)
        self.log = directory / "log"
        self._process: subprocess.Popen[bytes] | None = None

    @property
    def site(self) -> config.SiteConfig:
        return config.load(str(self.config))

    def qsub(
        self, *listed: str, uid: int, script: bytes = b"#!/bin/sh\n", config: Path | None = None
    ) -> subprocess.CompletedProcess[bytes]:
        """What the submit filter makes of a script and a list of variables, as qsub runs it for a user; `config` is
        that of another host."""
        code = "import sys; from torque_hooks.submit_filter import main; sys.exit(main())"
        words = [sys.executable, "-c", code, "--config", str(config or self.config), "-v", ",".join(listed), "job.sh"]
        return subprocess.run(
            words, input=script, capture_output=True, user=uid, group=uid, extra_groups=[], timeout=60, check=False
        )

    @property
    def pid(self) -> int:
        assert self._process
        return self._process.pid

    def fault(self, word: str) -> None:
        """What the packer does from now on; empty: its work."""
        temporary = self._fault.with_suffix(".new")
        temporary.write_text(word)
        temporary.rename(self._fault)

    def start(self) -> None:
        program = [sys.executable, "-c", "from gateway.service.cli import main; main()"]
        ready = "serving on "
        started = self.log.read_text().count(ready) if self.log.exists() else 0
        with self.log.open("ab") as log:
            self._process = subprocess.Popen(
                [*program, "--config", str(self.config), "serve"],
                stderr=log,
                user=ACCOUNT,
                group=ACCOUNT,
                extra_groups=[],
            )
        deadline = time.monotonic() + 30
        while self.log.read_text().count(ready) == started:
            assert time.monotonic() < deadline, self.log.read_text()
            assert self._process.poll() is None, self.log.read_text()
            time.sleep(0.02)

    def stop(self, number: int = signal.SIGTERM) -> None:
        if self._process:
            self._process.send_signal(number)
            self._process.wait(30)
            self._process = None

    def __enter__(self) -> Self:
        self.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.stop()

    def command(self, *words: str) -> list[str]:
        """The words that start the user's program."""
        return [
            sys.executable,
            "-c",
            "from outside.cli import main; main()",
            "--config",
            str(self.config),
            *words,
        ]

    def udi(self, uid: int, *words: str, given: str = "") -> subprocess.CompletedProcess[str]:
        """The user's program, run by `uid`, with `given` on its standard input."""
        return run_as(uid, self.command(*words), input=given)

    def python(self, uid: int, code: str, *words: str) -> subprocess.CompletedProcess[str]:
        """A program of `uid`'s own, with `client` and `site` at hand."""
        start = (
            "import sys\nfrom gateway.client import client\nfrom udi import config\nsite = config.load(sys.argv[1])\n"
        )
        argv = [sys.executable, "-c", start + code, str(self.config), *words]
        return run_as(uid, argv, cwd=Path(__file__).parents[2])

    def ask(self, uid: int, *words: str) -> dict[str, Any]:
        """The answer of a command that must go well."""
        done = self.udi(uid, *words, "--json")
        assert done.returncode == 0, done.stderr
        answer: dict[str, Any] = json.loads(done.stdout)
        return answer

    def names(self, uid: int) -> set[str]:
        return {row["reference"] for row in self.ask(uid, "images")["images"]}

    def files(self) -> set[str]:
        """Names of image files in the store, those in the making included."""
        return set(os.listdir(self.store / "images"))

    def conversions(self, image_id: str) -> int:
        """How often an image was made."""
        return self.log.read_text().count(f"image {image_id} is in the store")


def fresh(service: Service, name: str = "", size: int = 1000, **more: Any) -> tuple[str, str]:
    """A new image as an archive that all can read: its path and its id."""
    number = len(list(service.directory.glob("image*.tar"))) + 1
    path = service.directory / f"image{number}.tar"
    tag = name or f"image{number}:1"
    image_id = make_archive(path, [[*BASE, file("data", os.urandom(size))]], tags=[tag], **more)
    path.chmod(0o644)
    return str(path), image_id


def packer_runs(service: Service) -> bool:
    for name in os.listdir("/proc"):
        try:
            if (
                name.isdecimal()
                and str(service.directory / "packer").encode() in Path(f"/proc/{name}/cmdline").read_bytes()
            ):
                return True
        except OSError:
            continue
    return False
