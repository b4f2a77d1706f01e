"""A file system that takes nothing more: pulls fail and say so; `udi-gateway expire`, which makes room, needs none."""

from __future__ import annotations

import contextlib
import errno
import os
import re
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.gateway.service import ACCOUNT, ANNA, Service, directory_for_all
from tests.gateway.test_keeping import bring, operator, unused_for
from tests.gateway.test_processes import archive

_BYTES, _FILES = 24 << 20, 100
_OLD, _NEW = 8 << 20, 3 << 20
_SAID = re.compile("no space left on device|database or disk is full")


@contextlib.contextmanager
def small(directory: Path) -> Iterator[None]:
    """The directory on a file system of its own, the account's, with room for so many bytes and files."""
    options = f"size={_BYTES},nr_inodes={_FILES},mode=0755,uid={ACCOUNT},gid={ACCOUNT}"
    subprocess.run(["mount", "-t", "tmpfs", "-o", options, "small", directory], check=True, timeout=60)
    try:
        yield
    finally:
        subprocess.run(["umount", directory], check=True, timeout=60)


def fill(directory: Path, what: str) -> None:
    """Nothing more fits there: no byte, or no file."""
    number = 0
    try:
        with (directory / "filler").open("wb", buffering=0) as filler:
            while True:
                if what == "bytes":
                    filler.write(bytes(4096))
                else:
                    (directory / f"filler-{number}").touch()
                    number += 1
    except OSError as error:
        if error.errno != errno.ENOSPC:
            raise


@pytest.mark.parametrize(
    ("where", "what"),
    [
        ("store", "bytes"),
        pytest.param("store", "files", marks=pytest.mark.long),
        pytest.param("all", "bytes", marks=pytest.mark.long),
        pytest.param("all", "files", marks=pytest.mark.long),
    ],
)
def test_expire_makes_room(where: str, what: str) -> None:
    """Also where the gateway's state is on the same file system."""
    if os.geteuid() != 0:
        pytest.skip("needs root: mounts, and a service as an account of its own")
    with directory_for_all("udi-gateway-") as directory:
        service = Service(directory, compression="gzip:1")
        top = service.store if where == "store" else service.own
        top.mkdir(exist_ok=True)
        with small(top), service:
            old = bring(service, "old", ANNA, _OLD)
            kept = bring(service, "kept", ANNA)
            unused_for(service, old, 10)
            fill(top, what)
            path, image_id = archive(service, "new", _NEW)
            refused = service.udi(ANNA, "pull", f"docker-archive:{path}", "new:1")
            assert refused.returncode == 6 and _SAID.search(refused.stderr), refused.stderr
            told = operator(service, "expire", "--dry-run", settings="keep_days = 5")
            assert told.stdout == f"would remove {old[:12]} (old:1): age\n", told
            done = operator(service, "expire", settings="keep_days = 5")
            assert done.stdout == f"removed {old[:12]} (old:1): age\n", done
            assert service.ask(ANNA, "pull", f"docker-archive:{path}", "new:1")["id"] == image_id
            assert service.names(ANNA) == {"kept:1", "new:1"}
            assert service.ask(ANNA, "lookup", "kept:1")["id"] == kept
