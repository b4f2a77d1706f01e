"""Notes of jobs: what is written is read again, and nothing else is taken for a note."""

from __future__ import annotations

import os
import stat
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from jobs.notes import FAILED, READY, WANTED, Note, Notes
from udiroot.errors import UpstreamFailed
from udiroot.fields import LARGEST_ID

TEXT = st.text(st.characters(exclude_categories=["Cs"]), max_size=40)
NOTES = st.builds(
    Note,
    uid=st.integers(0, LARGEST_ID),
    state=st.sampled_from([WANTED, READY, FAILED]),
    start=st.integers(0, 1 << 20),
    root=TEXT,
    label=TEXT,
    image=TEXT,
    given=TEXT,
    id=TEXT,
    why=TEXT,
)


@given(NOTES)
def test_a_note_is_read_as_it_was_written(note: Note) -> None:
    text = note.text()
    assert Note.parse(text.encode()) == note
    assert text.isascii() and all(" " <= c <= "~" or c == "\n" for c in text)


@given(NOTES, st.integers(1, 400))
def test_a_note_that_is_cut_is_none(note: Note, cut: int) -> None:
    data = note.text().encode()
    assert Note.parse(data[: -min(cut, len(data))]) is None


@given(st.binary(max_size=200))
def test_anything_is_read_without_an_error(data: bytes) -> None:
    Note.parse(b"udi-note 1\n" + data)


@pytest.mark.parametrize(
    "text",
    [
        "",
        "udi-note 2\nuid 1\nstart 0\nstate ready\nend\n",
        "udi-note 1\nuid 1\nstart 0\nstate ready\n",
        "udi-note 1\nuid 1\nstart 0\nstate ready\nend\nmore\n",
        "udi-note 1\nuid -1\nstart 0\nstate ready\nend\n",
        "udi-note 1\nuid 1\nstart 0\nstate maybe\nend\n",
        "udi-note 1\nuid 1\nuid 2\nstart 0\nstate ready\nend\n",
        "udi-note 1\nuid 1\nstart 0\nstate ready\ncolour red\nend\n",
        "udi-note 1\nstart 0\nstate ready\nend\n",
    ],
)
def test_a_damaged_note_is_none(text: str) -> None:
    assert Note.parse(text.encode()) is None


def test_the_directory(tmp_path: Path) -> None:
    notes = Notes(str(tmp_path / "run/notes"))
    assert notes.jobs() == set() and notes.read("7") is None
    before = os.umask(0o077)
    try:
        notes.write("7", Note(1, WANTED))
    finally:
        os.umask(before)
    assert stat.S_IMODE(os.stat(notes.path).st_mode) == 0o755
    assert stat.S_IMODE(os.stat(f"{notes.path}/7").st_mode) == 0o644
    (tmp_path / "run/notes/.new-8").touch()
    assert notes.jobs() == {"7"}
    notes.remove("7")
    notes.remove("7")
    notes.remove("8")
    assert os.listdir(notes.path) == []


def test_a_link_is_no_note_and_a_place_that_is_no_directory_is_reported(tmp_path: Path) -> None:
    (tmp_path / "other").write_text(Note(1, READY).text())
    (tmp_path / "7").symlink_to("other")
    with pytest.raises(UpstreamFailed, match="cannot be read"):
        Notes(str(tmp_path)).read("7")
    with pytest.raises(UpstreamFailed, match="cannot be written"):
        Notes(str(tmp_path / "other")).write("7", Note(1, WANTED))
