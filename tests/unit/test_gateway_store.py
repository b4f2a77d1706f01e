"""Writing the store: what a change of one name costs in a store of many."""

from __future__ import annotations

import errno
import os
from pathlib import Path
from typing import Any

import pytest

from gateway.store.credentials import Credentials, CredentialStore
from gateway.store.layer_cache import LayerCache
from gateway.store.locks import Locks
from gateway.store.writer import StoreWriter
from udi.facts import Facts
from udi.reference import ImageReference
from udi.store import StoreLayout
from udiroot.errors import UpstreamFailed

IMAGES = 100


@pytest.fixture
def writer(tmp_path: Path) -> StoreWriter:
    made = StoreWriter(StoreLayout(str(tmp_path / "store")), Locks(str(tmp_path / "state")))
    made.prepare()
    for number in range(IMAGES):
        image_id = f"{number:064x}"
        with made.temporary() as temporary:
            Path(temporary).write_bytes(b"x")
            made.publish(temporary, Facts(id=image_id, format="squashfs", size=1, sha256="00" * 32))
        made.name(ImageReference.parse(f"app:{number}"), image_id, number % 2 or None)
    return made


def test_one_new_name_reads_no_other_and_looks_at_no_other_image(
    writer: StoreWriter, monkeypatch: pytest.MonkeyPatch
) -> None:
    """On Lustre each of these is a message to the metadata server, and nobody else may write meanwhile."""
    calls: list[str] = []

    def counted(name: str) -> None:
        real = getattr(os, name)

        def call(path: Any, *more: Any, **named: Any) -> Any:
            calls.append(f"{name} {path}")
            return real(path, *more, **named)

        monkeypatch.setattr(os, name, call)

    for name in ("listdir", "stat", "chmod", "unlink"):
        counted(name)
    monkeypatch.setattr(writer, "refs", lambda: pytest.fail("it read all references"))
    writer.name(ImageReference.parse("new:1"), f"{7:064x}", None)
    assert sum(call.startswith("listdir") for call in calls) <= 6
    touched = [call for call in calls if "/images/" in call]
    assert all(f"{7:064x}" in call for call in touched) and len(touched) <= 10


def test_an_image_that_waits_for_its_job_goes_with_the_next_new_name(writer: StoreWriter) -> None:
    image, plan = Path(writer.layout.image(f"{8:064x}", "squashfs")), Path(writer.layout.plans) / "1.sdb.x"
    plan.write_text(f"image squashfs /x {8:064x}\n")
    writer.name(ImageReference.parse("app:8"), f"{9:064x}", None)
    writer.name(ImageReference.parse("another:1"), f"{9:064x}", None)
    assert image.exists()
    plan.unlink()
    writer.name(ImageReference.parse("another:2"), f"{9:064x}", None)
    assert not image.exists()
    assert not [name for name in os.listdir(writer.layout.images) if name.startswith(".")]


def test_an_image_that_a_pull_is_about_to_name_stays_and_no_other(writer: StoreWriter) -> None:
    """Each in a moment of its own: the pull's lock is on its image alone, and that of the store is held for a write."""
    images = Path(writer.layout.images)
    held, other = f"{8:064x}", f"{9:064x}"
    with writer.expecting(held), writer.expecting(held):
        for number in (8, 9):
            writer.remove(ImageReference.parse(f"app:{number}"), number % 2, publisher=True)
        assert (images / f"{held}.squashfs").exists() and not (images / f"{other}.squashfs").exists()
    writer.name(ImageReference.parse("again:1"), held, None)
    assert (images / f"{held}.squashfs").stat().st_mode & 0o777 == 0o444
    with writer.expecting(held):
        writer.remove(ImageReference.parse("again:1"), 0, publisher=True)
    writer.sweep()
    assert not (images / f"{held}.squashfs").exists(), "the pull has failed, and nobody has named it"


