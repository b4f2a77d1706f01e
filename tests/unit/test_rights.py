"""Another account's file rights: ids are unsigned, whatever their size, and what was before comes back. And rights that
are given up for good."""

from __future__ import annotations

import os
import re
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path

import pytest

from gateway.wire.protocol import peer_uid
from tests.gateway.service import directory_for_all
from udi.accounts import store_owner
from udi.parentdeath import die_with_caller
from udiroot import privileges
from udiroot.errors import ConfigError
from udiroot.rights import FileRights

pytestmark = pytest.mark.skipif(os.geteuid() != 0, reason="only root may take another account's rights")
IDS = [1000, 2**31 - 1, 2**31, 3_000_000_000, 2**32 - 2]


@pytest.mark.parametrize("number", IDS)
def test_files_belong_to_any_id(tmp_path: Path, number: int, monkeypatch: pytest.MonkeyPatch) -> None:
    tmp_path.chmod(0o777)
    monkeypatch.chdir(tmp_path)
    with FileRights(number, number, (number,)):
        Path("file").write_text("")
    status = Path("file").stat()
    assert (status.st_uid, status.st_gid) == (number, number)
    Path("after").write_text("")
    assert Path("after").stat().st_uid == 0


@pytest.mark.parametrize("number", IDS)
def test_a_process_of_a_high_id_takes_rights_and_gives_them_back(number: int) -> None:
    """What is restored is read from the kernel, too."""
    code = f"""
from udiroot.rights import _NOBODY_CHANGES, FileRights, _libc
_libc.setfsuid({number})
with FileRights(5, 0):
    pass
assert _libc.setfsuid(_NOBODY_CHANGES) == {number}
"""
    subprocess.run([sys.executable, "-c", code], check=True, timeout=30)


def test_who_ends_with_its_parent_still_does_so() -> None:
    """The kernel forgets it when ids change. The parent ends before, within, or after."""
    for moment in range(3):
        reader, writer = os.pipe()
        if not os.fork():
            _ends_with_its_parent(moment, writer)
        os.close(writer)
        with open(reader, "rb") as told:
            assert told.read() == b"told", moment


def _ends_with_its_parent(moment: int, writer: int) -> None:
    """In the child, which has a child of its own and ends when that one is at the moment."""
    hold, end = os.pipe()
    if os.fork():
        os.read(hold, 1)
        os._exit(0)
    parent = os.getppid()
    signal.signal(signal.SIGTERM, lambda *_: (os.write(writer, b"told"), os._exit(0)))

    def reach(this: int) -> None:
        if this == moment:
            os.write(end, b"x")
            while os.getppid() == parent:
                time.sleep(0.01)

    signal.pthread_sigmask(signal.SIG_BLOCK, [signal.SIGTERM])
    die_with_caller(signal.SIGTERM)
    reach(0)
    with FileRights(5, 5):
        reach(1)
    reach(2)
    signal.pthread_sigmask(signal.SIG_UNBLOCK, [signal.SIGTERM])
    os._exit(1)


def test_what_a_file_system_keeps_from_root_is_read_as_its_owner() -> None:
    """As where root is squashed: a root that may not read what others own."""
    with directory_for_all("udi-rights-") as directory:
        path = directory / "image"
        path.write_text("hsqs")
        os.chown(path, 990, 990)
        path.chmod(0o400)
        code = f"""
from udiroot.rights import FileRights
try:
    open({str(path)!r})
except PermissionError:
    with FileRights(990, 990):
        print(open({str(path)!r}).read())
"""
        words = ["setpriv", "--bounding-set=-dac_override,-dac_read_search", sys.executable, "-c", code]
        done = subprocess.run(words, capture_output=True, text=True, check=True, cwd=Path(__file__).parents[2])
    assert done.stdout == "hsqs\n"


@pytest.mark.parametrize("number", IDS)
def test_the_caller_at_a_socket_has_any_id(tmp_path: Path, number: int) -> None:
    path = str(tmp_path / "socket")
    with socket.socket(socket.AF_UNIX) as server:
        server.bind(path)
        server.listen()
        for each in (path, str(tmp_path)):
            os.chmod(each, 0o777)
        client = socket.socket(socket.AF_UNIX)
        child = os.fork()
        if child == 0:
            try:
                os.chdir(tmp_path)
                os.setuid(number)
                client.connect("socket")
                os.read(client.fileno(), 1)
            finally:
                os._exit(0)
        connection, _ = server.accept()
        assert peer_uid(connection) == number
        connection.close()
        client.close()
        os.waitpid(child, 0)


@pytest.mark.parametrize("text", [str(2**32 - 1), str(2**64), "9" * 100])
def test_a_number_that_no_account_can_have(text: str) -> None:
    with pytest.raises(ConfigError, match="is not a uid"):
        store_owner(text)
    assert store_owner(str(2**31 + 7)) == (2**31 + 7, 2**31 + 7)


@pytest.mark.parametrize("without_effect", ["", "setgroups", "setresgid", "setresuid"])
def test_rights_that_are_given_up_are_asked_for_again(without_effect: str) -> None:
    """A step that had no effect is an error, before any program of the user's starts."""
    child = os.fork()
    if child == 0:
        code = 3
        try:
            os.setgroups((7,))
            if without_effect:
                setattr(os, without_effect, lambda *_: None)
            privileges.become(1001, 1002, (1002, 1003))
            status = Path("/proc/self/status").read_text()
            held = re.findall(r"^Cap(?:Inh|Prm|Eff|Bnd|Amb):\t(\w+)$", status, re.MULTILINE)
            has_new = "\nNoNewPrivs:\t1\n" in status
            code = (
                0 if set(os.getgroups()) == {1002, 1003} and {int(each, 16) for each in held} == {0} and has_new else 2
            )
        except PermissionError:
            code = 1
        finally:
            os._exit(code)
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == (1 if without_effect else 0)
