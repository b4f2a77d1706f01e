"""What Slurm is told of a job whose start failed: by the name that its commands take."""

from __future__ import annotations

from pathlib import Path

import pytest

from slurm_hooks.commands import Slurm
from slurm_hooks.settings import SlurmConfig
from slurm_hooks.starts import send_back
from udi.command import Deadline
from udiroot.errors import UpstreamFailed

_ROWS = r"""8|8|RUNNING|0|n1|(null)
7|5_3|RUNNING|0|n1|(null)
5|5_4|RUNNING|0|n1|(null)
20|20+0|RUNNING|0|n1|of the site
21|20+1|RUNNING|0|n2|(null)
"""


@pytest.mark.parametrize(
    ("job", "name", "before"),
    [("8", "8", ""), ("7", "5_3", ""), ("5", "5_4", ""), ("20", "20", "of the site; "), ("21", "20", "of the site; ")],
)
@pytest.mark.parametrize(("most", "word", "mark"), [(2, "requeue", ""), (1, "requeuehold", ", held")])
def test_the_name_of_a_job(tmp_path: Path, job: str, name: str, before: str, most: int, word: str, mark: str) -> None:
    """Of an array and of a heterogeneous job it is not the id."""
    programs = {"squeue": f"cat <<'E'\n{_ROWS}E\n", "scontrol": f'echo "$*" >>{tmp_path}/told\n'}
    for program, script in programs.items():
        (tmp_path / program).write_text(f"#!/bin/sh\n{script}")
        (tmp_path / program).chmod(0o755)
    slurm = Slurm(SlurmConfig(squeue=f"{tmp_path}/squeue", scontrol=f"{tmp_path}/scontrol"))
    send_back(slurm, job, 0, most, UpstreamFailed("no store"), Deadline(30))
    comment = f"{before}shifter-xc: start 0 failed (1 in a row{mark}): no store"
    told = (tmp_path / "told").read_text().splitlines()
    assert told == [f"update jobid={name} admincomment={comment}", f"{word} {name}"]
