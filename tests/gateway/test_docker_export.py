"""The image files against Docker's own opinion: `docker load`, a container, `docker export`, entry by entry."""

from __future__ import annotations

import dataclasses
import itertools
import subprocess
from collections.abc import Iterable, Iterator
from pathlib import Path
from tempfile import TemporaryDirectory

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.gateway.archives import Entry, make_archive
from tests.gateway.dockerd import Dockerd
from tests.gateway.stacks import HAND_MADE, Stack, stacks
from tests.gateway.support import FORMATS, Found, needs_root, tree_of, tree_of_layers, without_root

pytestmark = needs_root

_DOCKERS_OWN = {b".dockerenv", b"dev", b"proc", b"sys", b"etc"}
"""What every container gets, besides what is in these."""
_IN_ETC = {b"etc/hostname", b"etc/hosts", b"etc/resolv.conf", b"etc/mtab"}
_NOT_TAKEN = "an entry twice"
"""Which Docker does not load: "duplicates of file paths not supported"."""
_numbers = itertools.count()


@pytest.fixture(scope="module")
def daemon(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Dockerd]:
    with Dockerd(tmp_path_factory.mktemp("docker") / "d") as running:
        yield running


def _exported(daemon: Dockerd, work: Path, layers: Stack) -> dict[bytes, Found]:
    """What a container of these layers holds."""
    name = f"oracle:{next(_numbers)}"
    make_archive(work / "saved.tar", layers, tags=(name,), style="hashes")
    daemon.load(work / "saved.tar")
    container = daemon.client.create_container(name, ["/bin/sh"])["Id"]
    try:
        with (work / "exported.tar").open("wb") as stream:
            for piece in daemon.client.export(container):
                stream.write(piece)
    finally:
        daemon.client.remove_container(container)
        daemon.client.remove_image(name)
    tree = work / "exported"
    tree.mkdir()
    unpack = ["tar", "--extract", "--same-owner", "--same-permissions", "--numeric-owner", "--delay-directory-restore"]
    subprocess.run([*unpack, "--file", work / "exported.tar", "--directory", tree], check=True, timeout=60)
    return tree_of(tree)


def _expected(exported: dict[bytes, Found], layers: Stack, names: Iterable[bytes]) -> dict[bytes, Found]:
    """What Docker exports, less its own ways: it adds names, and makes directories that no layer lists with mode 0600,
    where containerd, umoci and we have 0755."""
    listed = {entry.name.strip(b"/") for layer in layers for entry in layer}
    own = {path for path in exported if path in _DOCKERS_OWN | _IN_ETC or path.startswith(b"dev/")} - set(names)
    return {
        path: dataclasses.replace(found, mode=0o755)
        if found.kind == "d" and found.mode == 0o600 and path not in listed
        else found
        for path, found in without_root(exported).items()
        if path not in own
    }


def _plain(tree: dict[bytes, Found]) -> dict[bytes, Found]:
    """Docker drops user xattrs, and does not tell which symbolic links share an inode."""
    return {
        path: dataclasses.replace(found, xattrs=(), group=() if found.kind == "l" else found.group)
        for path, found in without_root(tree).items()
    }


@pytest.mark.parametrize("name", sorted({*HAND_MADE} - {_NOT_TAKEN}))
def test_hand_made_layers_equal_what_docker_exports(daemon: Dockerd, tmp_path: Path, name: str) -> None:
    exported = _exported(daemon, tmp_path, HAND_MADE[name])
    for image_format in FORMATS:
        ours = _plain(tree_of_layers(tmp_path, HAND_MADE[name], image_format))
        assert ours == _expected(exported, HAND_MADE[name], ours)


@settings(max_examples=20)
@given(layers=stacks(), image_format=st.sampled_from(FORMATS))
def test_any_stack_of_layers_equals_what_docker_exports(
    daemon: Dockerd, layers: list[list[Entry]], image_format: str
) -> None:
    with TemporaryDirectory() as name:
        work = Path(name)
        ours = _plain(tree_of_layers(work, layers, image_format))
        assert ours == _expected(_exported(daemon, work, layers), layers, ours)
