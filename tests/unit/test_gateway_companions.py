"""Processes that do a part of a conversion: with the same result, and gone when their starter is."""

from __future__ import annotations

import errno
import hashlib
import os
import random
import signal
import subprocess
import sys
import zlib
from collections.abc import Iterator, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path

import pytest

from gateway.image import memory
from gateway.image.blob import Blob
from gateway.image.checking import Checks
from gateway.image.companions import companion
from gateway.image.digesting import Digest, DigestBeside
from gateway.image.layers import Layer
from gateway.image.squashfs.packer import STORED
from gateway.image.squashfs.packers import Packers, packers_for
from gateway.image.squashfs.pieces import Data, Range, TooShort
from gateway.image.squashfs.pipeline import Pipeline, largest_piece
from tests.gone import nothing_left
from udiroot.errors import ImageInvalid, UpstreamFailed
from xcsim.processes import wait_until

_BLOCK = 16 << 10
_LARGEST = largest_piece(_BLOCK)
_HERE, _BESIDE = 0, 1 << 30
"""Bytes to be packed, by which is decided where."""
_SEED = random.Random(16).randbytes
_RANDOM = _SEED(1 << 20)
_TEXT = b"".join(b"line %d\n" % number for number in range(1 << 17))[: 1 << 20]


@dataclass
class Layers:
    """An open file with what may be in layers."""

    path: Path
    descriptor: int

    def packers(self, stack: ExitStack, total: int, name: str = "gzip") -> Sequence[Packers]:
        level = None if name == "xz" else 1
        return stack.enter_context(packers_for(total, (name, level), _BLOCK, _LARGEST, {self.descriptor}))


@pytest.fixture
def layers(tmp_path: Path) -> Iterator[Layers]:
    path = tmp_path / "layers"
    path.write_bytes(_TEXT + _RANDOM + bytes(1 << 20))
    with path.open("rb") as stream:
        yield Layers(path, stream.fileno())


def _packed(packers: Sequence[Packers], pieces: Sequence[tuple[Data | int, bool]]) -> list[tuple[bytes, list[int]]]:
    found: list[tuple[bytes, list[int]]] = []
    pipeline = Pipeline(packers, _BLOCK)
    for piece, is_whole in pieces:
        pipeline.give(piece, lambda data, words: found.append((bytes(data), list(words))), is_whole)
    pipeline.finish()
    return found


def _unpacked(data: bytes, words: Sequence[int], sizes: Sequence[int]) -> bytes:
    """By zlib, and without a line of ours."""
    parts = []
    for word, size in zip(words, sizes, strict=True):
        count = word & ~STORED
        block, data = data[:count], data[count:]
        parts.append(bytes(size) if not word else block if word & STORED else zlib.decompress(block))
    assert not data
    return b"".join(parts)


@pytest.mark.parametrize("total", [_HERE, _BESIDE])
def test_blocks_are_what_the_pieces_were(layers: Layers, total: int) -> None:
    """In their order, whoever packs them, and however many wait."""
    source = layers.path.read_bytes()
    chosen = random.Random(8)
    pieces: list[tuple[Data | int, bool]] = []
    expected = []
    for _ in range(300):
        size = chosen.choice([1, 100, _BLOCK - 1, _BLOCK, _BLOCK + 1, 5 * _BLOCK + 7, _LARGEST])
        start = chosen.randrange(len(source) - size)
        is_whole = size <= _BLOCK and chosen.random() < 0.5
        read: Data = Range(layers.descriptor, start, size)
        pieces.append((chosen.choice([read, source[start : start + size]]), is_whole))
        expected.append(source[start : start + size])
        if chosen.random() < 0.1:
            pieces.append((3 * _BLOCK, False))
            expected.append(bytes(3 * _BLOCK))
    with nothing_left(), ExitStack() as stack:
        found = _packed(layers.packers(stack, total), pieces)
    for (data, words), wanted in zip(found, expected, strict=True):
        sizes = [min(_BLOCK, len(wanted) - at) for at in range(0, len(wanted), _BLOCK)]
        assert _unpacked(data, words, sizes) == wanted


