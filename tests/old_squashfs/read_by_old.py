"""Images of the gateway's writer, read by an unsquashfs of 2019: that of the oldest Debian release which Debian's
mirrors have. `make test-old-squashfs` fetches it once; not in `make test`, since a mirror drops a release one day."""

from __future__ import annotations

import subprocess
from pathlib import Path
from tempfile import TemporaryDirectory

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from gateway.image.squashfs import superblock
from tests.gateway.archives import BASE, Entry
from tests.gateway.squashfs_cases import (
    of_kinds,
    of_many_attributes,
    of_many_owners,
    of_sizes,
    of_very_many_names,
    trees,
)
from tests.gateway.squashfs_readers import BLOCK_SIZES, by_kernel, unpacked, wanted, write
from tests.gateway.stacks import HAND_MADE, stacks
from tests.gateway.support import Found, convert_layers, in_memory, needs_root

pytestmark = needs_root
_PROGRAM = Path(__file__).parents[2] / ".cache/old-squashfs/unsquashfs"
_COMPRESSIONS = ("gzip", "zstd", "xz")


def by_old(image: Path, where: Path) -> dict[bytes, Found]:
    """What the old program unpacks to `where`, which must not exist."""
    return unpacked([str(_PROGRAM)], image, where)


def test_the_program_is_old() -> None:
    done = subprocess.run([_PROGRAM, "-version"], capture_output=True, text=True, timeout=30, check=False)
    assert done.stdout.startswith("unsquashfs version 4.4 (2019/08/29)"), done


@pytest.mark.parametrize("compression", _COMPRESSIONS)
@pytest.mark.parametrize("block_size", BLOCK_SIZES)
def test_all_that_a_layer_may_have(tmp_path: Path, block_size: int, compression: str) -> None:
    """Hard links, attributes, holes, and files around the sizes of blocks."""
    entries = [*BASE, *of_sizes(block_size), *of_kinds()]
    image = write(tmp_path / "image", [entries], block_size, compression)
    assert by_old(image, tmp_path / "out") == wanted(entries)


def test_very_many_names(tmp_path: Path) -> None:
    entries = of_very_many_names(files=65_536)
    image = write(tmp_path / "image", [entries])
    with in_memory(tmp_path / "memory") as memory:
        assert by_old(image, memory / "out") == wanted(entries)


def test_many_attributes(tmp_path: Path) -> None:
    entries = of_many_attributes("trusted")
    image = write(tmp_path / "image", [entries])
    with in_memory(tmp_path / "memory") as memory:
        assert by_old(image, memory / "out") == wanted(entries)


def test_many_owners(tmp_path: Path) -> None:
    entries = of_many_owners()
    assert by_old(write(tmp_path / "image", [entries]), tmp_path / "out") == wanted(entries)


@pytest.mark.parametrize("name", HAND_MADE)
def test_hand_made_layers(tmp_path: Path, name: str) -> None:
    image = convert_layers(tmp_path, HAND_MADE[name])
    assert by_old(image, tmp_path / "out") == by_kernel(image)


def test_positions_that_32_bits_cannot_say(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Of all blocks and tables, behind a hole of the image."""
    entries = [*BASE, *of_sizes(128 << 10), *of_kinds()]
    monkeypatch.setattr(superblock, "SIZE", (1 << 32) + 1)
    assert by_old(write(tmp_path / "image", [entries]), tmp_path / "out") == wanted(entries)


@settings(max_examples=300, suppress_health_check=[HealthCheck.too_slow, HealthCheck.data_too_large])
@given(trees(), st.sampled_from(BLOCK_SIZES), st.sampled_from(_COMPRESSIONS))
def test_any_tree(entries: list[Entry], block_size: int, compression: str) -> None:
    with TemporaryDirectory() as name:
        image = write(Path(name, "image"), [entries], block_size, compression)
        assert by_old(image, Path(name, "out")) == wanted(entries)


@settings(max_examples=100)
@given(stacks())
def test_any_stack_of_layers(layers: list[list[Entry]]) -> None:
    with TemporaryDirectory() as name:
        image = convert_layers(Path(name), layers)
        assert by_old(image, Path(name, "out")) == by_kernel(image)
