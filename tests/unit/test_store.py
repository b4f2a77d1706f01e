"""Reading the image store: who sees what, and what is said of what is not there."""

from __future__ import annotations

import errno
import os
from pathlib import Path
from urllib.parse import quote

import pytest
from hypothesis import given
from hypothesis import strategies as st

from udi import reference, store
from udi.facts import Facts, Ref
from udi.reference import ImageReference
from udi.store import StoreLayout, StoreReader
from udiroot.errors import ImageInvalid, NotFound, UpstreamFailed, UsageError

ALICE, BOB = 1001, 1002
PUBLIC, PRIVATE = "ab" * 32, "cd" * 32


@pytest.fixture
def layout(tmp_path: Path) -> StoreLayout:
    made = StoreLayout(str(tmp_path))
    for directory in (made.images, made.refs):
        Path(directory).mkdir()
    for image_id in (PUBLIC, PRIVATE):
        facts = Facts(id=image_id, format="squashfs", size=1, sha256="00" * 32, env=("A=b",))
        Path(made.facts(image_id)).write_text(facts.to_json())
    _name(made, "debian:12", PUBLIC)
    _name(made, "app:1", PRIVATE, ALICE)
    return made


def _name(layout: StoreLayout, text: str, image_id: str, owner: int | None = None) -> None:
    reference = ImageReference.parse(text)
    owners = () if owner is None else (owner,)
    ref = Ref(reference=str(reference), id=image_id, owners=owners, created=1)
    Path(layout.ref(reference, owner)).write_text(ref.to_json())


def _resolve(layout: StoreLayout, uid: int, text: str) -> str:
    return StoreReader(layout, uid).resolve(ImageReference.parse(text))


def test_public_and_own(layout: StoreLayout) -> None:
    assert _resolve(layout, BOB, "debian:12") == PUBLIC
    assert _resolve(layout, ALICE, "app:1") == PRIVATE
    assert StoreReader(layout, ALICE).facts(ImageReference(id=PRIVATE)).env == ("A=b",)
    assert _resolve(layout, ALICE, f"id:{PRIVATE}") == PRIVATE


@pytest.mark.parametrize("text", ["app:1", f"id:{PRIVATE}"])
def test_an_image_of_another_user_does_not_exist(layout: StoreLayout, text: str) -> None:
    with pytest.raises(NotFound) as private:
        _resolve(layout, BOB, text)
    assert private.value.message == f"image '{text}' not found, or you do not have access to it"
    assert "app" not in private.value.hint
    with pytest.raises(NotFound):
        StoreReader(layout, BOB).facts(ImageReference(id=PRIVATE))
    assert [ref.reference for ref in StoreReader(layout, BOB).visible()] == ["debian:12"]


def test_what_is_read_does_not_grow_with_the_store(layout: StoreLayout, monkeypatch: pytest.MonkeyPatch) -> None:
    """A store has thousands of references, on a file system where each open(2) is a message."""
    for number in range(100):
        _name(layout, f"other:{number}", PUBLIC)
    _name(layout, f"id:{PRIVATE}", PRIVATE, ALICE)
    opened: list[str] = []
    read = store._read

    def noted(path: str, first: int) -> bytes | None:
        opened.append(path)
        return read(path, first)

    monkeypatch.setattr(store, "_read", noted)
    reader = StoreReader(layout, ALICE)
    for text in ("debian:12", "app:1", f"id:{PRIVATE}"):
        opened.clear()
        reader.facts(ImageReference.parse(text))
        assert len(opened) <= 3, "own reference, public reference, facts"
    opened.clear()
    for ref in reader.visible():
        reader.facts_behind(ref)
    assert len(opened) <= 2 * 103 + 1, "each reference and its facts"


def test_own_comes_before_public(layout: StoreLayout) -> None:
    _name(layout, "debian:12", PRIVATE, ALICE)
    assert _resolve(layout, ALICE, "debian:12") == PRIVATE
    assert _resolve(layout, BOB, "debian:12") == PUBLIC


def test_the_nearest_name_is_hinted(layout: StoreLayout) -> None:
    with pytest.raises(NotFound) as caught:
        _resolve(layout, BOB, "debain:12")
    assert caught.value.hint == "did you mean debian:12?"


