"""What becomes of a step: the SPANK plugin's arguments, and its verdict by note and options."""

from __future__ import annotations

from pathlib import Path

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from jobs.notes import Note
from tests.unit.spank import ID, READY, run
from udi.reference import ImageReference


def verdict(
    note: Note | None,
    asked: str | None = None,
    *,
    job: int = 7,
    uid: int = 1001,
    kind: str = "step",
    batch: str = "inside",
) -> str:
    words = ["verdict", batch, str(job), str(uid), kind, *([asked] if asked is not None else [])]
    done = run(*words, text=note.text().encode() if note else b"", env={"SLURMD_NODENAME": "n1"})
    assert done.returncode == 0
    return done.stdout.decode().strip()


@pytest.mark.parametrize("kind", ["step", "batch"])
def test_without_a_note_nothing_that_was_asked_for_starts(kind: str) -> None:
    assert verdict(None, kind=kind) == "stay"
    assert verdict(None, "none", kind=kind) == "stay"
    assert verdict(None, "debian:12", kind=kind) == (
        "image 'debian:12' was asked for, but node n1 has prepared none for job 7"
    )
    assert "was asked for" in verdict(None, "", kind=kind)


def test_with_a_note_whatever_the_options_say() -> None:
    assert verdict(READY) == "enter"
    assert verdict(READY, "none") == "stay"
    assert verdict(READY, "alpine") == "a step runs in the image of its job, debian:12, and not in 'alpine'"
    assert verdict(READY, kind="batch") == "enter"
    assert verdict(READY, kind="batch", batch="outside") == "stay"
    assert verdict(READY, batch="outside") == "enter"


def test_a_note_that_is_not_of_this_job_or_user() -> None:
    for changed in (
        {"uid": 1002},
        {"label": "udi:8:1001:made"},
        {"label": "udi:7:1002:made"},
        {"label": "udi:77:1001:made"},
    ):
        assert "is another job's; this is a fault of the site" in verdict(Note(**(vars(READY) | changed)))
    assert "is another job's" in verdict(READY, job=77)
    assert "is another job's" in verdict(READY, uid=100)


@pytest.mark.parametrize("kind", ["step", "batch"])
@pytest.mark.parametrize("batch", ["inside", "outside", "alps"])
def test_a_root_that_failed_or_is_not_ready(kind: str, batch: str) -> None:
    failed = Note(1001, "failed", why="image debian:13 is not in the store")
    assert verdict(failed, kind=kind, batch=batch) == "image debian:13 is not in the store"
    assert "is not ready on node n1" in verdict(Note(1001, "wanted"), kind=kind, batch=batch)
    assert verdict(failed, "none", kind=kind, batch=batch) == "stay"


@pytest.mark.parametrize(
    "asked", ["debian", "debian:latest", "docker:debian", "docker://debian", "docker:debian:latest", f"id:{ID}", "deb"]
)
def test_every_spelling_of_the_jobs_image(asked: str) -> None:
    note = Note(1001, "ready", 0, "/r/7", "udi:7:1001:made", "debian:latest", "deb", ID)
    assert verdict(note, asked) == "enter"


@pytest.mark.parametrize(
    "asked", ["id:", "id:" + "cd" * 32, "debian:1", "debian@sha256:" + "0" * 64, "x/debian", "DEB", ""]
)
def test_other_images(asked: str) -> None:
    for identity in ("", ID):
        note = Note(1001, "ready", 0, "/r/7", "udi:7:1001:made", "debian:latest", "deb", identity)
        assert "and not in" in verdict(note, asked)


@settings(max_examples=60)
@given(
    st.from_regex(
        r"(docker:(//)?)?([a-z]{1,3}\.[a-z](:[0-9]{1,3})?/)?[a-z]{1,2}(/[a-z]{1,2})?(:[a-z0-9]{1,2})?", fullmatch=True
    )
)
@example("docker:12")
@example("h.x:5/a")
def test_names_are_compared_as_the_hooks_do(asked: str) -> None:
    """A step is never refused for naming its job's image otherwise than the job did."""
    image = str(ImageReference.parse(asked))
    assert verdict(Note(1001, "ready", 0, "/r/7", "udi:7:1001:made", image, "x", ID), asked) == "enter"


@pytest.mark.parametrize("lost", [{"SLURM_SPANK_UDI_IMAGE": "debian:12"}, {}])
def test_what_slurm_keeps_of_a_request_counts_where_the_option_was_lost(tmp_path: Path, lost: dict[str, str]) -> None:
    done = run("step", tmp_path, env={**lost, "SLURMD_NODENAME": "n1"}).stdout.decode().strip()
    assert done == ("image 'debian:12' was asked for, but node n1 has prepared none for job 7" if lost else "stay")


@pytest.mark.parametrize(
    ("words", "read"),
    [
        ([], "/opt/udi/bin/udi-slurm-submit|/var/run/udi-slurm|inside|3600|0"),
        (["submit=/s", "notes=/n", "batch=outside", "seconds=5"], "/s|/n|outside|5|0"),
        (["batch=alps"], "/opt/udi/bin/udi-slurm-submit|/var/run/udi-slurm|alps|3600|0"),
    ],
)
def test_arguments(words: list[str], read: str) -> None:
    assert run("arguments", *words).stdout.decode().strip() == read


@pytest.mark.parametrize(
    "word",
    [
        "",
        "submit=s",
        "submit",
        "notes=",
        "batch=",
        "batch=Inside",
        "seconds=0",
        "seconds=5s",
        "seconds=-1",
        "seconds=",
        "x",
    ],
)
def test_arguments_that_are_none(word: str) -> None:
    assert run("arguments", word).stdout.decode().strip().endswith("|1")
    assert run("submit", "sbatch", word, "--image=a").returncode == 255


def test_a_shell_that_the_image_lacks() -> None:
    """Only salloc starts a shell that its user did not type; of any other program Slurm says that it is not there."""
    done = run("shell", "interactive", "/bin/no-shell")
    said = done.stderr.decode()
    assert done.returncode == 1 and said.startswith("udi: the image has no /bin/no-shell, which is your SHELL: for ")
    assert "SHELL=/bin/sh salloc" in said and "fault of the site" not in said
    for words in (("interactive", "/bin/sh"), ("interactive", "no-shell"), ("typed", "/bin/no-shell")):
        assert run("shell", *words).returncode == 0
