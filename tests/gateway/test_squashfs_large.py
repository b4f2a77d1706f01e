"""Images, and layers, of more bytes than 32 bits count: what is behind them is found by all readers."""

from __future__ import annotations

import struct
from pathlib import Path

import pytest

from tests.gateway import large_layers
from tests.gateway.squashfs_readers import agree, by_kernel, write
from tests.gateway.support import needs_root

pytestmark = [needs_root, pytest.mark.long]
_TABLES = struct.Struct("<48xQQQQQ")
"""Of the superblock: where the tables of ids, attributes, inodes, listings and fragments are."""


@pytest.mark.parametrize("block_size", [128 << 10, 1 << 20])
def test_an_image_of_more_than_4_gib(tmp_path: Path, block_size: int) -> None:
    """All tables are behind them, and so are blocks of files, shared ones too, and of fragments."""
    with large_layers.room(tmp_path) as work:
        layer, right = large_layers.of_noise(work / "layer")
        image = write(work / "image", [layer], block_size)
        with image.open("rb") as stream:
            assert min(_TABLES.unpack(stream.read(_TABLES.size))) > 1 << 32
        assert by_kernel(image) == right
        agree(image, right, work)


def test_files_behind_4_gib_of_a_layer(tmp_path: Path) -> None:
    with large_layers.room(tmp_path) as work:
        layer, right = large_layers.of_zeros(work / "layer")
        image = write(work / "image", [layer])
        assert image.stat().st_size < 16 << 20
        assert by_kernel(image) == right
        agree(image, right, work)
