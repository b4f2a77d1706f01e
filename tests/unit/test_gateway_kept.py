"""What compressed layers expand to, kept in memory between the two passes: within its bound, with the same result."""

from __future__ import annotations

import contextlib
import errno
import hashlib
import os
import time
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest

from gateway.image import kept as kept_module
from gateway.image.arriving import Arrival
from gateway.image.blob import Blob
from gateway.image.checking import Checks
from gateway.image.flatten import Flattened, flatten
from gateway.image.kept import KeptLayers
from gateway.image.layers import Layer
from gateway.image.limits import Limits
from gateway.image.squashfs.writer import write_squashfs
from tests.gateway.archives import BASE, compressed, directory, file, layer_tar, whiteout
from tests.gone import nothing_left
from udiroot.errors import ImageInvalid
from xcsim.processes import wait_until

_NOISE = bytes(os.urandom(200_000))
_LIKE_GZIP = b"\x1f\x8b\x08"
"""A name with which an expanded layer looks compressed; the last layer hides it, since a node would refuse it."""
_LAYERS = (
    layer_tar([*BASE, file("a", _NOISE), file("b", b"b" * 1000)]),
    layer_tar([file(_LIKE_GZIP, b"x"), whiteout("b")]),
    layer_tar([file(b".wh." + _LIKE_GZIP, b""), directory("d"), file("d/c", _NOISE[:150_000]), file("d/e", b"e")]),
)
_SIZES = [len(layer) for layer in _LAYERS]
_ROOMY = Limits(1 << 30, 1000, 1000)


