"""The slow file system of the benchmarks: what it shows is what is there, and what it counts is what was asked."""

from __future__ import annotations

import hashlib
import os
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from benchmarks.slowfs import Mounting, Service, SlowFileSystems


@pytest.fixture
def source(tmp_path: Path) -> Path:
    if os.geteuid() != 0:
        pytest.skip("needs root: mounts")
    made = tmp_path / "source"
    (made / "deep/er").mkdir(parents=True)
    (made / "large").write_bytes(os.urandom(3_000_001))
    (made / "deep/empty").touch()
    os.link(made / "large", made / "deep/same")
    (made / "link").symlink_to("deep/er")
    for number in range(3000):
        (made / f"deep/er/{number:04}-{'x' * 60}").touch()
    return made


@pytest.fixture
def target(tmp_path: Path) -> Iterator[Path]:
    (tmp_path / "target").mkdir()
    yield tmp_path / "target"


def told(directory: Path) -> dict[str, tuple[object, ...]]:
    """Everything that a directory shows of what is below it."""
    found: dict[str, tuple[object, ...]] = {}
    for path in directory.rglob("*"):
        status = path.lstat()
        content = os.readlink(path) if path.is_symlink() else ""
        if path.is_file() and not path.is_symlink():
            content = hashlib.sha256(path.read_bytes()).hexdigest()
        what = (status.st_mode, status.st_uid, status.st_gid, status.st_nlink, status.st_mtime_ns, status.st_ino)
        found[str(path.relative_to(directory))] = (*what, status.st_size if content else 0, content)
    return found


def test_it_shows_what_is_there(source: Path, target: Path) -> None:
    with SlowFileSystems(source, Service(0), [Mounting(str(target))]):
        assert told(target) == told(source)
        assert not (target / "absent").exists()
        assert (target / "deep/same").samefile(target / "large")
        with pytest.raises(OSError, match="Read-only"):
            (target / "new").touch()
    assert list(target.iterdir()) == []


def test_each_operation_is_counted_once_and_cached_ones_are_not(source: Path, target: Path, tmp_path: Path) -> None:
    trace = tmp_path / "trace"
    with SlowFileSystems(source, Service(0), [Mounting(str(target))], trace) as slow:
        assert (target / "deep/empty").read_bytes() == b""
        assert slow.counts().kinds == {"getattr": 1, "lookup": 2, "open": 1}
        before = slow.counts()
        assert len((target / "large").read_bytes()) == 3_000_001
        first = slow.counts() - before
        assert (first.kinds["lookup"], first.kinds["open"]) == (1, 1)
        assert first.read == 3_000_001
        before = slow.counts()
        (target / "large").read_bytes()
        assert (slow.counts() - before).kinds == {"open": 1}
        assert slow.counts().operations == len(trace.read_text().splitlines())
    assert "1 0 0 /deep/empty\n" in trace.read_text()
    assert "15 0 131072 /large\n" in trace.read_text()


def test_mounts_have_caches_and_counts_of_their_own(source: Path, target: Path, tmp_path: Path) -> None:
    (tmp_path / "second").mkdir()
    mountings = [Mounting(str(target)), Mounting(str(tmp_path / "second"))]
    with SlowFileSystems(source, Service(0), mountings) as slow:
        (target / "large").read_bytes()
        assert slow.counts(1).operations == 0
        (tmp_path / "second/large").read_bytes()
        assert slow.counts(1) == slow.counts(0)
        assert slow.counts().read == 2 * 3_000_001


@pytest.mark.parametrize(("service", "least"), [(Service(0.002), 0.2), (Service(0, operations=500), 0.19)])
def test_operations_take_at_least_their_latency_and_their_turn(
    source: Path, target: Path, service: Service, least: float
) -> None:
    with SlowFileSystems(source, service, [Mounting(str(target))]):
        began = time.monotonic()
        for number in range(100):
            assert not (target / f"absent{number}").exists()
        assert time.monotonic() - began >= least


def test_bytes_take_their_time_too(source: Path, target: Path) -> None:
    with SlowFileSystems(source, Service(0, bandwidth=30_000_000), [Mounting(str(target))]):
        began = time.monotonic()
        (target / "large").read_bytes()
        assert time.monotonic() - began >= 0.09


def test_the_read_ahead_of_a_client_is_set(source: Path, target: Path) -> None:
    with SlowFileSystems(source, Service(0, read_ahead=1024), [Mounting(str(target))]) as slow:
        (target / "large").read_bytes()
        wide = slow.counts().kinds["read"]
    with SlowFileSystems(source, Service(0, read_ahead=64), [Mounting(str(target))]) as slow:
        (target / "large").read_bytes()
        assert slow.counts().kinds["read"] > 2 * wide
