"""Notes as the SPANK plugin reads them: the text that hooks write, the file that it is in, and the kernel's table of
mounts, by which a note is believed."""

from __future__ import annotations

import os
import shutil
import subprocess
from collections.abc import Sequence
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from jobs.notes import Note
from tests.unit.spank import ID, READY, driver, run
from udiroot import mountinfo

TEXTS = st.text(st.characters(exclude_characters="\0", exclude_categories=["Cs"]), max_size=30)


def read_note(text: bytes) -> dict[str, bytes] | None:
    """The fields of a note as the plugin reads it; None where it refuses the note."""
    output = run("note", text=text).stdout.decode()
    if output.startswith("wrong: "):
        return None
    pairs = (line.split(" ") for line in output.splitlines())
    return {name: bytes.fromhex(value) for name, value in pairs}


def fields(note: Note) -> dict[str, bytes]:
    names = ("uid", "state", "root", "label", "image", "given", "id", "why", "start")
    return {name: str(getattr(note, name)).encode("utf-8", "surrogateescape") for name in names}


@settings(max_examples=60)
@given(image=TEXTS, given_text=TEXTS, why=TEXTS, state=st.sampled_from(["wanted", "ready", "failed"]))
def test_every_note_that_a_hook_writes_is_read(image: str, given_text: str, why: str, state: str) -> None:
    note = Note(1001, state, 3, "/var/udi/7", "udi:7:1001:made", image, given_text, ID, why)  # type: ignore[arg-type]
    complete = {"wanted": True, "ready": image and given_text, "failed": why}[state]
    assert read_note(note.text().encode()) == (fields(note) if complete else None)


def test_a_note_cut_anywhere_is_refused() -> None:
    text = READY.text().encode()
    assert read_note(text) == fields(READY)
    for length in range(len(text)):
        assert read_note(text[:length]) is None, text[:length]


@settings(max_examples=150)
@given(st.data())
def test_a_changed_note_is_refused_or_read_as_the_hooks_read_it(data: st.DataObject) -> None:
    text = bytearray(READY.text().encode())
    for _ in range(data.draw(st.integers(1, 3))):
        at = data.draw(st.integers(0, len(text) - 1))
        text[at : at + data.draw(st.integers(0, 3))] = data.draw(st.binary(max_size=4))
    seen = read_note(bytes(text))
    hooks = Note.parse(bytes(text))
    if seen is None:
        return
    if hooks is None:  # a number that is none, which is then no job's
        assert not (seen["uid"].isdigit() and seen["start"].isdigit())
    else:
        assert fields(hooks) == {**seen, "uid": str(hooks.uid).encode(), "start": str(hooks.start).encode()}


@pytest.mark.parametrize(
    "line",
    [
        "frob 1",
        "uid 5",
        "state",
        "why %2",
        "why %zz",
        "why %00",
        "why a b",
        "why " + "a" * 4096,
        "end",
        "udi-note 1",
        "",
    ],
)
def test_a_line_that_is_none(line: str) -> None:
    text = READY.text()
    assert read_note(text.replace("given", f"{line}\ngiven").encode()) is None


def test_what_follows_the_end_is_refused() -> None:
    assert read_note(READY.text().encode() + b"uid 0\n") is None
    assert read_note(READY.text().replace("end\n", "end x\n").encode()) is None


def step(notes: Path, *asked: str) -> str:
    return run("step", notes, *asked).stdout.decode().strip()


def own_note(directory: Path) -> Path:
    path = directory / "7"
    uid = os.getuid()
    path.write_text(Note(uid, "ready", 0, "/var/udi/7", f"udi:7:{uid}:made", "debian:12", "debian:12", ID).text())
    path.chmod(0o644)
    return path