@pytest.mark.parametrize("text", ["{", "[]", '{"id": 5}', '{"reference": "X Y", "id": "00"}'])
def test_a_broken_reference_file_is_an_error_and_not_a_lie(layout: StoreLayout, text: str) -> None:
    Path(layout.ref(ImageReference.parse("debian:12"), None)).write_text(text)
    with pytest.raises(ImageInvalid):
        _resolve(layout, BOB, "debian:12")


def test_facts_of_another_image(layout: StoreLayout) -> None:
    Path(layout.facts(PUBLIC)).write_text(Path(layout.facts(PRIVATE)).read_text())
    with pytest.raises(ImageInvalid, match="are those of"):
        StoreReader(layout, BOB).facts(ImageReference(id=PUBLIC))


def _without_store(layout: StoreLayout, fault: str) -> None:
    match fault:
        case "an empty directory":
            for path in Path(layout.refs).iterdir():
                path.unlink()
            Path(layout.refs).rmdir()
            Path(layout.images).rename(f"{layout.path}/.images")
            Path(f"{layout.path}/.images").rename(f"{layout.path}.images")
        case "no directory":
            Path(layout.path).rename(f"{layout.path}.away")
        case "a file":
            Path(layout.path).rename(f"{layout.path}.away")
            Path(layout.path).write_text("")
        case "no images":
            Path(layout.images).rename(f"{layout.path}.images")
        case "no references":
            Path(layout.refs).rename(f"{layout.path}.refs")
        case "references are a file":
            Path(layout.refs).rename(f"{layout.path}.refs")
            Path(layout.refs).write_text("")
        case "images are a dangling link":
            Path(layout.images).rename(f"{layout.path}.images")
            Path(layout.images).symlink_to("/nowhere")


@pytest.mark.parametrize(
    "fault",
    [
        "an empty directory",
        "no directory",
        "a file",
        "no images",
        "no references",
        "references are a file",
        "images are a dangling link",
    ],
)
@pytest.mark.parametrize("text", ["debian:12", "absent:1", f"id:{PUBLIC}", f"id:{'ef' * 32}"])
def test_a_store_that_is_missing_is_not_the_users_error(layout: StoreLayout, fault: str, text: str) -> None:
    """It is not mounted, say: an image that is not found there may well exist."""
    _without_store(layout, fault)
    with pytest.raises(UpstreamFailed, match=f"image store.*{layout.path}"):
        StoreReader(layout, BOB).facts(ImageReference.parse(text))


@pytest.mark.parametrize("number", [errno.EIO, errno.ESTALE, errno.EACCES, errno.ETIMEDOUT, errno.ESHUTDOWN])
@pytest.mark.parametrize("where", ["refs/debian", "refs", f"images/{PUBLIC}.json"])
def test_a_store_that_fails(layout: StoreLayout, monkeypatch: pytest.MonkeyPatch, number: int, where: str) -> None:
    """For a hook, which has the rights of the store's account, no permission is a failure like any other."""
    opened, listed = os.open, os.listdir

    def failing(path: str, *rest: int, **more: int) -> int:
        if str(path).startswith(f"{layout.path}/{where}"):
            raise OSError(number, os.strerror(number), path)
        return opened(path, *rest, **more)

    def listing(path: str) -> list[str]:
        os.close(failing(path, os.O_RDONLY))
        return listed(path)

    monkeypatch.setattr(os, "open", failing)
    monkeypatch.setattr(os, "listdir", listing)
    with pytest.raises(UpstreamFailed, match="image store"):
        StoreReader(layout, BOB, reads_all=True).facts(ImageReference.parse("debian:12"))


def test_what_a_caller_may_not_read_does_not_exist(layout: StoreLayout, monkeypatch: pytest.MonkeyPatch) -> None:
    """A user reads the store as that user, and private references cannot be read by others."""

    def refused(path: str, first: int) -> bytes | None:
        raise PermissionError(errno.EACCES, "Permission denied", path)

    monkeypatch.setattr(store, "_read", refused)
    with pytest.raises(NotFound):
        StoreReader(layout, BOB).resolve(ImageReference.parse("debian:12"))


@given(st.from_regex(f"{reference._REFERENCE}|vm:[a-z0-9/]+:[A-Za-z0-9._-]+|id:[0-9a-f]{{64}}", fullmatch=True))
def test_the_file_of_a_reference_is_called_as_a_url_has_it(text: str) -> None:
    try:
        found = ImageReference.parse(text)
    except UsageError:
        return
    assert StoreLayout("/s").ref(found, None) == f"/s/refs/{quote(str(found), safe=':@')}.json"