@pytest.mark.parametrize("kind", ["squashfs", "ext4", "directory"])
def test_with_its_last_name_an_image_goes_whatever_its_format(writer: StoreWriter, kind: str) -> None:
    image_id, images = f"{1000:064x}", Path(writer.layout.images)
    with writer.temporary() as temporary, writer.temporary() as inventory:
        if kind == "directory":
            Path(temporary).mkdir()
            (Path(temporary) / "tree").mkdir()
        else:
            Path(temporary).write_bytes(b"x")
        Path(inventory).write_bytes(b"x")
        facts = Facts(id=image_id, format=kind, size=1, sha256="00" * 32)
        writer.publish(temporary, facts, inventory, report="{}")
    for name in ("kind:1", "kind:2"):
        writer.name(ImageReference.parse(name), image_id, 7)
    writer.remove(ImageReference.parse("kind:1"), 7, publisher=False)
    files = {f"{image_id}.{end}" for end in (kind, "json", "report", "inventory")}
    assert {path.name for path in images.iterdir() if path.name.startswith(image_id)} == files
    writer.remove(ImageReference.parse("kind:2"), 7, publisher=False)
    assert [path.name for path in images.iterdir() if image_id in path.name] == []


def test_modes_follow_names_and_what_has_none_goes(writer: StoreWriter) -> None:
    images = Path(writer.layout.images)

    def mode(number: int) -> int:
        return (images / f"{number:064x}.squashfs").stat().st_mode & 0o777

    assert (mode(4), mode(5)) == (0o444, 0o400)
    writer.name(ImageReference.parse("open:1"), f"{5:064x}", None)
    assert mode(5) == 0o444
    writer.name(ImageReference.parse("open:1"), f"{4:064x}", None)
    assert mode(5) == 0o400, "its own name again"
    writer.name(ImageReference.parse("app:4"), f"{6:064x}", None)
    writer.name(ImageReference.parse("open:1"), f"{6:064x}", None)
    assert not (images / f"{4:064x}.squashfs").exists() and not (images / f"{4:064x}.json").exists()
    (images / f"{6:064x}.squashfs").chmod(0o400)
    writer.sweep()
    assert mode(6) == 0o444, "a sweep looks at all"
    assert len(list(images.iterdir())) == 2 * (IMAGES - 1)


@pytest.mark.parametrize("call", ["fsync", "rename", "fchmod"])
def test_a_failing_disk_leaves_no_half_made_file(
    writer: StoreWriter, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, call: str
) -> None:
    """Facts, references, credentials and what the layer cache remembers: all by the one atomic write."""
    cache = LayerCache(str(tmp_path / "layers"), "r.test", 1000)
    credentials = CredentialStore(str(tmp_path / "credentials"), Locks(str(tmp_path / "state")))
    credentials.keep(7, "r.test", Credentials("anna", "old"))
    with writer.temporary() as temporary:
        Path(temporary).write_bytes(b"x")
        before = sorted(str(path) for path in tmp_path.rglob("*"))

        def full(*_: object) -> None:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

        monkeypatch.setattr(os, call, full)
        for attempt in (
            lambda: writer.publish(temporary, Facts(id="f" * 64, format="squashfs", size=1, sha256="00" * 32)),
            lambda: writer.name(ImageReference.parse("new:1"), f"{7:064x}", None),
            lambda: writer.pin(f"{7:064x}", 5),
            lambda: cache.remember("sha256:" + "0" * 64, "1" * 64),
            lambda: credentials.keep(7, "r.test", Credentials("anna", "new")),
        ):
            with pytest.raises(UpstreamFailed, match="no space left on device"):
                attempt()
        after = {str(path) for path in tmp_path.rglob("*")}
        monkeypatch.undo()
    left = after - set(before)
    assert left <= {writer.layout.image("f" * 64, "squashfs")}, "an image file without facts is not an image"
    kept = credentials.find(7, "r.test")
    assert kept and kept.password == "old"
    assert cache.recall("sha256:" + "0" * 64) == ""
    writer.sweep()
    assert not os.path.exists(writer.layout.image("f" * 64, "squashfs"))