@pytest.fixture(params=["gzip", "zstd", "gzip-members"])
def layers(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[list[Layer]]:
    found = []
    with (tmp_path / "layers").open("w+b") as stream:
        for number, data in enumerate(_LAYERS, 1):
            stored = compressed(data, request.param)
            blob = Blob(stream.fileno(), stream.tell(), len(stored))
            stream.write(stored)
            found.append(Layer(blob, f"sha256:{hashlib.sha256(data).hexdigest()}", number))
        stream.flush()
        yield found


def _flattened(
    layers: list[Layer], kept: KeptLayers | None, max_bytes: int = 1 << 30, checks: Checks | None = None
) -> Flattened:
    return flatten(layers, Limits(max_bytes, 1000, 1000), lambda _: None, checks, kept)


def _kept(most: int = 1 << 30, max_bytes: int = 1 << 30) -> KeptLayers:
    return KeptLayers(most, Limits(max_bytes, 1000, 1000))


def _image(flattened: Flattened, path: Path) -> bytes:
    write_squashfs(flattened, str(path), ("gzip", 1), 128 << 10, lambda _: None)
    data = path.read_bytes()
    path.unlink()
    return data


@pytest.mark.parametrize(
    ("most", "plain"),
    [
        (0, {0}),
        (min(_SIZES) - 1, {0}),
        (_SIZES[0] - 1, {1, 2}),
        (_SIZES[0], {1, 2}),
        (sum(_SIZES[:2]), {1, 2}),
        (sum(_SIZES) - 1, {1, 2}),
        (sum(_SIZES), {3}),
    ],
)
def test_as_many_layers_are_kept_as_fit(layers: list[Layer], tmp_path: Path, most: int, plain: set[int]) -> None:
    """And the image is the same, however many those are; afterwards the memory is free."""
    with nothing_left(), _kept(most) as kept:
        flattened = _flattened(layers, kept)
        expanded = [layer for layer in flattened.layers if layer.is_plain()]
        assert len(expanded) in plain
        assert all(layer.blob.size == _SIZES[layer.number - 1] for layer in expanded)
        in_memory = sum(os.fstat(layer.blob.descriptor).st_blocks * 512 for layer in expanded)
        assert in_memory <= most + len(expanded) * os.sysconf("SC_PAGESIZE")
        found = _image(flattened, tmp_path / "kept")
    assert found == _image(_flattened(layers, None), tmp_path / "reference")


@pytest.mark.parametrize("code", [errno.ENOSPC, errno.ENOMEM, errno.EFBIG])
def test_a_kernel_without_memory_for_it(
    layers: list[Layer], tmp_path: Path, code: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The layer is decompressed twice, and what was kept of it is free at once."""
    reference = _image(_flattened(layers, None), tmp_path / "reference")
    freed: list[int] = []

    def refuse(descriptor: int, chunk: bytes) -> None:
        os.write(descriptor, chunk[:1000])
        freed.append(descriptor)
        raise OSError(code, os.strerror(code))

    monkeypatch.setattr(kept_module, "_write_all", refuse)
    with _kept() as kept:
        flattened = _flattened(layers, kept)
        assert not any(layer.is_plain() for layer in flattened.layers)
        assert [os.fstat(descriptor).st_size for descriptor in freed] == [0] * len(_LAYERS)
        assert _image(flattened, tmp_path / "kept") == reference


def test_layers_are_expanded_at_the_same_time(layers: list[Layer]) -> None:
    """The second one is there although nobody has asked for the first."""
    done: list[int] = []
    with _kept() as kept:
        kept.begin(layers, done.append)
        assert wait_until(lambda: sum(done) == sum(_SIZES), 30, 0.01)
        assert [kept.expanded(layer).blob.size for layer in layers] == _SIZES


@pytest.mark.parametrize("most", [0, _SIZES[0], 1 << 30])
def test_the_limit_on_all_layers_holds_however_they_are_read(layers: list[Layer], most: int) -> None:
    """What found no room in memory is read again, and counts once."""
    with _kept(most, sum(_SIZES)) as kept:
        _flattened(layers, kept, sum(_SIZES))
    with _kept(most, sum(_SIZES) - 1) as kept, pytest.raises(ImageInvalid, match=f"more than {sum(_SIZES) - 1} bytes"):
        _flattened(layers, kept, sum(_SIZES) - 1)


@pytest.mark.parametrize("damaged", range(3))
def test_a_layer_that_is_wrong_ends_all(layers: list[Layer], damaged: int) -> None:
    """With the error of the lowest one, and nothing left running or open."""
    wrong = [replace(layer, diff_id=f"sha256:{'0' * 64}") if layer.number > damaged else layer for layer in layers]
    with nothing_left(), pytest.raises(ImageInvalid, match=f"layer {damaged + 1} does not match"), _kept() as kept:
        _flattened(wrong, kept)


@pytest.mark.parametrize("most", [0, _SIZES[0], 1 << 30])
def test_what_is_kept_is_checked_beside_the_work_on_it(layers: list[Layer], tmp_path: Path, most: int) -> None:
    """And the image is the same. The memory is free when the last one is checked, and not before."""
    with _kept(most) as kept, Checks() as checks:
        found = _image(_flattened(layers, kept, checks=checks), tmp_path / "kept")
        checks.then(kept.free)
        checks.finish()
        assert _in_memory(kept) == 0
    assert found == _image(_flattened(layers, None), tmp_path / "reference")


@pytest.mark.parametrize("most", [0, _SIZES[0], 1 << 30])
@pytest.mark.parametrize("damaged", range(3))
def test_a_kept_layer_that_is_wrong_is_found_in_the_end(layers: list[Layer], most: int, damaged: int) -> None:
    """At the latest, and with nothing left running or open."""
    layers[damaged] = replace(layers[damaged], diff_id=f"sha256:{'0' * 64}")
    with (
        nothing_left(),
        pytest.raises(ImageInvalid, match=f"layer {damaged + 1} does not match"),
        _kept(most) as kept,
        Checks() as checks,
    ):
        _flattened(layers, kept, checks=checks)
        checks.finish()


# Layers that arrive meanwhile


class _Receiver:
    """Receives a stored layer into a file of its own, as far as it is told."""

    def __init__(self, layer: Layer, path: Path) -> None:
        self.data = layer.blob.read_at(0, layer.blob.size)
        self._stream = path.open("w+b", buffering=0)
        self.arrival = Arrival(self._stream.fileno(), len(self.data))
        self.layer = replace(layer, blob=Blob(self._stream.fileno(), 0, len(self.data)))

    def receive(self, start: int, end: int) -> None:
        os.pwrite(self._stream.fileno(), self.data[start:end], start)
        self.arrival.came(end)

    def begin_again(self, rubbish: bytes = b"") -> None:
        self.arrival.begins_again()
        self._stream.truncate(0)
        if rubbish:
            os.pwrite(self._stream.fileno(), rubbish, 0)
            self.arrival.came(len(rubbish))


@pytest.fixture
def receivers(layers: list[Layer], tmp_path: Path) -> list[_Receiver]:
    return [_Receiver(layer, tmp_path / str(layer.number)) for layer in layers]


@pytest.mark.parametrize("how", ["gzip", "zstd"])
def test_a_layer_is_expanded_as_it_arrives(tmp_path: Path, how: str) -> None:
    """Most of it is there before its last byte has come, and those who index are told of all of it."""
    data = layer_tar([*BASE, file("large", os.urandom(3 << 20))])
    stored = compressed(data, how)
    (tmp_path / "stored").write_bytes(stored)
    seen: list[int] = []
    with (tmp_path / "stored").open("rb") as source, _kept() as kept, Checks() as checks:
        layer = Layer(Blob.of_file(source.fileno()), f"sha256:{hashlib.sha256(data).hexdigest()}", 1)
        receiver = _Receiver(layer, tmp_path / "received")
        kept.arriving(1, receiver.arrival)
        receiver.receive(0, len(stored) - 1)
        assert wait_until(lambda: _in_memory(kept) > 1 << 20, 30, 0.01)
        receiver.receive(len(stored) - 1, len(stored))
        receiver.arrival.ends()
        flattened = flatten([receiver.layer], _ROOMY, seen.append, checks, kept)
        checks.finish()
        assert flattened.layers[0].is_expanded
        assert sum(seen) == len(data)


@pytest.mark.parametrize("at", [0, 3, 1000, -1])
@pytest.mark.parametrize("rubbish", [b"", b"x" * 500, b"\x1f\x8b\x08\0\0\0\0\0\0\3" + b"y" * 500])
def test_a_layer_that_begins_to_arrive_again(
    receivers: list[_Receiver], layers: list[Layer], tmp_path: Path, at: int, rubbish: bytes
) -> None:
    """Nothing of what came first is kept, nor counted, even where the second time brings rubbish, and only the third
    is right."""
    with _kept(sum(_SIZES), sum(_SIZES)) as kept:
        for receiver in receivers:
            kept.arriving(receiver.layer.number, receiver.arrival)
            receiver.receive(0, at % len(receiver.data))
            time.sleep(0.01)
            receiver.begin_again(rubbish)
            time.sleep(0.01)
            receiver.begin_again()
            receiver.receive(0, len(receiver.data))
            receiver.arrival.ends()
        found = _image(_flattened([each.layer for each in receivers], kept, sum(_SIZES)), tmp_path / "kept")
    assert found == _image(_flattened(layers, None), tmp_path / "reference")


def test_a_conversion_that_ends_waits_for_no_layer(receivers: list[_Receiver]) -> None:
    with nothing_left(), _kept() as kept:
        for receiver in receivers:
            kept.arriving(receiver.layer.number, receiver.arrival)


def test_a_layer_that_never_arrives_leaves_nothing(receivers: list[_Receiver]) -> None:
    with nothing_left(), _kept() as kept:
        for receiver, share in zip(receivers, (0, 5, 1000), strict=True):
            kept.arriving(receiver.layer.number, receiver.arrival)
            receiver.receive(0, share)
            receiver.arrival.ends()
        assert [kept.expanded(receiver.layer) for receiver in receivers] == [each.layer for each in receivers]


@pytest.mark.parametrize("most", [0, _SIZES[0], 1 << 30])
@pytest.mark.parametrize("room", [0, -1])
def test_a_layer_that_an_image_has_twice_is_expanded_once_and_counts_twice(
    layers: list[Layer], tmp_path: Path, most: int, room: int
) -> None:
    twice = [*layers, replace(layers[0], number=4)]
    limit = sum(_SIZES) + _SIZES[0] + room
    refused = pytest.raises(ImageInvalid, match=f"more than {limit} bytes") if room else contextlib.nullcontext()
    with _kept(most, limit) as kept, refused:
        flattened = _flattened(twice, kept, limit)
        places = {layer.blob.descriptor for layer in flattened.layers if layer.is_expanded}
        assert len(places) <= 3
        found = _image(flattened, tmp_path / "kept")
        assert found == _image(_flattened(twice, None), tmp_path / "reference")


def _in_memory(kept: KeptLayers) -> int:
    return sum(os.fstat(descriptor).st_size for descriptor in kept._descriptors)
