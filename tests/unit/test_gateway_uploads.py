"""Files that come with a request: how long they may take, and what a file system may refuse the gateway."""

from __future__ import annotations

import contextlib
import json
import os
import socket
import threading
from pathlib import Path

import pytest

from gateway.sources.files import DockerArchive, OpenedFiles
from gateway.wire.channels import NetworkServiceEnd
from gateway.wire.munge import Decoded
from udi.gatewayconfig import GatewayConfig
from udiroot.errors import TimedOut, UsageError


def test_an_upload_that_drips_ends_with_the_time_of_a_conversion(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Each byte comes in time; all of them never would, and the connection counts for all users together."""
    request = json.dumps({"nonce": "n" * 16, "sizes": [1 << 30]}).encode()
    monkeypatch.setattr("gateway.wire.channels.Munge.decode", lambda munge, line: Decoded(1000, request))
    ours, theirs = socket.socketpair()
    done = threading.Event()

    def drip() -> None:
        theirs.sendall(b"credential\n")
        for _ in range(200):
            if done.wait(0.05):
                break
            theirs.sendall(b"x")
        theirs.shutdown(socket.SHUT_WR)

    dripping = threading.Thread(target=drip)
    with ours, theirs, contextlib.ExitStack() as held:
        dripping.start()
        end = NetworkServiceEnd(ours, GatewayConfig(state=str(tmp_path), conversion_seconds=1))
        try:
            with pytest.raises(TimedOut, match="not received within 1 s") as caught:
                end.receive(10, held, lambda uid, files, size, stack: None)
        finally:
            done.set()
            dripping.join()
    assert caught.value.hint == "limit set by gateway.conversion_seconds"


def test_a_file_whose_file_system_refuses_the_gateway(tmp_path: Path) -> None:
    """As FUSE refuses all but the user who mounted it, and NFS a file that is gone: fstat fails."""
    descriptor = os.open(tmp_path, os.O_RDONLY)
    os.close(descriptor)
    with pytest.raises(UsageError, match="the gateway cannot read a file of the request: bad file descriptor"):
        OpenedFiles.received(DockerArchive, "", [""], [descriptor])
    with pytest.raises(UsageError, match="cannot read a file"):
        OpenedFiles(DockerArchive, "", {"": descriptor}).identity()
