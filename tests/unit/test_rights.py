"""Another account's file rights: ids are unsigned, whatever their size, and what was before comes back."""

from __future__ import annotations

import os
import socket
import subprocess
import sys
from pathlib import Path

import pytest

from gateway.wire.protocol import peer_uid
from udi.accounts import store_owner
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