@pytest.mark.parametrize("name", ["gzip", "zstd", "xz"])
def test_all_packers_make_the_same_bytes(layers: Layers, name: str) -> None:
    pieces: list[tuple[Data | int, bool]] = [
        (Range(layers.descriptor, at, _LARGEST // 2), False) for at in range(0, 3 << 20, _LARGEST // 2)
    ]
    with ExitStack() as stack:
        here = _packed(layers.packers(stack, _HERE, name), pieces)
        assert _packed(layers.packers(stack, _BESIDE, name), pieces) == here


@pytest.mark.parametrize("total", [_HERE, _BESIDE])
def test_a_layer_that_becomes_shorter(layers: Layers, total: int) -> None:
    os.truncate(layers.path, 1000)
    with nothing_left(), ExitStack() as stack, pytest.raises(TooShort, match="became shorter"):
        _packed(layers.packers(stack, total), [(Range(layers.descriptor, 0, 1001), False)])


@pytest.mark.parametrize("total", [_HERE, _BESIDE])
def test_a_layer_that_cannot_be_read(layers: Layers, total: int) -> None:
    with layers.path.open("ab") as unreadable, nothing_left(), ExitStack() as stack:
        packers = layers.packers(stack, total)
        if total == _BESIDE:
            packers = stack.enter_context(packers_for(total, ("gzip", 1), _BLOCK, _LARGEST, {unreadable.fileno()}))
        with pytest.raises(OSError, match="Bad file descriptor"):
            _packed(packers, [(Range(unreadable.fileno(), 0, 10), False)])


def _children(pid: int) -> list[int]:
    try:
        return [int(child) for child in Path(f"/proc/{pid}/task/{pid}/children").read_text().split()]
    except FileNotFoundError:
        return []


def _companions(module: str, pid: int | None = None) -> list[int]:
    """Those of a process; of this one, any of its threads may have started them."""
    pids = _children(pid) if pid else [int(name) for name in os.listdir("/proc") if name.isdigit()]
    return [each for each in pids if _is_companion(each, module, pid or os.getpid())]


def _started(module: str, count: int) -> list[int]:
    """That many of this process. A program's words are shown a moment after its start has succeeded."""
    assert wait_until(lambda: len(_companions(module)) == count, 30)
    return _companions(module)


def _is_companion(pid: int, module: str, parent: int) -> bool:
    try:
        words = Path(f"/proc/{pid}/cmdline").read_bytes().split(b"\0")
        status = Path(f"/proc/{pid}/status").read_text()
    except (FileNotFoundError, ProcessLookupError):
        return False
    return module.encode() in words and f"PPid:\t{parent}\n" in status


def test_a_packer_that_is_killed_ends_the_conversion(layers: Layers) -> None:
    with nothing_left(), ExitStack() as stack:
        packers = layers.packers(stack, _BESIDE)
        pids = _started("gateway.image.squashfs.packing", len(packers))
        for pid in pids:
            os.kill(pid, signal.SIGKILL)
        with pytest.raises(UpstreamFailed, match=r"gateway\.image\.squashfs\.packing\) was terminated by signal 9"):
            _packed(packers, [(_TEXT, False)] * 100)


def test_as_many_packers_as_processors_and_not_more_than_eight(layers: Layers, monkeypatch: pytest.MonkeyPatch) -> None:
    for processors, expected in ((1, 1), (3, 3), (100, 8)):
        monkeypatch.setattr("os.sched_getaffinity", lambda _, count=processors: range(count))
        with ExitStack() as stack:
            assert len(layers.packers(stack, _BESIDE)) == expected


_STARTER = """\
import signal
import sys
from contextlib import ExitStack
from gateway.image.companions import companion
from gateway.image import digesting
from gateway.image.digesting import DigestBeside
from gateway.image.squashfs.packers import packers_for
signal.signal(signal.SIGHUP, signal.SIG_IGN)  # the kernel ends what is stopped in a group that nobody leads any more
with ExitStack() as stack:
    packers = stack.enter_context(packers_for(1 << 30, ("gzip", 1), 16 << 10, 1 << 20, ()))
    process = stack.enter_context(companion("gateway.image.digesting", []))
    digest = DigestBeside(process)
    print("started", flush=True)
    for line in sys.stdin:
        if line == "order only\\n":
            for packer in packers:
                packer.give(b"text" * 1000, False)
            process.send(digesting._ORDER.pack(0, 0, True), [sys.stdin.fileno()])
            print("ordered", flush=True)
            continue
        packers[0].give(b"text" * 1000, False)
        print(len(packers[0].take()[1]), digest.add(sys.stdin.fileno(), 0, 0, True)[0], flush=True)
"""


@pytest.fixture
def starter() -> Iterator[subprocess.Popen[str]]:
    argv = [sys.executable, "-c", _STARTER]
    with subprocess.Popen(
        argv, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, process_group=0
    ) as process:
        assert process.stdout and process.stdout.readline() == "started\n"
        yield process
        process.kill()


def test_companions_end_when_their_starter_is_killed(starter: subprocess.Popen[str]) -> None:
    pids = _children(starter.pid)
    assert len(pids) > 1
    starter.kill()
    assert wait_until(lambda: not any(_is_ours(pid) for pid in pids), 30, 0.01)


def test_companions_whose_starter_is_killed_while_they_work_end_in_silence(starter: subprocess.Popen[str]) -> None:
    """Nobody takes their answers. What they say is in the gateway's log, where a traceback is a defect."""
    pids = _children(starter.pid)
    for pid in pids:
        os.kill(pid, signal.SIGSTOP)
    assert starter.stdin and starter.stdout and starter.stderr
    starter.stdin.write("order only\n")
    starter.stdin.flush()
    assert starter.stdout.readline() == "ordered\n"
    starter.kill()
    starter.wait()
    for pid in pids:
        os.kill(pid, signal.SIGCONT)
    assert starter.stderr.read() == ""
    assert wait_until(lambda: not any(_is_ours(pid) for pid in pids), 30, 0.01)


def _is_ours(pid: int) -> bool:
    try:
        return b"gateway.image." in Path(f"/proc/{pid}/cmdline").read_bytes()
    except (FileNotFoundError, ProcessLookupError):
        return False


def test_a_terminal_interrupts_their_starter_only(starter: subprocess.Popen[str]) -> None:
    for pid in _children(starter.pid):
        os.kill(pid, signal.SIGINT)
    out, err = starter.communicate("go\n")
    assert (out, err) == ("1 0\n", "")
    assert starter.returncode == 0


# Digests


def _stored(path: Path, data: bytes) -> Path:
    path.write_bytes(data)
    return path


def test_a_digest_is_the_same_wherever_it_is_made(tmp_path: Path) -> None:
    data = _RANDOM + _TEXT
    with (
        _stored(tmp_path / "layer", data).open("rb") as stream,
        nothing_left(),
        companion("gateway.image.digesting", []) as process,
    ):
        for digest in (Digest(), DigestBeside(process)):
            for _ in range(2):
                position = 0
                for size in (1, 1000, 1 << 20, len(data)):
                    count, found = digest.add(stream.fileno(), position, size, is_first=not position)
                    assert count == min(size, len(data) - position)
                    position += count
                    assert found == hashlib.sha256(data[:position]).digest()
            with (tmp_path / "layer").open("ab") as unreadable, pytest.raises(OSError, match="Bad file descriptor"):
                digest.add(unreadable.fileno(), 0, 1, is_first=True)


@pytest.mark.parametrize("damage", ["", "wrong", "short", "killed", "given up"])
def test_large_layers_are_checked_by_a_companion(tmp_path: Path, damage: str) -> None:
    data = _RANDOM * 20
    named = hashlib.sha256(data if damage != "wrong" else b"").hexdigest()
    with (
        _stored(tmp_path / "layer", data).open("rb") as stream,
        nothing_left(),
        Checks() as checks,
    ):
        blob = Blob(stream.fileno(), 0, len(data) + (damage == "short"))
        checks.add(Layer(blob, f"sha256:{named}", 1))
        checks.packing()  # the last third has to wait
        [pid] = _started("gateway.image.digesting", 1)
        if damage == "given up":
            return
        if damage == "killed":
            os.kill(pid, signal.SIGKILL)
        kind, said = {
            "wrong": (ImageInvalid, "layer 1 does not match"),
            "short": (ImageInvalid, f"layer 1 ends after {len(data)} of {len(data) + 1} bytes"),
            "killed": (UpstreamFailed, r"gateway\.image\.digesting\) was terminated by signal 9"),
        }.get(damage, (None, ""))
        if kind:
            with pytest.raises(kind, match=said):
                checks.finish()
        else:
            checks.finish()


@pytest.mark.parametrize("code", [0, errno.ENOSYS])
def test_memory_without_a_name(code: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """Also where the kernel is older than memfd_create(2)."""

    def refused(*_: object) -> int:
        raise OSError(code, os.strerror(code))

    if code:
        monkeypatch.setattr(os, "memfd_create", refused)
    with nothing_left():
        descriptor = memory.memory_file("udi-test")
        try:
            os.write(descriptor, b"text")
            assert os.pread(descriptor, 10, 0) == b"text"
            assert not os.get_inheritable(descriptor)
            assert os.fstat(descriptor).st_nlink == 0
            assert os.readlink(f"/proc/self/fd/{descriptor}").startswith(("/memfd:udi-test", "/dev/shm/"))
        finally:
            os.close(descriptor)


def test_memory_that_the_kernel_refuses(monkeypatch: pytest.MonkeyPatch) -> None:
    def refused(*_: object) -> int:
        raise OSError(errno.EMFILE, os.strerror(errno.EMFILE))

    monkeypatch.setattr(os, "memfd_create", refused)
    with pytest.raises(OSError, match="Too many open files"):
        memory.memory_file("udi-test")