def test_a_note_is_believed_as_root_left_it(tmp_path: Path) -> None:
    assert step(tmp_path) == step(tmp_path / "none") == "stay"
    note = own_note(tmp_path)
    assert step(tmp_path) == "enter"
    for mode in (0o664, 0o646, 0o666):
        note.chmod(mode)
        assert step(tmp_path).endswith("7: Operation not permitted; this is a fault of the site")
    note.chmod(0o644)
    note.rename(tmp_path / "true")
    note.symlink_to("true")
    assert "this is a fault of the site" in step(tmp_path)
    note.unlink()
    os.mkfifo(note)
    assert "this is a fault of the site" in step(tmp_path)
    note.unlink()
    note.mkdir()
    assert "this is a fault of the site" in step(tmp_path)
    note.rmdir()
    note.write_text("")
    assert "this is a fault of the site" in step(tmp_path)
    note.write_bytes(b"a" * (65 << 10))
    assert "this is a fault of the site" in step(tmp_path)


@pytest.mark.skipif(os.getuid() != 0, reason="needs root, to make a file that is another user's")
def test_a_note_of_another_owner(tmp_path: Path) -> None:
    os.chown(own_note(tmp_path), 1001, 0)
    assert "7: Operation not permitted" in step(tmp_path)


def test_a_job_without_an_image_costs_one_open_that_finds_nothing(tmp_path: Path) -> None:
    if not shutil.which("strace"):
        pytest.skip("needs strace, which make setup installs")
    trace = tmp_path / "trace"
    environment = {"ASAN_OPTIONS": "detect_leaks=0"}
    command = ["strace", "-o", str(trace), "-e", "trace=file", str(driver()), "step", str(tmp_path)]
    done = subprocess.run(command, env=environment, capture_output=True, check=True)
    assert done.stdout == b"stay\n"
    calls = [line for line in trace.read_text().splitlines() if str(tmp_path) in line]
    calls = [call for call in calls if not call.startswith("execve")]
    assert [call.split("(")[0] for call in calls] == ["openat"], calls
    assert "ENOENT" in calls[0]


@settings(max_examples=60)
@given(
    st.lists(st.tuples(st.integers(1, 40), st.sampled_from(["a", "udi:7:1:made", "x-y", "-", "a\\040b"])), max_size=8),
    st.integers(1, 40),
)
def test_the_source_of_a_mount(mounts: Sequence[tuple[int, str]], number: int) -> None:
    lines = [
        f"{own} 1 0:{at} / /mnt/{own} rw,relatime {'shared:1 ' * (at % 2)}- tmpfs {source} rw,size=1k"
        for at, (own, source) in enumerate(mounts)
    ]
    sources = [line.split(" - ", 1)[1].split(" ")[1] for line in lines if mountinfo.parse(line).number == number]
    table = "".join(line + "\n" for line in lines).encode()
    assert run("source", str(number), text=table).stdout.decode().strip() == (sources[0] if sources else "")


def test_the_table_of_this_machine() -> None:
    table = Path("/proc/self/mountinfo").read_text()
    for mount in map(mountinfo.parse, table.splitlines()[:20]):
        found = run("source", str(mount.number), text=table.encode()).stdout.decode()
        assert found == ("" if mount.kind.startswith("fuse") else mount.source) + "\n"


def test_a_source_that_a_user_chose() -> None:
    """fusermount(1) takes it from whoever mounts."""
    line = "7 1 0:7 / /tmp/mine rw,nosuid - {} udi:7:1000:made rw\n"
    found = {kind: run("source", "7", text=line.format(kind).encode()).stdout for kind in ("tmpfs", "fuse", "fuse.x")}
    assert found == {"tmpfs": b"udi:7:1000:made\n", "fuse": b"\n", "fuse.x": b"\n"}


@pytest.mark.parametrize(
    "table",
    [
        b"",
        b"\n",
        b"7\n",
        b"7 - \n",
        b"7 - tmpfs\n",
        b"x 7 - tmpfs udi:7\n",
        b"77 1 - tmpfs udi:7 rw\n",
        b"7 - tmpfs " + b"a" * 9000,
    ],
)
def test_lines_that_are_none(table: bytes) -> None:
    assert len(run("source", "7", text=table).stdout) in (1, 4096)
