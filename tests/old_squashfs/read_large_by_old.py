"""Images of more bytes than 32 bits count, read by the old unsquashfs."""

from __future__ import annotations

from pathlib import Path

from tests.gateway import large_layers
from tests.gateway.squashfs_readers import write
from tests.gateway.support import needs_root
from tests.old_squashfs.read_by_old import by_old

pytestmark = needs_root


def test_an_image_of_more_than_4_gib(tmp_path: Path) -> None:
    with large_layers.room(tmp_path) as work:
        layer, right = large_layers.of_noise(work / "layer")
        assert by_old(write(work / "image", [layer]), work / "out") == right


def test_a_file_of_more_than_4_gib_of_zeros(tmp_path: Path) -> None:
    with large_layers.room(tmp_path) as work:
        layer, right = large_layers.of_zeros(work / "layer")
        assert by_old(write(work / "image", [layer], 1 << 20), work / "out") == right
        assert (work / "out/huge").stat().st_blocks < 1 << 16, "what is not stored is a hole"
