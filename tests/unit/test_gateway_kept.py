"""What compressed layers expand to, kept in memory between the two passes: within its bound, with the same result."""

from __future__ import annotations

import errno
import hashlib
import os
import threading
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest

from gateway.image import kept as kept_module
from gateway.image.blob import Blob
from gateway.image.checking import Checks
from gateway.image.flatten import Flattened, Limits, flatten
from gateway.image.kept import KeptLayers
from gateway.image.layers import Layer
from gateway.image.squashfs.writer import write_squashfs
from tests.gateway.archives import BASE, compressed, directory, file, layer_tar, whiteout
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


def _image(flattened: Flattened, path: Path) -> bytes:
    write_squashfs(flattened, str(path), ("gzip", 1), 128 << 10, lambda _: None)
    data = path.read_bytes()
    path.unlink()
    return data


def _open_files() -> int:
    return len(os.listdir("/proc/self/fd"))


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
    before = _open_files()
    with KeptLayers(most) as kept:
        flattened = _flattened(layers, kept)
        expanded = [layer for layer in flattened.layers if layer.is_plain()]
        assert len(expanded) in plain
        assert all(layer.blob.size == _SIZES[layer.number - 1] for layer in expanded)
        in_memory = sum(os.fstat(layer.blob.descriptor).st_blocks * 512 for layer in expanded)
        assert in_memory <= most + len(expanded) * os.sysconf("SC_PAGESIZE")
        found = _image(flattened, tmp_path / "kept")
    assert found == _image(_flattened(layers, None), tmp_path / "reference")
    assert _open_files() == before


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
    with KeptLayers(1 << 30) as kept:
        flattened = _flattened(layers, kept)
        assert not any(layer.is_plain() for layer in flattened.layers)
        assert [os.fstat(descriptor).st_size for descriptor in freed] == [0] * len(_LAYERS)
        assert _image(flattened, tmp_path / "kept") == reference


def test_layers_are_expanded_at_the_same_time(layers: list[Layer]) -> None:
    """The second one is there although nobody has asked for the first."""
    done: list[int] = []
    with KeptLayers(1 << 30) as kept:
        kept.begin(layers, Limits(1 << 30, 1000, 1000).budget(), done.append)
        assert wait_until(lambda: sum(done) == sum(_SIZES), 10, 0.01)
        assert [kept.expanded(layer).blob.size for layer in layers] == _SIZES


@pytest.mark.parametrize("most", [0, _SIZES[0], 1 << 30])
def test_the_limit_on_all_layers_holds_however_they_are_read(layers: list[Layer], most: int) -> None:
    """What found no room in memory is read again, and counts once."""
    with KeptLayers(most) as kept:
        _flattened(layers, kept, sum(_SIZES))
    with KeptLayers(most) as kept, pytest.raises(ImageInvalid, match=f"more than {sum(_SIZES) - 1} bytes"):
        _flattened(layers, kept, sum(_SIZES) - 1)


@pytest.mark.parametrize("damaged", range(3))
def test_a_layer_that_is_wrong_ends_all(layers: list[Layer], damaged: int) -> None:
    """With the error of the lowest one, and nothing left running or open."""
    before, threads = _open_files(), threading.active_count()
    wrong = [replace(layer, diff_id=f"sha256:{'0' * 64}") if layer.number > damaged else layer for layer in layers]
    with pytest.raises(ImageInvalid, match=f"layer {damaged + 1} does not match"), KeptLayers(1 << 30) as kept:
        _flattened(wrong, kept)
    assert (_open_files(), threading.active_count()) == (before, threads)


@pytest.mark.parametrize("most", [0, _SIZES[0], 1 << 30])
def test_what_is_kept_is_checked_beside_the_work_on_it(layers: list[Layer], tmp_path: Path, most: int) -> None:
    """And the image is the same."""
    with KeptLayers(most) as kept, Checks() as checks:
        found = _image(_flattened(layers, kept, checks=checks), tmp_path / "kept")
        checks.finish()
    assert found == _image(_flattened(layers, None), tmp_path / "reference")


@pytest.mark.parametrize("most", [0, _SIZES[0], 1 << 30])
@pytest.mark.parametrize("damaged", range(3))
def test_a_kept_layer_that_is_wrong_is_found_in_the_end(layers: list[Layer], most: int, damaged: int) -> None:
    """At the latest, and with nothing left running or open."""
    before, threads = _open_files(), threading.active_count()
    layers[damaged] = replace(layers[damaged], diff_id=f"sha256:{'0' * 64}")
    with (
        pytest.raises(ImageInvalid, match=f"layer {damaged + 1} does not match"),
        KeptLayers(most) as kept,
        Checks() as checks,
    ):
        _flattened(layers, kept, checks=checks)
        checks.finish()
    assert (_open_files(), threading.active_count()) == (before, threads)
