"""Which gateway may use a directory: on one host, on two that share locks, and where they do not share them."""

from __future__ import annotations

import errno
import os
import queue
import re
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path

import pytest

from gateway.store import tenancy
from gateway.store.locks import Holder, LockName
from gateway.store.tenancy import Tenancy, Tenant
from udiroot.errors import ConfigError, UpstreamFailed
from xcsim.processes import wait_until

_OURS = Tenant("a", "/state", "/store")
_OTHERS = [
    replace(_OURS, host="b"),
    replace(_OURS, state="/other"),
    replace(_OURS, store="/x"),
]


@contextmanager
def used(directory: Path, tenant: Tenant = _OURS) -> Iterator[Tenancy]:
    """The directory, by one process of a gateway, which ends as one that is killed does."""
    made = Tenancy("image store", str(directory), tenant)
    try:
        yield made
    finally:
        made._ended.set()
        if made._counting.ident:
            made._counting.join()
        made._holder.close()


@pytest.fixture
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tenancy, "_BEAT", 0.05)


@pytest.fixture(params=["local", "none"])
def unshared(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch, quick: None) -> None:
    """Locks that other hosts do not see, or a file system that has none."""

    def try_take(holder: Holder, name: LockName, *, shared: bool = False) -> bool:
        if request.param == "none":
            raise OSError(errno.ENOLCK, os.strerror(errno.ENOLCK))
        return True

    monkeypatch.setattr(Holder, "try_take", try_take)
    monkeypatch.setattr(Holder, "release", lambda holder, name: None)


def test_the_processes_of_one_gateway_share_it(tmp_path: Path) -> None:
    with used(tmp_path) as service:
        service.serve(lambda error: None)
        with used(tmp_path), used(tmp_path):
            pass


@pytest.mark.parametrize("other", _OTHERS)
def test_another_gateway_waits_for_the_last_process_of_the_first(tmp_path: Path, other: Tenant) -> None:
    """On the same host, or on another one that sees its locks; the message says whose the directory is."""
    with used(tmp_path):
        with used(tmp_path) as service:
            service.serve(lambda error: None)
            with pytest.raises(ConfigError, match="is in use by") as caught, used(tmp_path, other):
                pass
            said = (
                f"image store {tmp_path} is in use by the gateway of host a with gateway.state /state "
                rf"\(process {os.getpid()}, since 20\d\d-\d\d-\d\d \d\d:\d\d:\d\d\)"
            )
            assert re.fullmatch(said, caught.value.message)
            service.end()
        with pytest.raises(ConfigError, match=r"of host a with gateway\.state /state$"), used(tmp_path, other):
            pass
    with used(tmp_path, other), pytest.raises(ConfigError, match=f"in use by {other}"), used(tmp_path):
        pass


def test_it_is_asked_for_before_anything_is_written(tmp_path: Path) -> None:
    with used(tmp_path):
        before = (tmp_path / ".gateway").read_bytes()
        with pytest.raises(ConfigError), used(tmp_path, _OTHERS[0]):
            pass
        assert os.listdir(tmp_path) == [".gateway"] and (tmp_path / ".gateway").read_bytes() == before


@pytest.mark.usefixtures("unshared")
def test_a_service_of_another_host_is_seen_by_its_count(tmp_path: Path) -> None:
    with used(tmp_path) as service:
        service.serve(lambda error: None)
        with pytest.raises(ConfigError, match="in use by the gateway of host a "), used(tmp_path, _OTHERS[0]):
            pass


@pytest.mark.usefixtures("unshared")
def test_a_host_that_died_leaves_it_to_the_next(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tenancy, "_WATCH", 0.5)
    with used(tmp_path) as service:
        service.serve(lambda error: None)
    with used(tmp_path, _OTHERS[0]) as later:
        assert later._read() == _OTHERS[0]


@pytest.mark.usefixtures("unshared")
def test_a_service_that_finds_another_in_its_place_is_told(tmp_path: Path) -> None:
    """As one does that stood still while its host was taken for dead."""
    told: queue.Queue[ConfigError] = queue.Queue()
    with used(tmp_path) as service:
        service.serve(told.put)
        assert wait_until(lambda: service._tenant.count > 0, 30)
        tmp_path.joinpath(".gateway").unlink()
        with used(tmp_path, _OTHERS[0]):
            assert told.get(timeout=30).message.startswith(f"image store {tmp_path} is in use by {_OTHERS[0]}")


@pytest.mark.usefixtures("quick")
def test_a_service_that_stopped_is_not_waited_for(tmp_path: Path) -> None:
    with used(tmp_path) as service:
        service.serve(lambda error: None)
        service.end()
        assert service.service() is None
        told = service._read()
        assert told and told.is_same(_OURS) and told.pid == 0


@pytest.mark.parametrize("text", [b"", b"{", b"[]", b'{"host": "a"}', b"\xff" * 900])
def test_a_file_that_is_damaged_is_nobody_s(tmp_path: Path, text: bytes) -> None:
    (tmp_path / ".gateway").write_bytes(text)
    with used(tmp_path) as made:
        assert made._read() == _OURS


def test_a_long_path_is_written_and_a_short_one_over_it(tmp_path: Path) -> None:
    long = replace(_OURS, state="/" + "s" * 4000)
    with used(tmp_path, long) as made:
        assert made._read() == long
    with used(tmp_path) as made:
        assert made._read() == _OURS


def test_what_cannot_be_opened(tmp_path: Path) -> None:
    (tmp_path / ".gateway").mkdir()
    with pytest.raises(UpstreamFailed, match=f"image store {tmp_path}: .*: is a directory"), used(tmp_path):
        pass


def test_the_gateway_of_a_configuration(tmp_path: Path) -> None:
    (tmp_path / "state").mkdir()
    (tmp_path / "link").symlink_to("state")
    one, other = (Tenant.here(str(tmp_path / name), "/store") for name in ("state", "link"))
    assert one == other and one.state == str(tmp_path / "state") and one.host == os.uname().nodename
