"""Terminals of pages: what is compared, and that a difference is found."""

from __future__ import annotations

import os
import re
from pathlib import Path

import pytest

from tests import pages

_PAGE, _HERE, _OTHER = "a" * 64, "b" * 64, "c" * 64


def _played(directory: Path, block: str, answers: dict[str, str]) -> list[str]:
    """Play a block on a machine that answers so; the jobs that were waited for."""
    waited: list[str] = []
    pages.Terminal(lambda line, _: answers[line], waited.append, {"alice": directory}, os.getuid()).play(
        pages.steps_of(block)
    )
    return waited


def test_jobs_and_images_are_the_machines_own(tmp_path: Path) -> None:
    block = f"$ udi lookup a\n{_PAGE}\n$ qsub job.sh\n101.sdb\n$ cat job.sh.o101\ndone in 0.1 s\n"
    block += f"$ udi rm {_PAGE}\nremoved {_PAGE[:12]}\n"
    answers = {
        "udi lookup a": _HERE,
        "qsub job.sh": "7.sdb",
        "cat job.sh.o7": "done in 2.0 s",
        f"udi rm {_HERE}": f"removed {_HERE[:12]}",
    }
    assert _played(tmp_path, block, answers) == ["7.sdb"]


def test_arrays_are_the_machines_own(tmp_path: Path) -> None:
    block = "$ qsub -t 1-2 job.sh\n101[].sdb\n$ cat job.sh.o101-1\nthis is 101[1].sdb\n"
    answers = {"qsub -t 1-2 job.sh": "7[].sdb", "cat job.sh.o7-1": "this is 7[1].sdb"}
    assert _played(tmp_path, block, answers) == ["7[].sdb"]


@pytest.mark.parametrize(
    ("shown", "seen"),
    [
        ("refused", "refused."),
        ("...", "anything"),
        ("a ... b", "a and b"),
        ("", "a line more"),
        ("one\ntwo", "one"),
        ("1 MiB, 0.1 s", "2 MiB, 0.1 s"),
        (f"{_PAGE}\n{_PAGE}", f"{_HERE}\n{_OTHER}"),
    ],
)
def test_a_difference_is_found(tmp_path: Path, shown: str, seen: str) -> None:
    with pytest.raises(AssertionError, match=re.escape("$ type")):
        _played(tmp_path, f"$ type\n{shown}\n" if shown else "$ type\n", {"type": seen})


def test_a_file_that_the_reader_writes(tmp_path: Path) -> None:
    assert _played(tmp_path, "$ cat job.sh\n#!/bin/sh\ntrue\n", {"cat job.sh": "#!/bin/sh\ntrue"}) == []
    assert (tmp_path / "job.sh").read_text() == "#!/bin/sh\ntrue\n"


def test_every_terminal_is_one_that_is_played() -> None:
    for page in (*pages.PAGES, *pages.OTHERS):
        for words in re.findall(r"^```console(.*)$", (pages.DOCS / page).read_text(), re.MULTILINE):
            machine, *user = words.split()
            assert machine in pages.MACHINES and (not user or (machine == "torque" and user[0] in pages.USERS)), words
